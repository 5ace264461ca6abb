"""`casemate images scan` and what of it decides what `casemate images allow` puts on the list."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from unit import made, scanning
from unit.scanning import CVE, DIGEST

from casemate.cli import image_scan, images
from casemate.run import runner
from casemate.supply import registry, registry_answers, scan_gate, scan_results, scanner
from casemate.supply.scan_policy import Scan

CONFIG = f"sha256:{'c' * 64}"
IMAGE, TAG, PLATFORM = "registry.example.org/app", "registry.example.org/app:1", "linux/amd64"
POD = "shop/web/main"
NOTHING: dict[str, Any] = {"scans": {}, "waivers": {}, "updates": {}, "registries": []}
"""What the playbook tells of an inventory that asks for nothing."""
NAMED = f"{IMAGE}@{DIGEST}"


def ran(settings: Any, *states: str, updates: Any = None, tag: str = "") -> runner.Run:
    """A look at nodes that run the image, which stands so on each; none: it passed. `tag` is the state of its tag."""
    run = runner.Run()
    for at, state in enumerate(states or ("",), 1):
        one = {"image": IMAGE, "config": CONFIG, "platform": PLATFORM, "pods": [POD], "state": state, "why": state}
        status = {"": "pass", "vulnerable": "fail"}.get(state, "not_evaluated")
        found = made.finding(status, kind="image_scans", reason=f"unscanned: {state}", observed={DIGEST: one})
        asked = {"reference": TAG, "platform": PLATFORM, "state": tag}
        moved = made.finding(
            "not_evaluated" if tag else "pass", "A-C", kind="image_updates", reason="registry: x", observed={TAG: asked}
        )
        host = runner.Host(f"node{at}", passes={"A-B": [found], **({"A-C": [moved]} if updates else {})})
        run.hosts[host.name] = host
        scans = scanning.inventory(settings) if settings else {}
        run.results[host.name] = {"msg": {**NOTHING, "scans": scans, "updates": updates or {}}}
    run.settled = True
    return run


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    """Runs to give, one after the other; the last one again and again. The folder is that of the test."""
    given: list[Any] = []
    asked: list[Any] = []

    def play(playbook: str, *arguments: Any, **_: Any) -> runner.Run:
        asked.append((playbook, arguments[2]))
        run: runner.Run = given.pop(0) if len(given) > 1 else given[0]
        return run

    monkeypatch.setattr(runner, "play", play)
    monkeypatch.chdir(tmp_path)
    yield given
    assert {playbook for playbook, _ in asked} == {"images.yml"}


def scan(*arguments: str) -> Result:
    return CliRunner().invoke(images.images, ["scan", "-i", "hosts,", *arguments], standalone_mode=False)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def test_what_has_no_result_is_scanned_once_and_looked_at_again(tmp_path: Path, looks: list[Any]) -> None:
    settings = scanning.settings(tmp_path, built=now(), digests=[CONFIG])
    looks += [ran(settings, "unscanned", "outdated"), ran(settings)]
    done = scan()
    assert done.return_value == 0, done.output
    assert scan_results.read(settings.results, DIGEST)["linux/amd64"].advisories == ()
    assert len(looks) == 1
    assert json.loads((tmp_path / "report/images.json").read_text())["summary"]["findings"]["pass"] == 1


def test_a_scan_removes_results_that_are_older_than_any_that_count(tmp_path: Path, looks: list[Any]) -> None:
    settings = scanning.settings(tmp_path, built=now(), digests=[CONFIG])
    other, then = f"sha256:{'b' * 64}", now() - 2 * scan_results.KEPT
    old = Scan(other, "trivy", "0.70.0", "0" * 64, then, then, ())
    scan_results.keep(settings.results, other, PLATFORM, old, settings.policy, True)
    looks += [ran(settings, "unscanned"), ran(settings)]
    done = scan()
    assert "1 results of scans are removed" in done.output
    assert scan_results.digests(settings.results) == [DIGEST]


def test_what_stands_on_the_list_is_scanned_and_what_runs_of_it_by_its_configuration() -> None:
    other, run = f"sha256:{'b' * 64}", ran(None, "unscanned")
    entry = {"image": IMAGE, "config": "", "platform": "", "pods": [], "state": "unscanned", "why": ""}
    on_list = made.finding("fail", "A-D", kind="image_scans", observed={DIGEST: entry, other: entry})
    run.hosts["node1"].passes["A-D"] = [on_list]
    arm = "linux/arm64"
    wanted = [
        scanner.Wanted(DIGEST, IMAGE, CONFIG, PLATFORM),
        scanner.Wanted(DIGEST, IMAGE, "", arm),
        scanner.Wanted(other, IMAGE, "", PLATFORM),
        scanner.Wanted(other, IMAGE, "", arm),
    ]
    assert image_scan.wanted(run, [PLATFORM, arm]) == wanted
    run.hosts["node1"].passes = dict(reversed(run.hosts["node1"].passes.items()))
    assert image_scan.wanted(run, [PLATFORM, arm]) == wanted


@pytest.mark.parametrize(
    ("digest", "change"),
    [
        ("../../cron", {}),
        ("--output=/x", {}),
        (DIGEST, {"image": "--cache-dir=/x"}),
        (DIGEST, {"image": "registry.example.org/../app"}),
        (DIGEST, {"config": "../c"}),
        (DIGEST, {"platform": "--x"}),
        (DIGEST, {"image": ["x"]}),
    ],
)
def test_what_a_host_that_was_taken_over_tells_of_an_image_is_no_argument_and_no_path(digest: str, change: Any) -> None:
    one = {"image": IMAGE, "config": CONFIG, "platform": PLATFORM, "state": "unscanned", **change}
    run = ran(None)
    run.hosts["node1"].passes["A-D"] = [made.finding("fail", "A-D", kind="image_scans", observed={digest: one})]
    assert image_scan.wanted(run, [PLATFORM]) == []


@pytest.mark.parametrize("reference", ["", "app:1", "--x", "registry.example.org/app", "evil.example.org/x?y=:1", 7])
def test_what_it_tells_of_a_tag_is_no_address(reference: Any) -> None:
    asked = {"reference": reference, "platform": PLATFORM, "state": "unknown"}
    run = ran(None)
    found = made.finding("not_evaluated", "A-C", kind="image_updates", reason="registry: x", observed={"x": asked})
    run.hosts["node1"].passes["A-C"] = [found]
    assert image_scan.tags(run) == []


def test_a_vulnerable_image_is_a_finding_with_digest_node_and_pod(tmp_path: Path, looks: list[Any]) -> None:
    settings = scanning.settings(tmp_path, built=now(), digests=[CONFIG], found=[CVE])
    looks += [ran(settings, "unscanned"), ran(settings, "vulnerable")]
    done = scan()
    assert done.return_value == 2, done.output
    assert f"{NAMED} ({PLATFORM}): vulnerable: CVE-2026-1 in openssl 3.0.1 (high, fixed in 3.0.2)" in done.output
    (host,) = json.loads((tmp_path / "report/images.json").read_text())["hosts"]
    assert host["name"] == "node1"
    assert host["findings"][0]["observed"][DIGEST]["pods"] == [POD]


def test_a_scan_that_fails_is_a_failure_of_the_tool_and_keeps_nothing(tmp_path: Path, looks: list[Any]) -> None:
    settings = scanning.settings(tmp_path, built=now(), does="garbage")
    looks += [ran(settings, "unscanned")]
    done = scan()
    assert done.return_value == 1
    assert "cannot be taken for a result" in done.output
    assert list(settings.results.iterdir()) == []


def test_a_changed_scanner_scans_nothing(tmp_path: Path, looks: list[Any]) -> None:
    settings = scanning.settings(tmp_path, digests=[CONFIG])
    settings.scanner.path.write_text("#!/bin/sh\n")
    looks += [ran(settings, "unscanned")]
    done = scan()
    assert done.return_value == 1
    assert "and casemate_image_scans demands" in done.output


def test_without_a_scanner_or_anybody_to_ask_it_is_misused(looks: list[Any]) -> None:
    looks += [ran(None)]
    done = scan()
    assert "casemate_image_scans is not set" in str(done.exception)
    assert "casemate_image_scans is not set" in str(scan(NAMED).exception)


def test_what_could_not_be_scanned_is_not_evaluated(tmp_path: Path, looks: list[Any]) -> None:
    settings = scanning.settings(tmp_path, built=now() - datetime.timedelta(days=9), digests=[CONFIG])
    looks += [ran(settings, "unscanned"), ran(settings, "outdated")]
    done = scan()
    assert done.return_value == 2
    assert f"{NAMED} ({PLATFORM}): outdated: the scanner's database was of" in done.output
    assert "not evaluated" in done.output


def test_a_tag_is_asked_for_once_for_all_nodes_and_what_is_said_of_it_is_kept(
    tmp_path: Path, looks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[Any] = []

    def leads_to(_: Any, reference: str, platform: str) -> registry.Answer:
        questions.append((reference, platform))
        if len(questions) > 1:
            raise registry.Unanswered("it is not reached")
        return registry.Answer((DIGEST,), CONFIG)

    monkeypatch.setattr(registry.Asker, "leads_to", leads_to)
    updates = {"answers": str(tmp_path)}
    looks += [ran(None, "", "", updates=updates, tag="unknown"), ran(None, updates=updates)]
    assert scan().return_value == 0
    assert questions == [(TAG, PLATFORM)]
    kept = registry_answers.known(updates, now())
    assert (kept[TAG][PLATFORM]["digests"], kept[TAG][PLATFORM]["config"]) == ([DIGEST], CONFIG)
    looks += [ran(None, updates=updates, tag="unknown")]
    del looks[0]
    assert scan().return_value == 2
    assert registry_answers.known(updates, now())[TAG][PLATFORM]["why"] == "it is not reached"


def test_hosts_that_differ_in_their_scanner_are_refused(tmp_path: Path, looks: list[Any]) -> None:
    run = ran(scanning.settings(tmp_path), "unscanned", "unscanned")
    run.results["node2"] = {"msg": NOTHING}
    looks += [run]
    assert "hosts differ in casemate_image_scans" in str(scan().exception)


def allow(tmp_path: Path, *more: str) -> Result:
    path = str(tmp_path / "images.json")
    asked = ["allow", NAMED, "--list", path, "--until", "2099-01-01", "--reason", "ours", "--owner", "ops", *more]
    return CliRunner().invoke(images.images, asked)


@pytest.mark.parametrize(("found", "allowed"), [([], True), ([CVE], False)])
def test_only_what_was_scanned_and_passed_goes_on_the_list(
    tmp_path: Path, looks: list[Any], found: list[Any], allowed: bool
) -> None:
    settings = scanning.settings(tmp_path, built=now(), found=found, digests=[DIGEST])
    looks += [ran(settings)]
    refused = allow(tmp_path, "-i", "hosts,")
    assert refused.exit_code == 1
    assert "it was not scanned" in refused.output
    assert not (tmp_path / "images.json").exists()
    done = scan(NAMED)
    assert done.return_value == (0 if allowed else 2), done.output
    made_list = allow(tmp_path, "-i", "hosts,")
    assert (tmp_path / "images.json").exists() == allowed, made_list.output
    assert ("CVE-2026-1" in made_list.output) != allowed


def test_where_no_scans_are_set_up_the_list_is_as_before(tmp_path: Path, looks: list[Any]) -> None:
    looks += [ran(None)]
    assert "Review it, and sign it" in allow(tmp_path, "-i", "hosts,").output
    assert scan_gate.VARIABLE == "casemate_image_scans"


def test_units_of_systemd_are_printed_whole(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all: {}\n")
    done = CliRunner().invoke(images.images, ["scan", "-i", str(inventory), "--print-timer"])
    assert f"images scan -i {inventory}" in done.output
    assert "OnCalendar=daily" in done.output
