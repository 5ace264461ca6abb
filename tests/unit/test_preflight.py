"""Preflight: every kind of wrong input, host and lock is refused by one message that helps; right ones pass."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from casemate import ROOT, preflight

RIGHT = {"casemate_admin_sources": ["198.18.0.0/24", "2001:db8::/32", "203.0.113.9"]}
HOST = {
    "uid": "0",
    "machine": "x86_64",
    "os": "debian 12",
    "python": "3.11",
    "data": "5000",
    "etc": "5000",
    "writable": "yes",
    "source": "198.18.0.254",
}
SPECS: dict[str, dict[str, Any]] = {
    "k3s_x_days": {"type": "int", "min": 1, "max": 30},
    "k3s_x_ratio": {"type": "float", "min": 0, "max": 1},
    "k3s_x_on": {"type": "bool"},
    "k3s_x_mode": {"type": "str", "choices": ["a", "b"]},
    "k3s_x_time": {"type": "str", "pattern": "[0-9]+s", "default": "60s"},
    "k3s_x_names": {"type": "list", "elements": "str", "pattern": "[a-z]+"},
    "k3s_x_map": {"type": "dict"},
    "k3s_x_jobs": {
        "type": "list",
        "elements": "dict",
        "options": {"name": {"type": "str", "required": True}, "every": {"type": "int", "min": 5}},
    },
    "k3s_x_token": {"type": "int"},
    "k3s_x_pin": {"type": "int", "no_log": True},
    "k3s_x_password": {"type": "str", "pattern": ".{20,}"},
}


def inputs(**values: Any) -> list[str]:
    return preflight.input_problems(values, SPECS)


@pytest.mark.parametrize(
    "values",
    [
        {"k3s_x_days": 1},
        {"k3s_x_days": 30},
        {"k3s_x_days": "7"},
        {"k3s_x_ratio": 0.5},
        {"k3s_x_on": True},
        {"k3s_x_on": "no"},
        {"k3s_x_mode": "b"},
        {"k3s_x_time": "5s"},
        {"k3s_x_names": ["abc"]},
        {"k3s_x_names": []},
        {"k3s_x_map": {"any": {"thing": 1}}},
        {"k3s_x_jobs": [{"name": "n", "every": 5}]},
        {"k3s_x_days": None},
        {"ansible_host": "x", "own_variable": 1, "__k3s_x_internal": 1},
    ],
)
def test_right_values_pass(values: dict[str, Any]) -> None:
    assert inputs(**values) == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("k3s_x_days", 0, "k3s_x_days is 0; allowed: 1 to 30"),
        ("k3s_x_days", "31", "k3s_x_days is '31'; allowed: 1 to 30"),
        ("k3s_x_days", "many", "must be a whole number"),
        ("k3s_x_days", True, "must be a whole number"),
        ("k3s_x_days", 1.5, "must be a whole number"),
        ("k3s_x_ratio", 1.1, "allowed: 0 to 1"),
        ("k3s_x_on", 1, "must be true or false"),
        ("k3s_x_mode", "c", "k3s_x_mode is 'c'; allowed: a, b"),
        ("k3s_x_time", "60", "must match [0-9]+s, such as 60s"),
        ("k3s_x_time", "60s\nx", "must match"),
        ("k3s_x_names", "abc", "must be a list"),
        ("k3s_x_names", ["abc", "A"], "k3s_x_names[1] is 'A'; it must match"),
        ("k3s_x_map", [], "must be a mapping"),
        ("k3s_x_jobs", [{}], "k3s_x_jobs[0].name is missing"),
        ("k3s_x_jobs", [{"name": "n", "evry": 5}], "k3s_x_jobs[0].evry is not known; did you mean every"),
        ("k3s_x_jobs", [{"name": "n", "every": 4}], "k3s_x_jobs[0].every is 4; allowed: 5 to any"),
        ("k3s_x_dayz", 1, "k3s_x_dayz is not a variable of Casemate; did you mean k3s_x_days: correct or remove"),
        ("casemate_zzz", 1, "casemate_zzz is not a variable of Casemate: correct or remove it"),
    ],
)
def test_wrong_values_are_named_with_what_is_allowed(name: str, value: Any, says: str) -> None:
    (problem,) = inputs(**{name: value})
    assert says in problem


@pytest.mark.parametrize(
    "name", ["k3s_x_token", "k3s_x_pin", "k3s_x_password", "k3s_x_secret", "k3s_x_map", "k3s_x_names"]
)
def test_no_message_shows_what_could_be_a_secret(name: str) -> None:
    value: Any = {"key": "canary"} if name == "k3s_x_names" else ["canary"] if name == "k3s_x_map" else "canary"
    (problem,) = inputs(**{name: value})
    assert name in problem
    assert "canary" not in problem


def test_all_problems_are_listed_at_once() -> None:
    assert len(inputs(k3s_x_days=99, k3s_x_mode="z", k3s_nope=1)) == 3


def test_the_shipped_inputs_accept_a_minimal_inventory_and_need_admin_sources() -> None:
    known = preflight.known_inputs()
    assert preflight.input_problems(RIGHT, known) == []
    (problem,) = preflight.input_problems({}, known)
    assert problem.startswith("casemate_admin_sources is missing")
    assert "casemate_admin_sources: [" in problem


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("casemate_admin_sources", [], "has 0 items"),
        ("casemate_admin_sources", ["198.18.0.5/24"], "without host bits"),
        ("casemate_admin_sources", ["nowhere"], "must be an address or a network"),
        ("casemate_admin_sources", "198.18.0.0/24", "must be a list"),
        ("casemate_level", "paranoid", "allowed: baseline, strict"),
        ("casemate_k3s_version", "1.36.4", "must match"),
        ("casemate_artifact_dir", "relative", "absolute path"),
        ("casemate_artifact_dir", "/nowhere", "no such folder"),
        ("casemate_allowed_signers", "/nowhere", "no such file"),
        ("casemate_artifact_mirror", "http://mirror.example", "must match"),
        ("casemate_accept_not_evaluated", ["Kernel!"], "must match"),
        ("casemate_automation_user", "root;id", "must match"),
    ],
)
def test_shared_inputs_have_their_ranges(name: str, value: Any, says: str) -> None:
    (problem,) = preflight.input_problems({**RIGHT, name: value}, preflight.known_inputs())
    assert name in problem
    assert says in problem


def test_limits_of_roles_are_applied(tmp_path: Path) -> None:
    role = tmp_path / "roles/k3s_x"
    for folder in ("meta", "vars/main"):
        (role / folder).mkdir(parents=True)
    options = {"k3s_x_days": {"type": "int"}, "k3s_x_mode": {"type": "str"}}
    (role / "meta/argument_specs.yml").write_text(json.dumps({"argument_specs": {"main": {"options": options}}}))
    limits = {"k3s_x_days": {"min": 2}, "k3s_x_mode": {"one_of": ["a"]}}
    (role / "vars/main/limits.yml").write_text(json.dumps({"__k3s_x_limits": limits}))
    known = preflight.known_inputs(tmp_path)
    assert len(preflight.input_problems({**RIGHT, "k3s_x_days": 1, "k3s_x_mode": "b"}, known)) == 2
    assert preflight.input_problems({**RIGHT, "k3s_x_days": 2, "k3s_x_mode": "a"}, known) == []


WAIVER = {"reason": "legacy clients", "owner": "ops", "expires": "2099-01-31"}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"casemate_waivers": {"A-B-C": WAIVER}}, ""),
        ({"casemate_waivers": {"A-B-C": {**WAIVER, "expires": "2001-01-01"}}}, ""),  # expired: the control fails
        ({"casemate_waivers": {"A-B-D": WAIVER}}, "A-B-D: no such control; did you mean A-B-C"),
        ({"casemate_waivers": {"A-B-C": {"reason": "x"}}}, "exactly reason, owner, expires"),
        ({"casemate_waivers": {"A-B-C": "because"}}, "exactly reason, owner, expires"),
        ({"casemate_waivers": {"A-B-C": {**WAIVER, "until": 1}}}, "exactly reason, owner, expires"),
        ({"casemate_waivers": {"A-B-C": {**WAIVER, "owner": " "}}}, "owner is empty"),
        ({"casemate_waivers": {"A-B-C": {**WAIVER, "expires": "soon"}}}, "write a date as YYYY-MM-DD"),
        ({"casemate_waivers": {"A-B-C": {**WAIVER, "expires": "2099-02-30"}}}, "write a date as YYYY-MM-DD"),
        ({"casemate_admin_sources": ["0.0.0.0/0"]}, "which is everybody"),
        ({"casemate_admin_sources": ["::/0"]}, "which is everybody"),
        ({"casemate_cluster_cidr": "10.0.0.0/8", "casemate_service_cidr": "10.43.0.0/16"}, "overlap"),
        ({"casemate_cluster_cidr": "10.42.0.0/16", "casemate_service_cidr": "10.43.0.0/16"}, ""),
    ],
)
def test_rules_between_values(values: dict[str, Any], says: str) -> None:
    found = preflight.rule_problems(values, {"A-B-C"})
    assert len(found) == bool(says)
    assert not says or says in found[0]


def test_controls_are_found_where_they_are_declared() -> None:
    declared = preflight.known_controls()
    assert declared
    assert all(identifier.count("-") >= 1 for identifier in declared)


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"k3s_server": ["a"], "k3s_agent": ["b"]}, ""),
        ({"k3s_server": ["a", "b", "c"]}, ""),
        ({"k3s_agent": ["a"]}, "no server"),
        ({}, "no server"),
        ({"k3s_server": ["a"], "k3s_agent": ["a"]}, "both k3s_server and k3s_agent"),
    ],
)
def test_inventory_groups(groups: dict[str, list[str]], says: str) -> None:
    found = preflight.inventory_problems("a", groups)
    assert len(found) == bool(says)
    assert not says or says in found[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"os": "debian 13"}, ""),
        ({"source": ""}, ""),
        ({"source": "::ffff:198.18.0.9"}, ""),
        ({"source": "2001:db8::7%eth0"}, ""),
        ({"source": "203.0.113.9"}, ""),
        ({"data": "200", "installed": "yes"}, ""),
        ({"uid": "1000"}, "NOPASSWD sudo"),
        ({"os": "debian 11"}, "debian 11 is not supported; supported: Debian 12 and 13"),
        ({"os": "ubuntu 20.04"}, "not supported"),
        ({"os": "rocky 9.4"}, "not supported"),
        ({"machine": "riscv64"}, "riscv64 is not supported"),
        ({"python": "3.8"}, "Python is 3.8; 3.9 or newer"),
        ({"python": ""}, "Python is missing"),
        ({"data": "1023"}, "/var/lib/rancher has 1023 MiB free; 1024 MiB are needed"),
        ({"data": "199", "installed": "yes"}, "200 MiB are needed"),
        ({"data": ""}, "/var/lib/rancher has ? MiB free"),
        ({"etc": "0"}, "/etc has 0 MiB free"),
        ({"writable": ""}, "/etc cannot be written"),
        ({"source": "198.18.1.1"}, "does not contain 198.18.1.1, where this controller comes from"),
    ],
)
def test_hosts(change: dict[str, str], says: str) -> None:
    problems, warnings = preflight.host_problems({**HOST, **change}, RIGHT["casemate_admin_sources"])
    assert warnings == []
    assert len(problems) == bool(says)
    assert not says or says in problems[0]


@pytest.mark.parametrize("version", ["22.04", "24.04"])
def test_ubuntu_is_accepted_with_a_warning(version: str) -> None:
    problems, warnings = preflight.host_problems({**HOST, "os": f"ubuntu {version}"}, ["198.18.0.0/24"])
    assert problems == []
    assert "untested" in warnings[0]


def test_the_probe_answers_on_this_machine_and_finds_the_controller_among_the_parents() -> None:
    script = preflight.probe(sys.executable)
    environment = {**os.environ, "SSH_CONNECTION": "198.51.100.7 4711 198.51.100.8 22"}
    # As sudo does: the probe's own environment is without it, its parent's has it.
    command = ["sh", "-c", 'env -u SSH_CONNECTION sh -c "$1"; true', "parent", script]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    seen = preflight.parse_probe(f"Welcome! casemate:uid=9\n{said}")
    assert seen["source"] == "198.51.100.7"
    assert seen["uid"] == str(os.getuid())
    assert seen["python"] == "{}.{}".format(*sys.version_info)
    assert int(seen["data"]) >= 0
    assert seen["machine"] == os.uname().machine


@pytest.mark.parametrize(
    ("asked", "tried"), [("/opt/python", "for p in /opt/python; do"), ("auto_silent", "python3.9 ")]
)
def test_the_probe_asks_the_interpreter_that_ansible_will_use(asked: str, tried: str) -> None:
    assert tried in preflight.probe(asked)


def locked(folder: Path, data: bytes = b"k3s") -> dict[str, Any]:
    """A lock of one release, and the release folder that it fits."""
    (folder / "release").mkdir()
    (folder / "release/k3s").write_bytes(b"k3s")
    files = {"k3s": hashlib.sha256(data).hexdigest()}
    release = {"provides": [], "files": files}
    lock = {"schema": 1, "default": "v1.36.4+k3s1", "releases": {"v1.36.4+k3s1": release}}
    (folder / "lock.json").write_text(json.dumps(lock))
    return {"casemate_artifact_lock": str(folder / "lock.json"), "casemate_artifact_dir": str(folder / "release")}


def test_a_folder_that_fits_the_lock_passes(tmp_path: Path) -> None:
    assert preflight.lock_problems(locked(tmp_path), "x86_64") == []
    assert preflight.lock_problems({}) == []


def test_files_that_do_not_fit_the_lock_are_refused(tmp_path: Path) -> None:
    values = locked(tmp_path, b"k3S")
    assert "the lock demands" in preflight.lock_problems(values, "x86_64")[0]
    (tmp_path / "release/k3s").unlink()
    assert "has no k3s" in preflight.lock_problems(values, "x86_64")[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"casemate_k3s_version": "v1.30.0+k3s1"}, "not in the lock; it holds v1.36.4+k3s1"),
        ({"casemate_artifact_lock": "/nowhere/lock.json"}, "cannot be read"),
        ({"casemate_allowed_signers": "/dev/null"}, "sign the lock"),
    ],
)
def test_locks_that_cannot_be_trusted_are_refused(tmp_path: Path, change: dict[str, str], says: str) -> None:
    (problem,) = preflight.lock_problems({**locked(tmp_path), **change})
    assert says in problem


PLAY = """
- hosts: all
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - casemate_preflight:
    - ansible.builtin.command: touch {mark}
