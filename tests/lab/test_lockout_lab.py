"""Nobody is locked out: one machine for each way to be the automation account, all of them hardened, and then a login.

Every machine is full of what a first apply changes: shells, passwords, modes, sudo, sshd, PAM by a package, units. Then
each account logs in anew and becomes root. The table that is printed says who still does; and what was told instead of
done. Where the next login would fail whatever Casemate does, the host is refused before anything changes, with what to
do there. `make lockout` runs this alone.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from casemate import ROOT
from casemate.run.advice import advised
from casemate_lab import for_tests, lab

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
    """An account, how it is made, what the inventory says besides, and controls that are told and not healed for it.

    `refused` is what the refusal says where there has to be one; `late` is done while Ansible's connection is open, as
    the account gets no other one after that. `kept` are files of which nothing may change.
    """

    name: str
    make: str
    reported: tuple[str, ...] = ()
    given: dict[str, Any] = {}  # noqa: RUF012 - read only
    refused: str = ""
    late: str = ""
    kept: tuple[str, ...] = ()


MAKE = "useradd -m -s /bin/bash NAME"
THEIRS = "/etc/ssh/sshd_config.d/60-them.conf"


def files_say(*lines: str) -> str:
    """A drop-in that somebody else wrote."""
    return f"printf '%s\\n' {' '.join(map(shlex.quote, lines))} >{THEIRS}; chmod 0600 {THEIRS}"


TALLY = """import struct, sys, time
sys.stdout.buffer.write(struct.pack("=52sHHQ", b"192.0.2.9", 0, 1, int(time.time())) * 9)"""
"""Nine failures, as pam_faillock(8) writes them down."""
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
    "of a group that a provider admits": Case(
        "cloud", f"groupadd provider; {MAKE} -G provider; {files_say('AllowGroups provider')}"
    ),
    "named by a provider, too": Case("named", f"{MAKE}; {files_say('AllowUsers NAME')}"),
    "where others are denied": Case("free", f"{MAKE}; {files_say('DenyUsers mallory', 'DenyGroups games')}"),
    "keys that all may read": Case(
        "plain", f"{MAKE}; {KEYS}; chmod 0755 ~NAME/.ssh; chmod 0644 ~NAME/.ssh/authorized_keys",
        kept=("/home/plain/.ssh", "/home/plain/.ssh/authorized_keys"),
    ),
    "an ACL on home, folder and keys": Case(
        "acl", f"{MAKE}; {KEYS}; setfacl -m u:games:rx ~NAME ~NAME/.ssh; "
        "setfacl -m u:games:r ~NAME/.ssh/authorized_keys",
        kept=("/home/acl", "/home/acl/.ssh", "/home/acl/.ssh/authorized_keys"),
    ),
    "a home that its own group may write": Case("umask", f"{MAKE}; chmod 0775 ~NAME", kept=("/home/umask",)),
    "failures that faillock counted": Case(
        "tally", f"{MAKE}; sed -i '1i auth required pam_faillock.so preauth' /etc/pam.d/common-auth; mkdir -p "
        f"/run/faillock; python3 -c {shlex.quote(TALLY)} >/run/faillock/NAME; faillock --user NAME | grep 192.0.2.9",
    ),
    "sudo by Defaults of a group": Case(
        "exempt", f"groupadd admins; {MAKE} -G admins; printf '%%admins ALL=(ALL:ALL) ALL\\nDefaults:%%admins "
        "!authenticate\\n' >/etc/sudoers.d/50-them; chmod 0644 /etc/sudoers.d/50-them", ("SUDO-PASSWORD-ASKED",),
    ),
    "denied in a file that nobody read yet": Case(
        "deny", MAKE, refused="DenyUsers deny", late=files_say("DenyUsers NAME")
    ),
    "denied by its group in such a file": Case(
        "denyg", f"groupadd out; {MAKE} -G out", refused="DenyGroups out", late=files_say("DenyGroups out")
    ),
    "not admitted by its group in such a file": Case(
        "allowg", f"groupadd in; {MAKE}", refused="usermod -aG in allowg", late=files_say("AllowGroups in")
    ),
    "not admitted by its name in a block": Case(
        "allowu", MAKE, refused="AllowUsers bob", late=files_say("Match User NAME", "AllowUsers bob")
    ),
    "no keys in a block": Case(
        "nokey", MAKE, refused="PubkeyAuthentication no",
        late=files_say("Match User NAME", "PubkeyAuthentication no"),
    ),
    "a second proof": Case(
        "mfa", MAKE, refused="AuthenticationMethods publickey",
        late=files_say("AuthenticationMethods publickey,password"),
    ),
    "keys in another file of its home": Case(
        "keys", f"{MAKE}; cp /home/ops/.ssh/authorized_keys ~NAME/.keys; chown NAME: ~NAME/.keys; "
        + files_say("AuthorizedKeysFile %h/.keys"), refused="k3s_access_authorized_keys_files",
    ),
    "keys that a program tells": Case(
        "asked", f"{MAKE}; cp /home/ops/.ssh/authorized_keys /etc/ssh/keys.txt; "
        "printf '#!/bin/sh\\ncat /etc/ssh/keys.txt\\n' >/usr/local/bin/list_keys; chmod 0755 /usr/local/bin/list_keys; "
        + files_say("AuthorizedKeysCommand /usr/local/bin/list_keys", "AuthorizedKeysCommandUser nobody"),
        refused="SSH-KEYCOMMAND-ABSENT",
    ),
    "a home that all may write": Case(
        "loose", f"{MAKE}; chmod 0777 ~NAME; {files_say('StrictModes no')}", refused="others may write /home/loose"
    ),
    "refused by pam_access, which was off": Case(
        "access", f"{MAKE}; usermod -p '*' NAME; sed -i '1i account required pam_access.so' /etc/pam.d/sshd; "
        f"echo '-:NAME:ALL' >>/etc/security/access.conf; {files_say('UsePAM no')}", refused="/etc/security/access.conf",
    ),
    "no logins": Case("late", MAKE, refused="rm /run/nologin", late="touch /run/nologin"),
    "an account that expired": Case("gone", MAKE, refused="chage -l ACCOUNT", late="chage -E 1 NAME"),
    "a password that expired": Case("change", MAKE, refused="chage -M -1", late="chage -d 0 NAME"),
    "a restricted shell": Case("caged", "useradd -m -s /bin/rbash NAME", refused="chsh -s /bin/bash"),
    "root itself, by a waiver": Case(
        "root", "cp /home/ops/.ssh/authorized_keys /root/.ssh/authorized_keys", ("ACCOUNT-ROOT-LOCKED",),
        {"casemate_waivers": {"SSH-ROOT-REFUSED": {"reason": "the lab", "owner": "lab", "expires": "2099-12-31"}}},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """Case -> what became of it."""
    folder = tmp_path_factory.mktemp("lab")
    with for_tests.machines(NAME, servers=1, agents=len(CASES), workdir=folder / "work") as inventory:
        yield judged(inventory, folder)


def judged(inventory: Path, folder: Path) -> dict[str, dict[str, str]]:
    """Make the accounts, apply by each of them, log in anew, and see what the engine says then."""
    given = yaml.safe_load(inventory.read_text())
    shared, hosts = given["all"]["vars"], given["all"]["children"]["k3s_agent"]["hosts"]
    for name in ("ansible_user", "casemate_automation_user"):
        shared.pop(name)
    shared["k3s_access_guard_seconds"] = 900  # all the machines share two cores
    machines = dict(zip(CASES, hosts, strict=True))
    state = lab.load(NAME) or {}

    def console(title: str, script: str) -> str:
        entered = ["nsenter", f"--target={lab._init(state['machines'][machines[title]])}", "--all", "sh", "-c"]
        filled_in = script.replace("NAME", CASES[title].name)
        return subprocess.run([*entered, filled_in], capture_output=True, text=True, timeout=60, check=False).stdout

    def played(name: str, tasks: list[dict[str, Any]]) -> None:
        play = {"hosts": "k3s_agent", "gather_facts": False, "become": True, "tasks": tasks}
        play["vars_files"] = [str(ROOT / "playbooks/group_vars/all.yml")]
        (folder / f"{name}.json").write_text(json.dumps([play]))
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        env["PATH"] = f"{ROOT / '.venv/bin'}:{env['PATH']}"
        run = [*lab.enter(NAME), "ansible-playbook", "-i", str(hosts_file), str(folder / f"{name}.json")]
        done = subprocess.run(
            run, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1500, check=False, stdin=subprocess.DEVNULL
        )
        (folder / f"{name}.log").write_text(done.stdout + done.stderr)

    def kept(what: str, ending: str) -> dict[str, Any]:
        found = {"content": f"{{{{ {what} }}}}", "dest": f"{folder}/{{{{ inventory_hostname }}}}{ending}"}
        return {"ansible.builtin.copy": found, "delegate_to": "localhost", "connection": "local", "become": False}

    look = "stat -c '%a %U %G %Z' {0}; getfacl -p {0}"
    for title, case in CASES.items():
        sudo = "" if "50-them" in case.make else SUDO
        keys = "" if any(one in case.make for one in ("/.ssh", "/.keys", "/etc/keys", "/list_keys")) else KEYS
        console(
            title,
            f"{WORSE}\n{case.make}\n{keys if case.name != 'root' else ''}\n{sudo}\nuserdel alice\nsystemctl reload ssh",
        )
        persist = f"-o ControlMaster=auto -o ControlPersist=900 -o ControlPath={folder}/{machines[title]}.mux"
        hosts[machines[title]].update({"ansible_user": case.name, **case.given})
        hosts[machines[title]].update({"ansible_ssh_args": persist} if case.late else {})
    hosts_file = folder / "hosts.yml"
    hosts_file.write_text(yaml.safe_dump(given))
    before = {title: login(shared, hosts[host], CASES[title].name) for title, host in machines.items()}
    played("connect", [{"ansible.builtin.ping": {}, "become": False}])
    for title, case in CASES.items():
        console(title, case.late)
    was = {title: console(title, look.format(" ".join(case.kept))) for title, case in CASES.items() if case.kept}
    roles = [{"ansible.builtin.include_role": {"name": role}} for role in ROLES]
    checked: dict[str, Any] = {"k3s_controls": {"roles": ROLES}, "check_mode": True, "register": "checked"}
    preflight = {"casemate_preflight": {}, "register": "seen", "ignore_errors": True, "ignore_unreachable": True}
    over = "seen is failed or seen is unreachable"
    played("play", [
        preflight, {**kept("seen.msg", ".refused"), "when": over}, {"meta": "end_host", "when": over},
        *roles, checked, kept("checked.findings | to_json", ""),
    ])  # fmt: skip
    made = {}
    for title, host in machines.items():
        case, refused = CASES[title], folder / f"{host}.refused"
        findings = json.loads((folder / host).read_text()) if (folder / host).exists() else []
        blocked = sorted(f["control"] for f in findings if f["action"] == "blocked" and f["status"] == "fail")
        observed = sorted(f["control"] for f in findings if f["status"] == "fail" and f["action"] == "none")
        changed = console(title, "ls -d /etc/casemate /etc/sudoers.d/00-casemate /var/lib/casemate 2>/dev/null")
        made[title] = {
            "account": case.name, "before": before[title],
            "after": login(shared, hosts[host], case.name),
            "reported": ", ".join(blocked + [one for one in observed if one == "SUDO-PASSWORD-ASKED"]),
            "refused": advised(refused.read_text()) if refused.exists() else "",
            "touched": changed.strip(),
            "kept": str(not case.kept or was[title] == console(title, look.format(" ".join(case.kept)))),
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
            after = "refused" if row["refused"] else row["after"]
            shown = row["reported"] or " ".join(row["refused"].split())
            print(f"{title:48} {row['account']:9} {row['before']:7} {after:7} {shown}")
    assert {row["before"] for row in hardened.values()} == {"root"}, "otherwise a login proves nothing"


@pytest.mark.parametrize("case", [title for title, case in CASES.items() if not case.refused])
def test_the_automation_account_still_becomes_root(hardened: dict[str, dict[str, str]], case: str) -> None:
    row = hardened[case]
    assert (row["refused"], row["applied"], row["after"]) == ("", "yes", "root")
    assert set(CASES[case].reported) <= {*row["reported"].split(", ")}
    assert row["kept"] == "True"


@pytest.mark.parametrize("case", [title for title, case in CASES.items() if case.refused])
def test_where_the_next_login_would_fail_nothing_is_changed(hardened: dict[str, dict[str, str]], case: str) -> None:
    row = hardened[case]
    assert CASES[case].refused in row["refused"]
    assert (row["touched"], row["reported"]) == ("", "")
