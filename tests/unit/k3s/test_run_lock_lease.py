"""The lock as a Lease: of two runs one is refused, whatever they read before."""

from __future__ import annotations

from typing import Any

import pytest
from unit.made import HOLDER as MINE

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.k3s.run_lock_lease import PATH, Lease, lease_of, record_of

OTHER: dict[str, Any] = {**MINE, "run": "n 8 2", "name": "bob@there:8"}


class Server:
    """The Leases of an API server, with its versions; `before_write` is what somebody else does in between."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.before_write: Any = None

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        assert path == (PATH if method == "POST" else f"{PATH}/casemate")
        if method != "GET" and self.before_write:
            other, self.before_write = self.before_write, None
            other()
        if method == "GET":
            return (200, self.lease) if self.lease else (404, {})
        if method == "DELETE":
            assert body is not None
            if not self.lease or body["preconditions"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                return 409, {}
            self.lease = None
            return 200, {}
        assert body is not None
        there = self.lease["metadata"]["resourceVersion"] if self.lease else None
        if (method == "POST" and self.lease) or (method == "PUT" and body["metadata"]["resourceVersion"] != there):
            return 409, {}
        self.version += 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return 201 if method == "POST" else 200, self.lease


def lease(server: Server) -> Lease:
    return Lease(server)  # type: ignore[arg-type]


def test_it_is_taken_renewed_refused_and_given_back() -> None:
    server = Server()
    assert lease(server).take(MINE, 900)[0] == ""
    assert lease(server).take(MINE, 900)[0] == ""
    assert server.lease is not None
    assert (server.lease["spec"]["holderIdentity"], server.lease["spec"]["leaseDurationSeconds"]) == ("ann@here:7", 900)
    why, record = lease(server).take(OTHER, 900)
    assert "ann@here:7 has the lock" in why and record is not None
    assert lease(server).take(OTHER, 900, gone=[MINE["run"]])[0] == ""
    assert not lease(server).free(MINE["run"])
    assert lease(server).free(OTHER["run"])
    assert server.lease is None
    assert not lease(server).free(OTHER["run"])


@pytest.mark.parametrize("there", [False, True])
def test_whoever_writes_first_has_it(there: bool) -> None:
    server = Server()
    if there:  # one that has ended
        server.call("POST", PATH, lease_of({**MINE, "run": "x", "since": 1.0, "renewed": 1.0, "seconds": 900}))
    server.before_write = lambda: lease(server).take(OTHER, 900)
    why, record = lease(server).take(MINE, 900)
    assert "bob@there:8 has the lock" in why and record is not None
    assert server.lease is not None and (record_of(server.lease) or {})["run"] == OTHER["run"]


def test_a_broken_lease_is_free_for_others_and_stops_its_run() -> None:
    server = Server()
    lease(server).take(MINE, 900)
    assert lease(server).break_by("no@body:1", "bob@there:8") is None
    assert lease(server).break_by(MINE["name"], "bob@there:8") is not None
    assert "was broken by bob@there:8" in lease(server).take(MINE, 900)[0]
    assert lease(server).take(OTHER, 900)[0] == ""


@pytest.mark.parametrize("status", [401, 403, 422])
def test_an_api_that_refuses_is_no_lock(status: int) -> None:
    server = Server()
    server.call = lambda method, path, body=None: (status, {})  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        lease(server).take(MINE, 900)
