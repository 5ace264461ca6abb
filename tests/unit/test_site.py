"""What a failure stops, and what it does not: the real playbook over roles that only say that they ran."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from casemate import ROOT

SERVERS, AGENTS = ["s1", "s2", "s3"], ["a1", "a2", "a3", "a4"]
ROLES = ("k3s_host", "k3s_access", "k3s_firewall", "k3s_node", "k3s_cluster")
ACTION = """
import fcntl
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        host, script = task_vars["inventory_hostname"], task_vars["script"]
        ran = (self._task.args.get("roles") or ["look"])[0]
        with open(script["trace"], "a") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            out.write(f"{ran} {host}\\n")
        if f"{ran} {host}" in script["dark"] or ran == "look" and host in script["dark"]:
            raise AnsibleConnectionFailure("no route")
        if f"{ran} {host}" in script["broken"]:
            return {"failed": True, "msg": f"{ran} broke on {host}"}
        roles = [role for role, hosts in script["to_apply"].items() if host in hosts]
        plan = {"guard": False, "findings": [], "runs_k3s": host in script["runs"], "restarts": True}
        return {"changed": False, "roles_to_apply": roles, **plan}
"""
STEP = """
import importlib.util
spec = importlib.util.spec_from_file_location("real", "@ROOT@/src/casemate/ansible/action/k3s_step.py")
real = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)
class ActionModule(real.ActionModule):
    def ask(self, given, task_vars):
        seen = real.rollout.observed(given["members"], [], given["batches"], task_vars["script"].get("lost", ""))
        steps = [real.rollout.sentence(step) for step in real.rollout.foresee(seen)] if given.get("foresee") else []
        step = real.rollout.shown(real.rollout.next_step(seen))
        return {"changed": False, "decided": True, "step": step, "steps": steps}
"""
LOCK = """
import fcntl
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        host = self._task.delegate_to or task_vars["inventory_hostname"]
        script, state = task_vars["script"], self._task.args["state"]
        if host in script["dark"]:
            raise AnsibleConnectionFailure("no route")
        if not self._task.check_mode:
            with open(script["trace"], "a") as out:
                fcntl.flock(out, fcntl.LOCK_EX)
                out.write(f"{state} {host}\\n")
        refused = f"bob has the lock of {host}" if state == "held" and host in script.get("locked", ()) else ""
        return {"changed": False, "refused": refused}
