"""`casemate advisories --online`: judged as data of a folder is, kept where asked, and nothing is opened without it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.osv_server import OsvServer, entry, serving
from unit.test_advisories_cli import NET, RUNC, data, hosts, program, run

from casemate.run.runner import Run
from casemate.supply import osv_folder

__all__ = ["hosts", "program"]  # fixtures

HOLES = [
    entry("GO-2026-5", RUNC, {"introduced": "0"}, {"fixed": "1.4.2"}, aliases=["GHSA-rrrr"]),
    entry("GHSA-rrrr", RUNC, {"introduced": "0"}, {"fixed": "1.4.2"}, aliases=["GO-2026-5"]),
    entry("GO-2026-6", RUNC, {"introduced": "0"}, {"fixed": "1.4.1"}),
    entry("GO-2026-7", RUNC, {"introduced": "0"}, withdrawn="2026-02-01T00:00:00Z"),
    entry("GO-2026-8", NET, {"introduced": "0"}),
]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OsvServer]:
    with serving(HOLES, monkeypatch) as made:
        yield made


def ask(server: OsvServer, *arguments: Any) -> Any:
    done = run(*arguments, "--online", "--osv-api", server.address, "--format", "json")
    return done, json.loads(done.stdout) if done.exit_code != 1 else None


def test_it_is_judged_as_data_of_a_folder(program: Path, server: OsvServer) -> None:
    done, (seen,) = ask(server, program)
    assert done.exit_code == 2
    assert [(one["id"], one["aliases"], one["fixed"]) for one in seen["open"]] == [
        ("GHSA-rrrr", ["GO-2026-5"], "1.4.2"),
    ]  # fmt: skip
    assert [one["id"] for one in seen["told"]] == ["GO-2026-8"]
    assert seen["stale"] == []
    assert "5 advisories about 3 Go modules" in done.stderr
    (program / "runc").write_text("v1.4.2")
    assert ask(server, program)[0].exit_code == 0


def test_what_it_answers_stands_beside_other_data(tmp_path: Path, program: Path, server: OsvServer) -> None:
    _, (seen,) = ask(server, program, "--data", data(tmp_path, runc="1.4.2"))
    assert [one["id"] for one in seen["open"]] == ["GHSA-rrrr", "GO-2026-0"]


def test_a_call_that_fails_is_no_absence_of_advisories(program: Path, server: OsvServer) -> None:
    server.wrong = lambda path, _: (500, b"") if path.startswith("/v1/vulns/") else None
    done, _ = ask(server, program)
    assert done.exit_code == 1
    assert "nobody knows which advisories there are" in " ".join(done.output.split())
    server.wrong = lambda *_: (200, b'{"results": [{}, {}, {}]}')
    assert ask(server, program)[0].exit_code == 1


def test_what_is_kept_answers_without_a_network(tmp_path: Path, program: Path, server: OsvServer) -> None:
    kept = tmp_path / "kept"
    for _ in range(2):  # the second takes the place of the first
        assert ask(server, program, "--keep", kept)[0].exit_code == 2
    assert not list(tmp_path.glob(".kept*"))
    server.asked.clear()
    done = run(program, "--data", kept, "--format", "json")
    (seen,) = json.loads(done.stdout)
    assert ([one["id"] for one in seen["open"]], seen["stale"]) == (["GHSA-rrrr"], [])
    assert server.asked == []


def test_what_is_kept_says_for_whom_it_does_not_tell(
    tmp_path: Path, program: Path, server: OsvServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    ask(server, program, "--keep", kept)
    record = kept / osv_folder.RECORD
    said = json.loads(record.read_text())
    record.write_text(json.dumps({**said, "names": [NET, "stdlib"]}))
    done = run(program, "--data", kept, "--format", "json")
    (seen,) = json.loads(done.stdout)
    assert done.exit_code == 2
    assert f"not for {RUNC}" in seen["stale"][0]
    whole = run(program, "--data", kept, "--data", data(tmp_path), "--format", "json")
    assert json.loads(whole.stdout)[0]["stale"] == []
    record.write_text(json.dumps({**said, "asked": "2020-01-01T00:00:00+00:00"}))
    assert "when OSV was asked" in json.loads(run(program, "--data", kept, "--format", "json").stdout)[0]["stale"][0]
    record.write_text(json.dumps(said))
    (kept / "GO-2026-5.json").unlink()
    assert "lacks 1 of what OSV answered" in " ".join(run(program, "--data", kept).output.split())


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, program: Path, server: OsvServer) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    done, _ = ask(server, program, "--keep", tmp_path / "mine")
    assert (done.exit_code, (tmp_path / "mine/file").read_text()) == (1, "mine")


def test_all_hosts_are_one_question(hosts: Run, server: OsvServer) -> None:
    done, seen = ask(server, "-i", "a,")
    assert done.exit_code == 2
    assert {one["name"]: [hole["id"] for hole in one["open"]] for one in seen}["old"] == ["GHSA-rrrr", "GO-2026-0"]
    assert len([path for path, _ in server.asked if path == "/v1/querybatch"]) == 2


def test_nothing_is_opened_on_the_network_without_being_asked(
    tmp_path: Path, program: Path, hosts: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    def connect(_: socket.socket, address: Any) -> None:
        opened.append(address)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", connect)

    def resolve(*asked: Any, **_: Any) -> list[Any]:
        opened.append(asked)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert run(program, "--data", str(tmp_path / "osv")).exit_code == 2
    assert run("-i", "a,").exit_code == 2
    assert run(program, "--osv-api", "https://osv.example.org").exit_code == 1
    assert run(program, "--keep", tmp_path / "kept").exit_code == 1
    assert opened == []
    assert run(program, "--online").exit_code == 1  # and this is how it would be seen
    assert opened != []
