"""`casemate bootstrap`: what it hands to the playbook, what it says of each host, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from casemate import ROOT
from casemate.cli.app import main
from casemate.run import runner
from casemate.run.runner import Host, Run

OUTCOME = {"account": "ops", "first": "root", "fingerprint": "SHA256:x", "words": ["make the account ops"]}


class Played:
    """Stands in for Ansible: notes what was asked, and returns a run."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.run = Run(settled=True)

    def __call__(self, playbook: str, inventories: Any, limit: Any, variables: Any, *_: Any, check: bool) -> Run:
        self.asked = {"playbook": playbook, "variables": variables, "check": check}
        return self.run

    def has(self, name: str, status: str, message: str = "", **outcome: Any) -> None:
        self.run.hosts[name] = Host(name, status, message)
        self.run.results[name] = {"bootstrap": {**OUTCOME, **outcome}}


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    made = Played()
    monkeypatch.setattr(runner, "play", made)
    return made


def typed(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["bootstrap", "-i", "a,", *words])
    return done.exit_code, " ".join(done.output.split())


def test_options_become_variables_of_the_inventory(played: Played, tmp_path: Path) -> None:
    """As which an operator may give them as well."""
    for name in ("key", "key.pub"):
        (tmp_path / name).write_text("x")
    played.has("a", "ok")
    key, half = str(tmp_path / "key"), str(tmp_path / "key.pub")
    assert typed("--first-user", "debian", "--key", key, "--public-key", half, "--keep-first-login")[0] == 0
    assert played.asked["variables"] == {
        "casemate_first_user": "debian", "casemate_first_key": key, "casemate_automation_key": half,
        "casemate_first_login": "keep",
    }  # fmt: skip
    typed()
    assert (played.asked["variables"], played.asked["check"]) == ({}, False)


def test_what_was_done_is_said_of_each_host(played: Played) -> None:
    played.has("a", "ok")
    played.has("b", "ok", words=[])
    code, said = typed()
    assert code == 0
    assert "a: done as root: make the account ops (key SHA256:x); a fresh login of ops proves it" in said
    assert "b: ops comes in and becomes root, so nothing is to be done" in said


def test_a_plan_says_what_would_be_done(played: Played) -> None:
    played.has("a", "ok")
    assert "a: would, as root: make the account ops" in typed("--plan")[1]
    assert played.asked["check"]


@pytest.mark.parametrize(("status", "code"), [("error", 1), ("unreachable", 3)])
def test_a_host_on_which_it_fails_is_not_told_as_done(played: Played, status: str, code: int) -> None:
    played.has("a", "ok")
    played.has("b", status, "no way in")
    ended, said = typed()
    assert ended == code
    assert "b: no way in" in said
    assert "b: done" not in said


def test_a_key_that_is_not_there_is_misuse(played: Played) -> None:
    assert typed("--key", "/nowhere/key")[0] == 1
    assert not played.asked


def tasks(path: str) -> list[dict[str, Any]]:
    """The tasks of a file, with those of their blocks, in the order in which they are done."""
    found = []
    waiting = list(yaml.safe_load((ROOT / path).read_text()))
    while waiting:
        task = waiting.pop(0)
        found.append(task)
        waiting[:0] = [one for part in ("tasks", "block", "rescue", "always") for one in task.get(part, ())]
    return found


def place(steps: list[dict[str, Any]], module: str, **asked: Any) -> int:
    fitting = [
        number
        for number, task in enumerate(steps)
        if module in task and all((task[module] or {}).get(key) == value for key, value in asked.items())
    ]
    assert fitting, (module, asked)
    return fitting[0]


def test_input_is_judged_before_the_first_connection() -> None:
    play, *steps = tasks("playbooks/bootstrap.yml")
    assert "casemate_bootstrap" in steps[0]
    assert steps[0]["any_errors_fatal"] is True
    assert play["strategy"] == "ansible.builtin.linear"


def test_nothing_is_done_where_the_account_comes_in() -> None:
    steps = tasks("playbooks/bootstrap.yml")
    (made,) = [one for one in steps if one.get("ansible.builtin.include_tasks") == "tasks/first_login.yml"]
    assert made["when"] == "__casemate_own is unreachable or __casemate_own is failed"


def test_the_first_login_is_closed_by_the_account_and_before_the_proof() -> None:
    """Whoever closes a door stands on the right side of it; and the guard opens it again where the proof fails."""
    steps = tasks("playbooks/tasks/keep_entrance.yml")
    closing = place(steps, "k3s_bootstrap", state="closed")
    assert "__casemate_own_ssh_args" in str(steps[closing]["vars"])
    assert place(steps, "k3s_lock", state="held") < closing < place(steps, "ansible.builtin.include_role")
    first = tasks("playbooks/tasks/first_login.yml")
    assert not [one for one in first if (one.get("k3s_bootstrap") or {}).get("state") == "closed"]


def test_a_run_takes_back_its_own_change_only() -> None:
    """Where another run holds the lock, what is pending is that one's."""
    steps = tasks("playbooks/tasks/first_login.yml")
    held, made = place(steps, "k3s_lock", state="held"), place(steps, "k3s_bootstrap")
    back = steps[place(steps, "k3s_guard", state="reverted")]
    assert held < made
    assert back["when"] == "__casemate_made.pending | default(false)"
    assert place(steps, "ansible.builtin.include_tasks") > made