"""


def site(folder: Path, *arguments: str, **script: Any) -> tuple[int, list[str], str]:
    """Run playbooks/site.yml; return its exit code, what ran where in order, and its output."""
    plugins, trace = folder / "action", folder / "trace"
    plugins.mkdir(exist_ok=True)
    (plugins / "k3s_controls.py").write_text(ACTION)
    (plugins / "casemate_preflight.py").write_text(ACTION.replace('or ["look"]', 'or ["preflight"]'))
    (plugins / "k3s_step.py").write_text(STEP.replace("@ROOT@", str(ROOT)))
    (plugins / "k3s_lock.py").write_text(LOCK)
    for role in ROLES:
        (folder / role / "tasks").mkdir(parents=True, exist_ok=True)
        (folder / role / "tasks/main.yml").write_text(f"- name: Settle | It\n  k3s_controls: {{roles: [{role}]}}\n")
    played = {"broken": [], "dark": [], "runs": [*SERVERS, *AGENTS], "trace": str(trace), **script}
    groups = {"k3s_server": SERVERS, "k3s_agent": AGENTS}
    inventory = {
        "all": {
            "vars": {
                "script": played,
                "ansible_connection": "local",
                "ansible_become": False,
                **script.get("vars", {}),
            },
            "children": {group: {"hosts": dict.fromkeys(hosts)} for group, hosts in groups.items()},
        }
    }
    (folder / "hosts.json").write_text(json.dumps(inventory))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "hosts.json"),
         str(ROOT / "playbooks/site.yml"), *arguments],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_ROLES_PATH": str(folder),
             "ANSIBLE_ACTION_PLUGINS": f"{plugins}:{ROOT}/src/casemate/ansible/action",
             **script.get("environment", {})},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ran = trace.read_text().splitlines() if trace.exists() else []
    hidden = () if script.get("locks") else ("held", "free")
    shown = [line for line in ran if line.split()[0] not in ("preflight", *hidden)]
    return done.returncode, shown, done.stdout + done.stderr


def hosts_of(ran: list[str], what: str) -> list[str]:
    return sorted(line.split()[1] for line in ran if line.split()[0] == what)


ALL = sorted(SERVERS + AGENTS)
TO_APPLY = {"k3s_host": ALL, "k3s_firewall": ALL, "k3s_node": ALL, "k3s_cluster": ["s1"]}


@pytest.mark.parametrize(
    ("script", "nodes", "cluster", "code"),
    [
        ({}, ALL, ["s1"], 0),
        # The canary: neither the other agents nor anything that does not need them.
        ({"broken": ["k3s_node a1"]}, ["a1", *SERVERS], ["s1"], 2),
        # One of a later batch: those of its batch are done, and those before.
        ({"broken": ["k3s_node a3"], "vars": {"casemate_agents_at_once": [1, 2]}}, sorted({*ALL} - {"a4"}), ["s1"], 2),
        # A server leaves the next one and the agents alone, but not the objects of the cluster.
        ({"broken": ["k3s_node s2"]}, ["s1", "s2"], ["s1"], 2),
        ({"broken": ["k3s_node s1"]}, ["s1"], [], 2),
        # The system of a host: its own K3s only. The first server runs K3s all the same.
        ({"broken": ["k3s_firewall a1"]}, sorted({*ALL} - {"a1"}), ["s1"], 2),
        ({"broken": ["k3s_host s1"]}, sorted({*ALL} - {"s1"}), ["s1"], 2),
        ({"broken": ["k3s_host s1"], "runs": []}, [], [], 2),  # nobody is there to join
        ({"broken": ["k3s_cluster s1"]}, ALL, ["s1"], 2),
        # Agents that join come at once, and one that cannot keeps nobody out.
        ({"broken": ["k3s_node a1"], "runs": SERVERS}, ALL, ["s1"], 2),
        # Who does not answer from the start stops nobody that does not need it.
        ({"dark": ["a2"]}, sorted({*ALL} - {"a2"}), ["s1"], 4),
        ({"dark": ["s3"]}, sorted({*ALL} - {"s3"}), ["s1"], 4),
        ({"dark": ["s1"]}, ["s2", "s3"], [], 4),
    ],
)  # fmt: skip
def test_one_host_s_failure_stops_nothing_that_does_not_need_it(
    tmp_path: Path, script: dict[str, Any], nodes: list[str], cluster: list[str], code: int
) -> None:
    rc, ran, said = site(tmp_path, **{"to_apply": TO_APPLY, **script})
    assert (hosts_of(ran, "k3s_node"), hosts_of(ran, "k3s_cluster"), rc) == (nodes, cluster, code), said
    silent = set(script.get("dark", []))
    assert hosts_of(ran[-len(ALL) + len(silent) :], "look") == sorted({*ALL} - silent)  # everybody's last look
    assert all(one.replace(" ", " broke on ") in said for one in script.get("broken", []))


def test_servers_and_batches_of_agents_come_one_after_the_other(tmp_path: Path) -> None:
    _, ran, said = site(tmp_path, to_apply=TO_APPLY, vars={"casemate_agents_at_once": "50%"})
    order = [line.split()[1] for line in ran if line.startswith("k3s_node")]
    assert order[:3] == SERVERS, said
    assert [sorted(order[3:5]), sorted(order[5:])] == [["a1", "a2"], ["a3", "a4"]]


def test_with_nothing_due_only_the_plan_looks_and_check_mode_ends_with_it(tmp_path: Path) -> None:
    for name, to_apply, more in (("nothing", {}, []), ("check", TO_APPLY, ["--check"])):
        (tmp_path / name).mkdir()
        rc, ran, said = site(tmp_path / name, *more, to_apply=to_apply)
        assert (rc, sorted(ran)) == (0, [f"look {host}" for host in ALL]), said


def test_what_is_due_on_one_host_makes_everybody_be_looked_at_again(tmp_path: Path) -> None:
    rc, ran, said = site(tmp_path, to_apply={"k3s_node": ["a2"]})
    assert (rc, hosts_of(ran, "look"), hosts_of(ran, "k3s_node")) == (0, sorted(ALL * 2), ["a2"]), said


@pytest.mark.parametrize(
    ("dark", "script", "nodes", "cluster"),
    [
        ("k3s_host a2", {}, sorted({*ALL} - {"a2"}), ["s1"]),
        # The whole batch, by which Ansible would end a run: a server, the first agent, the only one to join.
        ("k3s_node s2", {}, ["s1", "s2"], ["s1"]),
        ("k3s_node s1", {}, ["s1"], []),
        ("k3s_node a1", {}, ["a1", *SERVERS], ["s1"]),
        ("k3s_node a4", {"runs": [*SERVERS, "a1", "a2", "a3"]}, ALL, ["s1"]),
        ("k3s_cluster s1", {}, ALL, ["s1"]),
        # One of a batch of several: those of its batch are done.
        ("k3s_node a3", {"vars": {"casemate_agents_at_once": [1, 2]}}, sorted({*ALL} - {"a4"}), ["s1"]),
    ],
)
def test_a_host_that_is_lost_on_the_way_keeps_nobody_from_a_last_look(
    tmp_path: Path, dark: str, script: dict[str, Any], nodes: list[str], cluster: list[str]
) -> None:
    rc, ran, said = site(tmp_path, to_apply=TO_APPLY, dark=[dark], **script)
    assert (rc, hosts_of(ran, "look")) == (4, sorted(ALL * 2)), said
    assert (hosts_of(ran, "k3s_node"), hosts_of(ran, "k3s_cluster")) == (nodes, cluster), said


def test_the_first_agent_of_those_that_are_due_goes_alone(tmp_path: Path) -> None:
    to_apply = {"k3s_node": ["a2", "a3", "a4"]}
    _, ran, said = site(tmp_path, to_apply=to_apply, broken=["k3s_node a2"], vars={"casemate_agents_at_once": [1, 3]})
    assert hosts_of(ran, "k3s_node") == ["a2"], said


def test_wrong_input_on_one_host_stops_all_before_the_first_change(tmp_path: Path) -> None:
    rc, ran, _ = site(tmp_path, to_apply=TO_APPLY, broken=["preflight a2"])
    assert (rc, ran) == (2, [])


def test_the_lock_is_taken_server_by_server_before_the_first_change_and_given_back(tmp_path: Path) -> None:
    rc, ran, said = site(tmp_path, to_apply=TO_APPLY, locks=True)
    first, last = ran.index("held s1"), len(ran) - len(ALL)
    assert (rc, ran[first : first + 3]) == (0, ["held s1", "held s2", "held s3"]), said
    assert sorted(ran[first + 3 : first + 7]) == [f"held {name}" for name in AGENTS]
    assert sorted(ran[first + 7 : first + 14]) == [f"held {name}" for name in ALL]  # renewed before hosts are settled
    assert ran[first + 14].startswith("k3s_host")
    assert sorted(ran[last - len(ALL) : last]) == [f"free {name}" for name in ALL]


@pytest.mark.parametrize("more", [["--check"], []])
def test_no_lock_is_taken_where_nothing_changes(tmp_path: Path, more: list[str]) -> None:
    _, ran, said = site(tmp_path, *more, to_apply=TO_APPLY if more else {}, locks=True)
    assert sorted(ran) == [f"look {host}" for host in ALL], said


@pytest.mark.parametrize("locked", ["s1", "s2", "a3"])
def test_where_another_run_has_the_lock_nothing_is_changed_and_what_was_taken_is_given_back(
    tmp_path: Path, locked: str
) -> None:
    rc, ran, said = site(tmp_path, to_apply=TO_APPLY, locked=[locked], locks=True)
    assert rc == 2 and f"bob has the lock of {locked}" in said
    assert {line.split()[0] for line in ran} == {"look", "held", "free"}
    assert set(hosts_of(ran, "held")) <= set(hosts_of(ran, "free"))
    if locked in SERVERS:
        assert hosts_of(ran, "held") == SERVERS[: SERVERS.index(locked) + 1]


def test_a_limited_run_takes_the_lock_on_all_servers(tmp_path: Path) -> None:
    _, ran, said = site(tmp_path, "--limit", "s3", to_apply=TO_APPLY, locks=True)
    assert hosts_of(ran, "held") == [*SERVERS, "s3"], said  # taken on all, and renewed where it changes something
    assert hosts_of(ran, "k3s_node") == ["s3"]


def test_a_server_that_is_down_keeps_a_limited_run_from_nothing(tmp_path: Path) -> None:
    rc, ran, said = site(tmp_path, "--limit", "s3,a1", to_apply=TO_APPLY, dark=["s1"], locks=True)
    assert (rc, sorted({*hosts_of(ran, "held")})) == (0, ["a1", "s2", "s3"]), said
    assert hosts_of(ran, "k3s_node") == ["a1", "s3"]
    assert hosts_of(ran, "free") == ["a1", "s2", "s3"]


def test_a_run_that_loses_the_lock_stops_before_the_next_step(tmp_path: Path) -> None:
    rc, ran, said = site(tmp_path, to_apply=TO_APPLY, lost="bob has the lock")
    assert (rc, hosts_of(ran, "k3s_node")) == (2, []), said
    assert "bob has the lock" in said


STEPS = [["s1"], ["s2"], ["s3"], ["a1"], ["a2", "a3"], ["a4"]]


@pytest.mark.parametrize("k", [1, 4])
def test_a_run_that_is_killed_after_any_step_is_simply_started_again(tmp_path: Path, k: int) -> None:
    batches = {"casemate_agents_at_once": [1, "50%"]}
    rc, ran, _ = site(tmp_path, to_apply=TO_APPLY, vars=batches, environment={"CASEMATE_DIES_AFTER_STEPS": str(k)})
    done = [line.split()[1] for line in ran if line.startswith("k3s_node")]
    assert (rc, sorted(done)) == (-9, sorted(host for step in STEPS[:k] for host in step))
    left = {**TO_APPLY, "k3s_node": sorted({*ALL} - {*done})}
    rc, ran, said = site(tmp_path, to_apply=left, vars=batches)
    assert (rc, hosts_of(ran, "k3s_node")) == (0, ALL), said  # each once: the trace has both runs


def test_the_plan_tells_the_steps_and_takes_none(tmp_path: Path) -> None:
    rc, ran, said = site(tmp_path, "--check", "-vv", "-e", "__casemate_foresees=true", to_apply=TO_APPLY)
    assert (rc, sorted(ran)) == (0, [f"look {host}" for host in ALL]), said
    (steps,) = re.findall(r'"steps": \[(.*?)\]', said)
    assert steps == ", ".join(f'"restart {name}"' for name in [*SERVERS, *AGENTS]) + ', "nothing is left to do"'
