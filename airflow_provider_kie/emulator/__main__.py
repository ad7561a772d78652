# SPDX-License-Identifier: Apache-2.0
"""The ``kie-emulator`` command."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import threading
from collections.abc import Sequence


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kie-emulator", description="Run a pretend KIE.ai API on loopback.")
    add = parser.add_argument
    add("--port", type=int, default=8089, help="where to listen; 0 takes a free port (default: %(default)s)")
    add("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    add("--api-key", default="kie-emulator-key", help="the key to accept (default: %(default)s)")
    add(
        "--conversion-seconds",
        type=float,
        default=3.0,
        help="how long a conversion takes (default: %(default)s)",
    )
    add("--stop-after", type=float, metavar="SECONDS", help="stop by itself (default: run until stopped)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the emulator until it is told to stop.

    :param argv: arguments, by default those of the command line
    :return: exit code
    """
    args = _parser().parse_args(argv)
    try:
        from airflow_provider_kie.emulator.server import KieEmulator
    except ModuleNotFoundError as error:
        return _complain(f"{error.name} is missing: pip install 'airflow-provider-kie[emulator]'")
    try:
        emulator = KieEmulator(
            port=args.port, host=args.host, api_key=args.api_key, conversion_seconds=args.conversion_seconds
        )
        emulator.start()
    except (ValueError, OverflowError) as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"cannot listen on {args.host} port {args.port}: {error.strerror}")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    print(f"KIE emulator listens on {emulator.url}; its answers: {emulator.url}/_emulator/answers")
    print(f"export AIRFLOW_CONN_KIE_DEFAULT={shlex.quote(emulator.connection_json())}")
    print("Stop it with Ctrl+C.", flush=True)
    stop.wait(args.stop_after)
    emulator.stop()
    return 0


def _complain(message: str) -> int:
    print(f"kie-emulator: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
