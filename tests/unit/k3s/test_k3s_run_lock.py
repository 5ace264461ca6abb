"""The lock where it stands: file and Lease are taken and given back together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.host.run_lock import Lock
from module_utils.casemate.k3s import run_lock

MINE: dict[str, Any] = {"run": "m 7 1", "name": "ann@here:7", "what": "apply"}
OTHER: dict[str, Any] = {"run": "n 8 2", "name": "bob@there:8", "what": "apply"}


class Lease:
    """A Lease that is refused, silent, or free."""

    def __init__(self, state: str) -> None:
        self.state = state
        self.freed: list[str] = []

    def take(self, holder: dict[str, Any], seconds: float, gone: Any = ()) -> tuple[str, Any]:
        if self.state == "silent":
            raise Unavailable("k3s", "the API server does not answer")
        if self.state == "broken":
            return "the lock of this run was broken by bob", MINE
        return ("bob has it", OTHER) if self.state == "refused" else ("", None)

    def free(self, run: str) -> bool:
        if self.state == "silent":
            raise Unavailable("k3s", "the API server does not answer")
        self.freed.append(run)
        return True


@pytest.mark.parametrize(
    ("state", "why", "file"),
    [("free", "", True), ("silent", "", True), ("refused", "bob has it", False), ("broken", "was broken", True)],
)
def test_where_the_lease_is_refused_the_file_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, why: str, file: bool
) -> None:
    host, lease = FakeHost(tmp_path), Lease(state)
    monkeypatch.setattr(run_lock, "Lease", lambda api: lease)
    monkeypatch.setattr(run_lock, "Api", lambda host, timeout: None)
    refusal, record = run_lock.hold(host, MINE, 900, lease=True)
    assert why in refusal and bool(refusal) is bool(why)
    assert (record or {}).get("run") == {"refused": OTHER["run"], "broken": MINE["run"]}.get(state)
    assert (Lock(str(tmp_path)).read() is not None) is file
    run_lock.free(host, MINE["run"], lease=True)
    assert Lock(str(tmp_path)).read() is None
    assert lease.freed == ([] if state == "silent" else [MINE["run"]])


def test_a_host_without_an_api_has_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost(tmp_path)
    assert [name for name, _ in run_lock.places(host, lease=False)] == ["file"]
    assert [name for name, _ in run_lock.places(host, lease=True)] == ["file"]  # a server on which none has run
    assert run_lock.hold(host, MINE, 900, lease=True) == ("", None)
    assert "ann@here:7 has the lock" in run_lock.hold(host, OTHER, 900, lease=True)[0]
