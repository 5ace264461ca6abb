"""What the controller found of advisories becomes a finding; nothing asked, and nothing known, is no pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.kinds.advisories import KIND, Setting, assess, observe

ASKED: Setting = {"of": "k3s", "data": ["/data/osv"]}
CLEAN: dict[str, Any] = {"open": [], "places": [], "stale": [], "lacks": []}


def seen(tmp_path: Path, found: dict[str, Any] | None, asked: Setting = ASKED) -> Any:
    context = {"advisories": {"k3s": found}} if found is not None else {}
    host = FakeHost(tmp_path)
    host.context = context
    (one,) = observe([asked], host, ())
    return one


def test_without_an_open_advisory_it_passes(tmp_path: Path) -> None:
    verdict = assess(ASKED, seen(tmp_path, CLEAN))
    assert (verdict.ok, verdict.evidence, verdict.where) == (True, "/data/osv", ())


def test_open_advisories_and_old_data_fail_with_where_they_are(tmp_path: Path) -> None:
    lines = [f"GO-{at}: runc v1, fixed in 2" for at in range(7)]
    verdict = assess(ASKED, seen(tmp_path, {**CLEAN, "open": lines, "places": ["/bin/runc"]}))
    assert not verdict.ok
    assert verdict.observed == "; ".join([*lines[:5], "and 2 more"])
    assert verdict.where == ("/bin/runc",)
    assert "casemate_advisory_waivers" in verdict.reason
    old = assess(ASKED, seen(tmp_path, {**CLEAN, "stale": ["/data/osv tells up to 2020-01-01"]}))
    assert (old.ok, old.observed) == (False, "/data/osv tells up to 2020-01-01")
    assert old.reason.startswith("the data is too old")


def test_what_is_open_counts_more_than_what_is_unknown(tmp_path: Path) -> None:
    lacks = ["version", "runc does not say its version"]
    assert not assess(ASKED, seen(tmp_path, {**CLEAN, "open": ["GO-1"], "lacks": lacks})).ok
    assert not assess(ASKED, seen(tmp_path, {**CLEAN, "stale": ["old"], "lacks": lacks})).ok


@pytest.mark.parametrize(
    ("found", "asked", "code"),
    [
        (CLEAN, {"of": "k3s", "data": []}, "unasked"),
        ({**CLEAN, "lacks": ["version", "runc does not say its version"]}, ASKED, "version"),
        (None, ASKED, "advisories"),
        (CLEAN, {"of": "system", "data": ["/data/osv"]}, "advisories"),
    ],
)
def test_what_nobody_can_say_is_not_evaluated(tmp_path: Path, found: Any, asked: Setting, code: str) -> None:
    lacking = seen(tmp_path, found, asked)
    assert isinstance(lacking, Unavailable)
    assert lacking.code == code


def test_the_host_is_asked_what_it_is_made_of_only_where_there_is_data() -> None:
    assert KIND.made_of(ASKED)
    assert not KIND.made_of({"of": "k3s", "data": []})