"""


def play(folder: Path, **variables: Any) -> tuple[int, str, Path]:
    """Run the action plugin by Ansible against two hosts of one inventory, at -vvv."""
    (folder / "play.yml").write_text(PLAY.format(mark=folder / "touched"))
    good = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **RIGHT}
    servers = {"hosts": {"good": good, "bad": {**good, **variables}}}
    (folder / "hosts.yml").write_text(json.dumps({"all": {"children": {"k3s_server": servers}}}))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-vvv", "-i", "hosts.yml", "play.yml"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr, folder / "touched"


def test_one_wrong_host_stops_all_of_them_before_the_first_change(tmp_path: Path) -> None:
    wrong = {"casemate_levle": "strict", "k3s_nowhere_token": "canary-1", "casemate_service_cidr": "{{ nothing }}"}
    code, said, mark = play(tmp_path, **wrong, casemate_waivers={"SSH-NO-SUCH": {"reason": "canary-2"}})
    assert code == 2
    assert not mark.exists()
    for message in (
        "casemate_levle is not a variable of Casemate; did you mean casemate_level",
        "k3s_nowhere_token is not a variable of Casemate",
        "casemate_service_cidr cannot be resolved",
        "casemate_waivers.SSH-NO-SUCH: no such control",
        "casemate_waivers.SSH-NO-SUCH must have exactly reason, owner, expires",
    ):
        assert message in said
    assert "canary" not in said
