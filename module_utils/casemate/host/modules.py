"""Which kernel modules a machine is using, so that keeping one out would take something away from it.

In use is what the kernel counts as used, a file system that is mounted or that the next boot mounts, and a driver that
a device has. Source: proc(5) for /proc/modules (size, count of uses, users) and mounts, fstab(5), sysfs.
"""

from __future__ import annotations

from typing import Dict, Iterable, Tuple

from .machine import Host
from .text import split_lines, split_words

MOUNTS = (("/proc/self/mounts", "mounted at"), ("/proc/mounts", "mounted at"), ("/etc/fstab", "in /etc/fstab for"))


def uses(names: Iterable[str], host: Host) -> Dict[str, str]:
    """Module (with underscores) -> by what it is used; those that nothing uses are left out."""
    counted, mounted = _counted(host), _mounted(host)
    found = {name: mounted.get(name) or _devices(name, host) or counted.get(name, "") for name in names}
    return {name: by for name, by in found.items() if by}


def _counted(host: Host) -> Dict[str, str]:
    """Loaded module -> who uses it, where the kernel counts any use."""
    made = {}
    for words in map(split_words, split_lines(host.text("/proc/modules") or "")):
        users = ", ".join(filter(None, words[3].split(","))) if len(words) > 3 and words[3] != "-" else ""
        if len(words) > 2 and words[2].isdigit() and int(words[2]) > 0:
            made[words[0]] = f"used by {users}" if users else f"used {words[2]} times"
    return made


def _mounted(host: Host) -> Dict[str, str]:
    """Module of a file system -> where it is mounted, or will be at the next boot."""
    made: Dict[str, str] = {}
    for sort, place in _places(host):
        made.setdefault(sort.replace("-", "_"), place)
    return made


def _places(host: Host) -> Iterable[Tuple[str, str]]:
    for path, how in MOUNTS:
        for words in map(split_words, split_lines(host.text(path) or "")):
            if len(words) > 2 and not words[0].startswith("#"):
                yield from ((sort, f"{how} {words[1]}") for sort in words[2].split(","))


def _devices(name: str, host: Host) -> str:
    """A device that a driver of the module has: its folder there names its driver."""
    has = host.glob(f"/sys/module/{name}/drivers/*/*/driver")
    return f"the driver of {has[0].split('/')[-2]}" if has else ""
