"""Who this run is to others, and whether another run of this machine is over."""

from __future__ import annotations

import multiprocessing
import os
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from casemate.run.account import here
from casemate.run.scratch import is_zombie, started


def process() -> int:
    """The process of this run, for a task of it: that of ansible-playbook, whose workers do the tasks.

    A worker outlives a run that is killed, and must not go on in the name of whoever adopts it: a lock of the machine's
    first process would never be over. Raises RuntimeError there.
    """
    parent = multiprocessing.parent_process()
    if parent is None:  # no worker: Ansible does the task itself
        return os.getpid()
    if parent.pid is None or os.getppid() != parent.pid:
        raise RuntimeError("The run that this task belongs to was killed, so the task does nothing.")
    return parent.pid


def machine() -> str:
    """Where a process number means this process: this boot, and this namespace of processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def holder(process: int, what: str) -> dict[str, Any]:
    """The run of a process, the same whenever it is asked for."""
    since = started(process)
    name = re.sub(r"[^\w@.:-]", "_", f"{here()}@{socket.gethostname()}:{process}", flags=re.ASCII)
    where = machine()
    run = f"{where} {process} {since}"
    return {"run": run, "name": name, "machine": where, "process": process, "started": since, "what": what}


def is_over(record: Mapping[str, Any]) -> bool:
    """Whether the run of a record was one of this machine, and its process has ended."""
    process = record.get("process")
    if record.get("machine") != machine() or not isinstance(process, int):
        return False
    seen = started(process)  # nothing of another user's process where /proc hides it, and on a Mac
    return seen != record.get("started") if seen else not _lives(process)


def answer(action: Any, module: str, given: Mapping[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
    """What a module that takes the lock returns on the host; runs of this machine that are over do not hinder it."""

    def ask(gone: list[str]) -> dict[str, Any]:
        arguments = {**given, "gone": gone}
        return dict(action._execute_module(module_name=module, module_args=arguments, task_vars=task_vars))

    result = past_those_that_are_over(ask)
    result.pop("invocation", None)
    return result


def past_those_that_are_over(ask: Callable[[list[str]], dict[str, Any]]) -> dict[str, Any]:
    """What a module answers that takes the lock, once it knows which runs in its way are over."""
    gone: list[str] = []
    result = ask(gone)
    while result.get("refused") and is_over(result.get("record") or {}) and len(gone) < 2:
        gone.append(result["record"]["run"])  # the file may be another's than the Lease
        result = ask(gone)
    return result


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not is_zombie(process)
