"""Machines as a provider hands them over become nodes by three commands: bootstrap, apply, check.

Each machine is a cluster of its own, and its operator has a key, an inventory that `casemate init` wrote, and nothing
else. What happens on a machine is observed from outside, as on a console.
"""

from __future__ import annotations

import json
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
MACHINES = {"root": "server1", "killed": "server2"}
"""What a machine is like -> its name."""
CASEMATE = str(Path(sys.executable).with_name("casemate"))
ACCOUNT = "john.doe"  # a name as useradd of Debian takes it
RULE, PENDING = "/etc/sudoers.d/casemate-john_doe", "/var/lib/casemate/guard/pending"
SEEN = f"stat -c '%n %Z %Y' /etc/passwd /etc/shadow {RULE} /home/{ACCOUNT}/.ssh/authorized_keys /var/lib/casemate/guard"


class Ended(NamedTuple):
    """How a command ended: its exit code, and what it said."""

    code: int
    said: str


class Operator:
    """Somebody who was given a machine."""

    def __init__(self, how: str, folder: Path, given: dict[str, Any]) -> None:
        self.folder, self.machine = folder, MACHINES[how]
        self.address = given["children"]["k3s_server"]["hosts"][self.machine]["ansible_host"]
        (self.folder / "group_vars").mkdir(parents=True)
        (network,) = given["vars"]["casemate_admin_sources"]
        made = self.casemate("init", "--server", f"node1={self.address}", "--user", ACCOUNT, "--admin-source", network)
        assert made.code == 0, made.said
        elsewhere = ("ansible_user", "casemate_automation_user", "casemate_admin_sources")
        shared = {name: value for name, value in given["vars"].items() if name not in elsewhere}
        shared |= {"k3s_access_guard_seconds": 60}
        # Attacks of one node on another, and Kubernetes' API, are not evaluated here.
        for group, values in (("all", shared), ("k3s_server", {})):
            lab_says = yaml.safe_load((ROOT / f"inventory/lab/group_vars/{group}.yml").read_text())
            (self.folder / f"group_vars/{group}.yml").write_text(yaml.safe_dump({**values, **lab_says}))

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
        return lab._init((lab.load(NAME) or {})["machines"][self.machine])


def until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def bootstrap_killed(operator: Operator) -> None:
    """Begin it, and kill it with all its processes as soon as the machine has changed."""
    begun = operator.starts("bootstrap")
    until(lambda: operator.console(f"grep -c john.doe {RULE}").strip() == "1", 60, "the rule of sudo is written")
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
            found = {how: Operator(how, folder / how, given) for how in MACHINES}
            for operator in found.values():
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


def test_root_as_the_account_is_refused_with_the_command(operators: dict[str, Operator]) -> None:
    operator = operators["root"]
    given = operator.folder / "hosts.yml"
    before = given.read_text()
    given.write_text(before.replace(f"ansible_user: {ACCOUNT}", "ansible_user: root"))
    apply, bootstrap = operator.casemate("apply"), operator.casemate("bootstrap")
    given.write_text(before)
    assert (apply.code, bootstrap.code) == (1, 1)
    assert "casemate bootstrap -i hosts.yml" in apply.said
    assert "name the account that is to come in by ansible_user" in bootstrap.said


def test_a_plan_changes_nothing(operators: dict[str, Operator], taken_back: Future[float]) -> None:
    operator = operators["root"]
    planned = operator.casemate("bootstrap", "--plan")
    assert planned.code == 0, planned.said
    assert f"would, as root: make the account {ACCOUNT}" in planned.said
    assert not operator.console(f"getent passwd {ACCOUNT}; ls -d {RULE} /var/lib/casemate")


def test_one_that_was_killed_is_started_again(operators: dict[str, Operator]) -> None:
    operator = operators["root"]
    bootstrap_killed(operator)
    again = operator.casemate("bootstrap")
    assert again.code == 0, again.said
    assert not operator.console(f"ls -d {PENDING}"), "it waits for its confirmation still"
    assert operator.console(f"getent passwd {ACCOUNT}")
    assert f'Please login as the user \\"{ACCOUNT}\\" rather' in operator.console("cat /root/.ssh/authorized_keys")


def test_a_second_bootstrap_changes_nothing(operators: dict[str, Operator]) -> None:
    operator = operators["root"]
    before = operator.console(SEEN)
    again = operator.casemate("bootstrap")
    assert again.code == 0, again.said
    assert f"{ACCOUNT} comes in and becomes root, so nothing is to be done" in again.said
    assert before == operator.console(SEEN) != ""


@pytest.mark.parametrize("verb", ["apply", "check"])
def test_then_it_is_a_node(operators: dict[str, Operator], verb: str) -> None:
    ended = operators["root"].casemate(verb)
    assert ended.code == 0, ended.said
    if verb == "check":
        report = json.loads((operators["root"].folder / "report/report.json").read_text())
        assert report["summary"]["exit_code"] == 0


def test_what_nobody_confirms_is_taken_back_whole(operators: dict[str, Operator], taken_back: Future[float]) -> None:
    assert taken_back.result(timeout=150) < 100
    operator = operators["killed"]
    assert not operator.console(f"ls -d /home/{ACCOUNT} {RULE}; getent group {ACCOUNT}")
    assert operator.console("id -u").strip() == "0"
    until(lambda: not operator.console(f"ls -d {PENDING}"), 20, "nothing is pending")
    again = operator.casemate("bootstrap")
    assert again.code == 0, again.said
