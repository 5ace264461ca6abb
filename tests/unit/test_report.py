"""Reports: schema, HTML, JUnit, and how they are written."""

from __future__ import annotations

import json
import os
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from unit import made

from casemate import catalogue
from casemate.report import findings, render

WAIVER = {"reason": "until the old job is gone", "owner": "ops", "expires": "2020-02-01"}


def finding(status: str, control: str, **rest: Any) -> findings.Finding:
    return made.finding(status, control, **{"evidence": "a file", "expected": "no", "observed": "no", **rest})


def report(*found: findings.Finding, verb: str = "check", accepted: tuple[str, ...] = ()) -> findings.Report:
    hosts = [findings.host_entry("node-1", "ok", found)]
    return findings.report(verb, findings.now(), hosts, {"node-1": accepted})


MIXED = report(
    finding("pass", "SSH-ROOT-REFUSED", action="changed", before="before-value", after="after-value"),
    finding("fail", "SSH-PASSWORD-REFUSED", observed="<script>alert(1)</script>"),
    finding("waived", "SSH-X11-OFF", waiver=WAIVER),
    finding("not_evaluated", "KERNEL-PANIC-REBOOTS", reason="kernel: not here", expected=None),
    finding("error", "ETCD-DATA-PRIVATE", reason="OSError: broken"),
    verb="apply",
)


class Page(HTMLParser):
    """Collects what a page loads and whether its elements are closed."""

    VOID = ("meta", "input", "br", "link", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.seen: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.loads += [str(v) for k, v in attrs if k in ("src", "href", "action", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("verb", ["apply", "check", "prove"])
def test_every_report_fits_the_published_schema(verb: str) -> None:
    render.validate(report(finding("pass", "SSH-ROOT-REFUSED"), verb=verb))
    render.validate(MIXED)
    render.validate(findings.combine([MIXED, report(finding("pass", "SSH-ROOT-REFUSED"), verb="prove")]))
    render.validate(findings.report("check", findings.now(), [], {}))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"status": "compliant"}, "status"),
        ({"action": "maybe"}, "action"),
        ({"mitigations": ["T8.1"]}, "mitigations"),
        ({"waiver": {"reason": "x"}}, "waiver"),
        ({"reason": "no code here", "status": "not_evaluated", "code": "kernel"}, "reason"),
        ({"reason": "kernel: not here", "status": "not_evaluated", "code": ""}, "code"),
        ({"code": "two words"}, "code"),
        ({"where": "/etc/ssh/sshd_config:7"}, "where"),
        ({"refs": {"cis_debian12": "5.1.20"}}, "refs"),
        ({"secret": 1}, "findings[0]"),
    ],
)
def test_a_malformed_finding_is_refused_by_place(change: dict[str, Any], place: str) -> None:
    made = report(finding("pass", "SSH-ROOT-REFUSED"))
    made["hosts"][0]["findings"][0].update(change)
    with pytest.raises(ValueError, match=re.escape(place)):
        render.validate(made)


def test_what_one_of_many_alike_has_wrong_is_refused_by_its_place() -> None:
    made = report(*(finding("pass", "SSH-ROOT-REFUSED") for _ in range(3)))
    del made["hosts"][0]["findings"][2]["before"]
    with pytest.raises(ValueError, match=re.escape("findings[2]")):
        render.validate(made)


def test_the_schema_is_asked_about_what_many_findings_say_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = render.validator()

    class Counting:
        def is_valid(self, report: Any) -> bool:
            asked.append(report)
            return bool(real.is_valid(report))

        evolve, iter_errors = real.evolve, real.iter_errors

    monkeypatch.setattr(render, "validator", Counting)
    many = [finding("pass", cid, observed=cid) for cid in ("SSH-ROOT-REFUSED", "SSH-X11-OFF", "SSH-A-B")]
    render.validate(report(*many, *many, finding("fail", "SSH-C-D"), finding("fail", "SSH-E-F")))
    assert [[one["control"] for one in host["findings"]] for host in asked[0]["hosts"]] == [
        ["SSH-ROOT-REFUSED", "SSH-C-D"]
    ]


