"""What a privileged program reads or runs, and who vouches for it: a package, Casemate, or the operator by name.

Everything else that lies there is a finding, whatever it does: there is no end to what a file can do to a host. Nothing
of it is deleted.
"""

from __future__ import annotations

import datetime
import fnmatch
import grp
import hashlib
import os
import pwd
import re
import stat as statmod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Dict, List, Set, TypedDict

from ..core import waiver
from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..formats import dpkg, pam_profiles
from ..host import clock
from ..host.entries import digest, name_of
from ..host.machine import Host
from .kind import Kind

SHOWN = 5
"""Of how many files a finding says what is wrong with them; it names all."""
STATIC = 100
"""Uids below it are the same on every Debian."""
STARTING = 120.0
"""Seconds after its start in which a unit writes its files."""
MOST_COMMENTS = 65536
"""Bytes of a file that is looked through for anything but comments."""


class Needed(TypedDict):
    """What every setting of this kind says."""

    paths: Annotated[List[str], Key("patterns of what is read or run; ** stands for any folders, or none")]
    used: Annotated[str, Key("what is done with them, such as: cron runs it as root")]
    ours: Annotated[List[str], Key("files that Casemate writes here: other controls judge them")]
    declared: Annotated[Dict[str, Any], Key("path to what the operator vouches for: digest, owner, reason, expires")]


class Setting(Needed, total=False):
    """What a control of this kind demands."""

    skipped: Annotated[List[str], Key("patterns of what lies there and is not read or run")]
    copies: Annotated[Dict[str, str], Key("files that a package's script copies, each with what it is a copy of")]
    of_profiles: Annotated[str, Key("files that pam-auth-update makes of the profiles of packages")]
    matters: Annotated[str, Key("regular expression: a file without a match does nothing of what this is about")]
    powerful: Annotated[bool, Key("only files that give whoever runs them rights of their owner, group or file")]
    known: Annotated[List[str], Key("programs that packages give such rights")]
    written_by: Annotated[str, Key("unit that writes some of them anew whenever it starts")]
    writes: Annotated[List[str], Key("patterns of those")]
    names_only: Annotated[bool, Key("whether a package's file counts as vouched for whatever its bytes are")]
    comments: Annotated[str, Key("what begins a comment: a file of nothing else does nothing")]


@dataclass
class Known:
    """Who vouches for what, for all settings of a pass."""

    host: Host
    day: datetime.date
    owners: Dict[str, str] = field(default_factory=dict)
    sums: Dict[str, str] = field(default_factory=dict)

    def ask(self, paths: Set[str], summed: Set[str]) -> None:
        """Ask the package database about all paths at once, and for the sums of those whose bytes count."""
        self.owners = dpkg.owners(paths | summed, self.host)
        self.sums = dpkg.sums(summed, {name for path, name in self.owners.items() if path in summed}, self.host)

    def fault(self, path: str, setting: Setting) -> str:
        """Why nobody vouches for what lies at a path; nothing where somebody does."""
        entry = setting["declared"].get(path)
        if path in setting["ours"] or path in self.host.failing_files:
            return ""
        if entry is not None:
            return self._declared(path, entry)
        found = self.host.stat(path)
        if found is None:
            return ""  # gone since it was listed
        if _is_link(found):
            return self._link(path, setting)
        if not statmod.S_ISREG(found.st_mode):
            return "it is no file"
        package = self.owners.get(path, "")
        return _writers(found, package) or self._file(path, package, setting)

    def _declared(self, path: str, entry: Mapping[str, Any]) -> str:
        ended = waiver.ended(path, entry, self.day)
        if ended:
            return f"{entry['owner']} vouched for it until {ended}"
        now = content(path, self.host)
        return "" if now == entry["digest"] else f"{entry['owner']} vouched for {entry['digest']}, and it is {now}"

    def _link(self, path: str, setting: Setting) -> str:
        target = target_of(path, self.host)
        if target == "/dev/null":
            return ""
        if self.host.stat(target) is None:
            known = path in self.owners or target in setting["ours"]  # whose own control tells that it is missing
            return "" if known else f"it is a link to {target}, which is not there"
        why = self.fault(target, setting) if target != path else "it is a link to itself"
        return f"it is a link to {target}: {why}" if why else ""

    def _file(self, path: str, package: str, setting: Setting) -> str:
        if package and setting.get("powerful") and path not in setting["known"]:
            return f"{package} brought it without these rights"
        if package and (setting.get("names_only") or path not in self.sums):
            return ""
        data = self.host.read(path)
        if package and md5(data) == self.sums[path]:
            return ""
        if does_nothing(data, setting.get("comments", ""), setting.get("matters", "")):
            return ""
        if fnmatch.fnmatchcase(path, setting.get("of_profiles", "")):
            lines = pam_profiles.strangers(path, self.host)
            return f"{', '.join(lines)} of no profile in {pam_profiles.PROFILES}" if lines else ""
        source = setting.get("copies", {}).get(path)
        if source and source in self.owners and md5(data) == self.sums.get(source, "unknown"):
            return ""
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in setting.get("writes", ())):
            return self._late(path, setting["written_by"])
        if package:
            return f"it is not what the package {package} brought"
        return f"it is no copy of {source}" if source else "no package brought it"

    def _late(self, path: str, unit: str) -> str:
        """A unit that does not run will write its files when it does."""
        found, started = self.host.stat(path), self.host.started(unit)
        late = found is not None and started is not None and clock.after(clock.change_time(found) - STARTING, started)
        return (
            f"it changed after {unit} wrote it at its start: systemctl restart {unit} brings back its own"
            if late
            else ""
        )


