"""A change that locks everybody out is undone by the machine itself: controller killed, rebooted, or just failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from casemate import ROOT, lab
from casemate.lab_image import missing_tools

pytestmark = pytest.mark.lab
NAME, HOST = "guardtest", "agent1"
DROPIN, TABLE = "/etc/ssh/sshd_config.d/00-casemate.conf", "/etc/casemate/firewall.nft"
PENDING = "/var/lib/casemate/guard/pending"
COMMON = {
    "title": "A mistake", "why": "Nobody means to do this.", "severity": "low", "level": "baseline",
    "applies_to": ["node"], "mitigations": ["T1.4"],
}  # fmt: skip
LOCKOUT = {**COMMON, "id": "SSH-USERS-WRONG", "setting": {"kind": "sshd", "key": "allowusers", "value": "nobody"}}
SHUT = """add table inet casemate
delete table inet casemate
table inet casemate {
	chain input {
		type filter hook input priority filter - 5; policy drop;
	}
}
"""
WALL = {**COMMON, "id": "FW-ALL-SHUT", "setting": {"kind": "nft", "ruleset": SHUT}}


class Lab:
    """One machine, reached by logins that always start anew."""

    def __init__(self, inventory: Path, folder: Path) -> None:
        given = yaml.safe_load(inventory.read_text())["all"]
        self.inventory, self.folder, self.vars = inventory, folder, given["vars"]
        self.address = given["children"]["k3s_agent"]["hosts"][HOST]["ansible_host"]

    def ssh(self, command: str = "true") -> subprocess.CompletedProcess[str]:
        argv = [
            *lab.enter(NAME), "ssh", *self.vars["ansible_ssh_common_args"].split(), "-o", "BatchMode=yes",
            "-o", "ConnectTimeout=3", "-o", "ControlPath=none", "-i", self.vars["ansible_ssh_private_key_file"],
            f"ops@{self.address}", command,
        ]  # fmt: skip
        return subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)

    def open(self) -> bool:
        return self.ssh().returncode == 0

    def root(self, command: str) -> str:
        done = self.ssh(f"sudo sh -c '{command}'")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def play(self, tasks: list[dict[str, Any]], *options: str) -> subprocess.Popen[str]:
        """Start a playbook in a session of its own, so that all of it can be killed at once."""
        play = {"hosts": HOST, "gather_facts": False, "become": True, "tasks": tasks}
        play["vars_files"] = [str(ROOT / "playbooks/group_vars/all.yml")]
        path = self.folder / f"play-{time.monotonic_ns()}.yml"
        path.write_text(json.dumps([play]))
        argv = [*lab.enter(NAME), "ansible-playbook", "-i", str(self.inventory), str(path), *options]
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        env["PATH"] = f"{ROOT / '.venv/bin'}:{env['PATH']}"
        return subprocess.Popen(
            argv, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def run(self, tasks: list[dict[str, Any]], *options: str) -> str:
        running = self.play(tasks, *options)
        said = running.communicate(timeout=300)[0]
        assert running.returncode == 0, said
        return said

    def role(self, name: str) -> list[dict[str, Any]]:
        return [{"name": name, "ansible.builtin.include_role": {"name": name}}]

    def mistake(self, control: dict[str, Any], seconds: int = 60) -> subprocess.Popen[str]:
        """Apply one control and then hang, as a controller does that loses its network."""
        engine = {"controls": {"k3s_access": [control]}, "context": {"guard_seconds": seconds}}
        return self.play([{"name": "Mistake", "k3s_controls": engine}, {"ansible.builtin.pause": {"seconds": 600}}])


def until(condition: Any, seconds: int, what: str) -> float:
    """Wait for a condition; return how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        time.sleep(1)
    return time.monotonic() - began


