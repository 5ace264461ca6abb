"""Debian's security tracker: what is broken in a release, and which version fixes it."""

from __future__ import annotations

from typing import Any

import pytest

from casemate.supply import osv
from casemate.supply.debian import ORDER, Fault, faults, is_of_osv, is_tracker, of_osv


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


def entry(*affected: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "DEBIAN-CVE-2026-1", "upstream": ["CVE-2026-1"], "affected": list(affected), **more}


def package(ecosystem: str, *events: dict[str, str], name: str = "openssl", urgency: str = "") -> dict[str, Any]:
    one: dict[str, Any] = {"package": {"name": name, "ecosystem": ecosystem}}
    one["ranges"] = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, *events]}] if events else []
    return {**one, "versions": ["1.0-1"], **({"ecosystem_specific": {"urgency": urgency}} if urgency else {})}


def test_in_the_form_of_osv_each_release_and_source_package_is_told_with_its_urgency() -> None:
    fixed = {"fixed": "3.0.18-1~deb12u1"}
    made = entry(
        package("Debian:12", fixed, urgency="unimportant"),
        package("Debian:12", fixed, name="nodejs", urgency="not yet assigned"),
        package("Debian:13", fixed, urgency="high"),
        package("Go", fixed),
        database_specific={"severity": "HIGH"},
    )
    assert is_of_osv(made) and not is_of_osv(entry(package("Go", fixed)))
    found = of_osv(made, "12")
    assert [(one.affected[0].name, one.severity, one.aliases) for one in found] == [
        ("openssl", "unimportant", ("CVE-2026-1",)),
        ("nodejs", "high", ("CVE-2026-1",)),
    ]
    assert of_osv(made, "11") == of_osv(made, "") == []
    assert of_osv({**made, "withdrawn": "2026-11-01T00:00:00Z"}, "12") == []
    assert of_osv({**made, "id": "DSA-1-1"}, "12")[0].aliases == ()


@pytest.mark.parametrize(
    ("version", "inside"),
    [
        ("3.0.17-1~deb12u2", True),
        ("3.0.18-1~deb12u1~bpo11+1", True),
        ("3.0.18-1~deb12u1", False),
        ("3.0.18-1", False),
        ("1:1.0-1", False),
        ("1.0-1", True),
    ],
)
def test_ranges_are_read_in_the_order_of_dpkg(version: str, inside: bool) -> None:
    (known,) = of_osv(entry(package("Debian:12", {"fixed": "3.0.18-1~deb12u1"})), "12")
    assert bool(osv.holding(known.affected[0], version, order=ORDER)) is inside


def test_what_is_not_as_osv_says_is_refused() -> None:
    for broken in ({"affected": [7]}, {"affected": 7}, {"affected": [{"package": {"name": "x"}}]}):
        with pytest.raises(osv.OsvError):
            is_of_osv({"id": "X", **broken})
