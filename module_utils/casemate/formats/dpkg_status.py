"""The states of packages in dpkg's status file, and what a simulation of apt-get would install.

Sources: dpkg(1) (package states and flags), deb822(5), apt-get(8) (--simulate).
"""

from __future__ import annotations

import re
from typing import Dict, Iterator, List, NamedTuple

from ..host.machine import Host

STATUS = "/var/lib/dpkg/status"
FIELD = re.compile(r"(?m)^(Package|Status|Version|Source|Architecture): *(.*?) *$")
SOURCE = re.compile(r"(\S+)(?: +\((.*)\))?")
"""The name of a source package and, where it differs from the package's, its version."""
ABSENT = ("config-files", "not-installed")
"""States of packages of which nothing but configuration is there."""
WOULD_INSTALL = re.compile(r"(?m)^Inst (\S+)(?: \[([^\]]*)\])? \((\S+) ?(.*?)(?: \[\w+\])?\)")


class Package(NamedTuple):
    """A package that dpkg knows. `wanted`, `error` and `state` are the three words of its status.

    `source` is the source package that it was built from, `source_version` the version of that.
    """

    name: str
    version: str
    source: str
    wanted: str
    error: str
    state: str
    architecture: str = ""
    source_version: str = ""


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
            wanted, error, state = words
            version, architecture = fields.get("Version", ""), fields.get("Architecture", "")
            source = SOURCE.match(fields.get("Source") or fields["Package"])
            name, other = source.groups() if source else (fields["Package"], None)
            yield Package(fields["Package"], version, name, wanted, error, state, architecture, other or version)


def updates(said: str) -> List[Update]:
    """What `apt-get --simulate` says that it would install over what is there. A new package is no update."""
    found = (Update(name, now, then, archives.split(", ")) for name, now, then, archives in WOULD_INSTALL.findall(said))
    return [update for update in found if update.now]