@pytest.mark.parametrize("hosts", [None, "none", [None], [{}], [{"name": "x", "status": "ok", "findings": [1]}]])
def test_hosts_that_are_none_are_refused(hosts: Any) -> None:
    with pytest.raises(ValueError, match="hosts"):
        render.validate({**report(finding("pass", "SSH-ROOT-REFUSED")), "hosts": hosts})


OLD = ("control", "status", "action", "expected", "observed", "before", "after", "reason", "evidence", "mitigations",
       "waiver")  # fmt: skip
"""What a finding of version 1 had."""


def test_a_report_of_version_1_is_read() -> None:
    old = json.loads(json.dumps(MIXED))
    old["schema_version"] = 1
    for host in old["hosts"]:
        host["findings"] = [{key: one[key] for key in OLD} for one in host["findings"]]
    read = findings.upgraded(old)
    render.validate(read)
    assert findings.upgraded(read) is read
    mine = {f["control"]: f for host in MIXED["hosts"] for f in host["findings"]}
    for one in (f for host in read["hosts"] for f in host["findings"]):
        assert {key: one[key] for key in OLD} == {key: mine[one["control"]][key] for key in OLD}
        assert one["code"] == (mine[one["control"]]["code"] if one["status"] == "not_evaluated" else "")
        assert one["title"] == catalogue.load().get(one["control"], {"title": ""})["title"]
    assert render.as_html(read)


