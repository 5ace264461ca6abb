"""What still runs as it was before its update: a kernel, the microcode, and programs with libraries that were replaced.

Containers are not looked at: what they run is their images'. Sources: proc(5) (maps), needrestart(1) for the question;
Linux, Documentation/ABI/testing/sysfs-devices-system-cpu (microcode).
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Iterator, List, Mapping, Tuple

from ..core.verdict import Unavailable
from ..formats import microcode as microcode_files
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
CPUS = "/sys/devices/system/cpu"
FIRMWARE = ("/lib/firmware/updates", "/lib/firmware")
"""Where a kernel looks for microcode; what lies in the first goes before."""


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


def _kernels(host: Host) -> Dict[str, str]:
    """Release -> version of the kernels that are installed. Raises Unavailable where none is: a container has none."""
    there = {
        package.name[len(IMAGE) :]: package.version
        for package in known(host)
        if package.name.startswith(IMAGE) and host.stat(f"/boot/vmlinuz-{package.name[len(IMAGE) :]}")
    }
    if not there:
        raise Unavailable("modules", "no kernel is installed on this machine; the one that runs is its host's")
    return there


def kernel(setting: Mapping[str, Any], host: Host) -> Dict[str, str]:
    """The running kernel, where a newer one is installed. Raises Unavailable where none is installed."""
    there = _kernels(host)
    name, built = os.uname().release, BUILT.search(host.text("/proc/version") or "")
    running = built[1] if built else there.get(name, "")
    newest = next(iter(there))
    for one in there:
        newest = one if older(there[newest], there[one]) else newest
    if name in there and (not running or not older(running, there[newest])):
        return {}
    shown = f"{name} {running}".strip()
    return {shown: f"{newest} {there[newest]} is installed and waits for a reboot, after the node was drained"}


def microcode(setting: Mapping[str, Any], host: Host) -> Dict[str, str]:
    """The processor, where newer microcode lies in the files of the kernel than it runs with.

    In a virtual machine the kernel tells no revision, since the processor is its host's: nothing waits there. Raises
    Unavailable where no kernel is installed, and OSError for a file that holds no microcode.
    """
    _kernels(host)
    running = [int(told, 16) for path in host.glob(f"{CPUS}/cpu[0-9]*/microcode/version") if (told := host.text(path))]
    processor = _processor(host)
    if not running or not processor.file:
        return {}
    path = next((f"{folder}/{processor.file}" for folder in FIRMWARE if host.stat(f"{folder}/{processor.file}")), "")
    try:
        there = microcode_files.newest(processor, host.read(path) or b"") if path else 0
    except ValueError as error:
        raise OSError(f"{path} tells no revision: {error}") from error
    if there <= min(running):
        return {}
    why = f"microcode {there:#x} is installed and waits for a reboot, after the node was drained; where it stays so"
    return {f"processor {min(running):#x}": f"{why}, the firmware of the machine (BIOS) has to be updated first"}


def _processor(host: Host) -> microcode_files.Processor:
    """The first processor; machines have several of one sort."""
    told = dict(re.findall(r"(?m)^(\w[\w ]*?)[ \t]*: (.*)$", (host.text("/proc/cpuinfo") or "").partition("\n\n")[0]))
    family, model, stepping = (int(told.get(name, "0")) for name in ("cpu family", "model", "stepping"))
    flags = int(host.text(f"{CPUS}/cpu0/microcode/processor_flags") or "0", 16)
    return microcode_files.Processor(told.get("vendor_id", ""), family, model, stepping, flags)
