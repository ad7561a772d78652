# SPDX-License-Identifier: Apache-2.0
"""The ``kie-callbacks`` command."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from airflow_provider_kie.callbacks.settings import CallbackSettings
from airflow_provider_kie.exceptions import KieConfigurationError, KieError

log = logging.getLogger("airflow_provider_kie.callbacks")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kie-callbacks",
        description="Receive KIE's callbacks and make asset events of them. KIE_CALLBACKS_CONNECTIONS names the "
        "connections; KIE_CALLBACKS_AIRFLOW_URL, _AIRFLOW_USERNAME and _AIRFLOW_PASSWORD where Airflow is.",
    )
    add = parser.add_argument
    add("--port", type=int, default=8088, help="where to listen (default: %(default)s)")
    add("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Receive callbacks until told to stop.

    :param argv: arguments, by default those of the command line
    :return: exit code
    """
    args = _parser().parse_args(argv)
    try:
        import uvicorn

        from airflow_provider_kie.callbacks.app import create_app
    except ModuleNotFoundError as error:
        return _complain(f"{error.name} is missing: pip install 'airflow-provider-kie[callbacks]'")
    _log_to_stderr()
    try:
        settings = CallbackSettings.from_environment(os.environ)
        asyncio.run(_check(settings))
    except KieError as error:
        return _complain(str(error))
    config = uvicorn.Config(
        create_app(settings),
        host=args.host,
        port=args.port,
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,  # its lines have the path, and so the secret
        server_header=False,
        limit_concurrency=2_000,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=12,
    )
    for conn_id in settings.connections:
        log.info("Receiving callbacks at http://%s:%d/kie/%s", args.host, args.port, conn_id)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run()
    return 0


async def _check(settings: CallbackSettings) -> None:
    """
    Check what is needed, as far as it can be reached.

    :raises KieError: something is missing or wrong.
    """
    from airflow_provider_kie.callbacks.airflow_api import AirflowApi
    from airflow_provider_kie.callbacks.receiver import Receiver
    from airflow_provider_kie.callbacks.refusal import NotYetError
    from airflow_provider_kie.ledger.storage import open_ledger

    airflow = AirflowApi(settings)
    for conn_id in settings.connections:
        found = await Receiver(airflow).settings(conn_id)
        if not (found.webhook_hmac_keys or found.callback_secret):
            raise KieConfigurationError(
                "The connection has neither a webhook_hmac_key nor a callback_secret, so that anybody could send "
                "callbacks",
                conn_id=conn_id,
            )
        if found.ledger:
            await asyncio.to_thread(open_ledger, found.ledger)
    if settings.sends_in_clear:
        log.warning("KIE_CALLBACKS_AIRFLOW_URL is plain http: the password travels unencrypted")
    try:
        log.info("Airflow %s accepts %s", await airflow.check(), settings.username)
    except NotYetError as error:
        log.warning("%s; until it does, callbacks are answered with 503", error.reason)
    finally:
        await airflow.close()


def _log_to_stderr() -> None:
    """Log to standard error, and only there: Airflow has its own ideas of where logs go."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (("airflow_provider_kie", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


def _complain(message: str) -> int:
    print(f"kie-callbacks: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
