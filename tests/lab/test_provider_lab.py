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
RULE = "/etc/sudoers.d/casemate-john_doe"
PENDING, REVERTING = "/var/lib/casemate/guard/pending", "/var/lib/casemate/guard/reverting"
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

    def sees(self, script: str) -> Ended:
        """The same, as one of the things that a story tells of."""
        return Ended(0, self.console(script))

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


def until(condition: Callable[[], Any], seconds: float, what: str, pause: float = 0.05) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(pause)


def bootstrap_killed(operator: Operator) -> None:
    """Begin it, and kill it with all its processes as soon as the machine has changed."""
    begun = operator.starts("bootstrap")
    until(lambda: operator.console(f"grep -c {ACCOUNT} {RULE}").strip() == "1", 90, "the rule of sudo is written")
    os.killpg(begun.pid, signal.SIGKILL)
    begun.communicate(timeout=30)
    assert operator.console(f"ls -d {PENDING}"), "killed too late to show anything"


def by_root(operator: Operator) -> dict[str, Ended]:
    """Refused as root, planned, killed, and then the three commands."""
    as_root = (f"ansible_user: {ACCOUNT}", "ansible_user: root")
    ended = {f"{verb} as root": operator.is_told(*as_root, verb) for verb in ("apply", "bootstrap")}
    ended["plan"] = operator.casemate("bootstrap", "--plan")
    ended["planned"] = operator.sees(f"getent passwd {ACCOUNT}; ls -d {RULE} /var/lib/casemate")
    ended["nobody"] = operator.casemate("bootstrap", "--first-user", "nobody.here")
    bootstrap_killed(operator)
    return {**ended, **node(operator)}


def of_cloud(operator: Operator) -> dict[str, Ended]:
    """As root first, whose key says otherwise, and then as the default user."""
    ended = {"root": operator.casemate("bootstrap")}
    return {**ended, **node(operator, "--first-user", "debian"), "firewall": firewall(operator)}


def by_default_user(operator: Operator) -> dict[str, Ended]:
    """The firewall is refused first, and then switched off."""
    ended = {"kept": operator.is_told(STOP, KEEP, "apply"), "untouched": operator.sees("ls -d /etc/casemate")}
    return {**ended, **node(operator), "firewall": firewall(operator)}


def killed(operator: Operator) -> dict[str, Ended]:
    """Nobody starts it again, until the machine has taken it back; then sshd admits root alone, and Python lacks."""
    bootstrap_killed(operator)
    left = f"getent passwd {ACCOUNT}; getent group {ACCOUNT}; ls -d /home/{ACCOUNT} {RULE} {PENDING} {REVERTING}"
    until(lambda: not operator.console(left), 150, "the machine takes back what nobody confirms", pause=1)
    ended = {"keys": operator.sees("cat /root/.ssh/authorized_keys")}
    dropin = "/etc/ssh/sshd_config.d/10-provider.conf"
    operator.console(f"echo AllowUsers root >{dropin}; systemctl reload ssh")
    ended["not admitted"] = operator.casemate("bootstrap")
    ended["left"] = operator.sees(left)
    stub = 'case "$*" in *install*python3*) mv /usr/bin/python3.away /usr/bin/python3 ;; esac'
    operator.console(
        f"rm {dropin}; systemctl reload ssh; mv /usr/bin/python3 /usr/bin/python3.away; "
        f"printf '%s\\n' '#!/bin/sh' '{stub}' >/usr/local/bin/apt-get; chmod 0755 /usr/local/bin/apt-get"
    )
    return {**ended, "bare": operator.casemate("bootstrap")}


def node(operator: Operator, *first: str) -> dict[str, Ended]:
    """The three commands, with a second bootstrap after the first."""
    ended = {"bootstrap": operator.casemate("bootstrap", *first), "before": operator.sees(SEEN)}
    ended |= {"again": operator.casemate("bootstrap"), "after": operator.sees(SEEN)}
    ended["pending"] = operator.sees(f"ls -d {PENDING}")
    ended["keys"] = operator.sees("cat /root/.ssh/authorized_keys")
    return {**ended, "apply": operator.casemate("apply"), "check": operator.casemate("check", "--scan")}


def firewall(operator: Operator) -> Ended:
    return operator.sees(f"systemctl is-enabled {operator.kind.firewall}; iptables-save; ip6tables-save")


STORIES: dict[str, Callable[[Operator], dict[str, Ended]]] = {
    "root": by_root, "cloud": of_cloud, "default user": by_default_user, "killed": killed,
}  # fmt: skip
Told = dict[str, Future[dict[str, Ended]]]


@pytest.fixture(scope="module")
def operators() -> Iterator[dict[str, Operator]]:
    with tempfile.TemporaryDirectory(prefix="provider-") as made:
        folder = Path(made)
        with for_tests.machines(NAME, servers=len(MACHINES), agents=0, workdir=folder / "work") as inventory:
            given = yaml.safe_load(inventory.read_text())["all"]
            yield {how: Operator(how, folder / how.replace(" ", "-"), given) for how in MACHINES}


