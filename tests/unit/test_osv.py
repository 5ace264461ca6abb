"""Ranges of OSV as its schema evaluates them, and the order of versions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.supply.osv import Affected, OsvError, Range, advisory, compare, fixed_in, holding, in_range

ORDERED = [
    "no version",
    "v0.0.0-20220101000000-aaaaaaaaaaaa",
    "v0.0.0-20220102000000-0aaaaaaaaaaa",
    "v0.5.0-alpha.5.0.20200423152442-f4b650b51dc4",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "v1.0.0-rc.1",
    "v1.0",
    "go1.26.8",
    "v1.36.3-k3s1",
    "v1.36.3-rc1+k3s1",
    "v1.36.3+k3s1",
    "v1.36.3+k3s2",
    "v1.36.3+k3s10",
    "v1.36.4+k3s1",
]


@pytest.mark.parametrize(("older", "newer"), list(pairwise(ORDERED)))
def test_versions_are_in_the_order_of_semver_and_of_builds_of_k3s(older: str, newer: str) -> None:
    assert compare(older, newer) < 0 < compare(newer, older)


@pytest.mark.parametrize(
    ("version", "event"),
    [
        ("v28.5.2+incompatible", "28.5.2"),
        ("v1.36.3+k3s1", "1.36.3"),  # an event without a build is about all of them
        ("v1.36.3+k3s2", "1.36.3"),
        ("v1.36", "1.36.0"),
        ("go1.26.8", "1.26.8"),
    ],
)
def test_what_does_not_count_makes_no_difference(version: str, event: str) -> None:
    assert compare(version, event) == 0


TWO = (("introduced", "0"), ("fixed", "1.4.44"), ("introduced", "1.6.0-alpha"), ("fixed", "1.6.2"))


@pytest.mark.parametrize(
    ("events", "inside", "outside"),
    [
        ((("introduced", "0"),), ["v0.0.1", "v9.9.9", "nothing"], []),
        ((("introduced", "1.2.0"),), ["v1.2.0", "v9.0.0"], ["v1.2.0-rc.1", "v1.1.9"]),
        (TWO, ["v1.4.43", "v1.4.44-rc1", "v1.6.0", "v1.6.2-rc1"], ["v1.4.44", "v1.5.9", "v1.6.2"]),
        (tuple(reversed(TWO)), ["v1.4.43", "v1.6.0"], ["v1.5.0", "v1.7.0"]),  # their order in the file is no order
        ((("introduced", "0"), ("last_affected", "1.3.0")), ["v1.3.0", "v1.3.0+k3s7"], ["v1.3.1", "v1.3.1-rc1"]),
        ((("introduced", "1.3.0"), ("last_affected", "1.3.0")), ["v1.3.0"], ["v1.2.9", "v1.3.1", "v9.0.0"]),
        ((("last_affected", "1.3.0"), ("introduced", "1.3.0")), ["v1.3.0"], ["v1.2.9", "v1.3.1"]),
        ((("introduced", "0"), ("fixed", "1.3.0"), ("introduced", "1.3.0")), ["v1.3.0"], []),
        ((("introduced", "0"), ("limit", "1.3.0")), ["v1.2.9"], ["v1.3.0"]),
        ((("introduced", "0"), ("limit", "*")), ["v1.3.0"], []),
        ((("introduced", "1.0.0"), ("fixed", "1.36.3+k3s2")), ["v1.36.3+k3s1"], ["v1.36.3+k3s2", "v1.36.4+k3s1"]),
    ],
)
def test_a_range_holds_what_its_events_say(
    events: tuple[tuple[str, str], ...], inside: list[str], outside: list[str]
) -> None:
    assert [one for one in inside if not in_range(one, events)] == []
    assert [one for one in outside if in_range(one, events)] == []


NUMBERS = st.integers(min_value=0, max_value=12)
VERSIONS = st.tuples(NUMBERS, NUMBERS, NUMBERS).map(lambda n: f"v{n[0]}.{n[1]}.{n[2]}")


@given(st.lists(VERSIONS, min_size=2, max_size=6, unique=True), VERSIONS)
def test_pairs_of_introduced_and_fixed_are_half_open(ends: list[str], version: str) -> None:
    def numbers(text: str) -> list[int]:
        return [int(n) for n in text[1:].split(".")]

    ends = sorted(ends, key=numbers)[: len(ends) // 2 * 2]
    pairs = list(zip(ends[::2], ends[1::2], strict=True))
    events = [event for low, high in pairs for event in (("introduced", low), ("fixed", high))]
    expected = any(numbers(low) <= numbers(version) < numbers(high) for low, high in pairs)
    assert in_range(version, events) == expected


def test_the_fix_is_the_next_one_of_the_same_line() -> None:
    assert fixed_in("v1.3.0", TWO) == "1.4.44"
    assert fixed_in("v1.6.1", TWO) == "1.6.2"
    assert fixed_in("v1.6.1", (("introduced", "0"),)) == ""


def affected(**rest: Any) -> Affected:
    return Affected(**{"name": "m", "ranges": (), "versions": frozenset(), **rest})


def test_what_names_neither_ranges_nor_versions_is_about_all() -> None:
    assert holding(affected(), "v1.0.0", project=False)
    assert holding(affected(versions=frozenset(["1.0.0"])), "v1.0.0", project=False)
    assert not holding(affected(versions=frozenset(["1.0.1"])), "v1.0.0", project=False)


def test_versions_are_named_as_the_module_or_the_project_has_them() -> None:
    for named, version, counts in (
        ("2.0.0", "v2.0.0+incompatible", True),
        ("v2.0.0+incompatible", "v2.0.0+incompatible", True),
        ("2.0.1", "v2.0.0+incompatible", False),
        ("1.36.3", "v1.36.3+k3s1", True),
        ("v1.36.3+k3s2", "v1.36.3+k3s1", False),
        ("go1.24rc1", "(devel)", False),
        ("v0.0.0-20210101000000-abcdef123456", "v0.0.0-20210101000000-abcdef123456", True),
    ):
        assert bool(holding(affected(versions=frozenset([named])), version)) is counts, (named, version)


def test_a_range_says_what_fixes_a_version_that_is_named_beside_it() -> None:
    until = Range((("introduced", "0"), ("fixed", "1.4.0")))
    both = affected(ranges=(until,), versions=frozenset(["1.3.0", "2.0.0"]))
    assert holding(both, "v1.3.0", project=False) == until
    assert holding(both, "v2.0.0", project=False) == Range(())


def test_versions_of_the_project_count_where_it_is_known_by_them() -> None:
    own = Range((("introduced", "0"), ("fixed", "1.34.6")), of_project=True)
    never_ends = affected(ranges=(Range((("introduced", "0"),)), own))
    assert holding(never_ends, "v1.36.3", project=False)
    assert not holding(never_ends, "v1.36.3+k3s1", project=True)
    assert holding(never_ends, "v1.34.5+k3s1", project=True)
    both = affected(ranges=(Range((("introduced", "3.5.0"), ("fixed", "3.5.30"))), own))
    assert holding(both, "v3.5.1", project=True)
    assert holding(both, "v1.2.0", project=True)
    assert not holding(both, "v1.2.0", project=False)


def entry(**rest: Any) -> dict[str, Any]:
    package = {"name": "example.org/m", "ecosystem": "Go"}
    events = [{"introduced": "0"}, {"fixed": "1.2.3"}]
    one = {"package": package, "ranges": [{"type": "SEMVER", "events": events}]}
    return {"id": "GO-2026-1", "modified": "2026-11-01T00:00:00Z", "affected": [one], **rest}


def test_an_entry_is_read() -> None:
    made = advisory(entry(aliases=["CVE-2026-1", "GO-2026-1"], database_specific={"severity": "MODERATE"}))
    assert made is not None
    assert (made.id, made.aliases, made.severity) == ("GO-2026-1", ("CVE-2026-1",), "medium")
    assert made.affected[0].ranges[0].events == (("introduced", "0"), ("fixed", "1.2.3"))


def test_what_was_withdrawn_and_what_is_of_others_counts_for_nothing() -> None:
    assert advisory(entry(withdrawn="2026-11-02T00:00:00Z")) is None
    assert advisory(entry(affected=[{"package": {"name": "m", "ecosystem": "npm"}}])) is None


@pytest.mark.parametrize(
    "broken",
    [
        [],
        {},
        {"id": 7},
        entry(affected=[{"package": {"name": "m", "ecosystem": "Go"}, "ranges": [{"events": []}]}]),
        entry(affected=[{"package": {"name": "m", "ecosystem": "Go"}, "ranges": [{"type": "SEMVER", "events": []}]}]),
        entry(affected=[{"package": {"ecosystem": "Go"}}]),
        entry(affected=["m"]),
    ],
)
def test_what_is_no_entry_is_refused(broken: Any) -> None:
    with pytest.raises(OsvError):
        advisory(broken)
