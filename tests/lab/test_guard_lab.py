"""A change that locks everybody out is undone by the machine itself: controller killed, rebooted, or just failing.

Each story has a machine of its own and they all run at once, because most of their time is the minute in which the
guard waits. What happens on a machine is observed from outside, as on a console; logins only prove who gets in.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from casemate import ROOT
from casemate_lab import for_tests, lab

pytestmark = pytest.mark.lab
NAME, SECONDS = "guardtest", 60
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
GUARD_SECONDS = json.dumps({"k3s_access_guard_seconds": SECONDS})
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

    def __init__(self, inventory: Path, folder: Path, name: str) -> None:
        given = yaml.safe_load(inventory.read_text())["all"]
        self.inventory, self.folder, self.name, self.vars = inventory, folder, name, given["vars"]
        self.address = given["children"]["k3s_agent"]["hosts"][name]["ansible_host"]

    def console(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as root without any login."""
        init = lab._init((lab.load(NAME) or {})["machines"][self.name])
        argv = ["nsenter", f"--target={init}", "--all", "sh", "-c", command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    def root(self, command: str) -> str:
        done = self.console(command)
        assert done.returncode == 0, f"{self.name}: {command}: {done.stderr}"
        return done.stdout.strip()

    def login(self) -> str:
        """What SSH says when it refuses; empty where it admits."""
        argv = [
            *lab.enter(NAME), "ssh", *self.vars["ansible_ssh_common_args"].split(), "-o", "BatchMode=yes",
            "-o", "ConnectTimeout=5", "-o", "ControlPath=none", "-i", self.vars["ansible_ssh_private_key_file"],
            f"ops@{self.address}", "true",
        ]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False, stdin=subprocess.DEVNULL)
        return "" if done.returncode == 0 else done.stderr.strip() or "refused without a word"

    def state(self) -> str:
        """What a guarded change may touch: files, the running daemon's settings, loaded rules."""
        return self.root(f"cat {DROPIN} {TABLE}; sshd -T; nft list ruleset; stat -c %a%U {DROPIN} {TABLE}")

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
        argv = [*lab.enter(NAME), "ansible-playbook", "-i", str(self.inventory), str(path), *options]
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
            lab.reboot(NAME, self.name, hard=hard)


def undone(machine: Machine, before: str) -> None:
    """The guard has had its minute: logins work, and everything is what it was."""
    until(lambda: not machine.login(), SECONDS + 60, "the machine undoes it by itself")
    until(lambda: not machine.pending(), 30, "the revert ends")
    assert machine.state() == before


def killed(machine: Machine, mistake: Mistake) -> None:
    """The controller is killed right after the change: the timer on the host undoes it."""
    before = machine.state()
    machine.lose_controller(mistake)
    undone(machine, before)


def rebooted(machine: Machine, mistake: Mistake) -> None:
    """The power is cut while the timer still has a quarter of an hour: it is the boot that undoes it."""
    before, began = machine.state(), time.monotonic()
    machine.lose_controller(mistake, seconds=900)
    machine.reboot(hard=True)
    assert not machine.login()
    assert machine.state() == before
    assert not machine.pending()
    assert time.monotonic() - began < 600


def refused(machine: Machine, role: str, wrong: dict[str, Any], mistake: Mistake) -> None:
    """The controller lives, and its fresh login fails: one clear message, and the host undoes it all the same."""
    before = machine.state()
    # The operator's own options keep a connection open, under a name that does not tell users apart.
    kept = f"-o ControlMaster=auto -o ControlPersist=60 -o ControlPath={machine.folder}/open-%h"
    options = {**wrong, "k3s_access_guard_seconds": SECONDS, "ansible_ssh_extra_args": kept}
    code, said = machine.run(roles(role), "-e", json.dumps(options))
    assert code != 0
    assert f"The host undoes it by itself within {SECONDS} s" in said
    assert mistake.refusal in said
    undone(machine, before)


def repeated(machine: Machine) -> None:
    """A first run is killed while pending; what the second one finds is not taken for the good state."""
    before = machine.state()
    machine.lose_controller(HARMLESS)
    machine.lose_controller(USERS)
    undone(machine, before)


