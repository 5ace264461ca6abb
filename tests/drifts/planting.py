"""Change files by hand so that nothing tells later: bytes, mode, owner, times, attributes and folders come back.

The kernel's own date of a change (ctime) does not: no program sets it.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import glob
import os
import stat
import struct
from collections.abc import Iterator
from typing import Any

GET_FLAGS, SET_FLAGS, IMMUTABLE = 0x80086601, 0x40086602, 0x10
"""ioctl_iflags(2)."""
SETUID = struct.pack("<5I", 0x02000001, 1 << 7, 0, 0, 0)
"""CAP_SETUID, permitted and effective, as setcap(8) writes it (vfs_cap_data of linux/capability.h)."""
State = dict[str, Any]


class Tree:
    """The files below a root."""

    def __init__(self, root: str = "/") -> None:
        self.root = root.rstrip("/")

    def real(self, path: str) -> str:
        return self.root + path

    def files(self, *patterns: str) -> list[str]:
        """The regular files that patterns match, hidden ones too, without those behind a link."""
        found = {name for pattern in patterns for name in glob.glob(self.real(pattern))}
        return sorted(name[len(self.root) :] for name in found if stat.S_ISREG(os.lstat(name).st_mode))

    def read(self, path: str) -> bytes:
        with open(self.real(path), "rb") as handle:
            return handle.read()

    def is_powerful(self, path: str) -> bool:
        """Whether whoever runs it gets rights by it already."""
        real = self.real(path)
        powerful = os.lstat(real).st_mode & (stat.S_ISUID | stat.S_ISGID)
        return bool(powerful) or "security.capability" in os.listxattr(real)

    def state(self, path: str) -> State | None:
        """All that can be told of a path; None where nothing lies there."""
        real = self.real(path)
        try:
            seen = os.lstat(real)
        except FileNotFoundError:
            return None
        made: State = {"mode": seen.st_mode, "owner": (seen.st_uid, seen.st_gid), "changed": seen.st_mtime_ns}
        if stat.S_ISLNK(seen.st_mode):
            made["target"] = os.readlink(real)
        else:
            made["attributes"] = {name: os.getxattr(real, name) for name in os.listxattr(real)}
            made["frozen"] = bool(flags(real) & IMMUTABLE)
        if stat.S_ISREG(seen.st_mode):
            made["bytes"] = self.read(path)
        return made

    def above(self, path: str) -> str:
        """The nearest folder above a path that is there."""
        folder = os.path.dirname(path)
        while not os.path.isdir(self.real(folder)):
            folder = os.path.dirname(folder)
        return folder


class LeftBehindError(Exception):
    """Something is not as it was."""


@contextlib.contextmanager
def kept(tree: Tree, path: str) -> Iterator[None]:
    """Whatever is done to a path and its folders is taken back. Raises LeftBehindError where that does not succeed."""
    above = tree.above(path)
    before, folder = tree.state(path), os.stat(tree.real(above))
    first = path[len(above.rstrip("/")) + 1 :].split("/")
    try:
        yield
    finally:
        if tree.state(path) != before:
            restore(tree, path, before)
        made = [os.path.join(above, *first[:depth]) for depth in range(len(first) - 1, 0, -1)]
        for one in made:
            if os.path.isdir(tree.real(one)):
                os.rmdir(tree.real(one))
        os.utime(tree.real(above), ns=(folder.st_atime_ns, folder.st_mtime_ns))
        if tree.state(path) != before:
            raise LeftBehindError(path)


def restore(tree: Tree, path: str, before: State | None) -> None:
    real = tree.real(path)
    there = tree.state(path)
    if there and there.get("frozen"):
        freeze(real, False)
    if before is None or "target" in before or (there and "target" in there):
        if there:
            os.remove(real)
        if before is None:
            return
        if "target" in before:
            os.symlink(before["target"], real)
            os.utime(real, ns=(before["changed"], before["changed"]), follow_symlinks=False)
            return
    if there is None or there.get("bytes") != before["bytes"]:
        overwrite(real, before["bytes"])
    os.chown(real, *before["owner"])
    os.chmod(real, stat.S_IMODE(before["mode"]))
    for name in set(os.listxattr(real)) - set(before["attributes"]):
        os.removexattr(real, name)
    for name, value in before["attributes"].items():
        os.setxattr(real, name, value)
    os.utime(real, ns=(before["changed"], before["changed"]))
    if before["frozen"]:
        freeze(real, True)


def overwrite(real: str, data: bytes) -> None:
    """In place, so that the file stays the same one for whoever has it open."""
    with open(real, "r+b" if os.path.lexists(real) else "wb") as handle:
        handle.write(data)
        handle.truncate()


# --- what is done by hand -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def planted(tree: Tree, path: str, data: bytes, mode: int = 0o644, capability: bytes = b"") -> Iterator[None]:
    """A file that was not there, and its folders."""
    with kept(tree, path):
        os.makedirs(os.path.dirname(tree.real(path)), exist_ok=True)
        with open(tree.real(path), "xb") as handle:
            handle.write(data)
        os.chmod(tree.real(path), mode)
        if capability:
            os.setxattr(tree.real(path), "security.capability", capability)
        yield


@contextlib.contextmanager
def linked(tree: Tree, path: str, target: str, data: bytes | None, mode: int = 0o644) -> Iterator[None]:
    """A link to a file that is made somewhere else, or is there already."""
    made = contextlib.nullcontext() if data is None else planted(tree, target, data, mode)
    with made, kept(tree, path):
        os.makedirs(os.path.dirname(tree.real(path)), exist_ok=True)
        os.symlink(target, tree.real(path))
        yield


@contextlib.contextmanager
def replaced(tree: Tree, path: str, target: str) -> Iterator[None]:
    """A link in the place of a file."""
    with kept(tree, path):
        os.remove(tree.real(path))
        os.symlink(target, tree.real(path))
        yield


@contextlib.contextmanager
def appended(tree: Tree, path: str, data: bytes) -> Iterator[None]:
    with kept(tree, path):
        with open(tree.real(path), "ab") as handle:
            handle.write(data)
        yield


@contextlib.contextmanager
def disguised(tree: Tree, path: str, data: bytes) -> Iterator[None]:
    """Other bytes at the end of a file, which has its size and its time afterwards."""
    seen = os.stat(tree.real(path))
    old = tree.read(path)
    if len(old) <= len(data) or old.endswith(data):
        raise ValueError(f"{path} is too short for it, or has it")
    with kept(tree, path):
        overwrite(tree.real(path), old[: -len(data)] + data)
        os.utime(tree.real(path), ns=(seen.st_atime_ns, seen.st_mtime_ns))
        yield


@contextlib.contextmanager
def marked(tree: Tree, path: str, mode: int = 0, capability: bytes = b"") -> Iterator[None]:
    """More bits of a mode, or a capability."""
    real = tree.real(path)
    with kept(tree, path):
        os.chmod(real, stat.S_IMODE(os.stat(real).st_mode) | mode)
        if capability:
            os.setxattr(real, "security.capability", capability)
        yield


@contextlib.contextmanager
def frozen(tree: Tree, path: str) -> Iterator[None]:
    """As chattr +i does. Raises OSError where the file system knows no such thing."""
    with kept(tree, path):
        freeze(tree.real(path), True)
        yield


def flags(real: str) -> int:
    """The flags of chattr(1) that a file or folder has; none where its file system knows none."""
    found = array.array("l", [0])
    try:
        handle = os.open(real, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return 0
    try:
        fcntl.ioctl(handle, GET_FLAGS, found)
    except OSError:
        return 0
    finally:
        os.close(handle)
    return int(found[0]) & 0xFFFFFFFF


def freeze(real: str, on: bool) -> None:
    now = flags(real)
    handle = os.open(real, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, SET_FLAGS, array.array("l", [now | IMMUTABLE if on else now & ~IMMUTABLE]))
    finally:
        os.close(handle)
