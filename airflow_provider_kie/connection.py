# SPDX-License-Identifier: Apache-2.0
"""
The connection type ``kie``: its fields as data, and the settings read from a connection.

Airflow 3.2 and later read the form from the provider's metadata (3.3 reads nothing else); 2.11 and 3.1 call two
methods of the hook. Both are built from :data:`EXTRA_FIELDS`. Nothing heavy is imported here, because Airflow
loads the metadata of every provider at start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_kie.connection_fields import (
    DEFAULT_BASE_URL,
    DEFAULT_UPLOAD_HOST,
    LONGEST_TIMEOUT,
    Fields,
    is_json_object,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection


__all__ = [
    "CONN_TYPE",
    "DEFAULT_BASE_URL",
    "DEFAULT_CONN_ID",
    "EXTRA_FIELDS",
    "HOOK_NAME",
    "ExtraField",
    "KieSettings",
    "build_conn_fields",
    "build_form_widgets",
    "build_ui_field_behaviour",
]

CONN_TYPE = "kie"
HOOK_NAME = "KIE.ai"
DEFAULT_CONN_ID = "kie_default"
DEFAULT_TIMEOUT = 30.0
#: KIE requires a callback URL even from clients that poll, and does not check it. This one is from KIE's own pages; its
#: domain is reserved (RFC 2606), so nobody receives the result.
DEFAULT_CALLBACK_URL = "https://api.example.com/callback"

#: The names of the WAV routes. Their rows are not imported here, because that would import Airflow.
WAV_ROUTES = ("wav", "jobs")


@dataclass(frozen=True, slots=True)
class ExtraField:
    """
    A field of the form that is stored under its name in the connection's extra.

    :param name: key in the extra.
    :param label: caption in the form.
    :param description: help text in the form.
    :param kind: JSON type: ``string``, ``number`` or ``boolean``.
    :param secret: True for a value that the form and Airflow's logs hide.
    :param bounds: the least and the largest number that the form takes.
    :param words: the allowed values, the default first.
    """

    name: str
    label: str
    description: str
    kind: str = "string"
    secret: bool = False
    bounds: tuple[float, float] | None = None
    words: tuple[str, ...] = ()

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the form's field; null means that it was left empty."""
        schema: dict[str, Any] = {"type": [self.kind, "null"]}
        if self.secret:
            schema["format"] = "password"
        if self.words:
            schema["enum"] = [*self.words, None]
        if self.bounds:
            schema["minimum"], schema["maximum"] = self.bounds
        return schema


EXTRA_FIELDS = (
    ExtraField(
        "callback_url",
        "Callback URL",
        "Where KIE reports the end of a job: the public address of kie-callbacks, such as "
        "https://hooks.example.com/kie/kie_default. Optional: tasks poll, and send a placeholder where nothing is set.",
    ),
    ExtraField(
        "webhook_hmac_key",
        "Webhook HMAC key",
        "The key of https://kie.ai/settings with which KIE signs callbacks; read by kie-callbacks alone. While it is "
        "changed, both keys, with a space between them.",
        secret=True,
    ),
    ExtraField(
        "callback_secret",
        "Callback secret",
        "A random text that ends the callback URL, where KIE signs nothing; it is sent to KIE with each submit.",
        secret=True,
    ),
    ExtraField(
        "account",
        "Account",
        "A name for the account at KIE, where several connections lead to the same one. Optional.",
    ),
    ExtraField(
        "wav_route",
        "WAV route",
        "How WAV conversions are submitted: wav (default) by /wav/generate, jobs by the model of KIE's Market.",
        words=WAV_ROUTES,
    ),
    ExtraField(
        "ledger",
        "Ledger",
        "A folder that remembers which jobs are paid for, such as s3://aws_default@bucket/kie-ledger; made by 'airflow "
        "kie ledger init'. Optional.",
    ),
    ExtraField(
        "pacing",
        "Shared pacing",
        "URL of a Redis or PostgreSQL, by which all workers keep KIE's limit of submits together: redis://… or "
        "postgresql://…. Optional: by default each process keeps it for itself.",
        secret=True,
    ),
    ExtraField(
        "upload_host",
        "Upload host",
        f"The host that takes files for jobs, and the key with them. Default {DEFAULT_UPLOAD_HOST}.",
    ),
    ExtraField(
        "timeout",
        "Timeout",
        f"Seconds for one request to KIE, up to {LONGEST_TIMEOUT:.0f}. Default {DEFAULT_TIMEOUT:.0f}.",
        kind="number",
        bounds=(1, LONGEST_TIMEOUT),
    ),
    ExtraField("proxy", "Proxy", "URL of an HTTP proxy, such as http://proxy.example.com:3128.", secret=True),
    ExtraField(
        "verify",
        "Verify TLS",
        "true (default), false, or the path of a CA bundle with which the host's certificate is checked.",
    ),
    ExtraField(
        "insecure_http",
        "Allow plain HTTP",
        "Allow a host with http:// that is not this machine. The key is then sent unencrypted.",
        kind="boolean",
    ),
)

