"""Machines as a provider hands them over become nodes by three commands: bootstrap, apply, check.

Each machine is a cluster of its own, and its operator has a key, an inventory that `casemate init` wrote, and nothing
else. What happens on a machine is observed from outside, as on a console.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from casemate import ROOT
from casemate_lab import for_tests, handed_over, lab

pytestmark = pytest.mark.lab
NAME = "provider"
ACCOUNT = "john.doe"  # a name as useradd of Debian takes it
CASEMATE = str(Path(sys.executable).with_name("casemate"))
RULE, PENDING = "/etc/sudoers.d/casemate-john_doe", "/var/lib/casemate/guard/pending"
SEEN = f"stat -c '%n %Z %Y' /etc/passwd /etc/shadow {RULE} /home/{ACCOUNT}/.ssh/authorized_keys /var/lib/casemate/guard"


STOP, KEEP = "casemate_other_firewalls: stop", "casemate_other_firewalls: keep"


class Kind(NamedTuple):
    """A machine, who is to come in, and the firewall of a cloud image, if it is one."""

    machine: str
    account: str = ACCOUNT
    firewall: str = ""


MACHINES = {
    "root": Kind("server1"),
    "cloud": Kind("server2", firewall="ufw"),
    "default user": Kind("server3", "debian", "netfilter-persistent"),
    "killed": Kind("server4"),
}
"""What a machine is like, and who is to come in -> what it takes to make it."""
NODES = [how for how in MACHINES if how != "killed"]


class Ended(NamedTuple):
    """How a command ended: its exit code, and what it said."""

    code: int
    said: str


class Operator:
    """Somebody who was given a machine."""

    def __init__(self, how: str, folder: Path, given: dict[str, Any]) -> None:
        self.kind, self.folder = MACHINES[how], folder
        address = given["children"]["k3s_server"]["hosts"][self.kind.machine]["ansible_host"]
        (self.folder / "group_vars").mkdir(parents=True)
        (network,) = given["vars"]["casemate_admin_sources"]
        named = ["--user", self.kind.account, "--admin-source", network]
        made = self.casemate("init", "--server", f"node1={address}", *named)
        assert made.code == 0, made.said
        if self.kind.firewall:
            inventory = self.folder / "hosts.yml"
            inventory.write_text(inventory.read_text().replace("  vars:\n", f"  vars:\n    {STOP}\n"))
        elsewhere = ("ansible_user", "casemate_automation_user", "casemate_admin_sources")
        shared = {name: value for name, value in given["vars"].items() if name not in elsewhere}
        shared |= {"k3s_access_guard_seconds": 60 if how == "killed" else 120}
        for group, values in (("all", shared), ("k3s_server", {})):
            of_lab = yaml.safe_load((ROOT / f"inventory/lab/group_vars/{group}.yml").read_text())
            (self.folder / f"group_vars/{group}.yml").write_text(yaml.safe_dump({**values, **of_lab}))

    def casemate(self, *words: str) -> Ended:
        """Type a command, and wait until it has ended."""
        done = self.starts(*words)
        said, _ = done.communicate(timeout=600)
        return Ended(done.returncode, said)

    def starts(self, *words: str) -> subprocess.Popen[str]:
        """Type a command."""
        inventory = [] if words[0] == "init" else ["-i", "hosts.yml"]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "CASEMATE_"))}
        return subprocess.Popen(
            [*lab.enter(NAME), CASEMATE, *words, *inventory], cwd=self.folder, env=kept, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def console(self, script: str) -> str:
        """What a script says on the machine's console, as root."""
        argv = ["nsenter", f"--target={self.init()}", "--all", "sh", "-c", script]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout

    def init(self) -> int:
        return lab._init((lab.load(NAME) or {})["machines"][self.kind.machine])

    def is_told(self, before: str, after: str, *words: str) -> Ended:
        """How a command ends while the inventory has another line."""
        inventory = self.folder / "hosts.yml"
        kept = inventory.read_text()
        assert before in kept
        inventory.write_text(kept.replace(before, after))
        ended = self.casemate(*words)
        inventory.write_text(kept)
        return ended


def until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def bootstrap_killed(operator: Operator) -> None:
    """Begin it, and kill it with all its processes as soon as the machine has changed."""
    begun = operator.starts("bootstrap")
    until(lambda: operator.console(f"grep -c {ACCOUNT} {RULE}").strip() == "1", 60, "the rule of sudo is written")
    os.killpg(begun.pid, signal.SIGKILL)
    begun.communicate(timeout=30)
    assert operator.console(f"ls -d {PENDING}"), "killed too late to show anything"


