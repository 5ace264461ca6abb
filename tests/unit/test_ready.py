"""Waiting for K3s: what counts as up, what is hopeless, and what is said when time runs out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.k3s import readiness
from module_utils.casemate.k3s.api import Api, Kubelet

UNIT = "k3s.service"


def machine(path: Path, shown: str) -> FakeHost:
    return FakeHost(path, commands={f"systemctl show {UNIT}": (0, shown, "")})


def test_an_active_unit_without_a_job_is_up(tmp_path: Path) -> None:
    for job in ("Job=\n", "Job=0\n", ""):
        shown = f"ActiveState=active\n{job}MainPID=7\nExecMainStartTimestamp=Tue 2026-11-24 13:00:00.500000 UTC\n"
        assert readiness.unit_is_up(machine(tmp_path, shown), UNIT) == ("7", 1795525200.5)


@pytest.mark.parametrize(
    ("shown", "kind", "says"),
    [
        ("ActiveState=active\nJob=4711\n", readiness.NotReady, "systemd to start k3s.service, which is active"),
        ("ActiveState=inactive\nJob=4711\n", readiness.NotReady, "which is inactive"),
        ("ActiveState=activating\nJob=\n", readiness.NotReady, "which is activating, to be active"),
        ("ActiveState=failed\nJob=\nResult=exit-code\n", readiness.Hopeless, r"failed \(exit-code\)"),
        ("ActiveState=inactive\nJob=\n", readiness.Hopeless, "is inactive"),
        ("", readiness.NotReady, "which is unknown"),
    ],
)
def test_what_is_not_up_yet_is_told_from_what_never_will_be(
    tmp_path: Path, shown: str, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        readiness.unit_is_up(machine(tmp_path, shown), UNIT)


def answering(monkeypatch: pytest.MonkeyPatch, status: int, body: Any) -> None:
    for client in (Kubelet, Api):
        monkeypatch.setattr(client, "__init__", lambda self, host: None)
        monkeypatch.setattr(client, "call", lambda self, method, path, body_=None: (status, body))


def node(**states: str) -> dict[str, Any]:
    said = {"type": "Ready", "message": "container runtime network not ready"}
    return {"status": {"conditions": [{**said, "type": name, "status": state} for name, state in states.items()]}}


def test_a_node_is_up_with_all_conditions_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host, both = FakeHost(tmp_path), ["Ready", "EtcdIsVoter"]
    answering(monkeypatch, 200, node(Ready="True", EtcdIsVoter="True"))
    readiness.node_is_ready(host, "n", both, 0.0)
    answering(monkeypatch, 200, node(Ready="True"))
    readiness.node_is_ready(host, "n", ["Ready"], 0.0)
    with pytest.raises(readiness.NotReady, match="node n to be EtcdIsVoter: not reported yet"):
        readiness.node_is_ready(host, "n", both, 0.0)
    answering(monkeypatch, 200, node(Ready="False", EtcdIsVoter="True"))
    with pytest.raises(readiness.NotReady, match="node n to be Ready: container runtime network not ready"):
        readiness.node_is_ready(host, "n", both, 0.0)
    answering(monkeypatch, 200, {"status": {}})
    with pytest.raises(readiness.NotReady, match="not reported yet"):
        readiness.node_is_ready(host, "n", both, 0.0)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_an_api_that_does_not_answer_200_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int
) -> None:
    answering(monkeypatch, status, {})
    with pytest.raises(readiness.NotReady, match=str(status)):
        readiness.api_is_ready(FakeHost(tmp_path))
    with pytest.raises(readiness.NotReady, match=f"to register .the API server answers {status}"):
        readiness.node_is_ready(FakeHost(tmp_path), "n", ["Ready"], 0.0)


def test_a_kubelet_without_credentials_is_awaited(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no credentials yet"):
        Kubelet(FakeHost(tmp_path))


def test_what_the_kubelet_said_before_the_start_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = node(Ready="True", EtcdIsVoter="True")
    for condition in said["status"]["conditions"]:
        condition["lastHeartbeatTime"] = "2026-11-24T13:00:00Z"
    answering(monkeypatch, 200, said)
    both = ["Ready", "EtcdIsVoter"]
    readiness.node_is_ready(FakeHost(tmp_path), "n", both, 1795525200.9)  # the heartbeat is told in whole seconds
    with pytest.raises(readiness.NotReady, match="has not reported since K3s started"):
        readiness.node_is_ready(FakeHost(tmp_path), "n", both, 1795525201.1)


STARTED = 1795525200.0
LED = {
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    "spec": {"renewTime": "2026-11-24T13:00:01.500000Z"},
}


def processes(monkeypatch: pytest.MonkeyPatch, *pids: str) -> None:
    left = list(pids)
    monkeypatch.setattr(readiness, "unit_is_up", lambda host, unit, tries=0: (left.pop(0), STARTED))
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_a_k3s_that_is_started_again_and_again_is_not_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answering(monkeypatch, 200, LED)
    processes(monkeypatch, "7", "8")
    with pytest.raises(readiness.NotReady, match="to stay up"):
        readiness.is_up(FakeHost(tmp_path), UNIT, True, "n", ["Ready"])
    processes(monkeypatch, "8", "8")
    readiness.is_up(FakeHost(tmp_path), UNIT, True, "n", ["Ready"])


def test_a_k3s_that_ends_late_is_not_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = iter((0.0, 0.0, 4.0, 8.0, 12.0, 16.0))
    answering(monkeypatch, 200, LED)
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    processes(monkeypatch, "7", "7", "7", "8")
    with pytest.raises(readiness.NotReady, match="to stay up"):
        readiness.is_up(FakeHost(tmp_path), UNIT, True, "n", ["Ready"], stay=10)


def test_what_served_at_first_has_to_serve_still(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = iter((200, 200, 500))
    answering(monkeypatch, 200, LED)
    monkeypatch.setattr(Api, "call", lambda self, method, path, body_=None: (next(answers), LED))
    now = iter((0.0, 11.0))
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    processes(monkeypatch, "7", "7")
    with pytest.raises(readiness.NotReady, match="answers 500"):
        readiness.is_up(FakeHost(tmp_path), UNIT, True, "n", ["Ready"], stay=10)


@pytest.mark.parametrize(
    ("status", "lease", "led"),
    [
        (200, {"spec": {"renewTime": "2026-11-24T13:00:00.100000Z"}}, True),
        (200, {"spec": {"renewTime": "2026-11-24T12:59:59.999999Z"}}, False),  # of the process before
        (200, {"spec": {}}, False),
        (403, {}, False),
        (404, {}, True),
    ],
)
def test_the_controllers_are_led_since_k3s_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, lease: dict[str, Any], led: bool
) -> None:
    answering(monkeypatch, status, lease)
    if led:
        readiness.controllers_are_led(FakeHost(tmp_path), STARTED)
    else:
        with pytest.raises(readiness.NotReady, match="to be led"):
            readiness.controllers_are_led(FakeHost(tmp_path), STARTED)


@pytest.mark.parametrize(("again", "tries", "hopeless"), [(3, 3, True), (2, 3, False), (9, 0, False)])
def test_a_k3s_that_was_healthy_before_is_given_up_after_a_few_tries(
    tmp_path: Path, again: int, tries: int, hopeless: bool
) -> None:
    host = machine(tmp_path, f"ActiveState=activating\nJob=\nNRestarts={again}\n")
    with pytest.raises(
        readiness.Hopeless if hopeless else readiness.NotReady, match=r"ended 3 times|which is activating"
    ):
        readiness.unit_is_up(host, UNIT, tries)


def failing(*errors: Exception) -> Callable[[], None]:
    left = list(errors)

    def step() -> None:
        if left:
            raise left.pop(0) if len(left) > 1 or len(errors) > 1 else left[0]

    return step


def test_a_step_is_repeated_until_time_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [0.0]
    monkeypatch.setattr("time.sleep", lambda seconds: passed.__setitem__(0, passed[0] + seconds))
    late = failing(readiness.NotReady("a"), Unavailable("k3s", "b"), ConnectionResetError())
    assert readiness.wait(late, 60, lambda: passed[0]) == ""
    assert readiness.wait(failing(readiness.NotReady("the node")), 2, lambda: passed[0]) == "waited 2 s for the node"
    before = passed[0]
    assert readiness.wait(failing(readiness.Hopeless("it failed")), 60, lambda: passed[0]) == "it failed"
    assert passed[0] == before


WAITING = 'level=info msg="Waiting to retrieve agent configuration; server is not ready: Node password rejected'


@pytest.mark.parametrize(
    ("lines", "quoted"),
    [
        (["level=fatal msg=2", "level=info msg=3", "level=error msg=4"], ["level=fatal msg=2"]),
        (["level=error msg=1", "level=warning msg=2"], ["level=error msg=1"]),
        (
            ["Shutdown request received: kubelet exited", "level=error msg=2"],
            ["Shutdown request received: kubelet exited"],
        ),
        (["level=warning msg=1", "level=info msg=2"], ["level=warning msg=1", "level=info msg=2"]),
        (["level=info msg=1"], ["level=info msg=1"]),
        ([f'time="2026-11-27T10:00:0{at}Z" {WAITING}' for at in range(9)], [f'time="2026-11-27T10:00:08Z" {WAITING}']),
        (["level=error msg=0", *[f"level=info msg={at}" for at in range(99)], WAITING], ["msg=0", "msg=98", WAITING]),
        (["I1127 10:00:00.1   7 kubelet.go:1] up", "", "Killed"], ["I1127 10:00:00.1   7 kubelet.go:1] up", "Killed"]),
        ([], ["nothing"]),
    ],
)
def test_the_last_words_are_told_whatever_their_level(tmp_path: Path, lines: list[str], quoted: list[str]) -> None:
    host = FakeHost(tmp_path, commands={"journalctl": (0, "\n".join(lines), "")})
    said = readiness.last_words(host, UNIT, 1000.4)
    assert "--since=@1000" in host.ran[0]  # what an earlier start complained of says nothing of this one
    places = [said.index(one) for one in quoted]
    assert places == sorted(places)
    assert said.startswith(quoted[0]) or quoted[0] in lines[0]


def test_last_words_that_repeat_are_told_once_and_are_never_endless(tmp_path: Path) -> None:
    lines = [f'time="2026-11-27T10:00:{at:02}Z" {WAITING}' for at in range(60)] + ["level=info msg=" + "x" * 9999]
    said = readiness.last_words(FakeHost(tmp_path, commands={"journalctl": (0, "\n".join(lines), "")}), UNIT)
    assert said.count("Waiting") == 1
    assert len(said) < 4 * readiness.LONGEST
