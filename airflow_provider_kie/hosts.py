# SPDX-License-Identifier: Apache-2.0
"""
The hosts of URLs, spelled in ASCII so that every HTTP library contacts the same host.

Libraries disagree about the host of an unusual URL and about the spelling of international names. This module returns a
spelling that all of them read alike, or refuses the input.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, quote, unquote, urlsplit

__all__ = ["in_ascii", "ip_address", "is_loopback", "spell_proxy", "split_url"]

# Labels of a host name (RFC 1123, section 2.1), and the underscore that inner networks use.
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*")


def split_url(url: str, schemes: tuple[str, ...] = ("http", "https")) -> SplitResult | None:
    """Return the parts of an absolute URL, with its host in ASCII; None without a valid host and port."""
    if not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        typed, port = parts.hostname or "", parts.port
        host = in_ascii(typed)
    except ValueError:  # neither Python nor idna raises anything else for a host or port
        return None
    valid = "%" not in typed and (_HOST.fullmatch(host) or ip_address(host))
    # Libraries disagree about the host of a URL with a backslash.
    if not valid or port == 0 or parts.scheme not in schemes or "\\" in parts.netloc:
        return None
    user, at, _ = parts.netloc.rpartition("@")
    name = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=f"{user}{at}{name}:{port}" if port else f"{user}{at}{name}")


def in_ascii(host: str) -> str:
    """
    Return a host in IDNA, as browsers, requests and aiohttp write it.

    Percent-encoding is decoded first. A host in plain ASCII is returned unchecked.

    :raises ValueError: the host has no spelling in IDNA.
    """
    if host.isascii() and "%" not in host:
        return host
    # Rarely needed, with large tables, and Airflow imports this module at every start.
    import idna

    return idna.encode(unquote(host), uts46=True, std3_rules=True).decode()


def spell_proxy(url: str) -> tuple[str, str]:
    """Return the URL of an HTTP proxy, spelled alike for all libraries, and what is wrong with it; one is empty."""
    parts = split_url(url)
    if parts is None or parts.path not in ("", "/") or parts.query or parts.fragment:
        return "", (
            "must be a URL that starts with http:// or https:// and has no path, such as "
            "http://user:password@proxy.example.com:3128; special characters of a password are written as %XX"
        )
    credentials, at, host_port = parts.netloc.rpartition("@")
    user, _, password = map(unquote, credentials.partition(":"))
    if ":" in user or any(ord(one) > 0xFF for one in user + password):
        return "", "has a colon in its user, or a character that is not in Latin-1, which HTTP libraries cannot send"
    if password and not user:
        return "", "has a password without a user, which not all HTTP libraries send"
    # Without the colon, requests would not send the user.
    credentials = f"{quote(user, safe='')}:{quote(password, safe='')}@" if at else ""
    return f"{parts.scheme}://{credentials}{host_port}", ""


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host as an address; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name or address."""
    address = ip_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)
