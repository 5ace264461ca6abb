"""Debian's security tracker: what is broken in a release, and which version fixes it."""

from __future__ import annotations

from typing import Any

import pytest

from casemate.supply.debian import Fault, faults, is_tracker


def here(status: str, **more: Any) -> dict[str, Any]:
    return {"status": status, "urgency": "not yet assigned", "repositories": {"bookworm": "1.0-1"}, **more}


TRACKER: dict[str, dict[str, Any]] = {
    "openssl": {
        "CVE-2026-1": {"description": "a  hole\nwith lines", "releases": {
            "bookworm": here("resolved", fixed_version="3.0.18-1~deb12u1", urgency="high"), "sid": here("open")}},
        "CVE-2026-2": {"releases": {"bookworm": here("open", urgency="medium**")}},
        "CVE-2026-3": {"releases": {"bookworm": here("resolved", fixed_version="0")}},
        "CVE-2026-4": {"releases": {"bookworm": here("undetermined"), "trixie": here("open")}},
    },
    "zlib": {"CVE-2026-5": {"releases": {"bookworm": here("open", urgency="unimportant")}}},
}  # fmt: skip


def test_a_release_has_what_is_open_in_it_and_what_was_fixed_in_it() -> None:
    assert is_tracker(TRACKER)
    assert list(faults(TRACKER, "bookworm")) == [
        ("openssl", Fault("CVE-2026-1", "3.0.18-1~deb12u1", "high", "a hole with lines")),
        ("openssl", Fault("CVE-2026-2", "", "medium", "")),
        ("zlib", Fault("CVE-2026-5", "", "unimportant", "")),
    ]
    assert list(faults(TRACKER, "noble")) == []


def test_other_data_is_not_taken_for_the_tracker() -> None:
    odd: list[Any] = [[], {}, {"id": "GO-1"}, {"openssl": []}, {"openssl": {"CVE-1": {}}}, "text", None]
    assert not any(map(is_tracker, odd))
    shapes: list[Any] = [{"a": {"CVE-1": {"releases": {"bookworm": "open"}}}}, {"a": {"CVE-1": {"releases": []}}}]
    for broken in shapes:
        with pytest.raises(ValueError, match="not as Debian's security tracker writes it"):
            list(faults(broken, "bookworm"))
