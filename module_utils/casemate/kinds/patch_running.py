"""What still runs as it was before its update: a kernel, and programs with libraries that were replaced.

Containers are not looked at: what they run is their images'. Sources: proc(5) (maps), needrestart(1) for the question.
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Iterator, List, Mapping, Tuple

from ..core.verdict import Unavailable
from ..formats.deb_version import older
from ..formats.dpkg_status import known
from ..host import processes
from ..host.files import names_in
from ..host.machine import Host
from ..k3s.services import UNITS

CODE = re.compile(r"(?m)^\S+ ..x\S* \S+ \S+ \d+ +(/(?:usr/(?!local/)|lib|bin/|sbin/)\S*) \(deleted\)$")
"""A mapping of a package's file that is run and whose file has been removed or replaced."""
IMAGE = "linux-image-"
BUILT = re.compile(r"\bDebian (\d\S*)")


def libraries(setting: Mapping[str, Any], host: Host) -> Dict[str, str]:
    """Unit -> what of it runs with files that are there no more, and the command that ends that."""
    found: Dict[str, List[Tuple[int, List[str]]]] = {}
    for pid, paths in _stale(host):
        process = processes.of(pid, host)
        if process.program:
            found.setdefault(process.unit or f"process {pid}", []).append((pid, paths))
    return {unit: _told(unit, stale) for unit, stale in found.items()}


def _stale(host: Host) -> Iterator[Tuple[int, List[str]]]:
    """Processes of this system, and not of a container's, with what they run that is there no more."""
    here = processes.link("/proc/self/ns/pid", host)
    for name in sorted(filter(str.isdigit, names_in(host.path("/proc")))):
        if processes.in_container(name, host) or processes.link(f"/proc/{name}/ns/pid", host) != here:
            continue
        paths = sorted(set(CODE.findall(host.text(f"/proc/{name}/maps") or "")))
        if paths:
            yield int(name), paths


def _told(unit: str, stale: List[Tuple[int, List[str]]]) -> str:
    paths = sorted({path for _, of in stale for path in of})
    more = f" and {len(paths) - 2} more" if len(paths) > 2 else ""
    return f"runs with {', '.join(paths[:2])}{more} as before an update; {_remedy(unit, [pid for pid, _ in stale])}"


def _remedy(unit: str, pids: List[int]) -> str:
    if unit == "init.scope":
        return "by hand: systemctl daemon-reexec"
    if unit == "dbus.service" or unit.startswith("user@"):
        return "it ends with a reboot"
    if unit in UNITS:
        return f"one node after the other: systemctl restart {unit}"
    if unit.endswith(".service"):
        return f"by hand: systemctl restart {unit}"
    return f"it ends when process {', '.join(map(str, pids))} does"


def kernel(setting: Mapping[str, Any], host: Host) -> Dict[str, str]:
    """The running kernel, where a newer one is installed. Raises Unavailable where none is installed."""
    there = {
        package.name[len(IMAGE) :]: package.version
        for package in known(host)
        if package.name.startswith(IMAGE) and host.stat(f"/boot/vmlinuz-{package.name[len(IMAGE) :]}")
    }
    if not there:
        raise Unavailable("modules", "no kernel is installed on this machine; the one that runs is its host's")
    name, built = os.uname().release, BUILT.search(host.text("/proc/version") or "")
    running = built[1] if built else there.get(name, "")
    newest = next(iter(there))
    for one in there:
        newest = one if older(there[newest], there[one]) else newest
    if name in there and (not running or not older(running, there[newest])):
        return {}
    shown = f"{name} {running}".strip()
    return {shown: f"{newest} {there[newest]} is installed and waits for a reboot, after the node was drained"}
