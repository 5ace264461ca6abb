"""A folder of Casemate's own: exactly the files that are declared lie in it, each with its content, all of them root's.

What sshd or another daemon looks up there by a name counts, so whatever else lies in it goes.
"""

from __future__ import annotations

import functools
import json
import os
import stat as statmod
from collections.abc import Collection
from typing import Annotated, Dict, List, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Left, Observation, Unasked, Verdict
from ..host.entries import digest
from ..host.files import names_in
from ..host.machine import EnforceError, Host
from . import declared_folder
from .kind import Enforceable, Kind, Owned, Pass
from .owned_entries import in_file

FOLDER_MODE = 0o755
HEADER = b"# Managed by Casemate"


class Needed(TypedDict):
    """What every setting of this kind says."""

    path: Annotated[str, Key("absolute path of the folder", pattern=r"/[^*?\[\s]*")]
    files: Annotated[Dict[str, str], Key("name -> content of each file; never a secret")]
    mode: Annotated[str, Key("exact mode of the files", pattern=r"0[0-7]{3}")]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind demands."""

    unset: Annotated[str, Key("why nobody declares files; empty where somebody does")]


def identity(setting: Setting) -> str:
    """One control for a folder."""
    return setting["path"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """By path what is wrong, what is there as far as it may differ, and what bars apply from mending it."""
    return [_seen(setting, host) for setting in settings]


def _seen(setting: Setting, host: Host) -> Observation:
    folder = setting["path"]
    contents = {name: digest(host.read(f"{folder}/{name}")) for name in setting["files"]}
    if declared_folder.is_other(folder, host):
        return {"faults": {folder: "it is no folder"}, "contents": contents, "barred": [f"{folder} is no folder"]}
    of_file = functools.partial(_fault, setting, host)
    faults = declared_folder.faults(folder, setting["files"], host, _fault_of_folder, of_file)
    folders = [path for path in faults if path != folder and declared_folder.is_folder(path, host)]
    barred = [host.barred(path, path != folder) or f"{path} is a folder" * (path in folders) for path in faults]
    return {"faults": faults, "contents": contents, "barred": [one for one in barred if one]}


def _fault_of_folder(found: os.stat_result) -> str:
    right = _roots(found) and statmod.S_IMODE(found.st_mode) == FOLDER_MODE
    return "" if right else f"it is not root's with mode {FOLDER_MODE:04o}"


def _fault(setting: Setting, host: Host, name: str) -> str:
    path, mode = f"{setting['path']}/{name}", int(setting["mode"], 8)
    found = host.stat(path)
    if name not in setting["files"]:
        return "nobody declared it"
    if found is None:
        return "it is missing"
    if not statmod.S_ISREG(found.st_mode):
        return "it is no regular file"
    if host.text(path) != setting["files"][name]:
        return "its content differs"
    if not _roots(found) or statmod.S_IMODE(found.st_mode) != mode or host.has_acl(path):
        return f"it is not root's with mode {mode:04o}"
    return ""


def _roots(found: os.stat_result) -> bool:
    return (found.st_uid, found.st_gid) == (0, 0)


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that the folder holds what is declared and nothing else."""
    faults: Dict[str, str] = seen["faults"]
    if setting.get("unset") and not faults:
        raise Unasked(setting["unset"])
    return Verdict(
        ok=not faults,
        expected={name: digest(text.encode()) for name, text in sorted(setting["files"].items())},
        observed={name: text or "absent" for name, text in sorted(seen["contents"].items())},
        reason=several([f"{path}: {why}" for path, why in faults.items()] + seen["barred"]),
        evidence=f"ls {setting['path']}",
        blocked_by="; ".join(seen["barred"]),
        still_enforced=len(seen["barred"]) < len(faults),
        where=tuple(faults),
    )


def enforce(settings: List[Setting], failing: set[int], host: Host) -> None:
    """Write what differs, take away what nobody declared; one refusal does not stop the others."""
    refused = []
    for setting in (settings[i] for i in sorted(failing)):
        for path in _seen(setting, host)["faults"]:
            try:
                _settle(setting, path, host)
            except (EnforceError, OSError) as error:
                refused.append(str(error))
    if refused:
        raise EnforceError("; ".join(refused))


def _settle(setting: Setting, path: str, host: Host) -> None:
    name, mode = os.path.basename(path), int(setting["mode"], 8)
    if path == setting["path"]:
        host.restrict(path, FOLDER_MODE, (0, 0))
    elif name not in setting["files"]:
        host.remove(path)
    else:
        found = host.stat(path)
        if found is not None and statmod.S_ISLNK(found.st_mode):
            host.remove(path)
        host.write(path, setting["files"][name].encode(), mode, (0, 0))
        host.restrict(path, mode, (0, 0), no_acl=True)


def _ours(setting: Setting, host: Host) -> List[str]:
    """The files of the folder that begin as all of ours do."""
    paths = (f"{setting['path']}/{name}" for name in sorted(names_in(host.path(setting["path"]))))
    return [path for path in paths if (host.read(path) or b"").startswith(HEADER)]


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """The folder with files of ours, which stays while something else has a daemon look there."""
    if not _ours(setting, host):
        return Left()
    if setting["path"] in json.dumps(run.wanted, default=str):
        return Left(setting["path"], "a control that is not waived names it")
    return in_file(setting["path"], setting["path"], host)


def take_back(waived: List[Setting], wanted: List[Setting], host: Host) -> None:
    """Remove what is ours of it."""
    for path in (path for setting in waived for path in _ours(setting, host)):
        host.remove(path)


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, enforced_by="engine", enforce=enforce, owned=Owned(left, take_back)
)
