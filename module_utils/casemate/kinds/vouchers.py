"""Who vouches for what lies at a path: a package, Casemate, a unit that writes it, or the operator by name."""

from __future__ import annotations

import datetime
import fnmatch
import grp
import hashlib
import os
import pwd
import re
import stat as statmod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Dict, Set

from ..core import vouched_for
from ..formats import dpkg, pam_profiles
from ..host import clock
from ..host.entries import digest, name_of
from ..host.machine import Host
from . import masks

STATIC = 100
"""Uids below it are the same on every Debian."""
STARTING = 120.0
"""Seconds after its start in which a unit writes its files."""
SYSTEMD, GENERATING = "systemd", 10.0
"""What stands for its generators, and seconds in which they write their files after it began to read its units."""
MOST_COMMENTS = 65536
"""Bytes of a file that is looked through for anything but comments."""


@dataclass
class Known:
    """Who vouches for what, for all settings of a pass."""

    host: Host
    day: datetime.date
    owners: Dict[str, str] = field(default_factory=dict)
    changed: Set[str] = field(default_factory=set)
    sums: Dict[str, str] = field(default_factory=dict)

    def ask(self, paths: Set[str], summed: Set[str]) -> None:
        """Ask the package database about all paths at once, and for the sums of those whose bytes count.

        Those of what changed after its package came count always.
        """
        self.owners = dpkg.owners(paths | summed, self.host)
        self.changed = {path for path, name in self.owners.items() if dpkg.changed_since(path, name, self.host)}
        summed = summed | self.changed
        self.sums = dpkg.sums(summed, {name for path, name in self.owners.items() if path in summed}, self.host)

    def fault(self, path: str, setting: Mapping[str, Any]) -> str:
        """Why nobody vouches for what lies at a path; nothing where somebody does."""
        entry = setting["declared"].get(path)
        if path in setting["ours"] or path in self.host.failing_files:
            return ""
        if entry is not None:
            return vouched_for.fault(path, entry, content(path, self.host), self.day)
        found = self.host.stat(path)
        if found is None:
            return ""  # gone since it was listed
        if setting.get("masks"):
            return self._mask(path, found, setting)
        if is_link(found):
            return self._link(path, setting)
        if not statmod.S_ISREG(found.st_mode):
            return "it is no file"
        package = self.owners.get(path, "")
        return _writers(found, package) or self._file(path, package, setting)

    def _mask(self, path: str, found: os.stat_result, setting: Mapping[str, Any]) -> str:
        """What a package brought in the folders of operators is for other controls."""
        hidden = "" if path in self.owners else masks.hidden_by(path, self.host)
        if not hidden or (self.is_written(path, setting) and not self._late(path, setting["written_by"])):
            return ""
        data = self.host.read(path)
        empty = data is not None and does_nothing(data, setting["comments"])
        return f"it masks {hidden}" if empty or target_of(path, self.host) == masks.NOWHERE else ""

    def _link(self, path: str, setting: Mapping[str, Any]) -> str:
        target = target_of(path, self.host)
        if target == masks.NOWHERE:  # as good as an empty file, which does something where no comments are known
            package = self.owners.get(path)
            if package and path not in self.sums:  # it has sums of files alone
                return ""
            if "comments" in setting or "matters" in setting:
                return f"it masks what {package} brought there" if package else ""
            return "it masks what has its name elsewhere"
        if self.host.stat(target) is None:
            if self.is_written(path, setting):  # systemd goes by the names of links in such folders
                return self._late(path, setting["written_by"])
            known = path in self.owners or target in setting["ours"]  # whose own control tells that it is missing
            return "" if known else f"it is a link to {target}, which is not there"
        why = self.fault(target, setting) if target != path else "it is a link to itself"
        if not why and setting.get("named") and not self._may_name(path, target):
            why = "nobody vouches for that name of it"
        return f"it is a link to {target}: {why}" if why else ""

    def _may_name(self, path: str, target: str) -> bool:
        """Whether a link gives a program a name that is its own, or of a package, or that is chosen for it."""
        same = os.path.basename(path) == os.path.basename(target)
        return same or path in self.owners or dpkg.is_alternative(path, self.host)

    def _file(self, path: str, package: str, setting: Mapping[str, Any]) -> str:
        if package and setting.get("powerful") and path not in setting["known"]:
            return f"{package} brought it without these rights"
        if package and setting.get("names_only") and path not in self.changed:
            return ""
        data = self.host.read(path)
        if package and md5(data) == self.sums.get(path, "unknown"):
            return ""
        if data is not None and "matters" in setting and not re.search(setting["matters"].encode(), data):
            return ""
        if not package and data is not None and "comments" in setting and does_nothing(data, setting["comments"]):
            return ""
        if fnmatch.fnmatchcase(path, setting.get("of_profiles", "")):
            lines = pam_profiles.strangers(path, self.host)
            return f"{', '.join(lines)} of no profile in {pam_profiles.PROFILES}" if lines else ""
        source = setting.get("copies", {}).get(path)
        if source and source in self.owners and md5(data) == self.sums.get(source, "unknown"):
            return ""
        if self.is_written(path, setting):
            return self._late(path, setting["written_by"])
        if package:
            said = "it is not what the package {} brought" if path in self.sums else "the package {} has no sum of it"
            return said.format(package)
        return f"it is no copy of {source}" if source else "no package brought it"

    def is_written(self, path: str, setting: Mapping[str, Any]) -> bool:
        """Whether a unit writes it anew whenever it starts."""
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in setting.get("writes", ()))

    def _late(self, path: str, unit: str) -> str:
        """A unit that does not run will write its files when it does."""
        generated = unit == SYSTEMD
        found, started = self.host.stat(path), self.host.units_read() if generated else self.host.started(unit)
        lasts = GENERATING if generated else STARTING
        if found is None or started is None or not clock.after(clock.change_time(found) - lasts, started):
            return ""
        if generated:
            return "no generator wrote it when systemd last read its units: systemctl daemon-reload brings back theirs"
        return f"it changed after {unit} wrote it at its start: systemctl restart {unit} brings back its own"


