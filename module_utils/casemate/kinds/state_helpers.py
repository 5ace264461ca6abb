"""Programs that the kernel itself starts as root, by its own settings, and who vouches for them.

Sources: core(5), the kernel's sysctl/kernel.rst, binfmt-misc.rst, cgroup-v1/cgroups.rst. In a container most of these
settings are those of the machine around it, which its own files say nothing of.
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Iterator, Mapping, Tuple

from ..core.verdict import Unavailable
from ..core.vouched_for import Stranger
from ..k3s.listed import digest_of
from .vouchers import Known, target_of

BINFMT = "/proc/sys/fs/binfmt_misc"
PLACES = {
    "/proc/sys/kernel/core_pattern": (r"\|\s*(\S+)", "echo core >{}"),
    "/proc/sys/kernel/modprobe": (r"(\S+)", "echo /sbin/modprobe >{}"),
    "/proc/sys/kernel/hotplug": (r"(\S+)", "echo >{}"),
    "/sys/kernel/uevent_helper": (r"(\S+)", "echo >{}"),
    "/proc/sys/kernel/poweroff_cmd": (r"(\S+)", "echo /sbin/poweroff >{}"),
    "/sys/fs/cgroup/release_agent": (r"(\S+)", "echo >{}"),
    "/sys/fs/cgroup/*/release_agent": (r"(\S+)", "echo >{}"),
    f"{BINFMT}/*": (r"enabled\s+interpreter (\S+)", "echo -1 >{}"),
}
"""Where a setting lies -> the program in its text, and how it is taken out."""
DEFAULTS = ("/sbin/modprobe", "/sbin/poweroff")
"""What the kernel starts where nobody says anything: only root can put a program there."""


def strangers(setting: Mapping[str, Any], known: Known) -> Iterator[Stranger]:
    """Settings that name a program for which nobody vouches. Raises Unavailable where all are another machine's."""
    host = known.host
    texts: Dict[str, str] = {}
    found: Dict[str, Tuple[str, str]] = {}
    for pattern, (words, by_hand) in PLACES.items():
        for path in host.glob(pattern):
            if path not in (f"{BINFMT}/register", f"{BINFMT}/status"):
                texts[path] = host.text(path) or ""
                said = re.match(words, texts[path])
                if said:
                    found[path] = (said[1], by_hand.format(path))
    if texts and not any(os.access(host.path(path), os.W_OK) for path in texts):
        raise Unavailable("kernel", "these settings are read-only here: they are those of the machine around this one")
    programs = {program for program, _ in found.values()}
    known.ask({*programs, *(target_of(program, host) for program in programs)}, set())
    for path, (program, by_hand) in found.items():
        if program in DEFAULTS and host.stat(program) is None:
            continue
        why = known.fault(program, {**setting, "names_only": True})
        why = why or ("it is not there" if host.stat(program) is None else "")
        if why:
            told = f"the kernel starts {program} by it: {why}; by hand: {by_hand}"
            yield Stranger(path, told, digest_of(texts[path]))
