"""Who may sign, by a file of allowed signers: its lines, and whose keys they are.

ssh-keygen verifies; here is only read whom a file lists. Sources: ssh-keygen(1), ALLOWED SIGNERS; ssh_config(5),
PATTERNS.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from typing import Dict, List, NamedTuple, Set, Tuple

from . import ssh_patterns
from .text import split_lines

TYPE = re.compile(r"(sk-)?(ssh|ecdsa)-[A-Za-z0-9-]+(@openssh\.com)?")
FIELD = re.compile(r'\s*((?:"(?:[^"\\]|\\.)*"|[^\s"])+)')
"""A field of a line: what stands in double quotes may hold spaces."""
NAMESPACES = re.compile(r'(?:^|,)namespaces="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
AUTHORITY = re.compile(r"(?:^|,)cert-authority(?:,|$)", re.IGNORECASE)


class Line(NamedTuple):
    """One line: names, the fingerprint of the key, and whether it signs certificates with which others sign."""

    principals: Tuple[str, ...]
    fingerprint: str
    authority: bool


def lines(text: str, namespace: str) -> List[Line]:
    """The lines of a file that count for a namespace; what ssh-keygen could not read either is left out."""
    found = []
    for line in split_lines(text):
        fields = FIELD.findall(line)
        options = fields[1] if len(fields) > 1 and not TYPE.fullmatch(fields[1]) else ""
        rest = fields[2:] if options else fields[1:]
        if line.lstrip().startswith("#") or len(rest) < 2 or not TYPE.fullmatch(rest[0]):
            continue
        bound = NAMESPACES.search(options)
        names = tuple(name for name in fields[0].strip('"').split(",") if name)
        if (bound is None or ssh_patterns.listed(namespace, bound[1])) and (fingerprint := _fingerprint(rest[1])):
            found.append(Line(names, fingerprint, bool(AUTHORITY.search(options))))
    return found


def signers(known: Iterable[Line]) -> Dict[str, str]:
    """Name, or fingerprint of a key -> the signer whose it is, called by the first name that the file has for them.

    Lines that share a name or a key are of one signer: who holds two keys, or has two names, counts once. An authority
    is one signer, however many certificates it makes: whoever holds it may make some for any name.
    """
    whose: Dict[str, str] = {}
    for line in known:
        marks = [*line.principals, line.fingerprint]
        joined = {whose[mark] for mark in marks if mark in whose}
        name = next((signer for signer in whose.values() if signer in joined), marks[0])
        whose.update(dict.fromkeys(marks, name))
        whose.update({mark: name for mark, signer in whose.items() if signer in joined})
    return whose


def names(known: Iterable[Line]) -> List[str]:
    """The signers, each once, in the order of the file."""
    seen: Set[str] = set(signers(known).values())
    return sorted(seen, key=list(signers(known)).index)


def _fingerprint(key: str) -> str:
    """The fingerprint of a key as ssh-keygen writes it; empty for what is no key."""
    try:
        digest = hashlib.sha256(base64.b64decode(key, validate=True)).digest()
    except (binascii.Error, ValueError):
        return ""
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
