"""Whom Casemate logs in as: the same account for every way of naming it, in what sshd will admit and what it may do."""

from __future__ import annotations

import getpass
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from casemate import ROOT
from casemate.run import account

HOSTS: dict[str, tuple[dict[str, str], str]] = {
    "nothing": ({}, getpass.getuser()),
    "user": ({"ansible_user": "ops"}, "ops"),
    "ssh-user": ({"ansible_ssh_user": "ops"}, "ops"),
    "ssh-user-wins": ({"ansible_ssh_user": "ops", "ansible_user": "bob"}, "ops"),
    "template": ({"ansible_user": "{{ other }}", "other": "ops"}, "ops"),
    "named": ({"casemate_automation_user": "ops", "ansible_user": "bob"}, "ops"),
    "named-template": ({"casemate_automation_user": "{{ ansible_user }}", "ansible_user": "ops"}, "ops"),
    "option": ({"ansible_ssh_common_args": "-o User=ops"}, "ops"),
    "letter": ({"ansible_ssh_extra_args": "-l ops"}, "ops"),
    "option-first": ({"ansible_ssh_args": "-o User=ops", "ansible_user": "bob"}, "ops"),
    "option-last": ({"ansible_ssh_common_args": "-o User=bob", "ansible_user": "ops"}, "ops"),
    "configured": ({"ansible_ssh_common_args": "-F {folder}/config", "ansible_host": "nickname"}, "ops"),
    "configured-port": ({"ansible_ssh_common_args": "-F {folder}/config", "ansible_port": "2222"}, "ops"),
    "dotted": ({"ansible_user": "john.doe"}, "john.doe"),
}
ELSEWHERE: dict[str, tuple[list[str], dict[str, str]]] = {
    "environment": ([], {"ANSIBLE_REMOTE_USER": "elsewhere"}),
    "command line": (["-u", "elsewhere"], {}),
    "configuration": ([], {"ANSIBLE_CONFIG": "{folder}/ansible.cfg"}),
    "ssh's configuration": ([], {"ANSIBLE_SSH_COMMON_ARGS": "-F {folder}/elsewhere"}),
    "extra variable": (["-e", "ansible_user=elsewhere"], {}),
}


def settings() -> str:
    """The project's ansible.cfg as it works in any folder."""
    made = (ROOT / "ansible.cfg").read_text()
    for name in ("roles", "library", "module_utils", "src/casemate/ansible/action", "src/casemate/ansible/lookup"):
        made = made.replace(f" = {name}\n", f" = {ROOT / name}\n")
    return made