HIDDEN_FIELDS = ["schema", "login", "port", "extra"]
RELABELING = {"password": "API key", "host": "Base URL"}
PLACEHOLDERS = {"host": DEFAULT_BASE_URL, "password": "from kie.ai/api-key"}


def build_conn_fields() -> dict[str, dict[str, Any]]:
    """Return the extra fields in the form of the provider metadata's ``conn-fields`` (Airflow 3.2 and later)."""
    return {
        extra.name: {"label": extra.label, "description": extra.description, "schema": extra.schema}
        for extra in EXTRA_FIELDS
    }


def build_ui_field_behaviour() -> dict[str, Any]:
    """Return the labels of the standard fields, in the form of the hook's method (Airflow 2.11 and 3.1)."""
    return {"hidden_fields": HIDDEN_FIELDS, "relabeling": RELABELING, "placeholders": PLACEHOLDERS}


def build_form_widgets() -> dict[str, Any]:
    """
    Return the extra fields as WTForms fields (Airflow 2.11 and 3.1).

    Airflow 3.1 replaces the three libraries with stand-ins during this call, so they are imported here, and only names
    that the stand-ins have are used.
    """
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, PasswordField, StringField

    def build(extra: ExtraField) -> Any:
        label = lazy_gettext(extra.label)
        if extra.kind == "boolean":
            return BooleanField(label, description=extra.description)
        if extra.secret:
            return PasswordField(label, widget=BS3PasswordFieldWidget(), description=extra.description)
        return StringField(label, widget=BS3TextFieldWidget(), description=extra.description)

    return {extra.name: build(extra) for extra in EXTRA_FIELDS}


@dataclass(frozen=True, slots=True)
class KieSettings:
    """
    The checked values of a connection; ``repr`` leaves out secrets and what may contain one.

    :param conn_id: the Airflow connection.
    :param api_key: sent as a bearer token to the base URL's host and the upload host, and nowhere else.
    :param base_url: scheme, host and port, without a trailing slash.
    :param callback_url: sent with every submit to a family that demands one; ends in the secret, if there is one.
    :param webhook_hmac_keys: with which KIE signs callbacks; two while the key is changed.
    :param callback_secret: the last part of the path of callbacks.
    :param account: a name of the user's choice for the account at KIE that pays; by default each connection counts as
        an account of its own.
    :param wav_route: how WAV conversions are submitted: ``"wav"`` or ``"jobs"``.
    :param ledger: URL of the ledger's folder, if there is one.
    :param pacing: URL of the storage by which all workers keep the limit of submits together, if there is one.
    :param upload_host: scheme, host and port of the host for uploads, to which the key is also sent.
    :param timeout: seconds for one request.
    :param proxy: URL of a proxy, or None for the one that the environment names.
    :param verify: False, or the path of the CA bundle, or True for the default one.
    """

    conn_id: str
    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    callback_url: str = field(default=DEFAULT_CALLBACK_URL, repr=False)
    webhook_hmac_keys: tuple[str, ...] = field(default=(), repr=False)
    callback_secret: str | None = field(default=None, repr=False)
    account: str | None = None
    wav_route: str = WAV_ROUTES[0]
    ledger: str | None = None
    pacing: str | None = field(default=None, repr=False)
    upload_host: str = DEFAULT_UPLOAD_HOST
    timeout: float = DEFAULT_TIMEOUT
    proxy: str | None = field(default=None, repr=False)
    verify: bool | str = True

    @property
    def payer(self) -> str:
        """The name of the account that pays."""
        return self.account or self.conn_id

    @classmethod
    def from_connection(cls, conn_id: str, connection: Connection, extra: Mapping[str, Any]) -> KieSettings:
        """
        Read and check a connection.

        :param conn_id: the connection's id, for messages.
        :param connection: an Airflow ``Connection``.
        :param extra: its extra as a dict; passed in because parsing it makes Airflow mask its secrets, which blocks in
            a triggerer.
        :raises KieConfigurationError: a value is invalid; names the connection and the field.
        """
        checked = Fields(conn_id, extra)
        if not is_json_object(connection.extra):
            raise checked.refuse("extra", "must be a JSON object")
        if "extra" in extra:
            raise checked.refuse("extra", "holds another extra, whose fields would be ignored")
        insecure = checked.boolean("insecure_http", default=False)
        callback_secret = checked.part_of_path("callback_secret")
        return cls(
            conn_id=conn_id,
            api_key=checked.token(connection.password),
            base_url=checked.base_url(connection.host, connection.schema, connection.port, insecure),
            callback_url=checked.callback_url("callback_url", callback_secret) or DEFAULT_CALLBACK_URL,
            webhook_hmac_keys=checked.keys("webhook_hmac_key"),
            callback_secret=callback_secret,
            account=checked.text("account"),
            wav_route=checked.word("wav_route", WAV_ROUTES),
            ledger=checked.text("ledger"),
            pacing=checked.storage_of_pace("pacing"),
            upload_host=checked.upload_host("upload_host", insecure),
            timeout=checked.seconds("timeout", DEFAULT_TIMEOUT),
            proxy=checked.proxy("proxy"),
            verify=checked.verify("verify"),
        )
