"""Findings that come beside the results of Ansible."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from unit import made

from casemate.run import handed, runner

FOUND = [made.finding("fail", reason="\u202e \udce9"), made.finding("pass", observed=["a", None])]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that listens."""
    monkeypatch.setenv(handed.FOLDER, str(tmp_path))
    return tmp_path


def test_findings_arrive_whole_and_leave_nothing_behind(folder: Path) -> None:
    name = handed.over(FOUND)
    assert handed.NAME.fullmatch(name)
    assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert handed.taken(name, folder) == FOUND
    assert list(folder.iterdir()) == []


def test_what_several_hosts_say_alike_is_one_finding(folder: Path) -> None:
    known: dict[str, Any] = {}
    first, second = (
        handed.taken(handed.over(said), folder, known) for said in (FOUND, [*FOUND, made.finding("waived")])
    )
    assert second[:2] == first == FOUND
    assert all(one is other for one, other in zip(first, second, strict=False))


@pytest.mark.parametrize("there", ["", "/nonexistent"])
def test_where_no_run_listens_they_stay_in_the_result(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible alone runs the same playbooks."""
    monkeypatch.setenv(handed.FOLDER, there)
    text = handed.over(FOUND)
    assert json.loads(text) == FOUND
    assert handed.taken(text, Path("/nonexistent")) == FOUND


@pytest.mark.parametrize("said", ["../secret", "secret", "/etc/passwd", "0" * 32, "", "[", "7", "[{}]", '{"a": 1}'])
def test_a_host_names_no_file_of_the_controller(said: str, folder: Path) -> None:
    """What a host says it found may be anything: the run of the others goes on, and it has judged nothing."""
    (folder.parent / "secret").write_text(json.dumps(FOUND))
    (folder / "secret").write_text(json.dumps(FOUND))
    run = runner.Run(folder=folder)
    data: dict[str, Any] = {"host": "n1", "task": "Ask", "res": {"findings": said}}
    run.record({"event": "runner_on_ok", "event_data": data})
    run.record({"event": "playbook_on_stats", "event_data": {"failures": {}, "dark": {}}})
    assert [(host["status"], host["findings"]) for host in run.entries()] == [("error", [])]


def test_what_a_host_is_made_of_comes_the_same_way(folder: Path) -> None:
    run = runner.Run(folder=folder)
    told = {"os": {"ID": "debian"}, "unread": {}}
    data: dict[str, Any] = {"host": "n1", "task": "Ask", "res": {"gathered": handed.over([told])}}
    run.record({"event": "runner_on_ok", "event_data": data})
    assert run.hosts["n1"].gathered == told
    data["res"] = {"gathered": "[7]"}
    run.record({"event": "runner_on_ok", "event_data": data})
    assert run.hosts["n1"].gathered == {}
