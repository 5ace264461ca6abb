"""Modules of the kernel that are loaded, and whether the package of the kernel brought them.

A module that was not built with the kernel, or not signed where modules are, taints it (kernel's tainted-modules). One
that is in /sys/module and not in /proc/modules hides itself.
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Iterator, List, Mapping

from ..core.verdict import Unavailable
from ..core.vouched_for import Stranger
from ..host.files import names_in
from ..host.text import split_lines
from ..k3s.listed import digest_of
from .vouchers import Known

TAINTS = {"O": "it was not built with the kernel", "E": "it is not signed", "F": "it was loaded by force"}
FILE = re.compile(r"([^/]+)\.ko(?:\.\w+)?$")


def strangers(setting: Mapping[str, Any], known: Known) -> Iterator[Stranger]:
    """Modules for which nobody vouches. Raises Unavailable where those of the running kernel are not on this host."""
    host, folder = known.host, f"/lib/modules/{os.uname().release}"
    if not host.glob(folder):
        raise Unavailable("modules", "the running kernel's modules are not on this machine")
    listed = {line.split(" ", 1)[0] for line in split_lines(host.text("/proc/modules") or "")}
    there = {name for name in names_in(host.path("/sys/module")) if host.stat(f"/sys/module/{name}/initstate")}
    if not listed | there:
        return
    files: Dict[str, List[str]] = {}
    for line in split_lines(host.text(f"{folder}/modules.dep") or ""):
        path = line.partition(":")[0]
        made = FILE.search(path)
        if made:
            whole = path if path.startswith("/") else f"/usr{folder}/{path}"
            files.setdefault(made[1].replace("-", "_"), []).append(whole)
    known.ask({path for name in listed | there for path in files.get(name, ())}, set())
    for name in sorted(listed | there):
        taint = (host.text(f"/sys/module/{name}/taint") or "").strip()
        faults = [TAINTS[letter] for letter in taint if letter in TAINTS]
        faults += [] if name in listed else ["it hides itself from /proc/modules"]
        brought = any(not known.fault(path, {**setting, "names_only": True}) for path in files.get(name, ()))
        faults += [] if brought else [f"no package brought {', '.join(files.get(name, ())) or 'a file of it'}"]
        if faults:
            version = (host.text(f"/sys/module/{name}/srcversion") or "").strip()
            by_hand = f"by hand: modprobe -r {name}"
            yield Stranger(f"module/{name}", "; ".join([*faults, by_hand]), digest_of([version, sorted(taint)]))
