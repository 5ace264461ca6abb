"""Addresses that an operator names: which of them are asked at all, and how much of an answer is waited for."""

from __future__ import annotations

import contextlib
import re
import socket
import time
import urllib.parse
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any


class SlowError(TimeoutError):
    """An answer goes on, and its time is over."""


def whole(answer: Any, most: int, end: float) -> bytes:
    """The first bytes of an answer of HTTP, at most `most` and one more.

    `end` is the moment, of time.monotonic, by which they have to be there: each piece alone may come in time, and all
    of them never. Raises SlowError, and what the connection raises.
    """
    data = bytearray()
    while len(data) <= most and (piece := answer.read1(min(65536, most + 1 - len(data)))):
        data += piece
        if time.monotonic() > end:
            raise SlowError
    return bytes(data)


def refusal(address: str) -> str:
    """Why nothing is asked at an address, or "": it is none, no https and not on this machine, or names an account."""
    try:
        parts = urllib.parse.urlsplit(address)
        _ = parts.port
    except ValueError:  # which may quote a password
        return f"{address.rpartition('@')[2]} is no address such as https://mirror.example.org/k3s/"
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return f"{address} is no https address: anybody between here and there could change what it says"
    if "@" in parts.netloc:
        return f"the address on {parts.hostname} names an account. Give one that everybody may read"
    return ""


def of_ip(host: str) -> IPv4Address | IPv6Address:
    """An address of IP; one of IPv4 that is written as one of IPv6 is the former. Raises ValueError for a name.

    Connections take one of IPv4 in other notations, too, such as 127.1 or 0x7f000001 (inet(3)).
    """
    if re.fullmatch(r"(0[xX])?[0-9a-fA-F]+(\.(0[xX])?[0-9a-fA-F]+){0,3}", host):
        with contextlib.suppress(OSError):
            return IPv4Address(socket.inet_aton(host))
    found = ip_address(host)
    return getattr(found, "ipv4_mapped", None) or found


def is_loopback(host: str) -> bool:
    """Whether a name or address of a host is this machine's own."""
    try:
        return of_ip(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
