"""Commands that are links to a verified program, as K3s' install script leaves kubectl, crictl and ctr.

Its rule is kept: where the command is on the PATH already, from another folder, it is left to whoever put it there. A
link is made or turned round; a file that lies in its place is never replaced.
"""

from __future__ import annotations

import functools
import os
import stat as statmod
from collections.abc import Collection
from typing import Annotated, List, Set, TypedDict

from ..core.schema import Key
from ..core.verdict import Left, Observation, Verdict
from ..host.files import replace_link
from ..host.machine import EnforceError, Host
from .kind import Enforceable, Kind, Owned, Pass


class Needed(TypedDict):
    """What every setting of this kind says."""

    path: Annotated[str, Key("absolute path of the link", pattern=r"/\S+")]
    target: Annotated[str, Key("the program, a name in the same folder", pattern=r"[^/\s]+")]


class Setting(Needed, Enforceable):
    """What a control of this kind demands."""


PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/snap/bin")
"""Where people and scanners look for a command; of root and of a login alike."""


def identity(setting: Setting) -> str:
    """One control for each link."""
    return str(setting["path"])


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """What lies at each path, where a link leads to, and where else the command is found."""
    seen = []
    for setting in settings:
        folder, name = os.path.split(setting["path"])
        found, target = host.stat(setting["path"]), ""
        if found is not None and statmod.S_ISLNK(found.st_mode):
            target = os.readlink(host.path(setting["path"]))
        others = [f"{place}/{name}" for place in PATH if place != folder]
        elsewhere = next((path for path in others if os.access(host.path(path), os.X_OK)), "")
        seen.append({"there": found is not None, "target": target, "elsewhere": elsewhere})
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is a link to the program, relative or absolute, or the command of somebody else in another folder."""
    path, expected = setting["path"], f"link to {setting['target']}"
    absolute = f"{os.path.dirname(path)}/{setting['target']}"
    if seen["target"]:
        leads = os.path.normpath(os.path.join(os.path.dirname(path), seen["target"]))
        reason = "" if leads == absolute else f"{path} leads to {leads}, not to {absolute}"
        return Verdict(
            ok=not reason,
            expected=expected,
            observed=expected if not reason else f"link to {leads}",
            reason=reason,
            evidence=path,
        )
    if seen["there"]:
        reason = f"{path} is no link to {absolute} but a file of somebody else, which is not replaced: move it away"
        return Verdict(ok=False, expected=expected, observed="no link", reason=reason, evidence=path, blocked_by=path)
    if seen["elsewhere"]:
        return Verdict(ok=True, expected=expected, observed=f"found as {seen['elsewhere']}", evidence=seen["elsewhere"])
    return Verdict(ok=False, expected=expected, observed="absent", reason=f"{path} is missing", evidence=path)


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Make the links, each by one rename."""
    refused = []
    for path, target in ((settings[i]["path"], settings[i]["target"]) for i in sorted(failing)):
        try:
            found = host.stat(path)
            if found is not None and not statmod.S_ISLNK(found.st_mode):
                raise EnforceError(f"{path} is no link, and is not replaced")
            with host.folder(path, make=True) as folder:
                real = os.path.join(folder, os.path.basename(path))
                before = f"link to {os.readlink(real)}\n" if found else ""
                replace_link(real, functools.partial(os.symlink, target))
            host.changed(path, before, f"link to {target}\n")
        except (EnforceError, OSError) as error:  # one that is refused keeps no other from being made
            refused.append(str(error))
    if refused:
        raise EnforceError("; ".join(refused))


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """A link to our program; one that leads elsewhere, or a file in its place, is somebody else's."""
    path, seen = setting["path"], host.stat(setting["path"])
    if seen is None or not statmod.S_ISLNK(seen.st_mode):
        return Left()
    leads = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(host.path(path))))
    return Left(path if leads == f"{os.path.dirname(path)}/{setting['target']}" else "")


def take_back(waived: List[Setting], wanted: List[Setting], host: Host) -> None:
    """Remove them. No guard keeps a link: it says where a program is and decides nothing."""
    for path in (setting["path"] for setting in waived):
        with host.folder(path) as folder:
            os.unlink(os.path.join(folder, os.path.basename(path)))
        host.changed(path, "link\n", "")


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    owned=Owned(left, take_back, written=lambda setting: setting["path"]),
)
