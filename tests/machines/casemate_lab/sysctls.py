"""Kernel values of this host that machines of the lab need: set while a lab runs, put back after the last one.

Labs of different people have different caches, but one kernel. So what was there before is kept for the whole host, and
a lab runs as long as its network namespace is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

NEEDED = {
    "vm.overcommit_memory": "1",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
    "fs.inotify.max_user_instances": "1024",
}
"""The kubelet's values with protect-kernel-defaults, which no machine may set; the last is for many nodes."""
KERNEL = Path("/proc/sys")
STATE = Path("/run/casemate-lab")
NAMESPACES = Path("/run/netns")


def set_needed() -> None:
    """Set what machines need, once the namespace of their lab is there."""
    with _locked():
        found = {key: _path(key).read_text().strip() for key in NEEDED}
        if not _saved().exists():
            _saved().write_text(json.dumps(found))
        for key, value in NEEDED.items():
            _path(key).write_text(value)
    changed = [f"{key}={value} (was {found[key]})" for key, value in NEEDED.items() if found[key] != value]
    if changed:
        text = f"set on this host until the last lab is down: {', '.join(changed)}"
        Console(stderr=True, highlight=False).print(text)


def put_back() -> None:
    """Set what was there before the first lab, unless a lab runs."""
    with _locked():
        if not _saved().exists() or any(NAMESPACES.glob("casemate-*")):
            return
        for key, value in json.loads(_saved().read_text()).items():
            _path(key).write_text(value)
        _saved().unlink()
    Console(stderr=True).print("the host's sysctls are as before the first lab")


def _path(key: str) -> Path:
    return KERNEL / key.replace(".", "/")


def _saved() -> Path:
    return STATE / "sysctls.json"


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    STATE.mkdir(mode=0o700, exist_ok=True)
    with (STATE / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
