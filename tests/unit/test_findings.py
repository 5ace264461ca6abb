"""Merging, counting and judging findings."""

from __future__ import annotations

from typing import Any

import pytest
from unit import made

from casemate.report import findings


def finding(status: str = "pass", control: str = "A-B", **rest: Any) -> findings.Finding:
    reason = {"reason": "kernel: not here"} if status == "not_evaluated" else {}
    return made.finding(status, control, **{**reason, **rest})


def host(*found: findings.Finding, name: str = "n1", status: str = "ok", message: str = "") -> dict[str, Any]:
    return findings.host_entry(name, status, found, message)


UNREACHABLE = host(name="n2", status="unreachable", message="no route")
BROKEN = host(name="n3", status="error", message="the disk is full")
STOPPED = host(name="n4", status="error", message=findings.STOPPED)


@pytest.mark.parametrize(
    ("hosts", "accepted", "code"),
    [
        ([host(finding())], {}, 0),
        ([host(finding("waived"))], {}, 0),
        ([host(finding("not_evaluated"))], {}, 2),
        ([host(finding("not_evaluated"))], {"n1": ["kernel"]}, 0),
        ([host(finding("not_evaluated"))], {"n1": ["apparmor"]}, 2),
        ([host(finding("not_evaluated"))], {"other": ["kernel"]}, 2),
        ([host(finding("not_evaluated", reason="unasked: casemate_x is not set"))], {}, 0),
        ([host(finding("not_evaluated", reason="unasked: x"), finding("not_evaluated"))], {}, 2),
        ([host(finding("fail"))], {"n1": ["kernel"]}, 2),
        ([host(finding("error"))], {}, 1),
        ([host(finding("fail")), UNREACHABLE], {}, 3),
        ([host(finding("fail")), UNREACHABLE, BROKEN], {}, 1),
        ([host(finding("error")), UNREACHABLE], {}, 1),
        ([UNREACHABLE, STOPPED], {}, 3),
        ([STOPPED], {}, 1),
        ([host()], {}, 1),
        ([], {}, 1),
    ],
)
def test_the_worst_decides_the_exit_code(hosts: Any, accepted: Any, code: int) -> None:
    assert findings.exit_code(hosts, accepted) == code


def test_a_host_without_findings_is_never_ok() -> None:
    assert host()["status"] == "error"
    assert "no control" in host()["message"]


def test_an_ok_host_has_exactly_the_published_keys() -> None:
    assert set(host(finding())) == {"name", "status", "findings"}


def test_a_finding_carries_no_other_key() -> None:
    assert set(host(finding(secret="x"))["findings"][0]) == set(findings.KEYS)


PLANNED = finding("fail", action="would_change", observed="a", before="a", after="b")
UNTOUCHED = finding("fail", observed="a")
CHANGED = finding(action="changed", before="a", observed="b", after="b")
SETTLED = finding(observed="b", before="b", after="b")
BLOCKED = finding("fail", action="blocked", observed="a", reason="refused")


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        ([SETTLED], ("pass", "none", "b", "b")),
        ([SETTLED, SETTLED], ("pass", "none", "b", "b")),
        ([PLANNED], ("fail", "would_change", "a", "b")),
        ([PLANNED, SETTLED], ("pass", "changed", "a", "b")),
        ([PLANNED, CHANGED, SETTLED], ("pass", "changed", "a", "b")),
        ([PLANNED, UNTOUCHED, SETTLED], ("pass", "changed", "a", "b")),  # another role changed it
        ([CHANGED], ("pass", "changed", "a", "b")),
        ([PLANNED, BLOCKED], ("fail", "blocked", "a", None)),
        ([CHANGED, UNTOUCHED], ("fail", "none", "a", None)),
    ],
)
def test_the_passes_of_a_run_make_one_finding(passes: list[findings.Finding], expected: tuple[Any, ...]) -> None:
    merged = findings.settle(passes)
    assert (merged["status"], merged["action"], merged["before"], merged["after"]) == expected


def report(
    verb: str, *hosts: dict[str, Any], started: str = "2026-01-01T00:00:00+00:00", **rest: Any
) -> findings.Report:
    return findings.report(verb, started, list(hosts), rest.pop("accepted", {}), **rest)


def only(merged: findings.Report) -> findings.Finding:
    (one,) = merged["hosts"][0]["findings"]
    return dict(one)


@pytest.mark.parametrize(
    ("checked", "proven", "status"),
    [
        ("pass", "pass", "pass"),
        ("pass", "fail", "fail"),
        ("pass", "not_evaluated", "not_evaluated"),
        ("fail", "pass", "fail"),
        ("waived", "fail", "waived"),
        ("not_evaluated", "pass", "not_evaluated"),
        ("not_evaluated", "fail", "fail"),
    ],
)
def test_an_attack_only_makes_a_finding_worse(checked: str, proven: str, status: str) -> None:
    merged = findings.combine([report("prove", host(finding(proven))), report("check", host(finding(checked)))])
    assert only(merged)["status"] == status


def test_what_only_an_attack_can_see_is_judged_by_it() -> None:
    unseen = finding("not_evaluated", reason="vantage: seen only from a peer")
    assert only(findings.combine([report("check", host(unseen)), report("prove", host(finding()))]))["status"] == "pass"


def test_evidence_of_check_and_attack_is_kept() -> None:
    merged = findings.combine(
        [report("check", host(finding(evidence="a"))), report("prove", host(finding(evidence="b")))]
    )
    assert only(merged)["evidence"] == "a\nb"


def test_a_later_check_replaces_the_status_but_keeps_what_was_changed() -> None:
    applied = report("apply", host(finding(action="changed", before="a", observed="b")))
    later = report("check", host(finding(observed="b")), started="2026-01-02T00:00:00+00:00")
    assert only(findings.combine([later, applied]))["action"] == "changed"
    broken = report("check", host(finding("fail")), started="2026-01-02T00:00:00+00:00")
    assert only(findings.combine([applied, broken]))["status"] == "fail"


def test_a_merged_report_keeps_hosts_sources_and_the_exit_code() -> None:
    merged = findings.combine([report("check", host(finding()), UNREACHABLE), report("prove", host(finding()))])
    assert [h["status"] for h in merged["hosts"]] == ["ok", "unreachable"]
    assert [s["verb"] for s in merged["run"]["sources"]] == ["check", "prove"]
    assert merged["summary"]["exit_code"] == 3


def test_what_was_left_out_is_no_longer_when_another_run_judged_it() -> None:
    quick = report("check", host(finding()), left_out=["A-B", "C-D"])
    assert quick["summary"]["left_out"] == ["A-B", "C-D"]
    assert findings.combine([quick, report("check", host(finding()))])["summary"]["left_out"] == ["C-D"]


def test_a_double_is_named_at_the_top() -> None:
    lacking = finding("not_evaluated", reason="api_semantics: a double")
    assert "double" in report("check", host(lacking))["run"]["notes"][0]
    assert report("check", host(finding()))["run"]["notes"] == []
    refused = finding("not_evaluated", reason="refused: GET /api/v1/namespaces: HTTP 403")
    assert report("check", host(refused))["run"]["notes"] == []
