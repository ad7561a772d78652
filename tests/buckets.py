# SPDX-License-Identifier: Apache-2.0
"""An S3 on loopback, spoken by moto's server, with one empty bucket that Airflow reaches by a connection."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NEEDED = ("moto", "s3fs", "flask_cors", "airflow.providers.amazon")
MISSING = [name for name in NEEDED if not importlib.util.find_spec(name)]
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}


@contextmanager
def bucket(name: str) -> Iterator[tuple[Any, str]]:
    """
    Run the server.

    :return: boto3's client, and the JSON of an Airflow connection.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **KEYS)
        client.create_bucket(Bucket=name)
        extra = {"endpoint_url": url, "region_name": "us-east-1"}
        yield client, json.dumps({"conn_type": "aws", "login": "testing", "password": "testing", "extra": extra})
    finally:
        server.stop()
