"""What the tasks that settle people hand to the modules of Ansible and to a shell."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from unit.resolving import rendered

from casemate import ROOT
from casemate.catalogue import declarations


def task(file: str, name: str) -> dict[str, Any]:
    """The task of the role that has this name."""
    tasks = declarations.read(ROOT / "roles/k3s_access/tasks" / file)
    (found,) = [one for one in tasks if one["name"] == name]
    return dict(found)


@pytest.mark.parametrize(
    ("uid", "made_anew", "given"),
    [
        (1500, ["alice"], 1500),
        (0, ["alice"], "left out"),
        (1500, [], "left out"),  # regrouped, redated or revoked: who is there keeps the number
    ],
)
def test_a_number_is_given_to_an_account_that_is_made_alone(uid: int, made_anew: list[str], given: Any) -> None:
    """usermod refuses another one while somebody is logged in, and would do nothing else then: no lock, no end."""
    asked = task("people.yml", "People | Settle each account")["ansible.builtin.user"]["uid"]
    values = {"item": {"name": "alice", "uid": uid}, "__k3s_access_made_anew": made_anew, "omit": "left out"}
    assert rendered(asked, given=values, one="192.0.2.1") == given


def test_a_secret_that_is_written_is_nobody_elses_meanwhile(tmp_path: Path) -> None:
    """Accounts may be called erin and erin.new."""
    argv = task("secrets.yml", "Secrets | Write those that are declared")["ansible.builtin.command"]["argv"]
    (tmp_path / "erin.new").write_text("of erin.new\n")
    mine = [str(tmp_path / "erin") if word == "{{ item }}" else word for word in argv]
    subprocess.run(mine, input="of erin\n", text=True, check=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "erin": "of erin\n",
        "erin.new": "of erin.new\n",
    }
    assert (tmp_path / "erin").stat().st_mode & 0o077 == 0
