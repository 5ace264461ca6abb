"""Files of Casemate's own that nothing asks for any more: another level or role was chosen, a release renamed one.

It comes before all other kinds. In check mode they judge the host as it is once these files are gone, as in apply.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat as statmod
from collections.abc import Collection
from typing import Annotated, Callable, Dict, List, Set, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..formats import sshd_daemon
from ..formats.sshd_files import FOLDER as SSHD_FOLDER
from ..host.machine import EnforceError, Host
from .kind import Enforceable, Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    paths: Annotated[list[str], Key("patterns of the names that our files have, in the folders where they lie")]
    asked: Annotated[list[str], Key("files that belong there: those of all controls of this host, and the guard's")]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind may demand."""

    unit: Annotated[str, Key("unit that reads these folders when it starts")]


HEADER = re.compile(rb"\s*(#|//) Managed by Casemate\b")
"""How every such file begins; what lacks it is somebody else's, whatever its name."""
TEMPORARY = re.compile(r"\.casemate-\w{8}")
"""A file that `Host.write` has not given its name yet: no daemon reads it, and another run may be at it."""


def identity(setting: Setting) -> str:
    """One control for a set of folders."""
    return str(setting["paths"][0])


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """For each setting: our files that nothing asks for, others of such a name, and whether some went in this pass."""
    seen = []
    for setting in settings:
        ours, others = [], []
        for path in _unasked(setting, host):
            if not _is_ours(path, host):
                others.append(f"{path} is named like a file of Casemate's and is none: rename it or move it away")
            elif host.barred(path):
                others.append(host.barred(path))
            else:
                ours.append(path)
        removed = [change["path"] for change in host.changes if not change["after"]]
        gone = any(fnmatch.fnmatchcase(path, pattern) for path in removed for pattern in setting["paths"])
        runs = "unit" in setting and host.started(setting["unit"]) is not None
        seen.append({"ours": ours, "others": others, "restart": runs and bool(ours or gone)})
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that nothing is left. A unit that has read what goes is stale until it starts again."""
    ours, others = seen["ours"], seen["others"]
    said = [f"no control asks for {', '.join(ours)} any more"] if ours else []
    return Verdict(
        ok=not (ours or others),
        expected="nothing",
        observed=", ".join([*ours, *others]) or "nothing",
        reason="; ".join([*said, *others]),
        evidence=", ".join(setting["paths"]),
        where=(*ours, *(other.split(" ")[0] for other in others)),
        stale=(setting["unit"],) if seen["restart"] else (),
        blocked_by="; ".join(others),
        still_enforced=bool(ours),
        todo=ours,
    )


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Remove them, and have their folder read again by what reads it; one refusal does not stop the others."""
    refused, folders = [], set()
    for path in (path for i in sorted(failing) for path in _unasked(settings[i], host)):
        try:
            if _is_ours(path, host) and not host.barred(path):
                host.remove(path)
                folders.add(os.path.dirname(path))
        except (EnforceError, OSError) as error:
            refused.append(str(error))
    for folder in sorted(folders & set(READERS)):
        try:
            READERS[folder](host)
        except EnforceError as error:
            refused.append(str(error))
    if refused:
        raise EnforceError("; ".join(refused))


def _unasked(setting: Setting, host: Host) -> List[str]:
    found = {path for pattern in setting["paths"] for path in host.glob(pattern, hidden=True)}
    there = sorted(found - set(setting["asked"]))
    return [path for path in there if not TEMPORARY.fullmatch(os.path.basename(path))]


def _is_ours(path: str, host: Host) -> bool:
    """Whether it is a regular file, no link to one, that begins as all of ours do."""
    seen = host.stat(path)
    return seen is not None and statmod.S_ISREG(seen.st_mode) and bool(HEADER.match(host.read(path) or b""))


READERS: Dict[str, Callable[[Host], None]] = {
    SSHD_FOLDER: sshd_daemon.reread,
    "/etc/systemd/journald.conf.d": lambda host: host.must_run(["systemctl", "restart", "systemd-journald.service"]),
    "/etc/systemd/system": lambda host: host.must_run(["systemctl", "daemon-reload"]),
}
"""Folder -> how what reads it does so again. K3s is restarted by its role; the others are read when they are needed."""


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    places=lambda setting: setting["paths"],
    removes=lambda acts_on: acts_on,
)
