"""Files that everybody may change, and files of nobody. Observe-only, and expensive: it walks the host's file systems.

What lies in folders that only root enters is left out, for there nobody gains anything by it, and so are the files of
containers and volumes. Sources: chmod(2) (the sticky bit), subuid(5).
"""

from __future__ import annotations

import grp
import os
import pwd
import stat as statmod
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Dict, List, Literal, Set, Tuple, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host.accounts import passwd
from ..host.files import names_in, stat_of
from ..host.machine import Host
from ..host.text import split_lines
from .kind import Kind
from .mount_option import unescape
from .powerful import above, is_closed


class Setting(TypedDict):
    """What a control of this kind demands."""

    of: Annotated[Literal["world_writable", "unowned"], Key("what is looked for")]
    skipped: Annotated[List[str], Key("folders that are not entered: file systems of the kernel, of containers")]


DISKS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "tmpfs", "overlay", "vfat")
"""Types of file systems that are walked: those of other machines are judged there."""
MOST = 200
"""Findings after which a walk ends: whoever has more begins with these."""
REMEDY = {
    "world_writable": "by hand: chmod o-w PATH, or for a folder of everybody's chmod +t PATH",
    "unowned": "by hand: chown root:root PATH, or remove it",
}


def identity(setting: Setting) -> str:
    """One control for a sort of file."""
    return setting["of"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """What lies anywhere, for each setting; one walk for all with the same folders left out."""
    known = _known(host) if any(setting["of"] == "unowned" for setting in settings) else (set(), set(), [])
    walks: Dict[Tuple[str, ...], Dict[str, List[str]]] = {}
    for setting in settings:
        walks.setdefault(tuple(setting["skipped"]), {})[setting["of"]] = []
    for skipped, found in walks.items():
        for path, seen in _everywhere(skipped, host):
            if "world_writable" in found and len(found["world_writable"]) < MOST and _is_loose(seen):
                found["world_writable"].append(path)
            if "unowned" in found and len(found["unowned"]) < MOST and not _is_owned(seen, *known):
                found["unowned"].append(path)
            if all(len(paths) >= MOST for paths in found.values()):
                break
    return [{"found": walks[tuple(setting["skipped"])][setting["of"]]} for setting in settings]


def _everywhere(skipped: Collection[str], host: Host) -> Iterator[Tuple[str, os.stat_result]]:
    """Everything on the disks of this machine that others than root get to, with what it is like."""
    mounts = _disks(host.text("/proc/self/mountinfo") or "") if host.root == "/" else set()
    for begin in sorted(mounts | {"/"}):
        if any(f"{begin}/".startswith(f"{folder}/") for folder in skipped):
            continue
        if not any(is_closed(host.path(folder)) for folder in [*above(begin), begin]):
            yield from _below(begin, skipped, host)


def _disks(mountinfo: str) -> Set[str]:
    """Where a file system of this machine is mounted, of /proc/self/mountinfo (proc(5))."""
    fields = [line.split(" ") for line in split_lines(mountinfo)]
    return {unescape(one[4]) for one in fields if "-" in one[:-1] and one[one.index("-") + 1] in DISKS}


def _below(folder: str, skipped: Collection[str], host: Host) -> Iterator[Tuple[str, os.stat_result]]:
    """Everything of one file system below a folder, with what it is like."""
    here = stat_of(host.path(folder))
    if here is None or not statmod.S_ISDIR(here.st_mode):
        return
    waiting = [folder]
    while waiting:
        inside = waiting.pop()
        for name in names_in(host.path(inside)):
            path = f"{inside.rstrip('/')}/{name}"
            seen = stat_of(host.path(path))
            if seen is None or seen.st_dev != here.st_dev or path in skipped:
                continue
            yield path, seen
            if statmod.S_ISDIR(seen.st_mode) and not is_closed(host.path(path)):
                waiting.append(path)


def _is_loose(seen: os.stat_result) -> bool:
    if statmod.S_ISDIR(seen.st_mode):
        return bool(seen.st_mode & 0o002) and not seen.st_mode & statmod.S_ISVTX
    return statmod.S_ISREG(seen.st_mode) and bool(seen.st_mode & 0o002)


def _known(host: Host) -> Tuple[Set[int], Set[int], List[range]]:
    """(uids, gids, ranges that accounts may give to their containers)."""
    uids = {account.uid for account in passwd(host.text("/etc/passwd") or "")}
    groups = (line.split(":") for line in split_lines(host.text("/etc/group") or ""))
    gids = {int(fields[2]) for fields in groups if len(fields) > 2 and fields[2].isdigit()}
    lines = [line.split(":") for name in ("subuid", "subgid") for line in split_lines(host.text(f"/etc/{name}") or "")]
    given = [(int(f[1]), int(f[2])) for f in lines if len(f) == 3 and f[1].isdigit() and f[2].isdigit()]
    return uids, gids, [range(first, first + count) for first, count in given]


def _is_owned(seen: os.stat_result, uids: Set[int], gids: Set[int], given: List[range]) -> bool:
    """Whether a file's owner and group have names; those of a directory service count, which only libc knows."""
    if any(seen.st_uid in ids for ids in given) and any(seen.st_gid in ids for ids in given):
        return True
    return _is_known(seen.st_uid, uids, pwd.getpwuid) and _is_known(seen.st_gid, gids, grp.getgrgid)


def _is_known(number: int, local: Set[int], ask: Any) -> bool:
    if number in local:
        return True
    try:
        ask(number)
    except KeyError:
        return False
    local.add(number)
    return True


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that there is none."""
    found = seen["found"]
    more = f"; the walk ended after {MOST}" if len(found) >= MOST else ""
    reason = f"{several(found)}{more}; {REMEDY[setting['of']]}" if found else ""
    return Verdict(
        ok=not found,
        expected="nothing",
        observed=found or "nothing",
        reason=reason,
        evidence="lstat",
        where=tuple(found),
    )


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, places=lambda setting: ["/"])
