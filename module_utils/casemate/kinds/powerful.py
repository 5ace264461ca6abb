"""Programs that run with other rights than those of whoever starts them, and where on a host they can be one.

Sources: execve(2), capabilities(7), mount(8) (nosuid), proc(5) (mountinfo).
"""

from __future__ import annotations

import os
import stat as statmod
from collections.abc import Iterator

from ..host.files import mount_points, names_in, stat_of
from ..host.machine import Host


def is_powerful(real: str, found: os.stat_result) -> bool:
    """Whether a file is setuid, setgid or capable, and a program."""
    if not statmod.S_ISREG(found.st_mode) or not found.st_mode & 0o111:
        return False
    if found.st_mode & (statmod.S_ISUID | statmod.S_ISGID):
        return True
    try:
        return "security.capability" in os.listxattr(real, follow_symlinks=False)
    except OSError:
        return False


def everywhere(folder: str, host: Host) -> Iterator[str]:
    """Such programs in a folder and below it, on every mount where such rights count and that others than root reach.

    The files of containers lie in folders that only root gets into: there nobody gains anything by them.
    """
    mounts = mount_points(host.text("/proc/self/mountinfo") or "") if host.root == "/" else set()
    begins = {folder, *(place for place in mounts if f"{place}/".startswith(f"{folder.rstrip('/')}/"))}
    seen: set[tuple[int, int]] = set()
    for begin in sorted(begins):
        if not any(is_closed(host.path(one)) for one in above(begin)):
            yield from _below(begin, host, seen)


def _below(folder: str, host: Host, seen: set[tuple[int, int]]) -> Iterator[str]:
    real = host.path(folder)
    here = stat_of(real)
    if here is None or not statmod.S_ISDIR(here.st_mode) or (here.st_dev, here.st_ino) in seen or is_closed(real):
        return
    seen.add((here.st_dev, here.st_ino))
    try:
        if os.statvfs(real).f_flag & os.ST_NOSUID:
            return
    except OSError:
        return
    for name in names_in(real):
        path = f"{folder.rstrip('/')}/{name}"
        found = stat_of(host.path(path))
        if found is None:
            continue
        if statmod.S_ISDIR(found.st_mode):
            if found.st_dev == here.st_dev:  # what is mounted there begins of its own
                yield from _below(path, host, seen)
        elif is_powerful(host.path(path), found):
            yield path


def above(path: str) -> list[str]:
    """The folders on the way to a path, without itself."""
    parts = path.strip("/").split("/")
    return ["/" + "/".join(parts[:count]) for count in range(len(parts))]


def is_closed(real: str) -> bool:
    """Whether nobody but root gets into a folder."""
    seen = stat_of(real)
    if seen is None or seen.st_uid != 0:
        return False
    return not seen.st_mode & 0o001 and (seen.st_gid == 0 or not seen.st_mode & 0o010)
