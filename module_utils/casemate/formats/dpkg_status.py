"""The states of packages in dpkg's status file, and what a simulation of apt-get would install.

Sources: dpkg(1) (package states and flags), deb822(5), apt-get(8) (--simulate).
"""

from __future__ import annotations

import re
from typing import Dict, Iterator, List, NamedTuple

from ..host.machine import Host

STATUS = "/var/lib/dpkg/status"
FIELD = re.compile(r"(?m)^(Package|Status|Version|Source): *(.*?) *$")
WOULD_INSTALL = re.compile(r"(?m)^Inst (\S+)(?: \[([^\]]*)\])? \((\S+) ?(.*?)(?: \[\w+\])?\)")


class Package(NamedTuple):
    """A package that dpkg knows. `wanted`, `error` and `state` are the three words of its status."""

    name: str
    version: str
    source: str
    wanted: str
    error: str
    state: str


class Update(NamedTuple):
    """A version that apt-get would install, what it replaces, and the archives that have it."""

    name: str
    now: str
    then: str
    archives: List[str]


def known(host: Host) -> List[Package]:
    """Every package that dpkg knows, read once a pass. Raises FileNotFoundError where there is no dpkg."""

    def read() -> List[Package]:
        text = host.text(STATUS)
        if text is None:
            raise FileNotFoundError(f"{STATUS} is missing: not a Debian system, or a broken one")
        return list(packages(text))

    return host.cached("packages", read)


def packages(text: str) -> Iterator[Package]:
    """Every package of a status file that says its status."""
    for stanza in text.split("\n\n"):
        fields: Dict[str, str] = dict(FIELD.findall(stanza))
        words = fields.get("Status", "").split()
        if len(words) == 3 and "Package" in fields:
            source = fields.get("Source", fields["Package"]).split(" ")[0]
            yield Package(fields["Package"], fields.get("Version", ""), source, *words)


def updates(said: str) -> List[Update]:
    """What `apt-get --simulate` says that it would install over what is there. A new package is no update."""
    found = (Update(name, now, then, archives.split(", ")) for name, now, then, archives in WOULD_INSTALL.findall(said))
    return [update for update in found if update.now]