def content(path: str, host: Host) -> str:
    """What stands for what lies at a path: a digest, or where a link leads to."""
    found = host.stat(path)
    if is_link(found):
        return f"link:{target_of(path, host)}"
    return digest(host.read(path)) or "special"


def target_of(path: str, host: Host) -> str:
    """Where a path leads to in the end, as the target sees it: the path itself where no link is on the way."""
    real = os.path.realpath(host.path(path))
    below = "" if host.root == "/" else os.path.realpath(host.root)
    return real[len(below) :] if real.startswith(f"{below}/") else real


def does_nothing(data: bytes, comments: str) -> bool:
    """Whether a file has nothing but comments, or is empty; one that names a program that runs it is none."""
    if data.startswith(b"#!") or len(data) > MOST_COMMENTS:
        return False
    lines = (line.strip() for line in data.split(b"\n"))
    begins = tuple(comment.encode() for comment in comments)
    return all(not line or line.startswith(begins) for line in lines)


def md5(data: bytes | None) -> str:
    """What the package database knows a file by; nobody can make another file with the sum of a given one."""
    return "" if data is None else hashlib.md5(data, usedforsecurity=False).hexdigest()


def is_link(found: os.stat_result | None) -> bool:
    """Whether what was looked at is a symbolic link."""
    return found is not None and statmod.S_ISLNK(found.st_mode)


def _writers(found: os.stat_result, package: str) -> str:
    """Who but root may change a file. What packages give to one of Debian's static accounts is theirs (policy 9.2)."""
    if found.st_uid and not (package and found.st_uid < STATIC):
        return f"it is {name_of(pwd.getpwuid, found.st_uid)}'s, who may change it"
    if found.st_mode & 0o002 or (found.st_mode & 0o020 and found.st_gid != 0):
        who = "everybody" if found.st_mode & 0o002 else f"the group {name_of(grp.getgrgid, found.st_gid)}"
        return f"{who} may change it (mode {statmod.S_IMODE(found.st_mode):04o})"
    return ""