def resumed(machine: Machine) -> None:
    """A run is killed before it confirms; the next one finds nothing to change, and confirms what is there."""
    good = machine.state()
    machine.root(f"sed -i 's/^maxauthtries .*/maxauthtries 9/' {DROPIN}")
    with machine.half_done({"roles": ["k3s_access"]}, f"grep -q 'maxauthtries 4' {DROPIN}", "-e", GUARD_SECONDS):
        pass
    code, said = machine.run(roles("k3s_access"), "-e", GUARD_SECONDS)
    assert (code, machine.pending()) == (0, False), said
    time.sleep(SECONDS + 15)
    assert machine.state() == good


def confirmed(machine: Machine) -> None:
    """A second run changes, reloads and restarts nothing; a reboot keeps what was confirmed."""
    stamps = "systemctl show -p MainPID -p StateChangeTimestampMonotonic ssh casemate-firewall casemate-guard-revert"
    before, state = machine.root(stamps), machine.state()
    code, said = machine.run(roles("k3s_access", "k3s_firewall"))
    assert (code, "changed=0" in said) == (0, True), said
    assert machine.root(stamps) == before
    machine.reboot(hard=False)
    assert not machine.login()
    assert machine.state() == state


def cut(machine: Machine) -> None:
    """Every seventh prefix of the revert, cut off by a kill and then run again, ends in the confirmed state."""
    script, state = f"{GUARD}/revert", machine.state()
    good = machine.root(f"sha256sum {DROPIN}")
    tasks: list[dict[str, Any]] = []
    for line in range(4, len(machine.root(f"cat {script}").splitlines()) + 1, 7):
        engine = {"controls": {"k3s_access": [sshd("maxsessions", 20 + line)]}, "context": {"guard_seconds": 900}}
        # -x writes one line for each command: the shell dies of it when the reader has seen enough
        then = f"""grep -q "maxsessions {20 + line}" {DROPIN} && test -d {GUARD}/pending || exit 1
            sh -x {script} 2>&1 | head -n {line} >/dev/null
            sh {script} >/dev/null; sha256sum {DROPIN}; ls {GUARD}"""
        tasks += [
            {"k3s_controls": engine},
            {
                "name": f"Cut at {line}",
                "ansible.builtin.shell": then,
                "register": "seen",
                "failed_when": f"seen.rc != 0 or seen.stdout_lines != ['{good}', 'revert', 'reverted']",
            },
        ]
    code, said = machine.run(tasks)
    assert code == 0, said
    assert machine.state() == state


def roles(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "ansible.builtin.include_role": {"name": name}} for name in names]


STORIES: dict[str, Callable[[Machine], None]] = {
    "killed-users": lambda machine: killed(machine, USERS),
    "killed-firewall": lambda machine: killed(machine, WALL),
    "rebooted-users": lambda machine: rebooted(machine, USERS),
    "rebooted-firewall": lambda machine: rebooted(machine, WALL),
    "refused-users": lambda machine: refused(machine, "k3s_access", {"casemate_automation_user": "nobody"}, USERS),
    "refused-firewall": lambda machine: refused(
        machine, "k3s_firewall", {"casemate_admin_sources": ["192.0.2.0/24"]}, WALL
    ),
    "repeated": repeated,
    "resumed": resumed,
    "confirmed": confirmed,
    "cut": cut,
}


@pytest.fixture(scope="module")
def under_way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """All stories under way, on machines with k3s_access and k3s_firewall applied: a state to go back to."""
    folder = tmp_path_factory.mktemp("lab")
    with for_tests.machines(NAME, servers=0, agents=len(STORIES), workdir=folder / "work") as inventory:
        machines = [Machine(inventory, folder, f"agent{i + 1}") for i in range(len(STORIES))]
        code, said = machines[0].run(roles("k3s_access", "k3s_firewall"), hosts="k3s_agent")
        assert code == 0, said
        with ThreadPoolExecutor(len(STORIES)) as pool:
            yield {name: pool.submit(STORIES[name], machine) for name, machine in zip(STORIES, machines, strict=True)}


@pytest.mark.parametrize("story", STORIES)
def test_nobody_is_locked_out(under_way: dict[str, Future[None]], story: str) -> None:
    under_way[story].result()
