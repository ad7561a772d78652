# SPDX-License-Identifier: Apache-2.0
"""The metadata by which Airflow finds this provider. Imports nothing heavy, because Airflow loads it at every start."""

from __future__ import annotations

from typing import Any

from airflow_provider_kie import __version__, connection


def get_provider_info() -> dict[str, Any]:
    """Return the metadata that Airflow reads through the entry point ``apache_airflow_provider``."""
    return {
        # Airflow refuses the provider unless this is the distribution's name.
        "package-name": "airflow-provider-kie",
        "name": "KIE.ai",
        "description": "Submit, await and store media generation jobs of KIE.ai, first of all WAV conversions.",
        "versions": [__version__],
        "integrations": [
            {"integration-name": connection.HOOK_NAME, "external-doc-url": "https://kie.ai", "tags": ["service"]}
        ],
        "operators": [
            _modules(
                "operators.batch",
                "operators.job",
                "operators.music",
                "operators.wav",
                "transfers.job_to_object_storage",
                "transfers.object_storage_to_kie",
                "transfers.wav_to_object_storage",
            )
        ],
        "sensors": [_modules("sensors.job", "sensors.wav")],
        "hooks": [_modules("hooks.kie")],
        "triggers": [_modules("triggers.job", "triggers.wav")],
        # Airflow 2.11 shows only links that are listed here.
        "extra-links": [
            "airflow_provider_kie.links.kie.KieFileLink",
            "airflow_provider_kie.links.kie.KieLogsLink",
            "airflow_provider_kie.links.kie.WavFileLink",
        ],
        # Read by Airflow 3.2 and later; older ones have only "python -m airflow_provider_kie".
        "cli": ["airflow_provider_kie.cli.get_commands"],
        "connection-types": [
            {
                "connection-type": connection.CONN_TYPE,
                "hook-class-name": "airflow_provider_kie.hooks.kie.KieHook",
                "hook-name": connection.HOOK_NAME,
                # Both keys are read by Airflow 3.2 and later; older ones call the hook's methods.
                "conn-fields": connection.build_conn_fields(),
                "ui-field-behaviour": {
                    "hidden-fields": connection.HIDDEN_FIELDS,
                    "relabeling": connection.RELABELING,
                    "placeholders": connection.PLACEHOLDERS,
                },
            }
        ],
    }


def _modules(*names: str) -> dict[str, Any]:
    modules = [f"airflow_provider_kie.{name}" for name in names]
    return {"integration-name": connection.HOOK_NAME, "python-modules": modules}
