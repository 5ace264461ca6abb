"""What a failure stops, and what it does not: the real playbook over roles that only say that they ran."""

from __future__ import annotations

import json
import os
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
        due = [role for role, hosts in script["due"].items() if host in hosts]
        return {"changed": False, "due": due, "guard": False, "findings": [], "runs_k3s": host in script["runs"]}
"""


def site(folder: Path, *arguments: str, **script: Any) -> tuple[int, list[str], str]:
    """Run playbooks/site.yml; return its exit code, what ran where in order, and its output."""
    plugins, trace = folder / "action", folder / "trace"
    plugins.mkdir()
    (plugins / "k3s_controls.py").write_text(ACTION)
    (plugins / "casemate_preflight.py").write_text(ACTION.replace('or ["look"]', 'or ["preflight"]'))
    for role in ROLES:
        (folder / role / "tasks").mkdir(parents=True)
        (folder / role / "tasks/main.yml").write_text(f"- name: Settle | It\n  k3s_controls: {{roles: [{role}]}}\n")
    told = {"broken": [], "dark": [], "runs": [*SERVERS, *AGENTS], "trace": str(trace), **script}
    groups = {"k3s_server": SERVERS, "k3s_agent": AGENTS}
    inventory = {
        "all": {
            "vars": {"script": told, "ansible_connection": "local", "ansible_become": False, **script.get("vars", {})},
            "children": {group: {"hosts": dict.fromkeys(hosts)} for group, hosts in groups.items()},
        }
    }
    (folder / "hosts.json").write_text(json.dumps(inventory))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "hosts.json"),
         str(ROOT / "playbooks/site.yml"), *arguments],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_ROLES_PATH": str(folder),
             "ANSIBLE_ACTION_PLUGINS": f"{plugins}:{ROOT}/src/casemate/ansible/action"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ran = trace.read_text().splitlines() if trace.exists() else []
    return done.returncode, [line for line in ran if not line.startswith("preflight")], done.stdout + done.stderr


def hosts_of(ran: list[str], what: str) -> list[str]:
    return sorted(line.split()[1] for line in ran if line.split()[0] == what)


ALL = sorted(SERVERS + AGENTS)
DUE = {"k3s_host": ALL, "k3s_firewall": ALL, "k3s_node": ALL, "k3s_cluster": ["s1"]}


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
        ({"broken": ["k3s_host s1"], "runs": []}, sorted({*ALL} - {"s1"}), [], 2),
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
    rc, ran, said = site(tmp_path, **{"due": DUE, **script})
    assert (hosts_of(ran, "k3s_node"), hosts_of(ran, "k3s_cluster"), rc) == (nodes, cluster, code), said
    silent = set(script.get("dark", []))
    assert hosts_of(ran[-len(ALL) + len(silent) :], "look") == sorted({*ALL} - silent)  # everybody's last look
    assert all(one.replace(" ", " broke on ") in said for one in script.get("broken", []))


def test_servers_and_batches_of_agents_come_one_after_the_other(tmp_path: Path) -> None:
    _, ran, said = site(tmp_path, due=DUE, vars={"casemate_agents_at_once": "50%"})
    order = [line.split()[1] for line in ran if line.startswith("k3s_node")]
    assert order[:3] == SERVERS, said
    assert [sorted(order[3:5]), sorted(order[5:])] == [["a1", "a2"], ["a3", "a4"]]


def test_with_nothing_due_only_the_plan_looks_and_check_mode_ends_with_it(tmp_path: Path) -> None:
    for name, due, more in (("nothing", {}, []), ("check", DUE, ["--check"])):
        (tmp_path / name).mkdir()
        rc, ran, said = site(tmp_path / name, *more, due=due)
        assert (rc, sorted(ran)) == (0, [f"look {host}" for host in ALL]), said


def test_what_is_due_on_one_host_makes_everybody_be_looked_at_again(tmp_path: Path) -> None:
    rc, ran, said = site(tmp_path, due={"k3s_node": ["a2"]})
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
    rc, ran, said = site(tmp_path, due=DUE, dark=[dark], **script)
    assert (rc, hosts_of(ran, "look")) == (4, sorted(ALL * 2)), said
    assert (hosts_of(ran, "k3s_node"), hosts_of(ran, "k3s_cluster")) == (nodes, cluster), said


def test_the_first_agent_of_those_that_are_due_goes_alone(tmp_path: Path) -> None:
    due = {"k3s_node": ["a2", "a3", "a4"]}
    _, ran, said = site(tmp_path, due=due, broken=["k3s_node a2"], vars={"casemate_agents_at_once": [1, 3]})
    assert hosts_of(ran, "k3s_node") == ["a2"], said


def test_wrong_input_on_one_host_stops_all_before_the_first_change(tmp_path: Path) -> None:
    rc, ran, _ = site(tmp_path, due=DUE, broken=["preflight a2"])
    assert (rc, ran) == (2, [])
