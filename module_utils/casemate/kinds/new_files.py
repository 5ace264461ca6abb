"""Folders in which whatever another program makes is its owner's alone, whichever mode that program asks for.

The folder's default ACL says so, and the kernel goes by it in place of the umask (acl(5), "object creation and default
ACLs"): no file is open for a moment, and nobody has to come after the program to restrict it.
"""

from __future__ import annotations

import errno
import os
import stat as statmod
import struct
from collections.abc import Collection
from typing import Annotated, List, Set, TypedDict

from ..core.schema import Key
from ..core.verdict import Left, Observation, Unavailable, Verdict
from ..host.machine import EnforceError, Host
from .kind import Enforceable, Kind, Owned, Pass


class Needed(TypedDict):
    """What every setting of this kind says."""

    path: Annotated[str, Key("absolute path of the folder", pattern=r"/\S+")]


class Setting(Needed, Enforceable):
    """What a control of this kind demands."""


ACL = "system.posix_acl_default"
VERSION, ENTRY, NOBODY = struct.pack("<I", 2), struct.Struct("<HHI"), 0xFFFFFFFF
OWNER, GROUP, OTHERS = 0x01, 0x04, 0x20
"""posix_acl_xattr_header and _entry, and tags of entries (linux/posix_acl_xattr.h, linux/posix_acl.h)."""
PRIVATE = VERSION + b"".join(ENTRY.pack(tag, 0o7 if tag == OWNER else 0, NOBODY) for tag in (OWNER, GROUP, OTHERS))
EXPECTED = "new files are their owner's alone"


def identity(setting: Setting) -> str:
    """One control for each folder."""
    return str(setting["path"])


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """Whether each folder is there, and what its default ACL lets others than the owner do with what is made in it."""
    seen = []
    for setting in settings:
        found = host.stat(setting["path"])
        there = found is not None and statmod.S_ISDIR(found.st_mode)
        seen.append({"there": there, "lets": _lets(host.path(setting["path"])) if there else ""})
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is a default ACL that gives nothing to others."""
    path = setting["path"]
    if not seen["there"]:
        raise Unavailable("k3s", f"{path} is no folder: K3s has not run here")
    reason = f"{path}: {seen['lets']}" if seen["lets"] else ""
    return Verdict(
        ok=not reason, expected=EXPECTED, observed=seen["lets"] or EXPECTED, reason=reason, evidence=f"getfacl {path}"
    )


def _lets(real: str) -> str:
    """What keeps new files from being their owner's alone; nothing where they are."""
    try:
        acl = os.getxattr(real, ACL, follow_symlinks=False)
    except OSError as lacking:
        known = lacking.errno != errno.EOPNOTSUPP
        return "their modes are what is asked for" if known else "its file system knows no ACLs"
    others = [perm for tag, perm, _ in ENTRY.iter_unpack(acl[len(VERSION) :]) if tag != OWNER]
    return "its default ACL gives others access" if any(others) else ""


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Set the default ACLs. What is in a folder already stays as it is: other controls judge that."""
    refused = []
    for path in (settings[i]["path"] for i in sorted(failing)):
        try:
            with host.folder(f"{path}/any") as folder:
                os.setxattr(folder, ACL, PRIVATE)
            host.changed(path, "no such default acl\n", f"default acl: {EXPECTED}\n")
        except OSError as error:  # one that is refused keeps no other from being set
            refused.append(f"{path}: {error.strerror}")
    if refused:
        raise EnforceError("; ".join(refused))


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """A default ACL as ours; another one is somebody else's."""
    try:
        acl = os.getxattr(host.path(setting["path"]), ACL, follow_symlinks=False)
    except OSError:
        return Left()
    return Left(setting["path"] if acl == PRIVATE else "")


def take_back(waived: List[Setting], wanted: List[Setting], host: Host) -> None:
    """Remove them."""
    for path in (setting["path"] for setting in waived):
        with host.folder(f"{path}/any") as folder:
            os.removexattr(folder, ACL)
        host.changed(path, f"default acl: {EXPECTED}\n", "no default acl\n")


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, enforced_by="engine", enforce=enforce, owned=Owned(left, take_back)
)