@pytest.mark.parametrize("junk", [{}, {"hosts": 7}, {"hosts": [{"name": "n1"}]}, {"hosts": [{"findings": [{}]}]}])
def test_what_only_says_that_it_is_of_version_1_is_refused(junk: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no report of version 1"):
        findings.upgraded({"schema_version": 1, **junk})


def test_json_reads_back() -> None:
    assert json.loads(render.as_json(MIXED)) == MIXED


def test_the_page_is_whole_escaped_and_loads_nothing() -> None:
    text = render.as_html(MIXED)
    page = Page(text)
    assert page.open == []
    assert page.loads == []
    assert "script" not in page.seen
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not re.search(r"(?:https?:)?//[a-z]|url\(|@import", text.replace("<!doctype", ""))


def test_the_page_says_what_matters() -> None:
    text = render.as_html(MIXED)
    for phrase in ("1 finding fails", "before-value", "after-value", "(expired)", "kernel: not here", "node-1"):
        assert phrase in text, phrase
    for threat in range(1, 8):
        assert f">T{threat}<" in text


def test_what_hosts_have_alike_is_drawn_once_and_what_differs_for_each() -> None:
    same = finding("pass", "SSH-ROOT-REFUSED", expected="what all expect")
    open_ = finding("not_evaluated", "KERNEL-PANIC-REBOOTS", reason="kernel: read-only", expected="the kernel's")
    seen = [finding("pass", "SSH-X11-OFF", observed=f"seen on {name}") for name in ("n1", "n2")]
    hosts = [findings.host_entry(name, "ok", [same, open_, one]) for name, one in zip(("n1", "n2"), seen, strict=True)]
    text = render.as_html(findings.report("check", findings.now(), hosts, {"n2": ["kernel"]}))
    n1, n2 = (part.partition("</section>")[0] for part in text.split('<section class="host"')[1:])
    for part, mine, other in ((n1, "seen on n1", "seen on n2"), (n2, "seen on n2", "seen on n1")):
        assert ("what all expect" in part, mine in part, other in part) == (True, True, False)
        assert part.count('<details class="finding') == 3
    assert ("accepted" in n1, "accepted" in n2) == (False, True)


def test_the_json_report_has_a_line_for_each_value() -> None:
    lines = render.as_json(MIXED).splitlines()
    assert [line for line in lines if '"control": "SSH-X11-OFF"' in line]
    assert not [line for line in lines if line.count('": ') > 3]


def test_every_status_has_colours_with_contrast_in_both_schemes() -> None:
    text = render.as_html(MIXED)
    light, dark = (
        dict(re.findall(r"--([a-z_-]+):(#[0-9a-f]{3,6})", part))
        for part in re.findall(r":root\{(.*?)\}", text, re.S)[:2]
    )
    for scheme in (light, dark):
        for status in ("pass", "fail", "error", "not_evaluated", "waived", "open", "unseen", "part"):
            assert contrast(scheme[status], scheme[f"{status}-b"]) >= 4.5, (status, scheme[status])
        for ink in ("ink", "soft"):
            assert contrast(scheme[ink], scheme["card"]) >= 4.5
            assert contrast(scheme[ink], scheme["bg"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio."""

    def luminance(colour: str) -> float:
        digits = colour.lstrip("#")
        digits = "".join(d * 2 for d in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("found", "accepted", "headline", "tone"),
    [
        (finding("pass", "A-B"), (), "Every control holds", "pass"),
        (finding("waived", "A-B", waiver=WAIVER), (), "Every control holds or is waived", "pass"),
        (finding("fail", "A-B"), (), "1 finding fails", "fail"),
        (finding("not_evaluated", "A-B", reason="kernel: x"), (), "1 not evaluated", "not_evaluated"),
        (
            finding("not_evaluated", "A-B", reason="kernel: x"),
            ("kernel",),
            "Every control that was evaluated holds",
            "pass",
        ),
        (finding("error", "A-B"), (), "1 check broke", "error"),
    ],
)
def test_the_headline(found: findings.Finding, accepted: tuple[str, ...], headline: str, tone: str) -> None:
    assert render.verdict(report(found, accepted=accepted)) == {"headline": headline, "tone": tone}


def test_what_is_not_evaluated_is_never_a_pass_for_a_threat() -> None:
    made = report(finding("not_evaluated", "A-B", reason="kernel: x"), finding("pass", "C-D"), accepted=("kernel",))
    (row,) = [row for row in render.threats(made, set())[0]["rows"] if row["id"] == "T1.4"]
    assert (row["status"], row["counts"]["pass"], row["total"]) == ("not_evaluated", 1, 2)


def test_a_mitigation_without_control_is_open() -> None:
    by_id = {row["id"]: row["status"] for threat in render.threats(report(), {"T1.1"}) for row in threat["rows"]}
    assert (by_id["T1.1"], by_id["T1.2"]) == ("unseen", "open")


def test_what_is_answered_in_part_is_not_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "open_mitigations", lambda: {"T1.4": "only half of it is there"})
    (row,) = [row for row in render.threats(report(finding("pass", "A-B")), set())[0]["rows"] if row["id"] == "T1.4"]
    assert (row["status"], row["gap"]) == ("part", "only half of it is there")
    (row,) = [row for row in render.threats(report(finding("fail", "A-B")), set())[0]["rows"] if row["id"] == "T1.4"]
    assert row["status"] == "fail"


def test_junit_counts_nothing_unevaluated_as_passed() -> None:
    suite = ElementTree.fromstring(render.as_junit(MIXED))[0]
    outcome = {case.attrib["name"]: [child.tag for child in case] for case in suite}
    assert outcome == {
        "SSH-ROOT-REFUSED": [],
        "SSH-PASSWORD-REFUSED": ["failure"],
        "SSH-X11-OFF": ["skipped"],
        "KERNEL-PANIC-REBOOTS": ["skipped"],
        "ETCD-DATA-PRIVATE": ["error"],
    }


def test_a_report_is_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    render.write(path, "old")
    render.write(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_what_is_no_file_is_written_to_and_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("report")
    render.write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "report").read_text() == "new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        render.write(pipe, "new")
        assert os.read(reader, 9) == b"new" and stat.S_ISFIFO(pipe.stat().st_mode)
    finally:
        os.close(reader)


def test_a_failed_write_leaves_the_old_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    render.write(path, "old")
    with pytest.raises(UnicodeEncodeError):
        render.write(path, "\ud800")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
