"""What an operator has encrypted is shown in no message, whatever is wrong with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from casemate.run import runner, vaulted

SECRET = "canary"
PLACE = "{ansible_host: 127.0.0.1, ansible_port: 1, ansible_user: ops, casemate_admin_sources: [192.0.2.0/24]}"


def encrypted(name: str) -> str:
    argv = [str(Path(sys.executable).parent / "ansible-vault"), "encrypt_string", "--name", name, SECRET]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout + "\n"


@pytest.mark.parametrize("playbook", ["check.yml", "bootstrap.yml"])
def test_no_wrong_value_of_a_vault_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, playbook: str) -> None:
    """Not even where it is a part of one, or of the expression that makes one."""
    (tmp_path / "password").write_text("x\n")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(tmp_path / "password"))
    (tmp_path / "group_vars").mkdir()
    lines = [encrypted("casemate_first_login"), encrypted("vault_it")]
    lines += ['casemate_level: "{{ vault_it }}"\n', 'casemate_http_proxy: "no {{ vault_it }}"\n']
    lines += ['k3s_access_allow_users: [ops, "{{ vault_it }} x"]\n', "casemate_first_user: not a name\n"]
    (tmp_path / "group_vars/all.yml").write_text("".join(lines))
    (tmp_path / "hosts.yml").write_text(f"all: {{children: {{k3s_server: {{hosts: {{n1: {PLACE}}}}}}}}}\n")
    run = runner.play(playbook, (str(tmp_path / "hosts.yml"),))
    message = run.hosts["n1"].message
    for name in ("casemate_first_login", "casemate_http_proxy"):
        assert f"{name} is text (not shown)" in message
    assert "casemate_first_user is 'not a name'" in message
    assert SECRET not in message + json.dumps(run.results, default=str)


def test_what_comes_from_no_vault_is_none() -> None:
    values = {"k3s_x": {"a": [1, "b", None]}, "other": 1}
    assert vaulted.veiled({"k3s_x": {"type": "dict"}}, values, values) == {"k3s_x": {"type": "dict"}}
