"""Hosts that lost their data: what keeps them from joining again, and what is told to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.k3s import rejoin


def known(*rows: tuple[str, str, bool]) -> dict[str, dict[str, Any]]:
    return {name: {"addresses": [address], "ready": ready} for name, address, ready in rows}


NODES = known(("s1", "192.0.2.1", True), ("s2", "192.0.2.2", False), ("a1", "192.0.2.9", False))
MEMBERS = known(("s1-0a1b2c3d", "192.0.2.1", True), ("s2-4e5f6a7b", "192.0.2.2", True))


@pytest.mark.parametrize(
    ("name", "address", "server", "found"),
    [
        ("s2", "192.0.2.2", True, {"s2": "stale"}),  # wiped
        ("s2", "192.0.2.77", True, {"s2": "stale"}),  # replaced by a machine with another address
        ("s9", "192.0.2.2", True, {"s2": "stale"}),  # and by one with another name: its address may not vote twice
        ("s1", "192.0.2.1", True, {"s1": "stale"}),  # wiped just now
        ("s1", "192.0.2.77", True, {"s1": "alive"}),  # another machine has this name
        ("s9", "192.0.2.77", True, {}),
        ("a1", "192.0.2.9", False, {"a1": "stale"}),
        ("a1", "192.0.2.77", False, {"a1": "stale"}),
        ("s1", "192.0.2.77", False, {"s1": "alive"}),
        ("a9", "192.0.2.9", False, {}),  # nothing keeps an agent of a new name from joining
    ],
)
def test_what_keeps_a_host_without_data_from_joining(
    name: str, address: str, server: bool, found: dict[str, str]
) -> None:
    assert rejoin.obstacles(name, [address], server, NODES, MEMBERS) == found


def test_a_member_of_etcd_without_a_node_is_an_obstacle_too() -> None:
    assert rejoin.obstacles("s2", ["192.0.2.2"], True, {}, MEMBERS) == {"s2": "member"}


@pytest.mark.parametrize(
    ("found", "first", "said"),
    [
        ({}, False, []),
        ({"s2": "stale"}, False, ["run `k3s kubectl delete node s2` on one, and apply again"]),
        (
            {"s2": "stale"},
            True,
            ["run `k3s kubectl delete node s2` on one, list one first in k3s_server, and apply again"],
        ),
        ({}, True, ["List one first in k3s_server and apply again: two then joins"]),
        ({"s2": "member"}, False, ["etcd, s2, and no node of that name. Run `remove it` on one, and apply again"]),
        ({"s2": "alive"}, False, ["Give this one another name"]),
        ({"s2": "stale", "s3": "stale"}, False, ["delete node s2", "delete node s3"]),
    ],
)
def test_the_steps_are_told(found: dict[str, str], first: bool, said: list[str]) -> None:
    refusals = rejoin.refusals("two", found, {"s2-1a2b3c4d": {"addresses": [], "removal": "`remove it`"}}, "one", first)
    assert len(refusals) == len(said)
    assert all(words in line for words, line in zip(said, refusals, strict=True))


@pytest.mark.parametrize(("code", "said"), [("refused", "another authority; this server has a cluster"), ("k3s", "")])
def test_data_of_another_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str) -> None:
    def takes(host: object, server: str) -> bool:
        raise Unavailable(code, "another authority")

    host = FakeHost(tmp_path)
    monkeypatch.setattr(rejoin, "takes", takes)
    assert rejoin.elsewhere(host, "https://192.0.2.1:6443").startswith(said)
    assert bool(rejoin.elsewhere(host, "https://192.0.2.1:6443")) is bool(said)
    monkeypatch.setattr(rejoin, "takes", lambda host, server: True)
    assert rejoin.elsewhere(host, "https://192.0.2.1:6443") == ""


@pytest.mark.parametrize(
    ("files", "server", "holds"),
    [
        ([], True, False),
        ([], False, False),
        ([rejoin.PASSWORD], False, True),
        ([rejoin.PASSWORD], True, False),  # a server is known by its database
        ([rejoin.DATABASE + "/name"], True, True),
        ([rejoin.DATABASE + "/name", rejoin.DATABASE + "/tombstone"], True, False),  # K3s drops it at its next start
    ],
)
def test_what_a_host_is_known_by(tmp_path: Path, files: list[str], server: bool, holds: bool) -> None:
    assert rejoin.holds(FakeHost(tmp_path, files=dict.fromkeys(files, "x")), server) is holds
