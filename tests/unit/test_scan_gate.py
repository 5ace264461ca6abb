"""What counts as a passing scan, how results are kept, and what may go on the list of images."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from unit import scanning
from unit.scanning import DIGEST, NOW

from casemate.supply import scan_gate, scan_policy, scan_results
from casemate.supply.scan_policy import Policy, Scan
from casemate.supply.scan_report import Advisory

DAY = datetime.timedelta(days=1)
FIXED = Advisory("CVE-2026-1", ("GHSA-aaaa-bbbb-cccc",), "openssl", "3.0.1", "3.0.2", "high")
WAIVER = {"reason": "not reached", "owner": "ops", "expires": "2026-11-29"}


def made(
    *advisories: Advisory, scanned: datetime.datetime = NOW, database: datetime.datetime = NOW, whole: bool = False
) -> Scan:
    about = ("trivy", "0.70.0", "0" * 64, database, scanned, advisories)
    return Scan(f"example.org/app@{DIGEST}", *about, whole=whole)


@pytest.mark.parametrize(
    ("advisory", "policy", "counts"),
    [
        (FIXED, Policy(), True),
        (FIXED, Policy(fails_from="critical"), False),
        (FIXED._replace(severity="critical"), Policy(fails_from="critical"), True),
        (FIXED._replace(severity="medium"), Policy(), False),
        (FIXED._replace(severity="medium"), Policy(fails_from="low"), True),
        (FIXED._replace(severity="unknown"), Policy(), True),
        (FIXED._replace(severity="unknown"), Policy(fails_from="critical"), False),
        (FIXED._replace(fixed=""), Policy(), False),
        (FIXED._replace(fixed=""), Policy(only_fixed=False), True),
        (FIXED, Policy(waivers={"CVE-2026-1": WAIVER}), False),
        (FIXED, Policy(waivers={"GHSA-aaaa-bbbb-cccc": WAIVER}), False),
        (FIXED, Policy(waivers={"CVE-2026-2": WAIVER}), True),
        (FIXED, Policy(waivers={"CVE-2026-1": {**WAIVER, "expires": "2026-11-28"}}), True),
    ],
)
def test_what_counts(advisory: Advisory, policy: Policy, counts: bool) -> None:
    state = scan_policy.standing(made(advisory), policy, NOW).state
    assert state == ("vulnerable" if counts else "passed")


@pytest.mark.parametrize(
    ("scan", "state", "said"),
    [
        (None, "unscanned", "not scanned"),
        (made(), "passed", ""),
        (made(scanned=NOW - 7 * DAY, database=NOW - 7 * DAY), "passed", ""),
        (made(scanned=NOW - 7.1 * DAY, database=NOW - 7.1 * DAY), "outdated", "counts for 7 days"),
        (made(database=NOW - 3.1 * DAY), "outdated", "more than 3 days before the scan"),
        (made(scanned=NOW + DAY), "outdated", "in the future"),
        (made(database=NOW + DAY), "outdated", "in the future"),
        (made(FIXED), "vulnerable", "CVE-2026-1 in openssl 3.0.1 (high, fixed in 3.0.2)"),
        (made(FIXED, scanned=NOW - 8 * DAY, database=NOW - 8 * DAY), "outdated", ""),
    ],
)
def test_how_an_image_stands(scan: Scan | None, state: str, said: str) -> None:
    found = scan_policy.standing(scan, Policy(), NOW)
    assert found.state == state
    assert said in found.why


def test_results_are_kept_by_digest_and_platform_the_same_bytes_for_the_same(tmp_path: Path) -> None:
    first = scan_results.keep(tmp_path, DIGEST, "linux/amd64", made(FIXED), Policy(), False)
    before = first.read_bytes()
    assert scan_results.keep(tmp_path, DIGEST, "linux/amd64", made(FIXED), Policy(), False).read_bytes() == before
    scan_results.keep(tmp_path, DIGEST, "linux/arm64", made(), Policy(), True)
    assert scan_results.read(tmp_path, DIGEST) == {"linux/amd64": made(FIXED), "linux/arm64": made()}
    assert [path.name for path in tmp_path.iterdir()] == [f"sha256-{'a' * 64}.json"]
    assert scan_results.digests(tmp_path) == [DIGEST]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 100_000, '{"schema": 1, "digest": "sha256:b", "scans": {}}',
     f'{{"schema": 1, "digest": "{DIGEST}", "scans": {{"linux/amd64": {{}}}}}}'],
)  # fmt: skip
def test_a_broken_result_lets_nothing_pass(tmp_path: Path, text: str) -> None:
    asked = scanning.settings(tmp_path)
    scan_results.file_of(asked.results, DIGEST).write_text(text)
    assert "Remove it, and scan again" in scan_gate.refusal(DIGEST, "app", asked, NOW)
    stands = scan_gate.standings(asked, NOW)[DIGEST]
    assert all(one["state"] == "unreadable" for one in stands.values())
    assert stands


def test_only_what_passed_on_every_platform_goes_on_the_list(tmp_path: Path) -> None:
    asked = scanning.settings(tmp_path)
    image = f"example.org/app@{DIGEST}"
    assert scan_gate.refusal(DIGEST, image, asked, NOW) == (
        f"{image} (linux/amd64): it was not scanned. To allow it, scan it: casemate images scan -i INVENTORY {image}"
    )
    scan_results.keep(asked.results, DIGEST, "linux/amd64", made(), asked.policy, True)
    assert scan_gate.refusal(DIGEST, image, asked, NOW) == ""
    assert "counts for 7 days" in scan_gate.refusal(DIGEST, image, asked, NOW + 8 * DAY)
    scan_results.keep(asked.results, DIGEST, "linux/arm64", made(FIXED), asked.policy, False)
    refused = scan_gate.refusal(DIGEST, image, asked, NOW)
    assert refused.startswith(f"{image} (linux/arm64): CVE-2026-1 in openssl 3.0.1")
    assert "casemate_advisory_waivers" in refused
    assert scan_gate.refusal(DIGEST, image, None, NOW) == ""


def test_a_pass_for_one_platform_lets_no_index_onto_the_list_of_nodes_of_two(tmp_path: Path) -> None:
    asked = scanning.settings(tmp_path)._replace(platforms=("linux/amd64", "linux/arm64"))
    scan_results.keep(asked.results, DIGEST, "linux/amd64", made(), asked.policy, True)
    refused = scan_gate.refusal(DIGEST, "example.org/app", asked, NOW)
    assert refused.startswith("example.org/app (linux/arm64): it was not scanned. To allow it, scan it")
    stands = scan_gate.standings(asked, NOW)[DIGEST]
    assert {platform: one["state"] for platform, one in stands.items()} == {
        "linux/amd64": "passed",
        "linux/arm64": "unscanned",
    }
    scan_results.keep(asked.results, DIGEST, "linux/arm64", made(), asked.policy, True)
    assert scan_gate.refusal(DIGEST, "example.org/app", asked, NOW) == ""


def test_what_is_no_index_is_the_same_on_every_platform(tmp_path: Path) -> None:
    asked = scanning.settings(tmp_path)._replace(platforms=("linux/amd64", "linux/arm64"))
    scan_results.keep(asked.results, DIGEST, "linux/amd64", made(whole=True), asked.policy, True)
    assert scan_results.read(asked.results, DIGEST)["linux/amd64"].whole
    assert scan_gate.refusal(DIGEST, "example.org/app", asked, NOW) == ""
    scan_results.keep(asked.results, DIGEST, "linux/amd64", made(FIXED, whole=True), asked.policy, False)
    assert "CVE-2026-1" in scan_gate.refusal(DIGEST, "example.org/app", asked, NOW)


def test_a_node_of_a_platform_for_which_nothing_has_to_be_scanned_stops_an_apply(tmp_path: Path) -> None:
    given = {"casemate_image_scans": scanning.inventory(scanning.settings(tmp_path))}
    assert scan_gate.platform_problems(given, "x86_64") == []
    assert scan_gate.platform_problems({}, "aarch64") == []
    (said,) = scan_gate.platform_problems(given, "aarch64")
    assert "casemate_image_scans.platforms is linux/amd64, and this node is linux/arm64" in said
    assert "Set platforms: [linux/amd64, linux/arm64]" in said


def test_settings_are_what_the_inventory_says(tmp_path: Path) -> None:
    one = scanning.settings(tmp_path)
    given = scanning.inventory(one)
    assert scan_gate.settings(given) == one._replace(scanner=one.scanner._replace(timeout=600))
    more = {"fails_from": "low", "only_fixed": False, "result_max_age_days": 2, "database_max_age_days": 1}
    waivers = {"CVE-2026-1": WAIVER}
    made_of = scan_gate.settings({**given, **more}, waivers)
    assert made_of is not None
    assert made_of.policy == Policy("low", False, 2, 1, waivers)
    assert scan_gate.settings(None) is None


@pytest.mark.parametrize(
    "argument",
    ["--severity=CRITICAL", "--ignorefile", "-sCRITICAL", "-qsCRITICAL", "--vex=file", "--cache-dir",
     "--vuln-type=os", "--security-checks=config", "--distro=alpine/3.9", "--offline-scan=false"],
)  # fmt: skip
def test_arguments_that_hide_findings_are_refused(tmp_path: Path, argument: str) -> None:
    given: Any = scanning.inventory(scanning.settings(tmp_path))
    given["scanner"]["arguments"] = ["--debug", "--insecure", argument]
    (said,) = scan_gate.problems({"casemate_image_scans": given})
    assert argument in said
    assert "Remove it" in said


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    given: Any = scanning.inventory(scanning.settings(tmp_path))
    assert scan_gate.problems({"casemate_image_scans": given}) == []
    (tmp_path / "database/db/metadata.json").unlink()
    (said,) = scan_gate.problems({"casemate_image_scans": given})
    assert "--download-db-only" in said


def test_results_that_count_for_nobody_any_more_are_removed(tmp_path: Path) -> None:
    old, young, both, broken = (f"sha256:{letter * 64}" for letter in "abcd")
    before = NOW - scan_results.KEPT - DAY
    for digest, platform, scanned in (
        (old, "linux/amd64", before),
        (old, "linux/arm64", before),
        (young, "linux/amd64", NOW - scan_results.KEPT + DAY),
        (both, "linux/amd64", before),
        (both, "linux/arm64", NOW),
    ):
        scan_results.keep(tmp_path, digest, platform, made(scanned=scanned), Policy(), True)
    scan_results.file_of(tmp_path, broken).write_text("{")
    (tmp_path / "mine.json").write_text("{}")
    assert scan_results.prune(tmp_path, NOW) == 1
    assert scan_results.digests(tmp_path) == [young, both, broken]
    assert (tmp_path / "mine.json").exists()
