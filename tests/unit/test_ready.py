"""Waiting for K3s: what counts as up, what is hopeless, and what is said when time runs out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate import ready
from module_utils.casemate.base import Unavailable
from module_utils.casemate.kinds.k8s_object import Api

UNIT = "k3s.service"


def machine(path: Path, shown: str) -> FakeHost:
    return FakeHost(path, commands={f"systemctl show {UNIT}": (0, shown, "")})


def test_an_active_unit_without_a_job_is_up(tmp_path: Path) -> None:
    for job in ("Job=\n", "Job=0\n", ""):
        ready.unit_is_up(machine(tmp_path, f"ActiveState=active\n{job}Result=success\n"), UNIT)


@pytest.mark.parametrize(
    ("shown", "kind", "says"),
    [
        ("ActiveState=active\nJob=4711\n", ready.NotReady, "systemd to start k3s.service, which is active"),
        ("ActiveState=inactive\nJob=4711\n", ready.NotReady, "which is inactive"),
        ("ActiveState=activating\nJob=\n", ready.NotReady, "which is activating, to be active"),
        ("ActiveState=failed\nJob=\nResult=exit-code\n", ready.Hopeless, r"failed \(exit-code\)"),
        ("ActiveState=inactive\nJob=\n", ready.Hopeless, "is inactive"),
        ("", ready.NotReady, "which is unknown"),
    ],
)
def test_what_is_not_up_yet_is_told_from_what_never_will_be(
    tmp_path: Path, shown: str, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        ready.unit_is_up(machine(tmp_path, shown), UNIT)


def answering(monkeypatch: pytest.MonkeyPatch, status: int, body: Any) -> None:
    for client in (ready.Kubelet, Api):
        monkeypatch.setattr(client, "__init__", lambda self, host: None)
        monkeypatch.setattr(client, "call", lambda self, method, path, body_=None: (status, body))


def node(**states: str) -> dict[str, Any]:
    said = {"type": "Ready", "message": "container runtime network not ready"}
    return {"status": {"conditions": [{**said, "type": name, "status": state} for name, state in states.items()]}}


def test_a_node_is_up_with_all_conditions_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host, both = FakeHost(tmp_path), ["Ready", "EtcdIsVoter"]
    answering(monkeypatch, 200, node(Ready="True", EtcdIsVoter="True"))
    ready.node_is_ready(host, "n", both)
    answering(monkeypatch, 200, node(Ready="True"))
    ready.node_is_ready(host, "n", ["Ready"])
    with pytest.raises(ready.NotReady, match="node n to be EtcdIsVoter: not reported yet"):
        ready.node_is_ready(host, "n", both)
    answering(monkeypatch, 200, node(Ready="False", EtcdIsVoter="True"))
    with pytest.raises(ready.NotReady, match="node n to be Ready: container runtime network not ready"):
        ready.node_is_ready(host, "n", both)
    answering(monkeypatch, 200, {"status": {}})
    with pytest.raises(ready.NotReady, match="not reported yet"):
        ready.node_is_ready(host, "n", both)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_an_api_that_does_not_answer_200_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int
) -> None:
    answering(monkeypatch, status, {})
    with pytest.raises(ready.NotReady, match=str(status)):
        ready.api_is_ready(FakeHost(tmp_path))
    with pytest.raises(ready.NotReady, match=f"to register .the API server answers {status}"):
        ready.node_is_ready(FakeHost(tmp_path), "n", ["Ready"])


def test_a_kubelet_without_credentials_is_awaited(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no credentials yet"):
        ready.Kubelet(FakeHost(tmp_path))


def failing(times: int, error: Exception) -> Callable[[], None]:
    left = [times]

    def step() -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return step


def test_steps_are_taken_in_order_until_time_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [0.0]
    monkeypatch.setattr("time.sleep", lambda seconds: passed.__setitem__(0, passed[0] + seconds))
    late = [failing(3, ready.NotReady("a")), failing(3, Unavailable("k3s", "b")), failing(1, ConnectionResetError())]
    assert ready.wait(late, 60, lambda: passed[0]) == ""
    assert ready.wait([failing(-1, ready.NotReady("the node"))], 2, lambda: passed[0]) == "waited 2 s for the node"
    before = passed[0]
    assert ready.wait([failing(-1, ready.Hopeless("it failed")), failing(9, OSError())], 60, lambda: passed[0]) == (
        "it failed"
    )
    assert passed[0] == before


def test_the_last_complaint_of_the_journal_is_told(tmp_path: Path) -> None:
    said = "level=info msg=1\nlevel=fatal msg=2\nlevel=info msg=3\n"
    host = FakeHost(tmp_path, commands={"journalctl": (0, said, "")})
    assert ready.last_words(host, UNIT) == "level=fatal msg=2"
    assert ready.last_words(FakeHost(tmp_path), UNIT) == "nothing wrong"


def members(*names: str) -> dict[str, Any]:
    address = {name: [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": name}] for name in names}
    return {"items": [{"metadata": {"name": n}, "status": {"addresses": address[n]}} for n in names]}


@pytest.mark.parametrize(
    ("names", "ill", "goes_on"),
    [
        ("a", "", True),
        ("ab", "", True), ("ab", "b", False),
        ("abc", "", True), ("abc", "c", False), ("abc", "bc", False),
        ("abcd", "", True), ("abcd", "d", False),
        ("abcde", "e", True), ("abcde", "de", False),
    ],
)  # fmt: skip
def test_a_server_restarts_only_while_the_others_hold_quorum(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: str, ill: str, goes_on: bool
) -> None:
    answering(monkeypatch, 200, members(*names))
    asked: list[str] = []

    class Other:
        def __init__(self, host: FakeHost, address: str) -> None:
            self.address = address
            asked.append(address)

        def call(self, method: str, path: str) -> tuple[int, Any]:
            if self.address in ill and self.address == ill[0]:
                raise Unavailable("k3s", "refused")
            return (500 if self.address in ill else 200), {}

    monkeypatch.setattr(ready, "Peer", Other)
    if goes_on:
        ready.others_hold_quorum(FakeHost(tmp_path), "a")
    else:
        with pytest.raises(ready.NotReady, match=f"{', '.join(ill)} to be ready: without it etcd would lose"):
            ready.others_hold_quorum(FakeHost(tmp_path), "a")
    assert asked == list(names[1:])
