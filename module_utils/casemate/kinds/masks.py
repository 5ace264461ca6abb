"""Files that take another one of their name away, which systemd and its like read only where none comes before it.

Sources: systemd.unit(5) for the order of its folders, tmpfiles.d(5), sysctl.d(5), modprobe.d(5), udev(7) and
environment.d(5) for that of all others.
"""

from __future__ import annotations

import stat as statmod

from ..host.machine import Host

UNITS = (
    "/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient",
    "/run/systemd/generator.early", "/etc/systemd/system", "/etc/systemd/system.attached", "/run/systemd/system",
    "/run/systemd/system.attached", "/run/systemd/generator", "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system", "/run/systemd/generator.late",
)  # fmt: skip
OTHERS = ("/etc", "/run", "/usr/local/lib", "/usr/lib")
NOWHERE = "/dev/null"


def hidden_by(path: str, host: Host) -> str:
    """The file that is not read because of one of its name at `path`; empty where there is none."""
    folders = UNITS if any(path.startswith(f"{folder}/") for folder in UNITS) else OTHERS
    place = next((index for index, folder in enumerate(folders) if path.startswith(f"{folder}/")), len(folders))
    later = (folder + path[len(folders[place]) :] for folder in folders[place + 1 :])
    return next((other for other in later if _does_something(other, host)), "")


def _does_something(path: str, host: Host) -> bool:
    found = host.stat(path)
    if found is None:
        return False
    return host.link_target(path) != NOWHERE if statmod.S_ISLNK(found.st_mode) else found.st_size > 0
