"""A machine on which a guarded change locks people out, seen from its console and by logins that always start anew."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from casemate import ROOT
from casemate_lab import lab

SECONDS = 60
"""The shortest time that the guard waits."""
DROPIN, TABLE = "/etc/ssh/sshd_config.d/00-casemate.conf", "/etc/casemate/firewall.nft"
GUARD = "/var/lib/casemate/guard"
COMMON = {
    "title": "A mistake", "why": "Nobody means to do this.", "severity": "low", "level": "baseline",
    "applies_to": ["node"], "mitigations": ["T1.4"],
}  # fmt: skip
SHUT = """# a mistake
add table inet casemate
delete table inet casemate
table inet casemate {
	chain input {
		type filter hook input priority filter - 5; policy drop;
	}
}
"""
BOOTING = threading.Lock()
"""A lab keeps one state file, so only one machine of it may be started at a time."""


class Mistake(NamedTuple):
    """A control, what shows on the host that it was enforced, and what a login then meets."""

    control: dict[str, Any]
    written: str
    refusal: str


def sshd(key: str, value: Any) -> dict[str, Any]:
    return {**COMMON, "id": "SSH-MISTAKE-MADE", "setting": {"kind": "sshd", "key": key, "value": value}}


USERS = Mistake(sshd("allowusers", "nobody"), f"grep -q 'allowusers nobody' {DROPIN}", "Permission denied (publickey")
WALL = Mistake(
    {**COMMON, "id": "FW-ALL-SHUT", "setting": {"kind": "nft", "ruleset": SHUT}},
    f"grep -q mistake {TABLE}",
    "port 22: Connection timed out",
)
HARMLESS = Mistake(sshd("maxsessions", 3), f"grep -q 'maxsessions 3' {DROPIN}", "")


def until(condition: Callable[[], bool], seconds: int, what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.5)


def below(pid: int) -> list[int]:
    """All processes that descend from one."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed.splitlines())}
    found = [pid]
    for one in found:  # grows while it is read
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


class Machine:
    """A machine of the lab, seen from its console and by logins that always start anew."""

    def __init__(self, lab_name: str, inventory: Path, folder: Path, name: str) -> None:
        given = yaml.safe_load(inventory.read_text())["all"]
        self.lab, self.inventory, self.folder, self.name = lab_name, inventory, folder, name
        self.vars = given["vars"]
        self.address = given["children"]["k3s_agent"]["hosts"][name]["ansible_host"]

    def console(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as root without any login."""
        init = lab._init((lab.load(self.lab) or {})["machines"][self.name])
        argv = ["nsenter", f"--target={init}", "--all", "sh", "-c", command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    def root(self, command: str) -> str:
        done = self.console(command)
        assert done.returncode == 0, f"{self.name}: {command}: {done.stderr}"
        return done.stdout.strip()

    def login(self, command: str = "true") -> str:
        """What SSH, or a command in the login, says when it refuses; empty where it admits."""
        argv = [
            *lab.enter(self.lab), "ssh", *self.vars["ansible_ssh_common_args"].split(), "-o", "BatchMode=yes",
            "-o", "ConnectTimeout=5", "-o", "ControlPath=none", "-i", self.vars["ansible_ssh_private_key_file"],
            f"ops@{self.address}", command,
        ]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False, stdin=subprocess.DEVNULL)
        return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or "refused without a word"

    def state(self) -> str:
        """What a guarded change may touch: files, the running daemon's settings, loaded rules."""
        return self.root(f"cat {DROPIN} {TABLE}; sshd -T; nft list ruleset; stat -c %a%U {DROPIN} {TABLE}")

    def guards_end(self) -> float:
        """When the guard undoes what is pending, in seconds since the epoch."""
        timers = json.loads(self.root("systemctl list-timers -o json casemate-guard-revert.timer"))
        return float(timers[0]["next"]) / 1e6

    def pending(self) -> bool:
        return self.console(f"test -e {GUARD}/pending -o -e {GUARD}/reverting").returncode == 0

    @contextlib.contextmanager
    def play(
        self, tasks: list[dict[str, Any]], *options: str, hosts: str = ""
    ) -> Iterator[tuple[subprocess.Popen[str], Path]]:
        """A playbook in a session of its own, and its log; the end of the block is a power cut of the controller."""
        play = {"hosts": hosts or self.name, "gather_facts": False, "become": True, "tasks": tasks}
        play["vars_files"] = [str(ROOT / "playbooks/group_vars/all.yml")]
        path = self.folder / f"{self.name}-{time.monotonic_ns()}.yml"
        path.write_text(json.dumps([play]))
        argv = [*lab.enter(self.lab), "ansible-playbook", "-i", str(self.inventory), str(path), *options]
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        env["PATH"] = f"{ROOT / '.venv/bin'}:{env['PATH']}"
        with path.with_suffix(".log").open("w") as log:
            # An input of its own: an ssh that stays makes a shared one non-blocking, which Ansible refuses.
            running = subprocess.Popen(
                argv, cwd=ROOT, env=env, text=True, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield running, path.with_suffix(".log")
        finally:
            for pid in [running.pid, *below(running.pid)]:  # Ansible's workers have sessions of their own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            running.wait()

    def run(self, tasks: list[dict[str, Any]], *options: str, hosts: str = "") -> tuple[int, str]:
        """Run a playbook to its end; its exit code, and what it said."""
        with self.play(tasks, *options, hosts=hosts) as (running, log):
            return running.wait(timeout=300), log.read_text()

    @contextlib.contextmanager
    def half_done(self, engine: dict[str, Any], written: str, *options: str) -> Iterator[None]:
        """One engine pass that nobody confirms: its controller dies at the end of the block."""
        tasks: list[dict[str, Any]] = [{"name": "Mistake", "k3s_controls": engine}]
        tasks.append({"ansible.builtin.pause": {"seconds": 600}})
        ended = f"{written} && ! grep -sqx python3 /proc/[0-9]*/comm"
        with self.play(tasks, *options) as (_, log):
            until(lambda: self.console(ended).returncode == 0, 120, f"the engine ends on {self.name}, see {log}")
            assert self.pending()
            yield

    def lose_controller(self, mistake: Mistake, seconds: int = SECONDS) -> None:
        """Apply one control by a controller that dies as soon as the engine has ended on the machine."""
        engine = {"controls": {"k3s_access": [mistake.control]}, "context": {"guard_seconds": seconds}}
        with self.half_done(engine, mistake.written):
            assert mistake.refusal in self.login()
        assert mistake.refusal in self.login(), "a dead controller undoes nothing"

    def reboot(self, hard: bool) -> None:
        with BOOTING:
            lab.reboot(self.lab, self.name, hard=hard)


def roles(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "ansible.builtin.include_role": {"name": name}} for name in names]
