"""The public halves of keys and certificates, as far as it takes to tell whether they belong together.

Sources: X.690 (DER), RFC 5280 section 4.1 (certificates), RFC 5915 (SEC1 keys), RFC 8017 A.1 (RSA), RFC 5958 (PKCS#8).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Callable, List, Tuple

PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.S)
SEQUENCE, INTEGER, VERSION, PUBLIC = 0x30, 0x02, 0xA0, 0xA1
"""Tags. [0] begins a certificate that says its version; [1] holds the public half in a key of SEC1."""


def blocks(data: bytes) -> List[Tuple[int, bytes]]:
    """(line, what it holds) of each PEM block; of one that is not base64, its text."""
    return [(data.count(b"\n", 0, found.start()) + 1, _decoded(found[2])) for found in PEM.finditer(data)]


def public(half: Callable[[bytes], bytes], data: bytes) -> bytes:
    """The public half of a certificate or key; nothing where it is none that is known here."""
    try:
        return half(data)
    except (ValueError, LookupError, StopIteration):
        return b""


def of_certificate(data: bytes) -> bytes:
    """The point of an elliptic curve or the modulus of RSA that a certificate is about. ValueError for what is none."""
    ((_, certificate),) = _items(data)
    fields = _items(_items(certificate)[0][1])
    subject = fields[6 if fields[0][0] == VERSION else 5][1]
    public = _items(subject)[1][1][1:]
    return _items(_items(public)[0][1])[0][1] if public[:1] == bytes([SEQUENCE]) else public


def of_key(data: bytes) -> bytes:
    """The same of a private key. ValueError for what is none."""
    ((_, key),) = _items(data)
    fields = _items(key)
    if fields[1][0] == SEQUENCE:  # PKCS#8 has the key in a wrapper
        return of_key(fields[2][1])
    if fields[1][0] == INTEGER:
        return fields[1][1]
    ((_, public),) = _items(next(value for tag, value in fields if tag == PUBLIC))
    return public[1:]


def _items(data: bytes) -> List[Tuple[int, bytes]]:
    """(tag, content) of what is strung together."""
    found, at = [], 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        if at + length > len(data):
            raise ValueError("cut off")
        found.append((tag, data[at : at + length]))
        at += length
    return found


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        return text
