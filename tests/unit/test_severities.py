"""The severity of an advisory: a word of its data, else the base of its vectors; what cannot be read is unknown."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from casemate.supply import osv, severities
from casemate.supply.advisories import Match, in_words, together
from casemate.supply.advisory_policy import SEVERITIES, counted

RUNC = "github.com/opencontainers/runc"
NOW = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
V2 = {"low": "AV:L/AC:H/Au:M/C:P/I:N/A:N", "high": "AV:N/AC:L/Au:N/C:C/I:C/A:C"}
V3 = {
    "low": "CVSS:3.1/AV:L/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N",
    "medium": "CVSS:3.0/AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:H",
    "high": "CVSS:3.1/AV:L/AC:L/PR:N/UI:R/S:C/C:H/I:H/A:H",
    "critical": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
}
V4 = {
    "low": "CVSS:4.0/AV:P/AC:H/AT:P/PR:H/UI:A/VC:L/VI:N/VA:N/SC:N/SI:N/SA:N",
    "critical": "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:N",
}
EVERY = [(kind, word, score) for kind, of in (("V2", V2), ("V3", V3), ("V4", V4)) for word, score in of.items()]


def vector(score: object, kind: str = "V3") -> dict[str, Any]:
    return {"type": f"CVSS_{kind}", "score": score}


def entry(*vectors: Any, word: str = "", **affected: Any) -> dict[str, Any]:
    package = {"package": {"name": RUNC, "ecosystem": "Go"}, **affected}
    said = {"database_specific": {"severity": word}} if word else {}
    return {"id": "GO-2026-1", "modified": NOW, "affected": [package], "severity": list(vectors), **said}


def read(raw: dict[str, Any]) -> str:
    made = osv.advisory(raw)
    assert made is not None
    return made.severity


@pytest.mark.parametrize(("kind", "word", "score"), EVERY)
def test_a_vector_has_the_severity_of_its_base(kind: str, word: str, score: str) -> None:
    assert read(entry(vector(score, kind))) == word


def test_the_words_of_the_data_come_first() -> None:
    assert read(entry(vector(V3["critical"]), word="MODERATE")) == "medium"
    assert read(entry(vector(V3["critical"]), word="see below")) == "critical"
    assert (read(entry(word="negligible")), read(entry())) == ("negligible", "")


def test_what_stands_at_the_package_counts_too_and_the_worst_of_all() -> None:
    assert read(entry(severity=[vector(V3["high"])])) == "high"
    assert read(entry(vector(V3["low"]), severity=[vector(V4["critical"], "V4")])) == "critical"
    other = {"package": {"name": "x", "ecosystem": "npm"}, "severity": [vector(V3["critical"])]}
    raw = entry(vector(V3["low"]))
    assert read({**raw, "affected": [*raw["affected"], other]}) == "low"


UNREADABLE = {
    "text": vector("rather bad"),
    "score": vector("3.1"),
    "cut off": vector(V3["low"].rpartition("/")[0]),
    "of another version": vector(V3["low"], "V4"),
    "of a version to come": vector("CVSS:5.0/AV:N", "V5"),
    "twice": vector(f"{V3['low']}/A:N"),
    "number": vector(3),
    "nothing": vector(None),
    "missing": {"type": "CVSS_V3"},
    "no impact": vector("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N"),
}


@pytest.mark.parametrize("odd", UNREADABLE)
def test_what_cannot_be_read_is_unknown_and_counts(odd: str) -> None:
    assert read(entry(UNREADABLE[odd])) == severities.UNKNOWN
    assert read(entry(vector(V3["low"]), UNREADABLE[odd])) == severities.UNKNOWN
    made = match(severities.UNKNOWN)
    assert all(counted(made, least) for least in SEVERITIES)
    assert not counted(match("low"), "medium")
    assert "severity unknown" in in_words([made])[0]


def test_scales_of_others_are_left_alone() -> None:
    assert read(entry({"type": "Ubuntu", "score": "low"})) == ""


def test_vectors_that_are_no_vectors_are_no_advisory() -> None:
    bad: tuple[object, ...] = ([7], ["x"], [{}], 7)
    for odd in bad:
        with pytest.raises(osv.OsvError):
            osv.advisory({**entry(), "severity": odd})


def match(severity: str, name: str = "GO-2026-1", alias: str = "CVE-1") -> Match:
    return Match(name, (alias,), "runc", RUNC, "v1.0.0", "", severity, "", (), False)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("", "low", "low"),
        ("low", "high", "high"),
        ("high", "low", "high"),
        ("high", "unknown", "unknown"),
        ("critical", "unknown", "critical"),
        ("", "", ""),
    ],
)
def test_of_two_names_of_one_fault_the_worse_counts(one: str, other: str, both: str) -> None:
    (made,) = together([match(one), match(other, "GHSA-1")])
    assert made.severity == both