def identity(setting: Setting) -> str:
    """One control for a set of places."""
    return str(setting["paths"][0])


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """For each setting: of what nobody vouches for, why, and what it is."""
    listed = [list(_listed(setting, host)) for setting in settings]
    known = Known(host, waiver.day(host.context))
    summed = {source for setting in settings for source in setting.get("copies", {}).values()}
    every: Set[str] = set()
    for setting, paths in zip(settings, listed):
        asked = {*paths, *(target_of(path, host) for path in paths if _is_link(host.stat(path)))}
        every |= asked
        summed |= set() if setting.get("names_only") else asked
    known.ask(every, summed)
    seen = []
    for setting, paths in zip(settings, listed):
        faults = {path: known.fault(path, setting) for path in paths}
        faults = {path: why for path, why in faults.items() if why}
        seen.append({"faults": faults, "contents": {path: content(path, host) for path in faults}, "of": len(paths)})
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that somebody vouches for everything."""
    faults = seen["faults"]
    words = [f"{path}: {why}" for path, why in list(faults.items())[:SHOWN]]
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    reason = f"{setting['used']}, and nobody vouches for it: {'; '.join([*words, *more])}. "
    reason += "Remove what does not belong there; `casemate baseline` records what does"
    return Verdict(
        ok=not faults,
        expected="nothing that nobody vouches for",
        observed=seen["contents"] or "nothing",
        reason=reason if faults else "",
        evidence=f"{seen['of']} files",
        where=tuple(faults),
    )


def content(path: str, host: Host) -> str:
    """What stands for what lies at a path: a digest, or where a link leads to."""
    found = host.stat(path)
    if _is_link(found):
        return f"link:{target_of(path, host)}"
    return digest(host.read(path)) or "special"


def target_of(path: str, host: Host) -> str:
    """Where a path leads to in the end, as the target sees it: the path itself where no link is on the way."""
    real = os.path.realpath(host.path(path))
    below = "" if host.root == "/" else os.path.realpath(host.root)
    return real[len(below) :] if real.startswith(f"{below}/") else real


def does_nothing(data: bytes | None, comment: str, matters: str = "") -> bool:
    """Whether a file is empty, has nothing that matters, or nothing but comments; one that names a program is none."""
    if matters and data is not None:
        return not re.search(matters.encode(), data)
    if not data or data.startswith(b"#!") or len(data) > MOST_COMMENTS:
        return data == b""
    lines = (line.strip() for line in data.split(b"\n"))
    return all(not line or (comment and line.startswith(comment.encode())) for line in lines)


def md5(data: bytes | None) -> str:
    """What the package database knows a file by; nobody can make another file with the sum of a given one."""
    return "" if data is None else hashlib.md5(data, usedforsecurity=False).hexdigest()


def _listed(setting: Setting, host: Host) -> Iterator[str]:
    skipped = setting.get("skipped", ())
    for path in dict.fromkeys(found for pattern in setting["paths"] for found in host.glob(pattern, hidden=True)):
        found = host.stat(path)
        folder = found is not None and statmod.S_ISDIR(found.st_mode)
        if setting.get("powerful") and not (found and _is_powerful(host.path(path), found)):
            continue
        if not folder and not any(fnmatch.fnmatchcase(path, pattern) for pattern in skipped):
            yield path


def _is_link(found: os.stat_result | None) -> bool:
    return found is not None and statmod.S_ISLNK(found.st_mode)


def _is_powerful(real: str, found: os.stat_result) -> bool:
    """Whether a program runs with other rights than those of whoever starts it. Sources: execve(2), capabilities(7)."""
    if not statmod.S_ISREG(found.st_mode):
        return False
    try:
        capable = "security.capability" in os.listxattr(real, follow_symlinks=False)
    except OSError:
        capable = False
    return capable or bool(found.st_mode & (statmod.S_ISUID | statmod.S_ISGID))


def _writers(found: os.stat_result, package: str) -> str:
    """Who but root may change a file. What packages give to one of Debian's static accounts is theirs (policy 9.2)."""
    if found.st_uid and not (package and found.st_uid < STATIC):
        return f"it is {name_of(pwd.getpwuid, found.st_uid)}'s, who may change it"
    if found.st_mode & 0o002 or (found.st_mode & 0o020 and found.st_gid != 0):
        who = "everybody" if found.st_mode & 0o002 else f"the group {name_of(grp.getgrgid, found.st_gid)}"
        return f"{who} may change it (mode {statmod.S_IMODE(found.st_mode):04o})"
    return ""


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    places=lambda setting: setting["paths"],
    units=lambda setting: [setting["written_by"]] if "written_by" in setting else [],
)