def asked(folder: Path, hosts: dict[str, dict[str, str]], *options: str, **environment: str) -> dict[str, set[str]]:
    """Host -> the accounts for which the controls of access are resolved."""
    (folder / "config").write_text(
        "Host nickname\n User ops\nMatch exec true originalhost configured-port\n User ops\n"
    )
    (folder / "elsewhere").write_text("User elsewhere\n")
    (folder / "ansible.cfg").write_text(settings().replace("[defaults]", "[defaults]\nremote_user = elsewhere"))
    given = json.dumps({"all": {"hosts": hosts, "children": {"k3s_server": {"hosts": {n: {} for n in hosts}}}}})
    (folder / "hosts.json").write_text(given.replace("{folder}", str(folder)))
    play = {
        "hosts": "all", "gather_facts": False, "vars_files": [str(ROOT / "playbooks/group_vars/all.yml")],
        "vars": {
            "casemate_admin_sources": ["192.0.2.1"],
            "casemate_artifact_lock": str(ROOT / "roles/k3s_node/files/artifacts.lock.json"),
        },
        "tasks": [{"k3s_controls": {"explain": True, "roles": ["k3s_access"]}}],
    }  # fmt: skip
    (folder / "play.json").write_text(json.dumps([play]))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")}
    env = {**kept, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", **environment}
    env["ANSIBLE_STDOUT_CALLBACK"] = "minimal"
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "-v", "-i", str(folder / "hosts.json")]
    done = subprocess.run(
        [*argv, *options, str(folder / "play.json")], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    found: dict[str, set[str]] = {}
    for said in re.finditer(r"(?m)^(\S+) \| SUCCESS => ", done.stdout):
        result: Any = json.JSONDecoder().raw_decode(done.stdout, said.end())[0]
        law = {control["id"]: control["setting"] for control in result["controls"]["k3s_access"]}
        found[said[1]] = {law["SSH-USERS-LISTED"]["value"], *law["SUDO-PASSWORD-ASKED"]["allow"]}
    return found


def test_every_variable_that_names_the_account_counts(tmp_path: Path) -> None:
    found = asked(tmp_path, {name: given for name, (given, _) in HOSTS.items()})
    assert found == {name: {expected} for name, (_, expected) in HOSTS.items()}


@pytest.mark.parametrize("way", ELSEWHERE)
def test_every_way_to_name_it_elsewhere_counts(tmp_path: Path, way: str) -> None:
    options, environment = ELSEWHERE[way]
    there = {name: value.replace("{folder}", str(tmp_path)) for name, value in environment.items()}
    assert asked(tmp_path, {"plain": {}}, *options, **there) == {"plain": {"elsewhere"}}


class Other:
    """A connection that is not ssh."""

    transport = "local"

    def get_option(self, name: str) -> Any:
        raise KeyError(name)


def test_a_connection_of_another_kind_comes_as_the_local_account_unless_one_is_named() -> None:
    assert account.connecting(Other(), None) == getpass.getuser()
    assert account.connecting(Other(), "ops") == "ops"


def test_a_run_asks_ssh_once_for_each_host(tmp_path: Path) -> None:
    """What preflight was told goes on to the tasks after it; without preflight each of them asks."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho asked >>{tmp_path}/asked\nexec ssh "$@"\n')
    ssh.chmod(0o755)
    (tmp_path / "ansible.cfg").write_text(settings())
    lock = str(ROOT / "roles/k3s_node/files/artifacts.lock.json")
    given = {
        "casemate_admin_sources": ["192.0.2.1"],
        "casemate_artifact_lock": lock,
        "ansible_ssh_executable": str(ssh),
    }
    servers = {"hosts": {"one": {"ansible_user": "ops", "ansible_host": "192.0.2.7"}}}
    inventory = {"all": {"vars": given, "children": {"k3s_server": servers}}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    shared = str(ROOT / "playbooks/group_vars/all.yml")
    explain: list[dict[str, Any]] = [{"k3s_controls": {"explain": True, "roles": ["k3s_access"]}}] * 2
    preflight = {"casemate_preflight": {"host": False}, "register": "__casemate_seen"}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "hosts.json", "play.json"]
    environment = {**os.environ, "ANSIBLE_CONFIG": "ansible.cfg", "ANSIBLE_NOCOLOR": "1"}

    def times_asked(*tasks: dict[str, Any]) -> int:
        play = {"hosts": "all", "gather_facts": False, "vars_files": [shared], "tasks": [*tasks]}
        (tmp_path / "play.json").write_text(json.dumps([play]))
        (tmp_path / "asked").write_text("")
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return len((tmp_path / "asked").read_text().splitlines())

    assert times_asked(preflight, *explain) == 1
    assert times_asked(*explain) == 2


def test_nothing_asks_for_the_account_but_the_one_function() -> None:
    """A second answer to the same question is how check and apply came to differ."""
    words = ("ansible_user", "lookup('ansible.builtin.env', 'USER')", 'environ.get("USER"')
    places = [ROOT / "roles", ROOT / "playbooks", ROOT / "src/casemate/ansible"]
    files = [path for place in places for path in place.rglob("*") if path.suffix in (".yml", ".j2", ".py")]
    assert files
    assert not [path for path in files if any(word in path.read_text() for word in words)]
