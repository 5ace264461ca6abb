"""Images that run, or may run, without a scan that lets them pass, and such as were built too long ago."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from unit import running_images as made
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable, Verdict
from module_utils.casemate.kinds import image_age, image_scans

BUILT, TODAY = "2026-07-28T00:00:00Z", {"today": "2026-11-29"}
APP = "registry.example.org/app"
RUNS = "ActiveState=active\nMainPID=7\n"
PASSED = {"state": "passed", "why": ""}
VULNERABLE = {"state": "vulnerable", "why": "CVE-2026-1 in openssl 3.0.1 (high, fixed in 3.0.2)"}
OUTDATED = {"state": "outdated", "why": "its scan is of 2026-01-01, and counts for 7 days"}


def node(tmp_path: Path, created: str = BUILT, runs: bool = True) -> tuple[FakeHost, str, str]:
    """A node that runs one image in two pods, its digest, and that of its configuration."""
    blobs: made.Blobs = {}
    manifest, config = made.image(blobs, created)
    named = [(f"{APP}:1", manifest), (f"{APP}@{manifest}", manifest), (config, manifest)]
    pods = [made.container(config, "shop/web-1"), made.container(config, "shop/web-2")]
    host = made.node(tmp_path, blobs, named, pods, context=TODAY)
    host.commands["systemctl show k3s.service"] = (0, RUNS if runs else "ActiveState=inactive\n", "")
    host.commands["systemctl show k3s-agent.service"] = (0, "ActiveState=inactive\n", "")
    return host, manifest, config


def judged(kind: Any, host: FakeHost, **setting: Any) -> Verdict:
    (seen,) = kind.observe([setting], host)
    if isinstance(seen, Exception):
        raise seen
    verdict: Verdict = kind.assess(setting, seen)
    return verdict


PODS = ["shop/web-1/main", "shop/web-2/main"]


def test_what_runs_needs_a_scan_that_lets_it_pass(tmp_path: Path) -> None:
    host, digest, config = node(tmp_path)
    assert judged(image_scans, host, of="running", scans={digest: {"linux/amd64": PASSED}}, wanted=True).ok
    verdict = judged(image_scans, host, of="running", scans={digest: {"linux/amd64": VULNERABLE}}, wanted=True)
    assert not verdict.ok
    assert verdict.observed == {
        digest: {"image": APP, "config": config, "platform": "linux/amd64", "pods": PODS, **VULNERABLE}
    }
    assert f"{APP}@{digest} in shop/web-1/main, shop/web-2/main: {VULNERABLE['why']}" in verdict.reason
    assert image_scans.TODO["vulnerable"] in verdict.reason
    assert verdict.where == ("pod shop/web-1/main", "pod shop/web-2/main")


@pytest.mark.parametrize(
    ("platform", "standing", "state"),
    [
        ("linux/amd64", OUTDATED, "outdated"),
        ("linux/amd64", {"state": "unreadable", "why": "it is no result"}, "unreadable"),
        ("linux/arm64", PASSED, "unscanned"),
        ("linux/arm64", VULNERABLE, "unscanned"),
    ],
)
def test_of_what_runs_without_a_scan_that_counts_nothing_is_known(
    tmp_path: Path, platform: str, standing: Any, state: str
) -> None:
    host, digest, config = node(tmp_path)
    with pytest.raises(Unavailable, match=rf"^unscanned: {APP}@{digest} in ") as refused:
        judged(image_scans, host, of="running", scans={digest: {platform: standing}}, wanted=True)
    assert image_scans.TODO[state] in refused.value.why
    told = refused.value.observed[digest]
    assert (told["state"], told["config"], told["platform"], told["pods"]) == (state, config, "linux/amd64", PODS)


def test_a_scan_of_another_image_of_the_same_index_and_platform_says_nothing_of_what_runs(tmp_path: Path) -> None:
    """An index may lead to two for linux/amd64: the scanner takes one, and the runtime that of its processor."""
    host, digest, config = node(tmp_path)
    for of, known in ((config, True), ("", True), (f"sha256:{'e' * 64}", False)):
        scans = {digest: {"linux/amd64": {**PASSED, "of": of}}}
        if known:
            assert judged(image_scans, host, of="running", scans=scans, wanted=True).ok
            continue
        with pytest.raises(Unavailable, match="it was not scanned"):
            judged(image_scans, host, of="running", scans=scans, wanted=True)


@pytest.mark.parametrize(("other", "ok"), [(OUTDATED, True), (VULNERABLE, False)])
def test_a_scan_by_any_digest_of_the_same_configuration_counts(tmp_path: Path, other: Any, ok: bool) -> None:
    host, digest, config = node(tmp_path)
    scans = {digest: {"linux/amd64": other}, config: {"linux/amd64": PASSED}}
    assert judged(image_scans, host, of="running", scans=scans, wanted=True).ok == ok


def test_what_is_vulnerable_is_told_before_what_nobody_has_scanned(tmp_path: Path) -> None:
    one, two = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    about = {"image": APP, "pods": [], "config": "", "platform": "linux/amd64"}
    faults = {one: {**about, **image_scans.UNSCANNED}, two: {**about, **VULNERABLE}}
    verdict = image_scans.assess({"of": "running", "scans": {}, "wanted": True}, {"count": 2, "faults": faults})
    assert verdict.reason.startswith(f"{APP}@{two}: {VULNERABLE['why']}; {APP}@{one}: it was not scanned")


def test_without_a_scanner_nothing_passes(tmp_path: Path) -> None:
    host, digest, _ = node(tmp_path)
    scans = {digest: {"linux/amd64": PASSED}}
    for of in ("running", "listed"):
        with pytest.raises(Unavailable, match=r"^unasked: casemate_image_scans is not set"):
            judged(image_scans, host, of=of, scans=scans, wanted=False)


def test_where_k3s_does_not_run_nothing_is_said(tmp_path: Path) -> None:
    host, _, _ = node(tmp_path, runs=False)
    with pytest.raises(Unavailable, match=r"^k3s: "):
        judged(image_scans, host, of="running", scans={}, wanted=True)
    with pytest.raises(Unavailable, match=r"^k3s: "):
        judged(image_age, host, days=1)


def listed(tmp_path: Path, *digests: str, until: str = "2027-01-01") -> FakeHost:
    entries = [{"image": APP, "digest": one, "owner": "ops", "reason": "ours", "until": until} for one in digests]
    text = json.dumps({"schema": 1, "expires": "2027-01-01", "images": entries})
    return FakeHost(tmp_path, {"/list.json": text}, context=TODAY)


def test_what_the_list_lets_in_needs_a_scan_that_passed_on_each_platform(tmp_path: Path) -> None:
    one, other = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    host, asked = listed(tmp_path, one, other), {"of": "listed", "list": "/list.json", "wanted": True}
    scans: dict[str, Any] = {one: {"linux/amd64": PASSED, "linux/arm64": VULNERABLE}}
    verdict = judged(image_scans, host, scans=scans, **asked)
    assert {digest: found["state"] for digest, found in verdict.observed.items()} == {
        one: "vulnerable",
        other: "unscanned",
    }
    scans = {digest: {"linux/amd64": PASSED} for digest in (one, other)}
    assert judged(image_scans, host, scans=scans, **asked).ok
    assert judged(image_scans, listed(tmp_path, one, until="2026-11-28"), scans={}, **asked).ok  # it lets nothing in


def test_a_list_that_is_none_is_not_evaluated(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/list.json": "{}"}, context=TODAY)
    for path, code in (("", "unasked"), ("/list.json", "image_list"), ("/none", "image_list")):
        with pytest.raises(Unavailable, match=rf"^{code}: "):
            judged(image_scans, host, of="listed", list=path, scans={}, wanted=True)


@pytest.mark.parametrize(
    ("created", "days", "ok"),
    [
        ("2026-07-28T00:00:00Z", 124, True),
        ("2026-07-28T00:00:00.123456789Z", 123, False),
        ("2026-11-30T01:00:00+02:00", 1, True),
        ("2027-07-28T00:00:00Z", 3650, False),
    ],
)
def test_age_counts_from_when_it_was_built(tmp_path: Path, created: str, days: int, ok: bool) -> None:
    host, digest, _ = node(tmp_path, created)
    verdict = judged(image_age, host, days=days)
    assert verdict.ok == ok
    if not ok:
        assert list(verdict.observed) == [f"{APP}@{digest}"]
        assert "shop/web-1/main" in verdict.reason
        assert verdict.where == ("pod shop/web-1/main", "pod shop/web-2/main")


@pytest.mark.parametrize(
    "created", ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "", "2026-02-31T00:00:00Z", "soon"]
)
def test_an_image_that_does_not_say_when_it_was_built_is_not_evaluated(tmp_path: Path, created: str) -> None:
    host, _, _ = node(tmp_path, created)
    with pytest.raises(Unavailable, match=r"^undated: registry.example.org/app@sha256"):
        judged(image_age, host, days=3650)


def test_no_limit_is_not_evaluated(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"^unasked: casemate_image_max_age_days is not set"):
        judged(image_age, node(tmp_path)[0], days=0)
    assert image_age.day("2026-11-29T00:00:00Z") == datetime.date(2026, 11, 29)
