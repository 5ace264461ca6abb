"""What a run knows of a member, from its plan and its turns."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from casemate import ROOT
from casemate.run.runner import Host, Run, steps_of
from module_utils.casemate.k3s.members import EtcdMember
from module_utils.casemate.operations import rollout

spec = importlib.util.spec_from_file_location("k3s_step", ROOT / "src/casemate/ansible/action/k3s_step.py")
assert spec is not None and spec.loader is not None
k3s_step = importlib.util.module_from_spec(spec)
spec.loader.exec_module(k3s_step)


def known(roles: list[str], **more: Any) -> dict[str, Any]:
    plan = {"roles_to_apply": roles, "runs_k3s": True, "restarts": True, "change": False, **more.pop("plan", {})}
    seen = {"casemate_host": {"etcd": more.pop("etcd", True)}}
    return {"ansible_host": "192.0.2.1", "__casemate_plan": plan, "__casemate_seen": seen, **more}


@pytest.mark.parametrize(
    ("facts", "here", "wanted"),
    [
        (known(["k3s_node"]), True, {"work": "restart", "holds": True, "runs": True, "turn": "", "answers": True}),
        (known(["k3s_control_plane"], plan={"restarts": False}), True, {"work": "files"}),
        (known(["k3s_host", "k3s_cluster"]), True, {"work": ""}),
        (known([], plan={"change": True, "restarts": False}), True, {"work": "restart"}),  # a killed run left it
        (known(["k3s_node"], etcd=False, plan={"runs_k3s": False}), True, {"holds": False, "runs": False}),
        (known(["k3s_node"], etcd=False, __casemate_turn="done"), True, {"holds": True, "turn": "done"}),
        (known(["k3s_node"], __casemate_turn="begun", __casemate_stopped={"play": "K3s"}), True, {"turn": "failed"}),
        (known(["k3s_node"], __casemate_turn="begun"), False, {"turn": "failed", "answers": False}),  # it was lost
        (known(["k3s_node"], __casemate_stopped={"play": "Hosts"}), True, {"work": "", "turn": ""}),
        (known(["k3s_node"], k3s_node_ip="192.0.2.7,2001:db8::7"), True, {"address": "192.0.2.7"}),
        ({"ansible_host": "192.0.2.1"}, False, {"answers": False}),  # silent from the start
    ],
)
def test_what_is_known_of_a_member(facts: dict[str, Any], here: bool, wanted: dict[str, Any]) -> None:
    member = k3s_step.member("s1", True, facts, asked=True, here=here)
    assert {key: member.get(key) for key in wanted} == wanted


def test_of_a_host_that_the_run_leaves_out_nothing_is_known() -> None:
    member = k3s_step.member("s1", True, {"ansible_host": "192.0.2.1"}, asked=False, here=False)
    assert member == {"name": "s1", "server": True, "address": "192.0.2.1", "answers": True}


@pytest.mark.parametrize(("ill", "may"), [("", True), ("s2", False), ("s1", True)])
def test_a_restart_that_was_decided_is_asked_for_again_alone(ill: str, may: bool) -> None:
    """In between another server may have gone, or have been healed; whose turn is next is not asked anew."""
    facts = {"s1": known(["k3s_node"], __casemate_turn="begun"), "s2": known(["k3s_node"]), "s3": known([])}
    members = [{**k3s_step.member(name, True, one, True, True), "address": name} for name, one in facts.items()]
    etcd = [EtcdMember(name, name, well=name != ill) for name in facts]
    step = rollout.shown(rollout.next_step(rollout.observed(k3s_step.alone(members, "s1"), etcd)))
    assert (step["hosts"] == ["s1"]) == may
    assert ("it waits for s2 to be ready" in step["reason"]) != may


def test_the_steps_of_a_plan_are_those_of_hosts_of_k3s_and_of_objects() -> None:
    run = Run()
    findings = {"findings": [], "roles_to_apply": ["k3s_host", "k3s_node", "k3s_cluster"]}
    run.record({"event": "runner_on_ok", "event_data": {"host": "s1", "task": "t", "play": "Plan", "res": findings}})
    run.hosts["a1"] = Host("a1", roles_to_apply=["k3s_access"])
    asked = {
        "results": [{"unreachable": True}, {"step": {"sentence": "restart s1"}, "steps": ["restart s1", "join a1"]}]
    }
    run.record({"event": "runner_on_ok", "event_data": {"host": "s1", "task": "t", "play": "Plan", "res": asked}})
    assert run.stage == "K3s: restart s1"
    assert steps_of(run) == [
        "settle system, access and firewall of s1, a1",
        "K3s: restart s1",
        "K3s: join a1",
        "settle Kubernetes' objects on s1",
    ]
    assert steps_of(Run()) == []


@pytest.mark.parametrize(
    ("silent", "runs", "turns", "locked", "asked"),
    [
        ([], "", "", ["s3", "s1", "s2", "s4"], ["s3", "s1", "s2", "s4"]),  # in the inventory's order
        (["s1"], "", "", ["s3", "s2", "s4"], ["s3", "s2", "s4"]),
        ([], "s2", "", ["s3", "s1", "s2", "s4"], ["s2", "s3", "s1", "s4"]),  # who runs K3s sees the cluster
        ([], "", "s1", ["s3", "s1", "s2", "s4"], ["s1", "s3", "s2", "s4"]),
    ],
)
def test_servers_are_locked_in_the_inventory_s_order_and_those_that_run_are_asked_first(
    silent: list[str], runs: str, turns: str, locked: list[str], asked: list[str]
) -> None:
    shared = yaml.safe_load((ROOT / "playbooks/group_vars/all.yml").read_text())
    shared = {name: trust_as_template(value) for name, value in shared.items() if isinstance(value, str)}
    servers = ["s3", "s1", "s2", "s4"]
    hosts: dict[str, Any] = {name: {"inventory_hostname": name} for name in servers}
    for name in servers[:3]:  # the last one is left out by --limit
        hosts[name]["__casemate_plan"] = {"runs_k3s": name == runs}
        hosts[name] |= {"__casemate_turn": "done"} if name == turns else {}
    known = {**shared, "groups": {"k3s_server": servers}, "__casemate_silent": silent, "hostvars": hosts}
    known["ansible_play_hosts"] = [name for name in servers[:3] if name not in silent]
    templar = Templar(DataLoader(), variables=known)
    assert templar.template(trust_as_template("{{ __casemate_lock_servers }}")) == locked
    assert templar.template(trust_as_template("{{ __casemate_vantages }}")) == asked


def test_a_server_among_others_that_does_not_answer_hides_no_steps_and_blames_no_host() -> None:
    run = Run()
    asked = {"results": [{"unreachable": True}, {"step": {"sentence": "restart s1"}, "steps": ["restart s1"]}]}
    event = {"host": "a1", "task": "t", "play": "K3s", "res": asked}
    run.record({"event": "runner_on_unreachable", "event_data": event})
    assert (run.hosts["a1"].status, run.steps) == ("ok", ["restart s1"])
    run.record({"event": "playbook_on_stats", "event_data": {"failures": {}, "dark": {"a1": 1}}})
    assert run.hosts["a1"].status == "unreachable"


@pytest.mark.parametrize(("written", "compared"), [("FD00:0::2", "fd00::2"), ("192.0.2.7", "192.0.2.7"), ("s1", "s1")])
def test_an_address_is_compared_as_the_cluster_writes_it(written: str, compared: str) -> None:
    assert k3s_step.member("s1", True, {"ansible_host": written}, asked=False, here=False)["address"] == compared
