"""Processes as the kernel tells of them: who has an open socket, which program it is, and which unit started it.

Sources: proc(5), cgroups(7), namespaces(7).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable, Set
from typing import Dict, Iterator, List, NamedTuple

from .files import names_in
from .machine import Host

UNIT = re.compile(r"/([^/\n]+\.(?:service|scope))(?=/|$)", re.MULTILINE)
"""In a path of a control group. The first one is the system's; those below it are of whoever it was given to."""
SYSTEMD = re.compile(r"^(?:0:|\d+:name=systemd):(.*)$", re.MULTILINE)
SLICE = re.compile(r"/user-(\d+)\.slice(?:/|$)", re.MULTILINE)
"""The slice in which logind runs the sessions of one account."""
INSIDE = re.compile(r"(?:/(?:kubepods|docker|lxc|machine)(?:[./:-]|$)|/system\.slice/docker-).*", re.MULTILINE)
"""Of a path of a control group what a kubelet, or another manager of containers, keeps for one; the rest is its own.

Only below the group of this system: it may be a container itself, of somebody whose groups it sees.
"""
LINE = re.compile(r"^(\d+:[^:]*):(/.*)$", re.MULTILINE)
"""A hierarchy of control groups, and a path in it."""
GONE = " (deleted)"
ANCESTORS = 8
"""How many parents of a process are looked at."""


class Process(NamedTuple):
    """One process. `gone` says that its program's file was removed or replaced; times are seconds since the epoch."""

    pid: int
    parent: int
    program: str
    gone: bool
    unit: str
    began: float


def of(pid: int, host: Host) -> Process:
    """What there is to know of a process; of one that has ended by now, nothing."""
    program, group = link(f"/proc/{pid}/exe", host), groups(pid, host)
    told = (host.text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    parent, ticks = (int(told[1]), int(told[19])) if len(told) > 19 else (0, 0)
    units = UNIT.search("\n".join(SYSTEMD.findall(group)))
    began = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    gone = program.endswith(GONE)
    return Process(pid, parent, program[: -len(GONE)] if gone else program, gone, units[1] if units else "", began)


def groups(pid: int | str, host: Host) -> str:
    """The control groups of a process as /proc/PID/cgroup has them, with paths below the group of this system.

    A system that is a container without a cgroup namespace, as older LXC makes them, sees the groups of its host, and
    so all of its processes in a container: what the first process is in, is the system's own group.
    """
    own = host.cached("control groups of the system", lambda: dict(LINE.findall(host.text("/proc/1/cgroup") or "")))

    def below(line: re.Match[str]) -> str:
        top = re.sub(r"/(?:init\.scope)?$", "", own.get(line[1], ""))
        is_below = f"{line[2]}/".startswith(f"{top}/")
        return f"{line[1]}:{line[2][len(top) :] or '/' if is_below else line[2]}"

    return LINE.sub(below, host.text(f"/proc/{pid}/cgroup") or "")


def in_container(pid: int | str, host: Host) -> bool:
    """Whether a process is of a container on this system, such as a pod."""
    return bool(INSIDE.search(groups(pid, host)))


def above(process: Process, host: Host) -> Iterator[Process]:
    """Its parents, the nearest first."""
    for _ in range(ANCESTORS):
        if process.parent < 1:
            return
        process = of(process.parent, host)
        yield process


def having(inodes: Set[str], host: Host) -> Dict[str, List[int]]:
    """Inode of a socket -> the processes that have it open.

    Those of other network namespaces, as pods have them, are asked last: they seldom have a socket of this one.
    """
    here = link("/proc/self/ns/net", host)
    pids = [int(name) for name in names_in(host.path("/proc")) if name.isdigit()]
    others = [pid for pid in pids if link(f"/proc/{pid}/ns/net", host) != here]
    found: Dict[str, List[int]] = {}
    for group in (sorted(set(pids) - set(others)), others):
        for pid in group if set(inodes) - set(found) else ():
            folder = host.path(f"/proc/{pid}/fd")
            for inode in {_inode(f"{folder}/{name}") for name in names_in(folder)} & inodes:
                found.setdefault(inode, []).append(pid)
    return found


def _inode(real: str) -> str:
    try:
        target = os.readlink(real)
    except OSError:
        return ""
    return target[8:-1] if target.startswith("socket:[") else ""


def link(path: str, host: Host) -> str:
    """Where a link of /proc leads to; empty where it cannot be read."""
    try:
        return os.readlink(host.path(path))
    except OSError:
        return ""


def of_users(uids: Set[int], host: Host) -> Dict[int, List[Process]]:
    """Uid -> the processes that run as it, under any of its ids, or that were started in its sessions, root's too.

    A process that has ended and waits for its parent to notice does nothing any more. What runs in a container is
    whatever its image says, and not a person's who has the same number on the host; only root puts something there.
    """
    found: Dict[int, List[Process]] = {}
    for pid in sorted(int(name) for name in names_in(host.path("/proc")) if name.isdigit()):
        status = host.text(f"/proc/{pid}/status") or ""
        ids = {int(one) for line in re.findall(r"(?m)^Uid:(.*)$", status) for one in line.split()}
        group = groups(pid, host)
        slices = {int(one) for one in SLICE.findall(INSIDE.sub("", group))}
        if re.search(r"(?m)^State:\s*Z", status) or (INSIDE.search(group) and not slices & uids):
            continue
        for uid in (ids | slices) & uids:
            found.setdefault(uid, []).append(of(pid, host))
    return found


def kill(running: Iterable[Process]) -> None:
    """End processes at once. One of them that has ended by itself is none of the others' business."""
    for one in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
