"""Who gets what from the real playbook of bootstrap: one run over hosts of which each is another case.

What happens on hosts is played: ssh by a script, the modules by plugins that say who they came as.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from casemate import ROOT

SSH = """#!/bin/sh
case " $* " in *" -G "*) echo user ops; exit 0 ;; esac
case " $* " in *" silent "*) echo "connect to host silent port 22: No route to host" >&2; exit 255 ;; esac
case " $* " in *" shut "*) echo "root@shut: Permission denied (publickey)." >&2; exit 255 ;; esac
case " $* " in *" User=root "*|*"User=root"*) echo casemate:uid=0; exit 0 ;; esac
echo "ops: Permission denied (publickey)." >&2; exit 255
"""
PLUGIN = """
import fcntl, os, re
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        host, trace, given = task_vars["inventory_hostname"], task_vars["trace"], self._task.args
        user = re.search("User=(\\\\S+)", str(self._connection.get_option("ssh_args"))).group(1)
        name, state = os.path.basename(__file__)[4:-3], given.get("state", "made")
        with open(trace, "a+") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            out.seek(0)
            made = f"bootstrap made {host} root" in out.read()
            if not self._task.check_mode or state == "status":
                out.write(f"{name} {state} {host} {user}\\n")
        in_already = host in ("in", "left") or (made and host != "refused")
        if user == "ops" and not in_already:
            raise AnsibleConnectionFailure("ops: Permission denied (publickey).")
        if name == "lock":
            return {"changed": False, "refused": "bob has the lock" if host == "locked" and state == "held" else ""}
        words = ["make the account ops"] if state == "made" else ["close the first login"]
        pending = not self._task.check_mode and (name == "bootstrap" or host == "left")
        return {"changed": name == "bootstrap", "words": words, "pending": pending, "logins": {}}
"""
OWN = "guard status {0} ops"
CLOSED = ["lock held {0} ops", "bootstrap closed {0} ops", "guard confirmed {0} ops", "lock free {0} ops"]
CASES = {
    "in": [OWN],
    "fresh": [OWN, "lock held {0} root", "bootstrap made {0} root", *CLOSED],
    "left": [OWN, *CLOSED],
    "locked": [OWN, "lock held {0} root"],
    "refused": [
        OWN, "lock held {0} root", "bootstrap made {0} root", "lock held {0} ops", "guard reverted {0} root",
        "lock free {0} root",
    ],
    "shut": [OWN],
    "silent": [OWN],
}  # fmt: skip
"""Host -> what is done there, as whom."""


class Played(NamedTuple):
    """Host -> what was done there; exit code and output of Ansible."""

    done: dict[str, list[str]]
    code: int
    said: str


def played(folder: Path, *arguments: str) -> Played:
    """Run playbooks/bootstrap.yml over all cases."""
    plugins = folder / "action"
    plugins.mkdir()
    for name in ("guard", "lock", "bootstrap"):
        (plugins / f"k3s_{name}.py").write_text(PLUGIN)
    (folder / "ssh").write_text(SSH)
    (folder / "ssh").chmod(0o755)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    variables: dict[str, Any] = {
        "ansible_user": "ops", "ansible_ssh_executable": str(folder / "ssh"), "trace": str(folder / "trace"),
        "ansible_ssh_private_key_file": str(folder / "key"), "ansible_ssh_retries": 0,
    }  # fmt: skip
    hosts = {"all": {"vars": variables, "children": {"k3s_server": {"hosts": dict.fromkeys(CASES)}}}}
    (folder / "hosts.json").write_text(json.dumps(hosts))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "hosts.json"),
         str(ROOT / "playbooks/bootstrap.yml"), *arguments],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
             "ANSIBLE_ACTION_PLUGINS": f"{plugins}:{ROOT}/src/casemate/ansible/action"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = (folder / "trace").read_text().splitlines() if (folder / "trace").exists() else []
    return Played(
        {host: [line for line in lines if line.split()[2] == host] for host in CASES},
        done.returncode,
        done.stdout + done.stderr,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return played(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("host", CASES)
def test_each_host_gets_what_it_lacks_and_nothing_else(run: Played, host: str) -> None:
    assert run.done[host] == [line.format(host) for line in CASES[host]], run.said[-4000:]


def test_what_failed_fails_and_what_does_not_answer_is_unreachable(run: Played) -> None:
    recap = {line.split()[0]: line for line in run.said.partition("PLAY RECAP")[2].splitlines() if " : " in line}
    for host, (unreachable, failed) in {
        "in": (0, 0), "fresh": (0, 0), "left": (0, 0), "locked": (0, 1), "refused": (0, 1), "shut": (1, 0),
        "silent": (1, 0),
    }.items():  # fmt: skip
        assert f"unreachable={unreachable} " in recap[host], recap[host]
        assert f"failed={failed} " in recap[host], recap[host]


def test_people_are_told_what_to_do(run: Played) -> None:
    said = " ".join(run.said.split())
    assert "bob has the lock" in said
    assert "ops is made, does not come in, and is taken back:\\n- ops: Permission denied (publickey)." in said
    neither = "neither ops nor root comes in, so nothing was changed"
    assert f"{neither}\\nops: ops: Permission denied (publickey).\\nroot: root@shut: Permission denied" in said


def test_a_plan_touches_no_host_but_to_look(tmp_path: Path) -> None:
    done = played(tmp_path, "--check").done
    assert done == {host: [OWN.format(host)] for host in CASES}
