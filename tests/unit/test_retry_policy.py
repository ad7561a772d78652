# SPDX-License-Identifier: Apache-2.0
"""The ready retry policy, and the clear message where Airflow has none."""

from __future__ import annotations

import importlib
from datetime import timedelta

import pytest
from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException
from packaging.version import Version

from airflow_provider_kie import exceptions as e
from tests.tables import each

HAS_POLICIES = Version(airflow_version) >= Version("3.3")


@pytest.mark.skipif(HAS_POLICIES, reason="this Airflow has retry policies")
def test_an_older_airflow_says_what_to_do_instead():
    with pytest.raises(AirflowOptionalProviderFeatureException, match=r"needs Airflow 3.3 .* retry_delay instead"):
        importlib.import_module("airflow_provider_kie.retry_policy")


@pytest.mark.skipif(not HAS_POLICIES, reason="retry policies came with Airflow 3.3")
@pytest.mark.parametrize(
    ("error", "decided"),
    each(
        (("fail", None), [e.KieAuthenticationError, e.KieInsufficientCreditsError, e.KieValidationError]),
        (("fail", None), [e.KieKeyCapError, e.KieAlreadyConvertedError]),
        (("retry", timedelta(minutes=1)), [e.KieRateLimitError]),
        (("retry", timedelta(minutes=15)), [e.KieMaintenanceError]),
        (("default", None), [e.KieServerError, e.KieConversionFailedError, ValueError]),
    ),
)
def test_decisions(error, decided):
    from airflow.sdk import ExceptionRetryPolicy

    from airflow_provider_kie.retry_policy import KIE_RETRY_POLICY

    stored = ExceptionRetryPolicy.deserialize(KIE_RETRY_POLICY.serialize())
    for policy in (KIE_RETRY_POLICY, stored):
        decision = policy.evaluate(error("x"), try_number=1, max_tries=5)
        assert (decision.action.value, decision.retry_delay) == decided
