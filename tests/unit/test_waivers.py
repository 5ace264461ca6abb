"""The waivers of all groups of a host add up, and each of them is judged; an expired one counts as none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from casemate import ROOT
from casemate.run import runner, waivers

HOLDS = {"reason": "r", "owner": "o", "expires": "2099-01-31"}
ENDED = {**HOLDS, "expires": "2020-01-31"}


def named(name: str, **more: Any) -> dict[str, Any]:
    return {**HOLDS, "reason": name, **more}


def inventory(folder: Path, layers: dict[str, dict[str, Any]]) -> Path:
    """Host n1 is in k3s_server, which is in prod, and in old; `layers` are files, or groups and hosts of hosts.json."""
    inside = {name: {waivers.NAME: value} for name, value in layers.items() if "/" not in name}
    for name, value in layers.items():
        if "/" in name:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps({waivers.NAME: value}))
    groups = {
        "prod": {"children": {"k3s_server": {"hosts": {"n1": inside.get("n1")}}}, "vars": inside.get("prod", {})},
        "old": {"hosts": {"n1": None}, "vars": inside.get("old", {})},
    }
    base = {"casemate_admin_sources": ["192.0.2.0/24"], "ansible_host": "192.0.2.1", "k3s_access_idle_seconds": 60}
    made = {"all": {"children": groups, "vars": {**base, **inside.get("all", {})}}}
    (folder / "hosts.json").write_text(json.dumps(made))
    return folder / "hosts.json"


def added_up(path: Path, **variables: Any) -> dict[str, Any]:
    run = runner.play("waivers.yml", (str(path),), None, variables)
    assert not run.errors, run.errors
    found: dict[str, Any] = run.results["n1"]["waivers"]
    return {control: one["reason"] for control, one in found.items()}


def test_every_place_adds_its_own_and_the_more_specific_wins(tmp_path: Path) -> None:
    """In Ansible's own order, in which group_vars/all beats what the inventory's file says of a group."""
    layers = {
        "all": {"A": named("all"), "B": named("all")},
        "group_vars/all.yml": {"B": named("all file"), "C": named("all file")},
        "prod": {"C": named("prod"), "D": named("prod")},
        "old": {"E": named("old")},
        "group_vars/k3s_server.yml": {"D": named("server of {{ inventory_hostname }}")},
        "n1": {"F": named("n1"), "G": named("n1")},
        "host_vars/n1.yml": {"G": named("n1 file"), "H": named("n1 file")},
    }
    path = inventory(tmp_path, layers)
    expected = {
        "A": "all", "B": "all file", "C": "all file", "D": "server of n1", "E": "old", "F": "n1", "G": "n1 file",
        "H": "n1 file",
    }  # fmt: skip
    assert added_up(path) == expected
    assert added_up(path, casemate_waivers={"A": named("cli"), "X": named("cli")}) == {
        **expected,
        "A": "cli",
        "X": "cli",
    }


def test_without_any_there_are_none(tmp_path: Path) -> None:
    assert added_up(inventory(tmp_path, {})) == {}


def preflight(path: Path) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(path), str(ROOT / "playbooks/check.yml")],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_TIMEOUT": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("layer", "words"),
    [("prod", "group prod"), ("group_vars/all.yml", "group all"), ("old", "group old"), ("all", "group all")],
)
def test_a_wrong_one_is_refused_with_the_group_that_it_stands_in(tmp_path: Path, layer: str, words: str) -> None:
    wrong = {"SSH-ROOT-REFUSED": {"reason": "r", "expires": "soon"}, "NO-SUCH": HOLDS}
    said = preflight(inventory(tmp_path, {layer: wrong, "n1": {"SSH-ROOT-REFUSED": HOLDS}}))
    for problem in ("SSH-ROOT-REFUSED.owner is missing", "SSH-ROOT-REFUSED.expires is 'soon'", "has the name NO-SUCH"):
        assert f"casemate_waivers of {words}" in said and problem in said, said


@pytest.mark.parametrize(("one", "refused"), [(HOLDS, False), (ENDED, True)])
def test_preflight_takes_an_expired_one_for_none(tmp_path: Path, one: dict[str, Any], refused: bool) -> None:
    """Its key may be set by hand as long as the waiver of another group holds."""
    path = inventory(tmp_path, {"old": {"NODE-PPROF-OFF": one}})
    made = json.loads(path.read_text())
    made["all"]["vars"]["k3s_node_config"] = {"enable-pprof": True}
    path.write_text(json.dumps(made))
    assert ("enable-pprof may not be set" in preflight(path)) is refused
