"""Whether a change came after a start: in any language, and where the clock was set between the two."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from module_utils.casemate.host import clock
from module_utils.casemate.host.clock import (
    Start,
    after,
    ahead,
    change_time,
    content_time,
    moment,
    start_of,
    stays_ahead,
)

NOW, UP = 1_795_000_000.0, 5_000.0
"""The time of day, and since when the machine runs, in seconds."""
YEAR = 365 * 86400.0


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "time", SimpleNamespace(time=lambda: NOW, monotonic=lambda: UP))


def file(mtime: float, ctime: float) -> Any:
    return SimpleNamespace(st_mtime=mtime, st_ctime=ctime)


@pytest.mark.parametrize("day", ["Fri", "Fr", "Fr.", "ven.", "Cum", "金", ""])
def test_the_day_of_the_week_in_any_language_does_not_matter(day: str) -> None:
    assert moment(f"{day} 2026-11-27 18:15:04.250000 UTC") == 1795803304.25


@pytest.mark.parametrize("stamp", ["", "n/a", "0", "Fri 2026-11-27 18:15:04 CET", "Fri 27.11.2026 18:15:04 UTC"])
def test_what_is_no_moment_in_utc_is_none(stamp: str) -> None:
    assert moment(stamp) is None


def shown(then: float, ago: float) -> dict[str, str]:
    """A unit that came up so many seconds ago, when the clock said `then`."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(then))
    return {"At": f"Fri {stamp}.000000 UTC", "AtMonotonic": str(int((UP - ago) * 1e6))}


@pytest.mark.parametrize(
    ("properties", "start"),
    [
        (shown(NOW - 100, 100), Start(NOW - 100, NOW - 100)),
        (shown(NOW - 3 * YEAR, 100), Start(NOW - 3 * YEAR, NOW - 100)),
        (shown(NOW + 7200, 100), Start(NOW + 7200, NOW - 100)),
        ({"At": "", "AtMonotonic": "4900000000"}, Start(NOW - 100, NOW - 100)),
        ({"At": "Fri 2026-11-27 18:15:04.250000 UTC"}, Start(1795803304.25, 1795803304.25)),
        ({"At": "", "AtMonotonic": "0"}, None),
        ({}, None),
    ],
)
def test_a_start_is_known_by_both_clocks(properties: dict[str, str], start: Start | None) -> None:
    assert start_of(properties, ["At"]) == start


@pytest.mark.parametrize(
    ("what", "then", "ago", "changed", "stale"),
    [
        ("nothing was set: an older file", NOW - 100, 100, NOW - 101, False),
        ("nothing was set: a newer file", NOW - 100, 100, NOW - 99, True),
        ("booted in the past: a file of last week", NOW - 3 * YEAR, 100, NOW - 86400, False),
        ("booted in the past: changed before the clock was set", NOW - 3 * YEAR, 100, NOW - 3 * YEAR + 5, True),
        ("booted in the past: changed after it was set", NOW - 3 * YEAR, 100, NOW - 50, True),
        ("booted in the future: changed after it was set", NOW + 7200, 100, NOW - 50, True),
        ("booted in the future: a file of last week", NOW + 7200, 100, NOW - 86400, False),
    ],
)
def test_a_change_is_after_a_start_whatever_was_done_to_the_clock(
    what: str, then: float, ago: float, changed: float, stale: bool
) -> None:
    start = start_of(shown(then, ago), ["At"])
    assert start is not None
    assert after(changed, start) is stale, what


@pytest.mark.parametrize(
    ("seen", "content", "change", "stays"),
    [
        (file(NOW - 9, NOW - 5), NOW - 9, NOW - 5, False),
        (file(NOW + YEAR, NOW - 5), NOW - 5, NOW - 5, False),  # touch -d: the kernel knows when that was
        (file(NOW + YEAR, NOW + 60), NOW + 60, NOW + 60, True),  # written by a clock that was ahead
        (file(NOW - YEAR, NOW + 60), NOW - YEAR, NOW + 60, True),
        (file(NOW + 2, NOW + 2), NOW + 2, NOW + 2, False),  # a file server's clock
    ],
)
def test_a_date_that_lies_ahead_is_no_date(seen: Any, content: float, change: float, stays: bool) -> None:
    assert (content_time(seen), change_time(seen), stays_ahead(seen)) == (content, change, stays)
    assert bool(ahead(seen)) is (max(seen.st_mtime, seen.st_ctime) > NOW + 10)


@pytest.mark.parametrize(("stamp", "words"), [(NOW + YEAR, "dated 2027-11-18 "), (1e18, "dated 10000000000")])
def test_a_date_ahead_is_shown(stamp: float, words: str) -> None:
    assert ahead(file(stamp, NOW)).startswith(words)


def test_nothing_is_not_ahead() -> None:
    assert (ahead(None), stays_ahead(None)) == ("", False)
