"""Nobody is locked out: one machine for each way to be the automation account, all of them hardened, and then a login.

Every machine is full of what a first apply changes: shells, passwords, modes, sudo, sshd, PAM by a package, units. Then
each account logs in anew and becomes root. The table that is printed says who still does; and what was told instead of
done. `make lockout` runs this alone.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from casemate import ROOT, lab
from casemate.lab_image import missing_tools

pytestmark = pytest.mark.lab
NAME = "lockout"
ROLES = ["k3s_host", "k3s_access", "k3s_firewall"]
KEYS = "cp -r /home/ops/.ssh ~NAME/; chown -R NAME: ~NAME/.ssh"
SUDO = "echo 'NAME ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/50-them; chmod 0644 /etc/sudoers.d/50-them"
WORSE = """
chmod 0777 /etc/cron.d; chmod 0666 /etc/issue; chmod 0755 /root; touch /etc/hosts.equiv
useradd -r -s /bin/bash games2; useradd -r -s /bin/sh open2; passwd -q -d open2; echo root:secret | chpasswd
echo 'PermitRootLogin yes' >/etc/ssh/sshd_config.d/50-them.conf
"""
"""What a machine is like that nobody has hardened; each line is healed by another control."""


class Case(NamedTuple):
    """An account, how it is made, what the inventory says besides, and controls that are told and not healed for it."""

    name: str
    make: str
    told: tuple[str, ...] = ()
    given: dict[str, Any] = {}  # noqa: RUF012 - read only


SHELL = "ACCOUNT-SYSTEM-NOLOGIN"
CASES = {
    "an ordinary account": Case("people", "useradd -m -s /bin/bash NAME"),
    "a system account": Case("svc", "useradd -r -m -s /bin/bash NAME", (SHELL,)),
    "below UID_MIN": Case(
        "low", "sed -i '/^UID_MIN/d' /etc/login.defs; echo 'UID_MIN 5000' >>/etc/login.defs; useradd -m -u 4000 NAME",
        (SHELL,), {"k3s_host_system_shell_accounts": ["ops", "alice"]},
    ),
    "an empty password": Case(
        "open", "useradd -m -s /bin/bash NAME; passwd -q -d NAME", ("ACCOUNT-PASSWORDS-PRESENT",)
    ),
    "a locked password": Case("shut", "useradd -m -s /bin/bash NAME; usermod -L NAME"),
    "sudo by a group": Case(
        "member", "groupadd admins; useradd -m -s /bin/bash -G admins NAME; "
        "echo '%admins ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/50-them; chmod 0644 /etc/sudoers.d/50-them",
        ("SUDO-PASSWORD-ASKED",),
    ),
    "keys that are root's": Case(
        "ward", f"useradd -m -s /bin/bash NAME; {KEYS}; chown -R root: ~NAME/.ssh; chmod 755 ~NAME/.ssh; "
        "chmod 644 ~NAME/.ssh/authorized_keys",
    ),
    "a home elsewhere, by a link": Case(
        "mover", "useradd -m -d /srv/NAME -s /bin/bash NAME; ln -s ../srv/NAME /home/NAME; chmod 0711 /srv/NAME"
    ),
    "keys below /etc, and a shell that is not listed": Case(
        "john.doe", "mkdir /etc/keys; cp /home/ops/.ssh/authorized_keys /etc/keys/NAME; chmod 644 /etc/keys/NAME; "
        "echo 'AuthorizedKeysFile /etc/keys/%u' >/etc/ssh/sshd_config.d/40-keys.conf; cp /bin/bash /bin/mybash; "
        "useradd -m -s /bin/mybash NAME",
        given={"k3s_access_authorized_keys_files": ["/etc/keys/%u"]},
    ),
    "root itself, by a waiver": Case(
        "root", "true", ("ACCOUNT-ROOT-LOCKED",),
        {"casemate_waivers": {"SSH-ROOT-REFUSED": {"reason": "the lab", "owner": "lab", "expires": "2099-12-31"}}},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """Case -> what became of it."""
    if os.geteuid() != 0:
        pytest.skip("lab: only root can start machines")
    if fault := missing_tools():
        pytest.skip(f"lab: {fault}")
    folder = tmp_path_factory.mktemp("lab")
    inventory = lab.up(NAME, servers=0, agents=len(CASES), workdir=folder / "work")
    try:
        yield judged(inventory, folder)
    finally:
        lab.down(NAME)


def judged(inventory: Path, folder: Path) -> dict[str, dict[str, str]]:
    """Make the accounts, apply by each of them, log in anew, and see what the engine says then."""
    given = yaml.safe_load(inventory.read_text())
    shared, hosts = given["all"]["vars"], given["all"]["children"]["k3s_agent"]["hosts"]
    for name in ("ansible_user", "casemate_automation_user"):
        shared.pop(name)
    shared["k3s_access_guard_seconds"] = 900  # all the machines share two cores
    machines = dict(zip(CASES, hosts, strict=True))
    state = lab.load(NAME) or {}
    for title, case in CASES.items():
        sudo = "" if "50-them" in case.make else SUDO
        keys = "" if "/.ssh" in case.make or "/etc/keys" in case.make or case.name == "root" else KEYS
        script = f"{WORSE}\n{case.make}\n{keys}\n{sudo}\nuserdel alice\nsystemctl reload ssh\n".replace(
            "NAME", case.name
        )
        entered = ["nsenter", f"--target={lab._init(state['machines'][machines[title]])}", "--all", "sh", "-c", script]
        subprocess.run(entered, capture_output=True, text=True, timeout=60, check=False)
        hosts[machines[title]].update({"ansible_user": case.name, **case.given})
    hosts_file = folder / "hosts.yml"
    hosts_file.write_text(yaml.safe_dump(given))
    before = {title: login(shared, hosts[host], CASES[title].name) for title, host in machines.items()}
    roles = [{"ansible.builtin.include_role": {"name": role}} for role in ROLES]
    told: dict[str, Any] = {"k3s_controls": {"roles": ROLES}, "check_mode": True, "register": "told"}
    found = {"content": "{{ told.findings | to_json }}", "dest": f"{folder}/{{{{ inventory_hostname }}}}"}
    kept: dict[str, Any] = {"ansible.builtin.copy": found}
    kept |= {"delegate_to": "localhost", "connection": "local", "become": False}
    play = {"hosts": "k3s_agent", "gather_facts": False, "become": True, "tasks": [*roles, told, kept]}
    play["vars_files"] = [str(ROOT / "playbooks/group_vars/all.yml")]
    (folder / "play.json").write_text(json.dumps([play]))
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    env["PATH"] = f"{ROOT / '.venv/bin'}:{env['PATH']}"
    run = [*lab.enter(NAME), "ansible-playbook", "-i", str(hosts_file), str(folder / "play.json")]
    done = subprocess.run(run, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1500, check=False)
    (folder / "play.log").write_text(done.stdout + done.stderr)
    made = {}
    for title, host in machines.items():
        findings = json.loads((folder / host).read_text()) if (folder / host).exists() else []
        blocked = sorted(f["control"] for f in findings if f["action"] == "blocked" and f["status"] == "fail")
        observed = sorted(f["control"] for f in findings if f["status"] == "fail" and f["action"] == "none")
        made[title] = {
            "account": CASES[title].name, "before": before[title],
            "after": login(shared, hosts[host], CASES[title].name),
            "told": ", ".join(blocked + [one for one in observed if one == "SUDO-PASSWORD-ASKED"]),
            "applied": "yes" if findings else f"no, see {folder}/play.log",
        }  # fmt: skip
    return made


def login(shared: dict[str, Any], host: dict[str, Any], account: str) -> str:
    """Whether a new login becomes root without a password."""
    argv = [
        *lab.enter(NAME), "ssh", *shared["ansible_ssh_common_args"].split(), "-o", "BatchMode=yes", "-o",
        "ControlPath=none", "-o", "ConnectTimeout=10", "-i", shared["ansible_ssh_private_key_file"],
        f"{account}@{host['ansible_host']}", "sudo -n id -u",
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    return "root" if done.stdout.strip() == "0" else (done.stderr.strip().splitlines() or ["nothing"])[-1]


def test_the_table(hardened: dict[str, dict[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{'automation account':48} {'name':9} {'before':7} {'after':7} told, and left to the operator")
        for title, row in hardened.items():
            print(f"{title:48} {row['account']:9} {row['before']:7} {row['after']:7} {row['told']}")
    assert {row["before"] for row in hardened.values()} == {"root"}, "otherwise a login proves nothing"


@pytest.mark.parametrize("case", CASES)
def test_the_automation_account_still_becomes_root(hardened: dict[str, dict[str, str]], case: str) -> None:
    row = hardened[case]
    assert (row["applied"], row["after"]) == ("yes", "root")
    assert set(CASES[case].told) <= {*row["told"].split(", ")}