def kill(running: subprocess.Popen[str]) -> None:
    """End a controller as a power cut does."""
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab machine with the roles k3s_access and k3s_firewall applied, so that there is a state to go back to."""
    if os.geteuid() != 0:
        pytest.skip("lab: only root can start machines")
    if fault := missing_tools():
        pytest.skip(f"lab: {fault}")
    folder = tmp_path_factory.mktemp("lab")
    inventory = lab.up(NAME, servers=0, agents=1, workdir=folder / "work")
    try:
        made = Lab(inventory, folder)
        made.run(made.role("k3s_access") + made.role("k3s_firewall"))
        yield made
    finally:
        lab.down(NAME)


@pytest.fixture
def same(machine: Lab) -> Iterator[Lab]:
    """The machine; after the test its files, live settings and rules must be what they were before."""

    def state() -> str:
        return machine.root(f"cat {DROPIN} {TABLE}; sshd -T; nft list ruleset; stat -c %a%U {DROPIN} {TABLE}")

    before = state()
    yield machine
    assert state() == before
    assert "gone" in machine.root(f"test -e {PENDING} || echo gone")


@pytest.mark.parametrize("control", [LOCKOUT, WALL], ids=["users", "firewall"])
def test_it_undoes_a_lockout_when_the_controller_is_killed(same: Lab, control: dict[str, Any]) -> None:
    running = same.mistake(control)
    until(lambda: not same.open(), 60, "the mistake locks us out")
    kill(running)
    assert not same.open()
    until(same.open, 90, "the machine undoes it by itself")


def test_a_reboot_does_not_save_a_lockout(same: Lab) -> None:
    running = same.mistake(LOCKOUT, seconds=900)
    until(lambda: not same.open(), 60, "the mistake locks us out")
    kill(running)
    before = time.monotonic()
    lab.reboot(NAME, HOST, hard=True)
    assert same.open()
    assert time.monotonic() - before < 300, "it was the boot that undid it, not the timer"


def test_a_failed_login_is_one_clear_message(same: Lab) -> None:
    wrong = json.dumps({"__k3s_access_controls": [LOCKOUT], "k3s_access_guard_seconds": 60})
    running = same.play(same.role("k3s_access"), "-e", wrong)
    said = running.communicate(timeout=120)[0]
    assert running.returncode != 0
    assert "The host undoes it by itself within 60 s" in said
    assert not same.open()
    until(same.open, 90, "the machine undoes it by itself")


def test_a_second_run_keeps_the_confirmed_backup(same: Lab) -> None:
    """The first run is killed while pending; what the second one backs up is not taken for the good state."""
    other = {**LOCKOUT, "setting": {"kind": "sshd", "key": "maxsessions", "value": 3}}
    running = same.mistake(other)
    until(lambda: same.root(f"grep -c maxsessions.3 {DROPIN} || true") == "1", 60, "the first change")
    kill(running)
    running = same.mistake(LOCKOUT)
    until(lambda: not same.open(), 60, "the second change locks us out")
    kill(running)
    until(same.open, 90, "the machine goes back to the confirmed state")


def test_a_confirmed_change_stays(machine: Lab) -> None:
    """A second run changes, reloads and restarts nothing; a reboot keeps what was confirmed."""
    roles = machine.role("k3s_access") + machine.role("k3s_firewall")
    stamps = "systemctl show -p MainPID -p StateChangeTimestampMonotonic ssh casemate-firewall casemate-guard-revert"
    before = machine.root(stamps)
    assert "changed=0" in machine.run(roles)
    assert machine.root(stamps) == before
    lab.reboot(NAME, HOST)
    assert "changed=0" in machine.run(roles)
    assert "policy drop" in machine.root("nft list table inet casemate")


def test_it_may_be_killed_anywhere(machine: Lab) -> None:
    """Every prefix of the revert, cut off by a kill and then run again, ends in the confirmed state."""
    script = "/var/lib/casemate/guard/revert"
    confirmed = machine.root(f"sha256sum {DROPIN}")
    lines = int(machine.root(f"wc -l < {script}"))
    for cut in range(4, lines + 1, 3):
        machine.run(
            [
                {"k3s_controls": {"controls": {"k3s_access": [{**LOCKOUT, "setting": {
                    "kind": "sshd", "key": "maxsessions", "value": 3 + cut}}]}, "context": {"guard_seconds": 900}}},
                # -x writes one line for each command: the shell dies of it when the reader has seen enough
                {"ansible.builtin.shell": f"sh -x {script} 2>&1 | head -n {cut} >/dev/null; true"},
                {"ansible.builtin.command": f"sh {script}"},
            ]
        )  # fmt: skip
        assert machine.root(f"sha256sum {DROPIN}") == confirmed, f"cut at {cut}"
    assert "gone" in machine.root(f"test -e {PENDING} || echo gone")
