"""What `casemate baseline` writes down, and that it adds to what was reviewed before."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from casemate.cli import baseline
from module_utils.casemate.core import waiver
from module_utils.casemate.kinds import KINDS

WHY = {"owner": "ops", "reason": "ours", "expires": "2030-01-31"}
A, B = {"/usr/local/bin/a": "sha256:1"}, {"/usr/local/bin/b": "link:/opt/b"}


def entries(groups: dict[str, Any]) -> dict[str, tuple[list[str], list[str]]]:
    """Group -> (its hosts, the paths that it vouches for)."""
    return {name: (list(group["hosts"]), list(group["vars"]["casemate_vouched"])) for name, group in groups.items()}


def test_what_all_hosts_have_stands_once() -> None:
    made = baseline.inventory({}, {"s1": {**A, **B}, "a-1": A}, WHY)
    assert entries(made) == {
        "casemate_baseline": (["s1", "a-1"], list(A)),
        "casemate_baseline_s1": (["s1"], list(B)),
    }
    assert made["casemate_baseline"]["vars"]["casemate_vouched"] == {"/usr/local/bin/a": {"digest": "sha256:1", **WHY}}


def test_hosts_with_similar_names_vouch_for_nothing_of_each_other() -> None:
    names = ["a-1", "a.1", "a_1", "2001:db8::7"]
    hosts = {name: {f"/opt/{number}": "sha256:1"} for number, name in enumerate(names)}
    made = baseline.inventory(baseline.inventory({}, hosts, WHY), {name: hosts[name] for name in reversed(names)}, WHY)
    assert entries(made) == {
        "casemate_baseline_a_1": (["a-1"], ["/opt/0"]),
        "casemate_baseline_a_1_2": (["a.1"], ["/opt/1"]),
        "casemate_baseline_a_1_3": (["a_1"], ["/opt/2"]),
        "casemate_baseline_2001_db8__7": (["2001:db8::7"], ["/opt/3"]),
    }


@pytest.mark.parametrize("left", ["", "{hosts: , vars: }", "{hosts: {s1: }}", "{vars: {casemate_vouched: }}"])
def test_a_group_that_somebody_emptied_is_filled_again(tmp_path: Path, left: str) -> None:
    (tmp_path / "b.yml").write_text(f"casemate_baseline_s1: {left}")
    made = baseline.inventory(baseline.read(tmp_path / "b.yml"), {"s1": A}, WHY)
    assert entries(made) == {"casemate_baseline_s1": (["s1"], list(A))}


def test_another_digest_is_another_thing() -> None:
    made = baseline.inventory({}, {"s1": A, "s2": {"/usr/local/bin/a": "sha256:2"}}, WHY)
    assert set(made) == {"casemate_baseline_s1", "casemate_baseline_s2"}


@pytest.mark.parametrize("others", [{}, {"a-1": A}])
def test_what_is_the_clusters_is_for_all_hosts_whichever_tells_of_it(others: dict[str, Any]) -> None:
    binding = {"ClusterRoleBinding/ops": "sha256:3"}
    made = baseline.inventory({}, {"s1": {**B, **binding}, **others}, WHY)
    assert entries(made)["casemate_baseline"] == (["s1", *others], list(binding))
    assert entries(made)["casemate_baseline_s1"] == (["s1"], list(B))


def test_what_a_host_does_is_its_own() -> None:
    made = baseline.inventory({}, {"s1": {"tcp/9100": "sha256:4"}, "a-1": {"tcp/9100": "sha256:5"}}, WHY)
    assert entries(made) == {
        "casemate_baseline_s1": (["s1"], ["tcp/9100"]),
        "casemate_baseline_a_1": (["a-1"], ["tcp/9100"]),
    }


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if "declared" in kind.schema])
def test_all_kinds_that_ask_who_vouches_are_recorded(kind: str) -> None:
    assert baseline.unvouched([{"kind": kind, "status": "fail", "observed": A}]) == A


def test_what_was_reviewed_stays() -> None:
    before = baseline.inventory({}, {"s1": A}, WHY)
    made = baseline.inventory(before, {"s1": B}, {**WHY, "owner": "alice"})
    vouched = made["casemate_baseline_s1"]["vars"]["casemate_vouched"]
    assert {path: entry["owner"] for path, entry in vouched.items()} == {next(iter(A)): "ops", next(iter(B)): "alice"}


def test_only_what_nobody_vouches_for_is_recorded() -> None:
    failing = {"kind": "vouched", "status": "fail", "observed": A}
    assert baseline.unvouched([failing, {**failing, "status": "waived", "observed": B}]) == A
    assert baseline.unvouched([{**failing, "kind": "file"}, {**failing, "status": "pass", "observed": "nothing"}]) == {}


def test_the_file_is_an_inventory_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "baseline.yml"
    made = baseline.inventory({}, {"s1": A}, WHY)
    path.write_text(baseline.text(made))
    assert yaml.safe_load(path.read_text()) == made == baseline.read(path)


@pytest.mark.parametrize("text", [
        "all: {}", "- x", "a: [", "plain", "casemate_baseline: x", "casemate_baseline: {hosts: [s1]}",
        "casemate_baseline: {vars: {casemate_vouched: [x]}}",
    ],
)  # fmt: skip
def test_another_file_is_not_written_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "hosts.yml").write_text(text)
    with pytest.raises(click.ClickException):
        baseline.read(tmp_path / "hosts.yml")


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--expires", "soon", "no date such as"),
        ("--expires", "2020-01-01", "has passed"),
        ("--owner", " ", "it is empty"),
        ("--reason", "", "it is empty"),
    ],
)
def test_nothing_is_vouched_for_without_whom_why_and_until_when(option: str, value: str, says: str) -> None:
    given = {f"--{name}": text for name, text in WHY.items()} | {
        "--expires": (waiver.today_in_utc() + datetime.timedelta(days=9)).isoformat(), option: value
    }  # fmt: skip
    done = CliRunner().invoke(baseline.baseline, [part for pair in given.items() for part in pair])
    assert done.exit_code == 2
    assert says in done.output
