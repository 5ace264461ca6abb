"""The keys by which somebody logs in as the account that Casemate comes as, which is root by sudo without a password.

A single key is the one by which this run came in, as long as nothing else than keys lets in there; which of several
that is no host can tell, so each of them has somebody who vouches for it. Nothing is removed here: no control acts on
that account's keys. Sources: sshd(8), AUTHORIZED_KEYS FILE FORMAT; sshd_config(5).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Dict, Iterator, List, NamedTuple

from ..core.vouched_for import Stranger
from ..formats.sshd_files import directives
from ..host.accounts import passwd
from ..host.machine import Host
from ..host.text import split_lines
from ..k3s.listed import digest_of
from . import system_keys
from .vouchers import Known

KEY = re.compile(
    r'[ \t]*(?:(?P<options>(?:[^ \t"]|"(?:[^"\\]|\\.)*")+)[ \t]+)?'
    r"(?P<type>(?:ssh|ecdsa|sk)-[^ \t]+)[ \t]+(?P<blob>[A-Za-z0-9+/=]+)"
)
"""A line that sshd may take a key from; what it takes for none matches, too, which is no loss."""
ELSEWHERE = ("trustedusercakeys", "authorizedkeyscommand", "authorizedprincipalscommand")
"""Directives by which somebody is let in whose key stands in no file of the account."""


class Line(NamedTuple):
    """A key, and where it stands."""

    path: str
    number: int
    options: str
    type: str
    fingerprint: str


def strangers(setting: Mapping[str, Any], known: Known) -> Iterator[Stranger]:
    """Each key where there are several, or where the run may have come in by something else."""
    host = known.host
    name = str(host.context.get("account") or "")
    by_key: Dict[str, List[Line]] = {}
    for line in _lines(name, host):
        by_key.setdefault(line.fingerprint, []).append(line)
    if len(by_key) == 1 and not _let_in_elsewhere(host):
        return
    for fingerprint, lines in by_key.items():
        first, matter = lines[0], sorted([one.type, one.options] for one in lines)
        why = (
            f"{fingerprint} ({first.path}, line {first.number}) logs in as {name}, as which Casemate comes, so nothing "
            "of it is removed: vouch for those that belong there, yours too, and delete the lines of others by hand"
        )
        yield Stranger(f"key/{name}/{fingerprint}", why, digest_of(matter), f"{first.path}:{first.number}")


def _lines(name: str, host: Host) -> Iterator[Line]:
    """The keys of an account, in all files in which sshd may look for them."""
    accounts = [one for one in passwd(host.text("/etc/passwd") or "") if one.name == name]
    patterns = system_keys.patterns(host)
    for path in dict.fromkeys(path for one in accounts for path in system_keys.files_of(one, patterns)):
        for number, text in enumerate(split_lines(host.text(path) or ""), 1):
            found = None if text.lstrip(" \t").startswith("#") else KEY.match(text)
            if found:
                yield Line(path, number, found["options"] or "", found["type"], _fingerprint(found["blob"]))


def _fingerprint(blob: str) -> str:
    """As ssh-keygen -l shows it."""
    try:
        data = base64.b64decode(blob, validate=True)
    except binascii.Error:
        data = blob.encode()
    return "SHA256:" + base64.b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _let_in_elsewhere(host: Host) -> bool:
    given = (line.value.lower() for line in directives(host) if line.key in ELSEWHERE)
    return any(value not in ("", "none") for value in given)
