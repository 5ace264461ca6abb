"""The lock's file: who may take it, when it ends, and that two runs never both have it."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from unit.made import HOLDER as MINE

from module_utils.casemate.host.run_lock import PATH, Lock, refusal, taken

OTHER: dict[str, Any] = {**MINE, "run": "n 8 2", "name": "bob@there:8", "machine": "n", "process": 8, "started": "2"}
NOW = 1795525200.0


def held(by: dict[str, Any], since: float = 0.0, **more: Any) -> dict[str, Any]:
    return {**by, "since": NOW - since, "renewed": NOW - since, "seconds": 900, **more}


@pytest.mark.parametrize(
    ("record", "gone", "says"),
    [
        (None, [], ""),
        (held(MINE), [], ""),
        (held(MINE, since=5000), [], ""),  # it has ended, and nobody else has taken it
        (held(MINE, broken="bob@there:8"), [], "was broken by bob@there:8"),
        (held(OTHER), [], "bob@there:8 has the lock of this cluster (casemate apply, since 2026-11-24 13:00:00 UTC)"),
        (held(OTHER, since=600), [], "ends by itself in 300 s; `casemate unlock bob@there:8` ends it now"),
        (held(OTHER, since=901), [], ""),
        (held(OTHER, since=-5), [], "bob@there:8 has the lock"),  # the clock of another server is a little ahead
        (held(OTHER, since=-5000), [], ""),  # of a clock that was far ahead
        (held(OTHER), ["n 8 2"], ""),
        (held(OTHER), ["n 9 9"], "bob@there:8 has the lock"),
        (held(OTHER, broken="eve@x:1"), [], ""),
    ],
)
def test_who_may_have_the_lock(record: dict[str, Any] | None, gone: list[str], says: str) -> None:
    why = refusal(record, MINE["run"], NOW, gone)
    assert says in why and bool(why) is bool(says)


def test_renewing_keeps_since_when_it_is_held_and_a_new_holder_begins_anew() -> None:
    first = taken(None, MINE, 900, NOW)
    renewed = taken(first, MINE, 600, NOW + 50)
    assert (renewed["since"], renewed["renewed"], renewed["seconds"]) == (NOW, NOW + 50, 600)
    assert taken(first, OTHER, 900, NOW + 50)["since"] == NOW + 50


def test_the_file_is_taken_renewed_refused_and_given_back(tmp_path: Path) -> None:
    lock, path = Lock(str(tmp_path)), tmp_path / PATH[1:]
    assert lock.take(MINE, 900)[0] == "" == lock.take(MINE, 900)[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    why, record = lock.take(OTHER, 900)
    assert "ann@here:7 has the lock" in why and record is not None and record["run"] == MINE["run"]
    assert not lock.free(OTHER["run"])
    assert lock.free(MINE["run"])
    assert not path.exists()
    assert lock.take(OTHER, 900)[0] == ""


def test_a_broken_lock_is_free_for_others_and_stops_its_run(tmp_path: Path) -> None:
    lock = Lock(str(tmp_path))
    lock.take(MINE, 900)
    assert lock.break_by("somebody@else:1", "bob@there:8") is None
    assert lock.break_by(MINE["name"], "bob@there:8") is not None
    assert lock.break_by(MINE["name"], "bob@there:8") is None
    assert "was broken by bob@there:8" in lock.take(MINE, 900)[0]
    assert lock.take(OTHER, 900)[0] == ""
    assert "bob@there:8 has the lock" in lock.take(MINE, 900)[0]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"run": "x"}', '{"run": 1, "renewed": 1, "seconds": 1, "since": 1}', "\0"]
)
def test_what_is_no_record_keeps_nobody_out(tmp_path: Path, text: str) -> None:
    path = tmp_path / PATH[1:]
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert Lock(str(tmp_path)).take(MINE, 900)[0] == ""
    assert json.loads(path.read_text())["run"] == MINE["run"]


def contend(folder: str, number: int, won: Any) -> None:
    lock = Lock(folder)
    read = lock.read

    def slowly() -> Any:
        record = read()
        time.sleep(0.05)  # so that all would have read before one has written
        return record

    lock.read = slowly  # type: ignore[method-assign]
    if lock.take({**MINE, "run": f"run {number}"}, 900)[0] == "":
        won.put(number)


def test_of_many_that_take_it_at_once_one_has_it(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    won = fork.Queue()
    runs = [fork.Process(target=contend, args=(str(tmp_path), n, won)) for n in range(8)]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    number = won.get(timeout=5)
    assert won.empty()
    record = Lock(str(tmp_path)).read()
    assert record is not None and record["run"] == f"run {number}"


def test_it_is_judged_by_the_clock_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Lock(str(tmp_path))
    lock.take(MINE, 60)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 61)
    assert lock.take(OTHER, 60)[0] == ""


def test_a_link_in_the_place_of_the_mutex_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / PATH[1:]
    path.parent.mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere", f"{path}.mutex")
    with pytest.raises(OSError, match="symbolic"):
        Lock(str(tmp_path)).take(MINE, 60)
    assert not (tmp_path / "elsewhere").exists()
