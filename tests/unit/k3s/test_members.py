"""The members of etcd as a server sees them: who votes, and whose API server is ready."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.k3s import members
from module_utils.casemate.k3s.members import EtcdMember


class Server:
    """An API server by its address; the host's own is that of no address."""

    ready: ClassVar[dict[str, int | None]] = {}
    asked: ClassVar[list[str]] = []
    answers: ClassVar[Any] = {"items": []}

    def __init__(self, host: FakeHost, address: str = "", timeout: float = 0) -> None:
        self.address = address

    def call(self, method: str, path: str) -> tuple[int, Any]:
        self.asked.append(self.address)
        status = self.ready[self.address]
        if status is None:
            raise Unavailable("k3s", "no route")
        return status, {}

    def get(self, path: str) -> Any:
        if isinstance(self.answers, Unavailable):
            raise self.answers
        return self.answers


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> type[Server]:
    known: list[dict[str, Any]] = [
        {"name": "a-0a1b2c3d", "peerURLs": ["https://192.0.2.1:2380"]},
        {"name": "b-x-0a1b2c3d", "peerURLs": ["https://192.0.2.2:2380"]},
        {"name": "c-0a1b2c3d", "peerURLs": ["https://[2001:db8::3]:2380"], "isLearner": True},
        {"peerURLs": ["https://192.0.2.4:2380"]},  # it was added, and has not started yet
    ]

    class Etcd:
        def __init__(self, host: FakeHost) -> None:
            """Connect to nobody."""

        def members(self) -> list[dict[str, Any]]:
            return known

    monkeypatch.setattr(members, "Etcd", Etcd)
    monkeypatch.setattr(members, "Api", Server)
    Server.ready = {"192.0.2.1": 200, "192.0.2.2": 500, "2001:db8::3": 200, "192.0.2.4": None}
    Server.asked, Server.answers = [], {"items": []}
    return Server


def test_a_member_is_well_when_its_own_api_server_is_ready(tmp_path: Path, servers: type[Server]) -> None:
    assert members.etcd_members(FakeHost(tmp_path)) == [
        EtcdMember("a", "192.0.2.1"),
        EtcdMember("b-x", "192.0.2.2", well=False),
        EtcdMember("c", "2001:db8::3", votes=False),
        EtcdMember("192.0.2.4", "192.0.2.4", well=False),
    ]
    assert servers.asked == ["192.0.2.1", "192.0.2.2", "2001:db8::3", "192.0.2.4"]


def test_a_server_without_etcd_s_majority_tells_nothing(tmp_path: Path, servers: type[Server]) -> None:
    """Its list of members would come from memory."""
    servers.answers = Unavailable("k3s", "the API server answers 500")
    with pytest.raises(Unavailable):
        members.etcd_members(FakeHost(tmp_path))
    assert not servers.asked


def test_whose_node_is_ready_is_told_by_address(tmp_path: Path, servers: type[Server]) -> None:
    def node(ready: str | None, *addresses: str) -> dict[str, Any]:
        internal = [{"type": "InternalIP", "address": one} for one in addresses]
        conditions = [{"type": "Ready", "status": ready}] if ready else []
        return {"status": {"conditions": conditions, "addresses": [{"type": "Hostname", "address": "x"}, *internal]}}

    servers.answers = {
        "items": [node("True", "192.0.2.1", "2001:db8::1"), node("Unknown", "192.0.2.2"), node(None, "a"), {}]
    }
    assert members.ready_nodes(FakeHost(tmp_path)) == {
        "192.0.2.1": True, "2001:db8::1": True, "192.0.2.2": False, "a": False,
    }  # fmt: skip