@pytest.fixture(scope="module")
def operators() -> Iterator[dict[str, Operator]]:
    with tempfile.TemporaryDirectory(prefix="provider-") as made:
        folder = Path(made)
        with for_tests.machines(NAME, servers=len(MACHINES), agents=0, workdir=folder / "work") as inventory:
            given = yaml.safe_load(inventory.read_text())["all"]
            key = (inventory.parent / "id_ed25519.pub").read_text()
            found = {how: Operator(how, folder / how.replace(" ", "-"), given) for how in MACHINES}
            for operator in found.values():
                if operator.kind.firewall:
                    handed_over.as_cloud_image(operator.init(), key, operator.kind.firewall)
                else:
                    handed_over.by_root(operator.init(), key)
            yield found


@pytest.fixture(scope="module")
def taken_back(operators: dict[str, Operator]) -> Iterator[Future[float]]:
    """A bootstrap that nobody ever starts again, and in how many seconds the machine took it back."""
    operator = operators["killed"]

    def wait() -> float:
        since = time.monotonic()
        until(lambda: not operator.console(f"getent passwd {ACCOUNT}"), 120, "the machine takes it back")
        return time.monotonic() - since

    bootstrap_killed(operator)
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool.submit(wait)


@pytest.fixture(scope="module")
def nodes(operators: dict[str, Operator]) -> Iterator[dict[str, Future[dict[str, Ended]]]]:
    """What the three commands, and a second bootstrap, said of each machine that nobody kills in the end."""

    def made(operator: Operator) -> dict[str, Ended]:
        first = ["--first-user", "debian"] if operator.kind.firewall else []
        ended = {"bootstrap": operator.casemate("bootstrap", *first)}
        before = operator.console(SEEN)
        ended["again"] = operator.casemate("bootstrap")
        ended["seen"] = Ended(int(before != operator.console(SEEN)), before)
        return {**ended, **{verb: operator.casemate(verb) for verb in ("apply", "check")}}

    with ThreadPoolExecutor(max_workers=2) as pool:
        yield {how: pool.submit(made, operators[how]) for how in NODES}
        pool.shutdown(cancel_futures=True)


def test_root_as_the_account_is_refused_with_the_command(operators: dict[str, Operator]) -> None:
    as_root = (f"ansible_user: {ACCOUNT}", "ansible_user: root")
    apply, bootstrap = (operators["root"].is_told(*as_root, verb) for verb in ("apply", "bootstrap"))
    assert (apply.code, bootstrap.code) == (1, 1)
    assert "casemate bootstrap -i hosts.yml" in apply.said
    assert "name the account that is to come in by ansible_user" in bootstrap.said


def test_a_plan_changes_nothing(operators: dict[str, Operator], taken_back: Future[float]) -> None:
    operator = operators["root"]
    planned = operator.casemate("bootstrap", "--plan")
    assert planned.code == 0, planned.said
    assert f"would, as root: make the account {ACCOUNT}" in planned.said
    assert f"let root's key say to come as {ACCOUNT}" in planned.said
    assert not operator.console(f"getent passwd {ACCOUNT}; ls -d {RULE} /var/lib/casemate")


def test_a_cloud_image_says_itself_who_comes_in(operators: dict[str, Operator]) -> None:
    refused = operators["cloud"].casemate("bootstrap")
    assert refused.code == 1, refused.said
    assert "casemate bootstrap --first-user debian" in refused.said


def test_whoever_has_no_way_in_is_told_how_to_name_one(operators: dict[str, Operator]) -> None:
    refused = operators["root"].casemate("bootstrap", "--first-user", "nobody.here")
    assert refused.code == 3, refused.said
    assert f"neither {ACCOUNT} nor nobody.here comes in" in refused.said
    assert "--first-user ACCOUNT" in refused.said


def test_a_firewall_that_would_close_the_node_is_refused(operators: dict[str, Operator]) -> None:
    """Before the first change, and with what has apply switch it off."""
    operator = operators["default user"]
    kept = operator.is_told(STOP, KEEP, "apply")
    assert kept.code == 1, kept.said
    assert "netfilter-persistent is active: rules that are not Casemate's drop whatever they do not admit" in kept.said
    assert f"{STOP} has apply do that with netfilter-persistent" in kept.said
    assert not operator.console("ls -d /etc/casemate")


