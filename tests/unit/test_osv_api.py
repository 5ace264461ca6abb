"""OSV's API is asked to the last page, and what it does not answer rightly is never taken for no advisory."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from unit.osv_server import OsvServer, entry, serving

from casemate.supply import osv_api
from casemate.supply.osv_api import Api, ApiError

RUNC, NET = "github.com/opencontainers/runc", "golang.org/x/net"
ENTRIES = [
    *(entry(f"GO-2026-{at}", RUNC, {"introduced": "0"}) for at in range(5)),
    entry("GHSA-aaaa", NET, {"introduced": "0"}),
    entry("GO-2026-9", "example.org/other", {"introduced": "0"}),
]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OsvServer]:
    with serving(ENTRIES, monkeypatch) as made:
        yield made


def test_every_page_is_asked_for_and_each_entry_once(server: OsvServer) -> None:
    found = Api(server.address).entries({RUNC, NET, "example.org/unknown"})
    assert sorted(found) == ["GHSA-aaaa", *(f"GO-2026-{at}" for at in range(5))]
    assert json.loads(found["GHSA-aaaa"])["modified"] == ENTRIES[5]["modified"]
    batches = [body["queries"] for path, body in server.asked if path == "/v1/querybatch"]
    assert [len(one) for one in batches] == [3, 1, 1]
    assert batches[2] == [{"package": {"name": RUNC, "ecosystem": "Go"}, "page_token": "4"}]
    assert len(server.asked) == 3 + 6


def test_no_more_questions_than_a_batch_takes(server: OsvServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(osv_api, "BATCH", 2)
    assert len(Api(server.address).entries({RUNC, NET, "example.org/unknown"})) == 6
    assert max(len(body["queries"]) for path, body in server.asked if body) == 2


def test_nobody_is_told_a_version(server: OsvServer) -> None:
    Api(server.address).entries({RUNC})
    assert all(one.keys() <= {"package", "page_token"} for _, body in server.asked if body for one in body["queries"])


BATCHES = {
    "it is nested without end": b"[" * 100_000,
    "no JSON": b"<html>please log in</html>",
    "no object": b"[]",
    "no results": b"{}",
    "too few results": b'{"results": []}',
    "no result": b'{"results": [null]}',
    "no list of vulns": b'{"results": [{"vulns": 7}]}',
    "no id": b'{"results": [{"vulns": [{"modified": "2026-01-01T00:00:00Z"}]}]}',
    "an id that leads elsewhere": b'{"results": [{"vulns": [{"id": "../../etc/passwd"}]}]}',
    "an id that is no text": b'{"results": [{"vulns": [{"id": 7}]}]}',
    "a token that is no text": b'{"results": [{"next_page_token": 7}]}',
    "no advisory at all": b'{"results": [{}]}',
    "pages without an end": b'{"results": [{"vulns": [], "next_page_token": "x"}]}',
    "cut off": b'{"results": [{"vulns": [{"id": "GO-2026-0"',
}


@pytest.mark.parametrize("said", BATCHES)
def test_an_answer_to_a_batch_that_is_none_is_an_error(server: OsvServer, said: str) -> None:
    server.wrong = lambda path, _: (200, BATCHES[said]) if path == "/v1/querybatch" else None
    with pytest.raises(ApiError, match=r"OSV|no end"):
        Api(server.address).entries({RUNC})


VULNS: dict[str, tuple[int, Any]] = {
    "it is not there": (404, {}),
    "it is another one": (200, {**ENTRIES[0], "id": "GO-2026-77"}),
    "it has no time": (200, {**ENTRIES[0], "modified": None}),
    "it has no packages": (200, {**ENTRIES[0], "affected": [7]}),
    "it has no events": (200, entry("GO-2026-0", RUNC)),
    "it is a list": (200, []),
}


@pytest.mark.parametrize("said", VULNS)
def test_an_entry_that_is_none_is_an_error(server: OsvServer, said: str) -> None:
    code, body = VULNS[said]
    server.wrong = lambda path, _: (code, json.dumps(body).encode()) if path == "/v1/vulns/GO-2026-0" else None
    with pytest.raises(ApiError, match="nobody knows which advisories there are"):
        Api(server.address).entries({RUNC})


def test_who_is_busy_is_asked_again_and_who_refuses_is_not(server: OsvServer) -> None:
    codes = [503, 429]
    server.wrong = lambda *_: (codes.pop(), b"{}") if codes else None
    assert len(Api(server.address).entries({NET})) == 1
    for code, calls in ((503, osv_api.TRIES), (400, 1), (403, 1)):
        server.asked.clear()
        server.wrong = lambda *_, code=code: (code, b"{}")
        with pytest.raises(ApiError, match=f"it answers {code}"):
            Api(server.address).entries({NET})
        assert len(server.asked) == calls


def test_what_is_sent_elsewhere_is_not_asked_there(server: OsvServer) -> None:
    server.wrong = lambda path, _: (302, f"{server.address}/elsewhere".encode()) if path == "/v1/querybatch" else None
    with pytest.raises(ApiError, match="it answers 302"):
        Api(server.address).entries({RUNC})
    assert {path for path, _ in server.asked} == {"/v1/querybatch"}


def test_nobody_there_and_an_answer_without_end_are_errors(server: OsvServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(osv_api, "MOST", 10)
    with pytest.raises(ApiError, match="larger"):
        Api(server.address).entries({RUNC})
    with socket.socket() as silent:  # takes the question, and answers nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(osv_api, "SECONDS", 0.05)
        with pytest.raises(ApiError, match="timed out"):
            Api(f"http://127.0.0.1:{silent.getsockname()[1]}").entries({RUNC})
        gone = silent.getsockname()[1]
    with pytest.raises(ApiError, match="refused"):
        Api(f"http://127.0.0.1:{gone}").entries({RUNC})


def test_the_proxy_of_the_environment_is_asked(server: OsvServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ApiError):  # which answers for whom it does not know
        Api("http://localhost:9").entries({RUNC})
    assert server.asked[0][0] == "http://localhost:9/v1/querybatch"


@pytest.mark.parametrize("address", ["http://osv.example.org", "ftp://127.0.0.1", "api.osv.dev", "https://me:pw@a.org"])
def test_an_address_that_anybody_could_change_is_not_asked(address: str) -> None:
    with pytest.raises(ApiError) as refused:
        Api(address)
    assert "pw" not in str(refused.value)
