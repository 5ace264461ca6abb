"""Files as the kernel has them: bytes, flags, ACLs, mounts; nothing here waits for another process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat as statmod
import struct
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Callable

ACL = "system.posix_acl_access"


GETFLAGS = 2 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
"""FS_IOC_GETFLAGS of linux/fs.h, on the machines that K3s runs on."""


IMMUTABLE, APPEND_ONLY = 0x10, 0x20


FLAGS = ((IMMUTABLE, "immutable", "-i"), (APPEND_ONLY, "append-only", "-a"))
"""Flags of chattr(1) that bind root too, and the argument that takes each away."""


def names_in(real: str) -> list[str]:
    """The names in a folder; none where it is no folder, or not there (any more)."""
    try:
        return os.listdir(real)
    except OSError:
        return []


def flags_of(real: str) -> int:
    """The flags of chattr(1) of a file or folder; 0 for what has none, or lies where there are none."""
    seen = stat_of(real)
    if seen is None or not (statmod.S_ISREG(seen.st_mode) or statmod.S_ISDIR(seen.st_mode)):
        return 0
    try:
        handle = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(handle, GETFLAGS, bytes(8))[:4], sys.byteorder)
    except OSError:
        return 0
    finally:
        os.close(handle)


def mount_points(mountinfo: str) -> set[str]:
    """Where something is mounted, of /proc/self/mountinfo (proc(5)), whose escapes are octal."""
    places = (fields[4] for fields in (line.split(" ") for line in mountinfo.split("\n")) if len(fields) > 4)
    return {re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place) for place in places}


def read_file(real: str) -> bytes | None:
    """The bytes of a regular file, or None where there is none; never waits for the other end of a pipe."""
    try:
        with open(real, "rb", opener=lambda p, f: os.open(p, f | os.O_NONBLOCK)) as handle:
            return handle.read() if statmod.S_ISREG(os.fstat(handle.fileno()).st_mode) else None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ProcessLookupError):
        return None


def stat_of(real: str) -> os.stat_result | None:
    """Like lstat, or None where nothing is."""
    try:
        return os.lstat(real)
    except (FileNotFoundError, NotADirectoryError):
        return None


def acl_of(real: str, follow: bool = True) -> bool:
    """Whether there is an ACL that grants access beyond the mode's bits."""
    try:
        return ACL in os.listxattr(real, follow_symlinks=follow)
    except OSError:
        return False  # gone, or a file system without ACLs


def only_roots(folder: str | int) -> bool:
    """Whether nobody but root can put a name into a folder. (An ACL that lets others shows in the group's bits.)"""
    seen = os.stat(folder)
    return seen.st_uid == 0 and not seen.st_mode & 0o022


def copy_context(source: str, target: str) -> None:
    """Keep the security context (and other extended attributes but ACLs) of a file that is replaced."""
    try:
        for name in os.listxattr(source, follow_symlinks=False):
            if name.startswith("security.") and name != "security.capability":
                os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False))
    except OSError:
        return  # no such file yet, or a file system without extended attributes


def copy_whole(source: str, target: str) -> None:
    """Copy a file, or a link itself, with its owner, mode, times and extended attributes, all of it durable."""
    shutil.copyfile(source, target, follow_symlinks=False)
    seen = os.lstat(source)
    os.chown(target, seen.st_uid, seen.st_gid, follow_symlinks=False)  # which takes setuid and capabilities away
    shutil.copystat(source, target, follow_symlinks=False)
    if not statmod.S_ISLNK(seen.st_mode):
        with open(target, "rb") as copied:
            os.fsync(copied.fileno())


@contextlib.contextmanager
def replacing(path: str) -> Iterator[tuple[IO[bytes], str]]:
    """A new file, and its name for now, which takes the name `path` when the block ends, with all of its bytes durable.

    It lies in the same folder, with mode 0600 unless the block gives it another one. Whatever is raised in the block
    leaves what was there, and no trace; whenever this is killed, there is the one file or the other, and none by half.
    """
    handle, temporary = tempfile.mkstemp(prefix=".casemate-", dir=os.path.dirname(path) or ".")
    try:
        with os.fdopen(handle, "wb") as out:
            yield out, temporary
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
    sync_folder(os.path.dirname(path) or ".")


def replace_link(path: str, make: Callable[[str], None]) -> None:
    """Have what `make` puts at the name that it is given, a link of either sort, take the name `path` by one rename."""
    temporary = os.path.join(os.path.dirname(path), ".casemate-link")
    if os.path.lexists(temporary):  # a run was killed here
        os.unlink(temporary)
    make(temporary)
    os.replace(temporary, path)
    sync_folder(os.path.dirname(path))


def sync_folder(folder: str) -> None:
    """Make a rename or removal durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
