"""Whether a cluster is its inventory: pure but for what API and etcd are asked, which is canned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Verdict
from module_utils.casemate.kinds import cluster_nodes as kind

SERVERS = [["s1", "192.0.2.1", "203.0.113.1"], ["s2", "", "192.0.2.2"]]
AGENTS = [["2001:DB8::9", "", ""], ["a2", "192.0.2.12,2001:db8::12", "203.0.113.12"]]


def node(name: str, *addresses: str, server: bool = False, ready: str = "True", **meta: str) -> Any:
    labels = {kind.CONTROL_PLANE: "true"} if server else {}
    return {
        "metadata": {"name": name, "labels": labels, **meta},
        "status": {
            "addresses": [{"type": "InternalIP", "address": a} for a in addresses]
            + [{"type": "Hostname", "address": name}],
            "conditions": [{"type": "Ready", "status": ready, "message": "Kubelet stopped posting node status."}],
        },
    }


def member(name: str, address: str, **more: Any) -> Any:
    return {"name": name, "ID": "1", "peerURLs": [f"https://{address}:2380"], **more}


NODES: Any = {
    "one": node("one", "192.0.2.1", server=True),
    "two": node("two", "192.0.2.2", server=True),
    "three": node("three", "2001:db8:0::9"),
    "four": node("four", "192.0.2.12", "2001:db8::12"),
}
MEMBERS: Any = {"one": member("one-1a2b", "192.0.2.1"), "two": member("two-3c4d", "192.0.2.2")}


def judge(monkeypatch: pytest.MonkeyPatch, folder: Path, aspect: str, nodes: Any, members: Any) -> Verdict:
    class Cluster:
        def __init__(self, host: object) -> None:
            """Take any host."""

        def get(self, path: str) -> Any:
            assert path == "/api/v1/nodes"
            return {"items": [one for one in nodes.values() if one]}

        def members(self) -> Any:
            return [one for one in members.values() if one]

    monkeypatch.setattr(kind, "Api", Cluster)
    monkeypatch.setattr(kind, "Etcd", Cluster)
    setting: Any = {"aspect": aspect, "servers": SERVERS, "agents": AGENTS}
    return kind.assess(setting, kind.observe([setting], FakeHost(folder))[0])


def test_the_same_hosts_under_other_names_are_the_inventory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for aspect in ("declared", "joined"):
        verdict = judge(monkeypatch, tmp_path, aspect, NODES, MEMBERS)
        assert (verdict.ok, verdict.reason) == (True, "")


@pytest.mark.parametrize(
    ("aspect", "nodes", "members", "said"),
    [
        ("declared", {"x": node("x", "192.0.2.66")}, {}, "node x (192.0.2.66) is no host of the inventory"),
        ("declared", {"x": {"metadata": {"name": "x"}}}, {}, "node x (no address) is no host of the inventory"),
        ("declared", {"one": node("one", "192.0.2.66")}, {}, "node one (192.0.2.66) is no host of the inventory"),
        ("declared", {"x": node("x", "192.0.2.12")}, {}, "nodes four and x are both a2 (192.0.2.12)"),
        (
            "declared",
            {},
            {"x": member("x-1", "192.0.2.66")},
            "etcd's member x-1 (192.0.2.66) is no host of the inventory",
        ),
        ("declared", {}, {"x": member("four-1", "192.0.2.12")}, "etcd's member four-1 (192.0.2.12) is no host"),
        ("declared", {}, {"x": member("", "192.0.2.66")}, "etcd's member 1 (192.0.2.66) is no host"),
        ("declared", {}, {"x": member("one-9", "192.0.2.1")}, "etcd's members one-1a2b and one-9 are both s1"),
        (
            "declared",
            {"x": node("x", "192.0.2.66", server=True)},
            {"x": member("x-1", "192.0.2.66")},  # goes with its node, so it is not told
            "node x (192.0.2.66) is no host of the inventory: list it there, or stop K3s on it for good and",
        ),
        (
            "declared",
            {
                "four": node("four", "192.0.2.12", creationTimestamp="2026-01-01T00:00:00Z"),
                "x": node("x", "192.0.2.12", creationTimestamp="2026-02-01T00:00:00Z"),
            },
            {},
            "nodes x and four are both a2 (192.0.2.12): remove the older by `k3s kubectl delete node four`",
        ),
        (
            "declared",
            {},
            {"x": member("", "192.0.2.1")},
            'etcd\'s members one-1a2b and 1 are both s1 (192.0.2.1): remove the latter by `echo \'{"ID": "1"}\' | k3s',
        ),
        ("joined", {"four": None}, {}, "a2 (192.0.2.12, 2001:db8::12) is no node of this cluster"),
        ("joined", {"three": None}, {}, "2001:DB8::9 (2001:db8::9) is no node of this cluster"),
        ("joined", {"four": node("four", "192.0.2.66")}, {}, "a2 (192.0.2.12, 2001:db8::12) is no node"),
        (
            "joined",
            {"four": node("four", "192.0.2.12", ready="Unknown")},
            {},
            "a2: node four is not Ready: Kubelet stopped posting node status.",
        ),
        ("joined", {"four": node("four", "192.0.2.12", ready="False")}, {}, "a2: node four is not Ready"),
        (
            "joined",
            {"four": node("four", "192.0.2.12", deletionTimestamp="2026-01-01T00:00:00Z")},
            {},
            "a2: node four is being deleted",
        ),
        (
            "joined",
            {"four": node("four", "192.0.2.12", server=True)},
            {},
            "a2: node four is a server, but declared as an agent",
        ),
        ("joined", {"two": node("two", "192.0.2.2")}, {}, "s2: node two is an agent, but declared as a server"),
        ("joined", {}, {"two": None}, "s2 has no vote in etcd: it is no member"),
        (
            "joined",
            {},
            {"two": member("two-1", "192.0.2.2", isLearner=True)},
            "s2 has no vote in etcd: it is only learning",
        ),
    ],
)
def test_what_differs_between_cluster_and_inventory_is_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    aspect: str,
    nodes: Any,
    members: Any,
    said: str,
) -> None:
    verdict = judge(monkeypatch, tmp_path, aspect, {**NODES, **nodes}, {**MEMBERS, **members})
    assert not verdict.ok
    assert verdict.reason.startswith(said)
    assert "; and " not in verdict.reason  # nothing else is wrong
    [place] = verdict.where
    assert re.split("[/ ]", place)[-1] in verdict.reason


def test_a_stale_twin_beside_a_ready_node_is_told_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    twins: Any = {**NODES, "old": node("old", "192.0.2.12", ready="Unknown")}
    assert judge(monkeypatch, tmp_path, "joined", twins, MEMBERS).ok
    assert "nodes four and old are both a2" in judge(monkeypatch, tmp_path, "declared", twins, MEMBERS).reason