@pytest.fixture(scope="module")
def told(operators: dict[str, Operator]) -> Iterator[Told]:
    """All stories at once, since most of their time is waiting; what each of them met is told by the tests."""
    key = (operators["root"].folder.parent / "work/id_ed25519.pub").read_text()

    def begin(how: str) -> dict[str, Ended]:
        operator = operators[how]
        if operator.kind.firewall:
            handed_over.as_cloud_image(operator.init(), key, operator.kind.firewall)
        else:
            handed_over.by_root(operator.init(), key)
        return STORIES[how](operator)

    with ThreadPoolExecutor(max_workers=len(MACHINES)) as pool:
        yield {how: pool.submit(begin, how) for how in MACHINES}


def of(told: Told, how: str) -> dict[str, Ended]:
    return told[how].result(timeout=900)


def test_root_as_the_account_is_refused_with_the_command(told: Told) -> None:
    ended = of(told, "root")
    apply, bootstrap = ended["apply as root"], ended["bootstrap as root"]
    assert (apply.code, bootstrap.code) == (1, 1)
    assert "casemate bootstrap -i hosts.yml" in apply.said
    assert "name the account that is to come in by ansible_user" in bootstrap.said


def test_a_plan_changes_nothing(told: Told) -> None:
    planned = of(told, "root")["plan"]
    assert planned.code == 0, planned.said
    assert f"would, as root: make the account {ACCOUNT}" in planned.said
    assert f"let root's key say to come as {ACCOUNT}" in planned.said
    assert of(told, "root")["planned"].said == ""


def test_whoever_has_no_way_in_is_told_how_to_name_one(told: Told) -> None:
    refused = of(told, "root")["nobody"]
    assert refused.code == 3, refused.said
    assert f"neither {ACCOUNT} nor nobody.here comes in" in refused.said
    assert "--first-user ACCOUNT" in refused.said


def test_a_cloud_image_says_itself_who_comes_in(told: Told) -> None:
    refused = of(told, "cloud")["root"]
    assert refused.code == 1, refused.said
    assert "casemate bootstrap --first-user debian" in refused.said


def test_a_firewall_that_would_close_the_node_is_refused(told: Told) -> None:
    """Before the first change, and with what has apply switch it off."""
    kept = of(told, "default user")["kept"]
    assert kept.code == 1, kept.said
    assert "netfilter-persistent is active: rules that are not Casemate's drop whatever they do not admit" in kept.said
    assert f"{STOP} has apply do that with netfilter-persistent" in kept.said
    assert of(told, "default user")["untouched"].said == ""


@pytest.mark.parametrize("how", NODES)
@pytest.mark.parametrize("verb", ["bootstrap", "again", "apply", "check"])
def test_then_it_is_a_node(told: Told, how: str, verb: str) -> None:
    """That of root was killed before: it is simply started again."""
    ended = of(told, how)[verb]
    assert ended.code == 0, ended.said
    assert verb != "again" or "comes in and becomes root, so nothing is to be done" in ended.said


@pytest.mark.parametrize("how", NODES)
def test_a_second_bootstrap_changes_nothing(told: Told, how: str) -> None:
    ended = of(told, how)
    assert ended["before"].said == ended["after"].said != ""
    assert ended["pending"].said == "", "it waits for its confirmation still"


def test_the_key_of_root_says_who_comes_in_now(told: Told) -> None:
    assert f'Please login as the user \\"{ACCOUNT}\\" rather' in of(told, "root")["keys"].said


def test_the_default_user_of_a_cloud_image_is_no_root_any_more(operators: dict[str, Operator], told: Told) -> None:
    of(told, "cloud")
    operator = operators["cloud"]
    assert "not allowed" in operator.console("sudo -n -l -U debian")
    assert operator.console("sshd -T | grep -i ^passwordauthentication").strip() == "passwordauthentication no"


@pytest.mark.parametrize("how", ["cloud", "default user"])
def test_the_other_firewall_is_off_now_and_at_the_next_boot(told: Told, how: str) -> None:
    state, _, rules = of(told, how)["firewall"].said.partition("\n")
    assert state == "disabled"
    assert ":INPUT DROP" not in rules
    assert "--dport 22" not in rules


def test_what_nobody_confirms_is_taken_back_whole(told: Told) -> None:
    """The story goes on only once it is; and root comes in as before."""
    assert "Please login" not in of(told, "killed")["keys"].said


def test_an_account_that_would_not_get_in_is_taken_back_at_once(told: Told) -> None:
    """With what has to be changed on the host, told before anybody waits for a login that fails."""
    refused = of(told, "killed")["not admitted"]
    assert refused.code == 1, refused.said
    assert f"sshd's files have AllowUsers root, which leaves out {ACCOUNT}" in refused.said
    assert of(told, "killed")["left"].said == ""


def test_what_a_bare_image_lacks_is_installed_first(told: Told) -> None:
    """No module runs without Python. What stands in for apt brought the one that had been moved away."""
    ended = of(told, "killed")["bare"]
    assert ended.code == 0, ended.said
    assert f"done as root: install python3, make the account {ACCOUNT}" in ended.said
