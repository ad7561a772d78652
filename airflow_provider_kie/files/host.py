# SPDX-License-Identifier: Apache-2.0
"""
Requests to file hosts: without the API key, and only to hosts that are allowed.

KIE's files are on third-party hosts, and a ``wav_url`` may come from anywhere (a callback, another task's XCom), so
these rules hold for every request: no credentials, not even from ``.netrc`` or the URL; redirects are followed here and
not by ``requests``, and only to https or within one loopback host; an address in a private network is contacted only if
KIE itself named the host, or if the user allows it. The connection goes to the address that was checked, because a name
may resolve to another one a moment later. The rules apply to the URL as it is sent, percent-encoded and with its host
in ASCII, so that no other spelling bypasses them.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
import string
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from airflow_provider_kie.api.fields import http_url
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import KieConnectionError, KieDownloadError, KieUnsafeUrlError, KieValidationError
from airflow_provider_kie.hooks.environment import ca_bundle, proxy_url, ssl_context
from airflow_provider_kie.hooks.transport import CONNECT_TIMEOUT, NOT_TRUSTED, user_agent
from airflow_provider_kie.hosts import is_loopback
from airflow_provider_kie.redaction import quoted

__all__ = ["FileHost", "Link", "first_bytes", "pieces_of", "validator_of"]

MOST_REDIRECTS = 5
#: Bytes that are read, hashed and written at a time.
PIECE = 256 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
#: NAT64 (RFC 6052): an IPv4 address in the last four bytes.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: All that IANA has allocated for the internet; Python's lists of exceptions differ from version to version.
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
#: Protocol assignments and a cloud's metadata service; Python treats some of it as public.
_IETF = ipaddress.IPv4Network("192.0.0.0/24")
#: Azure's configuration service for virtual machines, which has a public address.
_AZURE = ipaddress.IPv4Address("168.63.129.16")


class Link(NamedTuple):
    """
    Where a file is.

    :param url: the file's URL.
    :param from_kie: True if KIE itself named it, in an answer to this process.
    """

    url: str
    from_kie: bool


class FileHost:
    """
    Requests files over a session of its own.

    :param settings: the connection, for its proxy, certificates and timeout; its key is not used.
    :param allow_private_hosts: also contact hosts in private networks, from any source.
    """

    def __init__(self, settings: KieSettings, *, allow_private_hosts: bool = False) -> None:
        self._settings = settings
        self._allow_private_hosts = allow_private_hosts
        self._pins: dict[str, str | None] = {}
        self._turn = itertools.count()
        self._has_certificates = False
        self._session = session = _Session()
        session.trust_env = False  # else requests takes a password from .netrc, and proxies by rules of its own
        session.headers.update({"User-Agent": user_agent(), "Accept": "*/*", "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            session.mount(scheme, _PinningAdapter(self._pins))
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.verify = ca_bundle(settings)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def ask(self, link: Link, headers: Mapping[str, str]) -> requests.Response:
        """
        Request a file, and return the response with its body unread.

        :raises KieUnsafeUrlError: the link or a redirect leads to a host that is not allowed.
        :raises KieConfigurationError: the proxy or the CA certificates are invalid; nothing was sent.
        :raises KieConnectionError: no answer.
        :raises KieDownloadError: the host's certificate is not trusted.
        """
        url = _as_sent(link.url)
        if url is None:
            raise KieValidationError(f"The file's link is {quoted(link.url)}, but must be an http(s) URL with a host")
        first_host = _host(url)
        self._check(url, known_host=link.from_kie)
        for _ in range(MOST_REDIRECTS + 1):
            response = self._get(url, headers)
            location = _location(response)
            if response.status_code not in _REDIRECTS or not location:
                return response
            response.close()
            url = self._follow(url, location, known_host=first_host if link.from_kie else None)
        raise KieUnsafeUrlError(f"{first_host} redirects more than {MOST_REDIRECTS} times")

    def _get(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        timeout = self._settings.timeout
        proxy = proxy_url(self._settings, url)
        if not self._has_certificates:
            # requests would fail only while connecting. Checked once, because a bundle may be replaced later.
            self._has_certificates = ssl_context(self._settings, url) is not True
        try:
            return self._session.get(
                url,
                headers=dict(headers),
                timeout=(min(CONNECT_TIMEOUT, timeout), timeout),
                proxies={"http": proxy, "https": proxy} if proxy else {},
                allow_redirects=False,
                stream=True,
            )
        except (OSError, ValueError) as error:  # all of requests' errors are an OSError
            # Their text contains the whole URL with its signature, so it is not passed on.
            if isinstance(error, requests.exceptions.SSLError) and "certificate" in str(error).lower():
                raise KieDownloadError(f"No answer from {_host(url)}: {NOT_TRUSTED}") from None
            what = "timed out" if isinstance(error, requests.Timeout) else "the connection failed or broke off"
            raise KieConnectionError(f"No answer from {_host(url)}: {what}") from None

    def _check(self, url: str, *, known_host: bool) -> None:
        host = _host(url)
        trusted = known_host or self._allow_private_hosts
        self._pins[host] = None if trusted else self._public_address(url, host)

    def _follow(self, url: str, location: str, *, known_host: str | None) -> str:
        """Return the target of a redirect, if it is allowed."""
        before, target = _host(url), _join(url, location)
        after = _host(target) if target else ""
        same_loopback = before == after and is_loopback(after)
        if target is None or not (target.startswith("https://") or same_loopback):
            raise KieUnsafeUrlError(
                f"{before} redirects to {quoted(location)}; redirects are followed to https, or within one loopback "
                "host"
            )
        self._check(target, known_host=after == known_host)
        return target

    def _public_address(self, url: str, host: str) -> str | None:
        """
        Return an address of a host that has only public ones; None if the proxy resolves it.

        Takes another one each time, so that a repeat does not run into the same dead address.
        """
        by_proxy = proxy_url(self._settings, url) is not None
        addresses = _addresses(host, must_resolve=not by_proxy)
        for address in addresses:
            if not _is_public(address):
                raise KieUnsafeUrlError(
                    f"The URL leads to {quoted(host)}, which is {address}: not an address of the public internet"
                )
        return None if by_proxy else str(addresses[next(self._turn) % len(addresses)])


class _Session(requests.Session):
    """Never follows or parses a redirect; requests fails to parse some targets."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None."""


