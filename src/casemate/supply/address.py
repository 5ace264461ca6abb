"""Addresses that an operator names, and which of them are asked at all. Pure."""

from __future__ import annotations

import urllib.parse
from ipaddress import ip_address


def refusal(address: str) -> str:
    """Why nothing is asked at an address, or "": it is no https, and not on this machine, or it names an account."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return f"{address} is no https address: anybody between here and there could change what it says"
    if "@" in parts.netloc:
        return f"the address on {parts.hostname} names an account. Give one that everybody may read"
    return ""


def is_loopback(host: str) -> bool:
    """Whether a name or address of a host is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
