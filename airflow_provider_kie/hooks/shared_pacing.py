# SPDX-License-Identifier: Apache-2.0
"""
The limit of an account, shared by all workers: a bucket of pyrate-limiter in Redis or PostgreSQL.

Only asked without blocking, and one thread at a time, because its versions wait and lock differently. A bucket that is
out of reach holds nothing up: the process then paces itself, and a 429 costs a pause, not money.
"""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_kie.exceptions import KieConfigurationError, KieRateLimitError

if TYPE_CHECKING:
    from airflow_provider_kie.connection import KieSettings

__all__ = ["await_turn"]

log = logging.getLogger(__name__)

#: Seconds by which the bucket's window exceeds KIE's, because KIE sees a submit later than the bucket, and not each
#: equally late.
MARGIN = 0.5
#: Seconds between two looks at a full bucket, at random up to this.
LOOK_EVERY = 0.5
#: Seconds for the storage of the bucket to answer.
TIMEOUT = 5.0
#: Seconds for which a bucket that was out of reach is not asked again.
REST = 60.0
#: Seconds after which the log says that a submit waits, and the longest that it does.
TELL_AFTER, LONGEST_WAIT = 30.0, 3600.0

_LOCK = threading.Lock()
_BUCKETS: dict[tuple[str, str], Any] = {}
_RESTING_UNTIL: dict[str, float] = {}


class _BadUrlError(Exception):
    """A library cannot read the URL; what it says about it may hold the password."""


def await_turn(settings: KieSettings, limit: int, seconds: float, hold: Callable[[], object] | None = None) -> None:
    """
    Wait until the account may submit once more, as far as all workers know.

    :param limit: how many submits in so many seconds.
    :param hold: called before each part of the wait; what it raises ends the wait.
    :raises KieConfigurationError: the extra ``pacing`` is not installed, or its library cannot read the URL.
    :raises KieRateLimitError: other workers have used the limit up for an hour; nothing was sent.
    """
    since, told = time.monotonic(), False
    while not _has_turn(settings, limit, seconds):
        waited = time.monotonic() - since
        if waited > LONGEST_WAIT:
            problem = f"Not sent: for {waited:.0f} seconds other workers have used the account's limit up"
            raise KieRateLimitError(problem, code=429, conn_id=settings.conn_id)
        if hold:
            hold()
        if waited > TELL_AFTER and not told:
            log.info("This submit waits for its turn: other workers use the account's limit up.")
            told = True
        time.sleep(random.uniform(0.2, 1.0) * LOOK_EVERY)


def _has_turn(settings: KieSettings, limit: int, seconds: float) -> bool:
    """Ask the bucket; where it is out of reach, each submit has its turn."""
    url = settings.pacing
    with _LOCK:
        if url is None or time.monotonic() < _RESTING_UNTIL.get(url, 0.0):
            return True
        try:
            return _takes(_bucket(url, _name_of(settings), limit, seconds))
        except ImportError as error:
            problem = f"Field 'pacing' needs a package ({error.name}): pip install 'airflow-provider-kie[pacing]'"
            raise KieConfigurationError(problem, conn_id=settings.conn_id) from None
        except _BadUrlError:
            raise KieConfigurationError("Field 'pacing' is not a valid URL", conn_id=settings.conn_id) from None
        except Exception as error:
            log.warning("The shared pace is out of reach (%s); this process paces itself.", type(error).__name__)
            _RESTING_UNTIL[url] = time.monotonic() + REST
            _close_all()  # after a restart, Redis does not know the script of an open one any more
            return True


def _takes(bucket: Any) -> bool:
    """Put a submit into a bucket, if there is room; past ones are removed here, not by a thread of the library."""
    from pyrate_limiter import RateItem

    now = bucket.now()
    has_room = bool(bucket.put(RateItem("kie", now)))
    if has_room:
        bucket.leak(now)
    return has_room


def _close_all() -> None:
    for bucket in _BUCKETS.values():
        if pool := getattr(bucket, "pool", None):
            pool.close(timeout=1.0)  # else its threads would go on trying
    _BUCKETS.clear()


def _name_of(settings: KieSettings) -> str:
    """Return the name of the bucket: one for each account at a host, whatever connection leads there."""
    return "kie_" + hashlib.sha256(f"{settings.payer}\n{settings.base_url}".encode()).hexdigest()[:24]


def _bucket(url: str, name: str, limit: int, seconds: float) -> Any:
    if (url, name) not in _BUCKETS:
        from pyrate_limiter import Rate

        rates = [Rate(limit, round((seconds + MARGIN) * 1000))]
        _BUCKETS[url, name] = (_redis if "redis" in url[:6] else _postgres)(url, name, rates)
    return _BUCKETS[url, name]


def _redis(url: str, name: str, rates: list[Any]) -> Any:
    from pyrate_limiter import RedisBucket
    from redis import Redis

    try:
        client = Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
    except ValueError:
        raise _BadUrlError from None
    return RedisBucket.init(rates, client, name)


def _postgres(url: str, name: str, rates: list[Any]) -> Any:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict
    from psycopg_pool import ConnectionPool
    from pyrate_limiter import PostgresBucket

    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        raise _BadUrlError from None
    pool = ConnectionPool(url, min_size=1, max_size=1, timeout=TIMEOUT, open=True)
    try:
        return PostgresBucket(pool, name, rates)
    except BaseException:
        pool.close(timeout=1.0)
        raise