class _PinningAdapter(HTTPAdapter):
    """
    Connects to the address that was checked; the certificate and ``Host`` still use the name.

    :param pins: the address of each allowed host; None for any address of its name.
    """

    def __init__(self, pins: Mapping[str, str | None]) -> None:
        super().__init__()
        self._pins = pins

    def add_headers(self, request: requests.PreparedRequest, **_: Any) -> None:
        """Set ``Host``, which ``http.client`` would take from the connection."""
        request.headers["Host"] = urlsplit(str(request.url)).netloc

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: bool | str, cert: Any = None
    ) -> tuple[Any, Any]:
        """Replace the name with the address; a host that was not checked is a KeyError."""
        pool_key, options = super().build_connection_pool_key_attributes(request, verify, cert)
        name = str(pool_key["host"])
        if address := self._pins[name]:
            pool_key["host"] = address
            if pool_key["scheme"] == "https":
                return pool_key, {**options, "server_hostname": name, "assert_hostname": name}
        return pool_key, options


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _as_sent(url: object) -> str | None:
    """
    Return a URL as requests will send it; None if it is not a valid http(s) URL.

    :raises KieUnsafeUrlError: libraries disagree about its host.
    """
    written = http_url(url)
    try:
        sent = str(requests.Request("GET", written).prepare().url) if written else None
    except ValueError:  # requests raises nothing else for a URL
        return None
    if "\\" in str(url) or (sent and "@" in urlsplit(sent).netloc):
        raise KieUnsafeUrlError(f"The URL {quoted(url)} holds a user name or a backslash")
    return sent


def _location(response: requests.Response) -> str:
    """Return a redirect's target as the server sent it: mostly UTF-8, which requests reads as Latin-1."""
    return quote(response.headers.get("Location", "").encode("latin-1"), safe=string.printable)


def _join(url: str, location: str) -> str | None:
    try:
        return _as_sent(urljoin(url, location))
    except ValueError:  # a host that urllib cannot parse
        return None


def _addresses(host: str, *, must_resolve: bool) -> list[_Address]:
    """Return all addresses of a host; none for a name that only the proxy can resolve."""
    try:
        found = socket.getaddrinfo(host.rstrip("."), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        if not must_resolve:
            return []
        raise KieConnectionError(f"No answer from {host}: its name has no address", sent=False) from error
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def _is_public(address: _Address) -> bool:
    inner = address
    if isinstance(address, ipaddress.IPv6Address):
        nat64 = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
        inner = address.ipv4_mapped or address.sixtofour or nat64 or address
    if isinstance(inner, ipaddress.IPv6Address) and inner not in _GLOBAL_IPV6:
        return False
    return inner.is_global and not inner.is_multicast and inner != _AZURE and inner not in _IETF


def first_bytes(response: requests.Response) -> bytes:
    """Return the start of a response's body, for a message; nothing if it cannot be read."""
    try:
        return bytes(response.raw.read(200, decode_content=True))
    except (HTTPError, OSError):
        return b""


def pieces_of(response: requests.Response, *, decode: bool) -> Iterator[bytes]:
    """
    Yield the body in large pieces, including the last bytes before a break.

    :raises KieConnectionError: the transfer broke off.
    """
    gathered = bytearray()
    broken: Exception | None = None
    while broken is None:
        try:
            more = response.raw.read1(PIECE, decode_content=decode)
        except (HTTPError, OSError) as error:
            more, broken = b"", error
        gathered += more
        if len(gathered) >= PIECE or (gathered and not more):
            yield bytes(gathered)
            gathered.clear()
        if not more and broken is None:
            return
    raise KieConnectionError("The transfer broke off") from broken


def validator_of(headers: Mapping[str, Any]) -> str | None:
    """Return a validator for ``If-Range``: a strong ETag, else a strong date (RFC 9110, section 8.8.2.2)."""
    etag = str(headers.get("ETag", ""))
    if etag.startswith('"'):
        return etag
    modified, date = headers.get("Last-Modified"), headers.get("Date")
    if not modified or not date or etag:
        return None
    try:
        strong = (parsedate_to_datetime(date) - parsedate_to_datetime(modified)).total_seconds() >= 1
    except (TypeError, ValueError):
        return None
    return str(modified) if strong else None