def test_one_that_was_killed_is_started_again(operators: dict[str, Operator]) -> None:
    operator = operators["root"]
    bootstrap_killed(operator)
    again = operator.casemate("bootstrap")
    assert again.code == 0, again.said
    assert not operator.console(f"ls -d {PENDING}"), "it waits for its confirmation still"
    assert operator.console(f"getent passwd {ACCOUNT}")
    assert f'Please login as the user \\"{ACCOUNT}\\" rather' in operator.console("cat /root/.ssh/authorized_keys")


@pytest.mark.parametrize("how", NODES)
@pytest.mark.parametrize("verb", ["bootstrap", "again", "apply", "check"])
def test_then_it_is_a_node(nodes: dict[str, Future[dict[str, Ended]]], how: str, verb: str) -> None:
    ended = nodes[how].result(timeout=900)
    assert ended[verb].code == 0, ended[verb].said
    if verb == "again":
        assert "comes in and becomes root, so nothing is to be done" in ended[verb].said
        assert ended["seen"].code == 0, "a second bootstrap has changed something"
        assert "/var/lib/casemate/guard" in ended["seen"].said or how == "default user"


@pytest.mark.parametrize("how", ["cloud", "default user"])
def test_the_other_firewall_is_off_now_and_at_the_next_boot(
    operators: dict[str, Operator], nodes: dict[str, Future[dict[str, Ended]]], how: str
) -> None:
    nodes[how].result(timeout=900)
    operator = operators[how]
    assert operator.console(f"systemctl is-enabled {operator.kind.firewall}").strip() == "disabled"
    rules = operator.console("iptables-save; ip6tables-save")
    assert "INPUT DROP" not in rules
    assert "--dport 22" not in rules


def test_the_default_user_of_a_cloud_image_is_no_root_any_more(
    operators: dict[str, Operator], nodes: dict[str, Future[dict[str, Ended]]]
) -> None:
    nodes["cloud"].result(timeout=900)
    operator = operators["cloud"]
    assert "not allowed" in operator.console("sudo -n -l -U debian")
    assert operator.console("sshd -T | grep -i ^passwordauthentication").strip() == "passwordauthentication no"


def test_what_nobody_confirms_is_taken_back_whole(operators: dict[str, Operator], taken_back: Future[float]) -> None:
    assert taken_back.result(timeout=150) < 100
    operator = operators["killed"]
    until(lambda: not operator.console(f"ls -d {PENDING} {PENDING}/../reverting"), 20, "nothing is pending")
    assert not operator.console(f"ls -d /home/{ACCOUNT} {RULE}; getent group {ACCOUNT}")
    assert "Please login" not in operator.console("cat /root/.ssh/authorized_keys")


def test_an_account_that_would_not_get_in_is_taken_back_at_once(
    operators: dict[str, Operator], taken_back: Future[float]
) -> None:
    """With what has to be changed on the host, told before anybody waits for a login that fails."""
    taken_back.result(timeout=150)
    operator = operators["killed"]
    dropin = "/etc/ssh/sshd_config.d/10-provider.conf"
    operator.console(f"echo AllowUsers root >{dropin}; systemctl reload ssh")
    refused = operator.casemate("bootstrap")
    operator.console(f"rm {dropin}; systemctl reload ssh")
    assert refused.code == 1, refused.said
    assert f"sshd's files have AllowUsers root, which leaves out {ACCOUNT}" in refused.said
    assert not operator.console(f"getent passwd {ACCOUNT}; ls -d /home/{ACCOUNT} {RULE} {PENDING}")


def test_what_a_bare_image_lacks_is_installed_first(operators: dict[str, Operator], taken_back: Future[float]) -> None:
    """No module runs without Python. What stands in for apt brings the one that was moved away."""
    taken_back.result(timeout=150)
    operator = operators["killed"]
    stub = 'case "$*" in *install*python3*) mv /usr/bin/python3.away /usr/bin/python3 ;; esac'
    operator.console(
        "mv /usr/bin/python3 /usr/bin/python3.away; "
        f"printf '%s\\n' '#!/bin/sh' '{stub}' >/usr/local/bin/apt-get; chmod 0755 /usr/local/bin/apt-get"
    )
    ended = operator.casemate("bootstrap")
    assert ended.code == 0, ended.said
    assert f"done as root: install python3, make the account {ACCOUNT}" in ended.said
