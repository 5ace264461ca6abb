"""Values that are kept from run to run: never one of other sources, of another Python, or that is not whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from casemate import kept


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir(mode=0o700)
    kept.folder.cache_clear()
    yield tmp_path / "cache"
    kept.folder.cache_clear()


def next_run(value: object = "anew", made_of: tuple[bytes, ...] = (b"source",)) -> object:
    """What a later run gets, where it would make `value` by itself."""
    kept.folder.cache_clear()
    return kept.value("things", made_of, lambda: value)


VALUE = {"list": [1, True, None, "text"], "code": compile("1 + 1", "", "eval")}


def test_what_one_run_has_made_the_next_one_takes(cache: Path) -> None:
    assert next_run(VALUE) == VALUE
    assert next_run() == VALUE


@pytest.mark.parametrize("other", [(b"sourc", b"e"), (b"source", b""), (b"source2",), ()])
def test_another_source_is_another_value(cache: Path, other: tuple[bytes, ...]) -> None:
    next_run(VALUE)
    assert next_run(made_of=other) == "anew"


def test_another_python_makes_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    next_run(VALUE)
    monkeypatch.setattr(sys, "version", "4.0")
    assert next_run() == "anew"


@pytest.mark.parametrize("left", [0, 1, 5, -1])
def test_what_is_not_whole_is_made_again(cache: Path, left: int) -> None:
    next_run(VALUE)
    (path,) = cache.rglob("value")
    path.write_bytes(path.read_bytes()[:left])
    assert next_run(VALUE) == VALUE
    assert next_run() == VALUE


@pytest.mark.parametrize("place", ["casemate/things", "casemate", "."])
def test_nothing_is_taken_from_where_others_may_write(cache: Path, place: str) -> None:
    next_run(VALUE)
    os.chmod(cache / place, 0o770)
    assert next_run() == "anew"


def test_what_can_not_be_kept_is_made_each_time(cache: Path) -> None:
    assert next_run(value := object()) is value
    assert next_run() == "anew"


def test_an_account_without_a_place_to_write_works_without(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert [next_run(), next_run()] == ["anew", "anew"]
