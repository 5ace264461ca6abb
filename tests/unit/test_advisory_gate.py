"""A K3s with an advisory that nobody answers for is refused before any host is touched, where the operator has data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from unit.test_advisories import RUNC, entry, until
from unit.test_go_build import information, program
from unit.test_release_contents import RUNC as RUNC_IN_K3S
from unit.test_release_contents import k3s, pytestmark

from casemate.preflight.advisories import data_problems, gate

pytestmark = pytestmark
VERSION = "v1.36.3+k3s1"


@pytest.fixture
def values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The inputs of a host whose release lies on the controller, and has runc v1.4.1."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = k3s(("bin/runc", program(information(RUNC_IN_K3S))))
    release, lock, osv = tmp_path / "release", tmp_path / "lock.json", tmp_path / "osv"
    release.mkdir()
    osv.mkdir()
    (release / "k3s").write_bytes(data)
    files = {"k3s": hashlib.sha256(data).hexdigest()}
    releases = {VERSION: {"provides": [], "files": files}}
    lock.write_text(json.dumps({"schema": 1, "default": VERSION, "releases": releases}))
    (osv / "runc.json").write_text(json.dumps(entry(RUNC, until("1.4.2"), 1, aliases=["CVE-2026-1"])))
    return {
        "casemate_artifact_lock": str(lock),
        "casemate_artifact_dir": str(release),
        "casemate_advisory_data": [str(osv)],
        "casemate_advisory_max_age": 3650,
    }


def digest(values: dict[str, Any]) -> str:
    return hashlib.sha256((Path(values["casemate_artifact_dir"]) / "k3s").read_bytes()).hexdigest()


def test_a_new_installation_and_an_upgrade_are_refused_with_what_to_do(values: dict[str, Any]) -> None:
    for there in ("", "0" * 64):
        (problem,), warnings = gate(values, "x86_64", there)
        assert problem.startswith(
            f"K3s {VERSION} has advisories that nobody answers for:\n  GO-2026-1 (CVE-2026-1): {RUNC}"
        )
        assert "fixed in 1.4.2" in problem and "casemate_advisory_waivers" in problem
        assert not warnings


def test_what_is_installed_already_is_a_finding_and_no_refusal(values: dict[str, Any]) -> None:
    assert gate(values, "x86_64", digest(values)) == ([], [])


def test_without_data_nothing_is_asked(values: dict[str, Any]) -> None:
    del values["casemate_advisory_data"]
    assert gate(values, "x86_64", "") == ([], [])
    assert data_problems(values) == []


def test_a_waiver_opens_the_gate_until_it_ends(values: dict[str, Any]) -> None:
    waiver = {"reason": "not reachable", "owner": "ops", "expires": "2999-01-01"}
    assert gate({**values, "casemate_advisory_waivers": {"CVE-2026-1": waiver}}, "x86_64", "")[0] == []
    ended = {"CVE-2026-1": {**waiver, "expires": "2020-01-01"}}
    assert gate({**values, "casemate_advisory_waivers": ended}, "x86_64", "")[0]


def test_old_data_opens_no_gate(values: dict[str, Any]) -> None:
    Path(values["casemate_advisory_data"][0], "runc.json").write_text(
        json.dumps(entry(RUNC, until("1.4.0"), 1, modified="2020-01-01T00:00:00Z"))
    )
    (problem,), _ = gate({**values, "casemate_advisory_max_age": 14}, "x86_64", "")
    assert "tells up to 2020-01-01" in problem


def test_a_release_that_is_downloaded_is_judged_by_its_version_and_the_operator_knows(values: dict[str, Any]) -> None:
    del values["casemate_artifact_dir"]
    problems, (warning,) = gate(values, "x86_64", "")
    assert problems == []
    assert "is downloaded by the hosts" in warning
    Path(values["casemate_advisory_data"][0], "k8s.json").write_text(
        json.dumps(entry("k8s.io/kubernetes", until("1.36.4"), 2))
    )
    (problem,), _ = gate(values, "x86_64", "")
    assert "GO-2026-2: k8s.io/kubernetes v1.36.3, as K3s' own fork" in problem


def test_data_and_statements_that_cannot_be_read_are_refused_by_name(values: dict[str, Any], tmp_path: Path) -> None:
    assert data_problems(values) == []
    (tmp_path / "vex.json").write_text("{")
    (problem,) = data_problems({**values, "casemate_advisory_vex": [str(tmp_path / "vex.json")]})
    assert problem.startswith("casemate_advisory_data or casemate_advisory_vex: ") and "vex.json" in problem
    (problem,) = data_problems({**values, "casemate_advisory_data": [str(tmp_path / "vex.json")]})
    assert "holds no advisories" in problem
    assert gate({**values, "casemate_advisory_data": [str(tmp_path / "vex.json")]}, "x86_64", "")[0] == [problem]


def test_data_without_any_advisory_on_go_is_no_silent_yes(values: dict[str, Any]) -> None:
    tracker = Path(values["casemate_advisory_data"][0]).with_name("tracker.json")
    tracker.write_text(json.dumps({"openssl": {"CVE-2026-1": {"releases": {}}}}))
    problems, (warning,) = gate({**values, "casemate_advisory_data": [str(tracker)]}, "x86_64", "")
    assert not problems and "is compared with no advisory" in warning
