"""What a privileged program reads or runs, and who vouches for it: a package, Casemate, or the operator by name.

Everything else that lies there is a finding, whatever it does: there is no end to what a file can do to a host. Nothing
of it is deleted unless an operator names the control.
"""

from __future__ import annotations

import fnmatch
import stat as statmod
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Dict, List, Literal, Set, TypedDict

from ..core import vouched_for, waiver
from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host.machine import Host
from .evicting import evict, stays
from .kind import Enforceable, Kind
from .named import NAMED
from .powerful import everywhere, is_powerful
from .vouchers import SYSTEMD, Known, content, is_link, target_of


class Needed(TypedDict):
    """What every setting of this kind says."""

    paths: Annotated[List[str], Key("patterns of what is read or run; ** stands for any folders, or none")]
    used: Annotated[str, Key("what is done with them, such as: cron runs it as root")]
    ours: Annotated[List[str], Key("files that Casemate writes here: other controls judge them")]
    declared: Annotated[Dict[str, Any], Key("path to what the operator vouches for: digest, owner, reason, expires")]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind demands."""

    skipped: Annotated[List[str], Key("patterns of what lies there and is not read or run")]
    copies: Annotated[Dict[str, str], Key("files that a package's script copies, each with what it is a copy of")]
    of_profiles: Annotated[str, Key("files that pam-auth-update makes of the profiles of packages")]
    matters: Annotated[str, Key("regular expression: a file without a match does nothing of what this is about")]
    powerful: Annotated[bool, Key("only files that give whoever runs them rights of their owner, group or file")]
    known: Annotated[List[str], Key("programs that packages give such rights")]
    written_by: Annotated[str, Key("unit that writes some of them anew at its start, or systemd for its generators")]
    writes: Annotated[List[str], Key("patterns of those")]
    everywhere: Annotated[bool, Key("look below the paths on every mount where others than root gain such rights")]
    names_only: Annotated[bool, Key("look at the bytes of a package's file only if it changed since the package came")]
    named: Annotated[bool, Key("what counts is the name: a link has to be of a package or an alternative, too")]
    edited: Annotated[List[str], Key("patterns of files that hold what a host needs, too, so that none is removed")]
    comments: Annotated[str, Key("characters that begin comments: a file of nothing else, of no package, does nothing")]
    masks: Annotated[bool, Key("only a file that does nothing and takes away another one of its name")]
    named_by: Annotated[
        Literal["AuthorizedKeysFile", "EnvironmentFile", "Exec"], Key("directives: what they name is judged, too")
    ]


def identity(setting: Setting) -> str:
    """One control for a set of places."""
    return str(setting["paths"][0])


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """For each setting: of what nobody vouches for, why, what it is, and why some of it would not be removed."""
    listed = [list(_listed(setting, host)) for setting in settings]
    known = Known(host, waiver.day(host.context))
    summed = {source for setting in settings for source in setting.get("copies", {}).values()}
    every: Set[str] = set()
    for setting, paths in zip(settings, listed):
        asked = {*paths, *(target_of(path, host) for path in paths if is_link(host.stat(path)))}
        every |= asked
        summed |= set() if setting.get("names_only") else asked
    known.ask(every, summed)
    seen = []
    for setting, paths in zip(settings, listed):
        faults = {path: known.fault(path, setting) for path in paths}
        faults = {path: why for path, why in faults.items() if why}
        contents = {path: content(path, host) for path in faults}
        left = {path: stays(path, setting, known) for path in faults}
        left = {path: why for path, why in left.items() if why}
        seen.append({"faults": faults, "contents": contents, "left": left, "of": len(paths)})
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that somebody vouches for everything."""
    return vouched_for.verdict(setting, seen, f"{seen['of']} files")


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Remove what nobody vouches for, as far as it can go."""
    seen = observe([settings[i] for i in sorted(failing)], host)
    goes = {path: None for one in seen for path in one["faults"] if path not in one["left"]}
    if goes:
        evict(list(goes), host)


def _listed(setting: Setting, host: Host) -> Iterator[str]:
    skipped = setting.get("skipped", ())
    named = NAMED[setting["named_by"]](setting, host) if "named_by" in setting else ()
    patterns = dict.fromkeys((*setting["paths"], *named))
    for path in dict.fromkeys(found for pattern in patterns for found in _found(pattern, setting, host)):
        found = host.stat(path)
        folder = found is not None and statmod.S_ISDIR(found.st_mode)
        if not folder and not any(fnmatch.fnmatchcase(path, pattern) for pattern in skipped):
            yield path


def _found(pattern: str, setting: Setting, host: Host) -> Iterator[str]:
    if setting.get("everywhere"):
        yield from everywhere(pattern, host)
        return
    for path in host.glob(pattern, hidden=True):
        found = host.stat(path) if setting.get("powerful") else None
        if found is None or is_powerful(host.path(path), found):
            yield path


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    evicts=True,
    removes=lambda goes: goes,
    places=lambda setting: setting["paths"],
    units=lambda setting: [unit for unit in [setting.get("written_by", SYSTEMD)] if unit != SYSTEMD],
)
