"""Whether the account that Casemate logs in as still gets in after hardening, whatever others keep on the host."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from casemate import ROOT
from casemate.catalogue import declarations
from casemate.preflight import entrance, host_facts
from casemate.run import advice, escalation
from module_utils.casemate.host import logins

KEY, OTHER = "SHA256:one", "SHA256:two"
FILE = "/home/ops/.ssh/authorized_keys"
AFTER = {
    "allowusers": "ops", "authenticationmethods": "any", "authorizedkeyscommand": "none", "pubkeyauthentication": "yes",
    "authorizedkeysfile": ".ssh/authorized_keys .ssh/authorized_keys2", "strictmodes": "yes",
    "trustedusercakeys": "none", "usepam": "yes",
}  # fmt: skip
SEEN: dict[str, Any] = {
    "account": "ops", "address": "192.0.2.7", "groups": ["ops", "adm"], "now": AFTER, "after": AFTER,
    "files": {"now": {FILE: {"keys": [KEY], "unsafe": ""}}, "after": {FILE: {"keys": [KEY], "unsafe": ""}}},
    "accepted": {"method": "publickey", "account": "ops", "key": KEY}, "nologin": [], "expired": False,
    "pam": {"code": 0, "said": "", "modules": ["pam_nologin.so", "pam_unix.so"]},
}  # fmt: skip
NONE: dict[str, Any] = {"files": {"now": {}, "after": {}}}
ELSEWHERE = {"files": {"now": {"/home/ops/.keys": {"keys": [KEY], "unsafe": ""}}, "after": {}}}
UNSAFE = {"files": {"now": {}, "after": {FILE: {"keys": [KEY], "unsafe": "others may write /home/ops"}}}}
ACCESS = {"code": 6, "said": "Permission denied", "modules": ["pam_access.so"]}


def after(**given: str) -> dict[str, Any]:
    return {"after": {**AFTER, **given}}


STRICT = ",".join(declarations.variables()[1]["__k3s_access_userkeys"])


def of_type(sort: str) -> dict[str, Any]:
    return {"accepted": {"method": "publickey", "account": "ops", "key": KEY, "type": sort}}


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to say": ({}, ""),
    "no sshd to ask": ({"after": {}, **NONE}, ""),
    "a command of others": (after(forcecommand="internal-sftp"), "ForceCommand internal-sftp for ops"),
    "no command of others": (after(forcecommand="none", chrootdirectory="none"), ""),
    "a folder of others": (after(chrootdirectory="/srv/%u"), "ChrootDirectory /srv/%u for ops"),
    "denied": (after(denyusers="mallory ops"), "DenyUsers mallory ops"),
    "denied by a pattern": (after(denyusers="o?s"), "DenyUsers o?s"),
    "denied from here": (after(denyusers="ops@192.0.2.*"), "DenyUsers"),
    "denied from elsewhere": (after(denyusers="ops@198.51.100.*"), ""),
    "another is denied": (after(denyusers="mallory"), ""),
    "its group is denied": (after(denygroups="games ad*"), "DenyGroups games ad*"),
    "another group is denied": (after(denygroups="games"), ""),
    "its group is admitted": (after(allowgroups="admins adm"), ""),
    "no group of it is admitted": (after(allowgroups="admins"), "usermod -aG admins ops"),
    "it is admitted among others": (after(allowusers="bob ops"), ""),
    "it is not admitted": (after(allowusers="bob"), "add ops to that list"),
    "a second proof": (after(authenticationmethods="publickey,password"), "AuthenticationMethods publickey,password"),
    "one proof of several": (after(authenticationmethods="publickey,password publickey"), ""),
    "its key is of a type that stays": ({**of_type("RSA"), **after(pubkeyacceptedalgorithms=STRICT)}, ""),
    "its token stays": ({**of_type("ECDSA-SK"), **after(pubkeyacceptedalgorithms=STRICT)}, ""),
    "its key is of a type that goes": (
        {**of_type("ECDSA"), **after(pubkeyacceptedalgorithms=STRICT)}, "type ECDSA, which sshd will take no more"
    ),
    "so is its certificate": (
        {**of_type("ECDSA-CERT"), **after(pubkeyacceptedalgorithms=STRICT)}, "or waive SSH-USERKEYS-MODERN"
    ),
    "a pattern takes it": ({**of_type("ECDSA"), **after(pubkeyacceptedalgorithms="ssh-*,ecdsa-*")}, ""),
    "sshd does not say": ({**of_type("ECDSA"), **after()}, ""),
    "two keys": (after(authenticationmethods="publickey,publickey"), ""),
    "no keys are taken": (after(pubkeyauthentication="no"), "remove that line"),
    "it comes by a password": ({"accepted": {"method": "password", "account": "ops"}}, "comes in by password"),
    "it comes by a certificate": (
        {"accepted": {"method": "publickey", "authority": OTHER}}, "k3s_access_trusted_user_ca_keys"
    ),
    "by a certificate of a declared authority": (
        {"accepted": {"method": "publickey", "authority": OTHER}, **after(trustedusercakeys="/etc/ssh/ca"), **NONE}, ""
    ),
    "its key lies elsewhere": (ELSEWHERE, "lies in /home/ops/.keys"),
    "another key lies where it will look": (
        {"files": {"now": ELSEWHERE["files"]["now"], "after": {FILE: {"keys": [OTHER], "unsafe": ""}}}},
        "k3s_access_authorized_keys_files",
    ),
    "nobody wrote down which key": (
        {"accepted": {}, "files": {"now": {}, "after": {FILE: {"keys": [OTHER], "unsafe": ""}}}}, ""
    ),
    "a fingerprint of another kind": ({"accepted": {"method": "publickey", "account": "ops", "key": "MD5:aa:bb"}}, ""),
    "it came as another account": (
        {"accepted": {"method": "publickey", "account": "bob", "key": OTHER}}, ""
    ),
    "a program tells its key": (
        {**NONE, "now": {**AFTER, "authorizedkeyscommand": "/usr/bin/list_keys %u"}}, "SSH-KEYCOMMAND-ABSENT"
    ),
    "a program goes on to tell it": ({**NONE, **after(authorizedkeyscommand="/usr/bin/list_keys")}, ""),
    "no key at all": ({**NONE, "accepted": {}}, "put it into one of these files"),
    "others may write its home": (UNSAFE, "others may write /home/ops"),
    "others may, and nobody minds": ({**UNSAFE, **after(strictmodes="no")}, ""),
    "a second file is right": (
        {"files": {"now": {}, "after": {**UNSAFE["files"]["after"], "/etc/keys": {"keys": [KEY], "unsafe": ""}}}}, ""
    ),
    "expired": ({"pam": {"code": 7, "said": "refused", "modules": []}, "expired": True}, "chage -E -1 ops"),
    "expired, where PAM does not mind": ({"expired": True}, ""),
    "a password that must be new": ({"pam": {"code": 12, "said": "new one", "modules": []}}, "chage -M -1 -d"),
    "no logins": ({"pam": {**ACCESS, "modules": []}, "nologin": ["/run/nologin"]}, "rm /run/nologin"),
    "not in access.conf": ({"pam": ACCESS}, "+ : ops : ALL"),
    "another module": ({"pam": {**ACCESS, "modules": ["pam_time.so"]}}, "(pam_time.so)"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_who_would_be_left_outside_is_told_with_the_way_in(case: str) -> None:
    given, says = CASES[case]
    found = entrance.problems({**SEEN, **given})
    assert len(found) == bool(says), found
    assert not says or says in found[0]


def test_a_host_without_such_an_account_or_python_tells_nothing() -> None:
    assert entrance.problems({}) == []


def test_what_apply_would_write_is_what_sshd_is_asked_about() -> None:
    lines = entrance.planned("ops", {"k3s_access_allow_users": ["bob"]}, []).splitlines()
    assert "allowusers ops bob" in lines
    assert "authorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2" in lines
    assert {line.split()[0] for line in lines} == {*entrance.KEYS} - {"pubkeyacceptedalgorithms"}
    strict = entrance.planned("ops", {"casemate_level": "strict"}, [])
    assert f"pubkeyacceptedalgorithms {STRICT}\n" in strict
    assert "pubkey" not in entrance.planned("ops", {"casemate_level": "strict"}, ["SSH-USERKEYS-MODERN"]).replace(
        "pubkeyauthentication", ""
    )
    values = {"k3s_access_authorized_keys_files": ["/etc/keys/%u"], "k3s_access_trusted_user_ca_keys": "/etc/ssh/ca"}
    waived = entrance.planned("ops", values, ["SSH-KEYCOMMAND-ABSENT"])
    assert "authorizedkeyscommand" not in waived
    assert "authorizedkeysfile /etc/keys/%u\n" in waived
    assert "trustedusercakeys /etc/ssh/ca\n" in waived


FROM = "from 192.0.2.7 port 48222 ssh2"
LINES = {
    f"Accepted publickey for ops {FROM}: ED25519 SHA256:ab/c+d": ("publickey", "SHA256:ab/c+d", ""),
    f"Accepted publickey for ops {FROM}: ED25519-CERT SHA256:ab ID me (serial 0) CA ED25519 SHA256:ca": (
        "publickey", "SHA256:ab", "SHA256:ca",
    ),
    f"Accepted password for ops {FROM}": ("password", "", ""),
    "Accepted keyboard-interactive/pam for ops from 2001:db8::7 port 48222 ssh2": ("keyboard-interactive/pam", "", ""),
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_how_a_session_was_let_in_is_read_in_the_words_of_sshd(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(logins, "run", lambda argv, stdin=None: line if argv[0] == "journalctl" else "")
    found = logins.accepted([line.split()[5], "48222", "192.0.2.8", "22"])
    assert (found["method"], found.get("key", ""), found.get("authority", "")) == LINES[line]
    assert logins.accepted([]) == {}


def test_sshd_takes_keys_only_from_where_nobody_else_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, uid, gid = tmp_path / "home", os.getuid(), os.getgid()
    keys = home / ".ssh/authorized_keys"
    keys.parent.mkdir(parents=True)
    keys.write_text("")
    account: Any = SimpleNamespace(pw_name="ops", pw_uid=uid, pw_gid=gid, pw_dir=str(home))
    for path in (home, keys.parent, keys):
        path.chmod(0o755)
    assert logins.unsafe(str(keys), account) == ""
    monkeypatch.setattr(logins, "own_group", lambda *_: False)
    for path in (home, keys.parent, keys):
        for mode in (0o775, 0o757):
            path.chmod(mode)
            assert logins.unsafe(str(keys), account) == f"others may write {path}"
        path.chmod(0o755)
    tmp_path.chmod(0o777)  # what lies above a home does not matter to it
    assert logins.unsafe(str(keys), account) == ""
    keys.chmod(0o664)
    monkeypatch.setattr(logins, "own_group", lambda *_: True)
    assert logins.unsafe(str(keys), account) == ""
    if uid == 0:
        os.chown(keys, 12345, 12345)
        assert logins.unsafe(str(keys), account) == f"{keys} is neither ops's nor root's"


def test_a_group_is_its_own_where_nobody_else_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = [SimpleNamespace(pw_name="ops", pw_gid=1000), SimpleNamespace(pw_name="bob", pw_gid=1001)]
    members = {1000: [], 1001: ["ops"], 1002: [], 1003: ["ops"]}
    monkeypatch.setattr(pwd, "getpwall", lambda: accounts)
    monkeypatch.setattr(grp, "getgrgid", lambda number: SimpleNamespace(gr_mem=members[number]))
    account: Any = accounts[0]
    assert [logins.own_group(number, account) for number in (1000, 1001, 1002, 1003, 4711)] == [
        True, False, False, True, False,
    ]  # fmt: skip


def test_files_of_keys_are_found_as_sshd_names_them(tmp_path: Path) -> None:
    account: Any = SimpleNamespace(pw_name="ops", pw_uid=os.getuid(), pw_gid=os.getgid(), pw_dir=str(tmp_path))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "id")], check=True)
    public = (tmp_path / "id.pub").read_text()
    for name in (".keys", "ops.keys"):
        (tmp_path / name).write_text(f"# mine\nno-pty {public}")
    found = logins.key_files(f".none %h/.keys {tmp_path}/%u.keys", account)
    assert list(found) == [f"{tmp_path}/.keys", f"{tmp_path}/ops.keys"]
    assert found[f"{tmp_path}/.keys"]["keys"] == [subprocess.getoutput(f"ssh-keygen -lf {tmp_path}/id.pub").split()[1]]


@pytest.mark.parametrize(
    ("line", "over"),
    [
        ("ops:!:19000:0:99999:7:::", False),
        ("ops:!:19000:0:99999:7::1:", True),
        ("ops:!:19000:0:99999:7::99999:", False),
        ("ops:!:19000:0:99999:7::0:", False),
        ("ops:!:19000:0:99999:7::-1:", False),
        ("", False),
    ],
)
def test_the_last_day_of_an_account_is_read_as_shadow_has_it(
    monkeypatch: pytest.MonkeyPatch, line: str, over: bool
) -> None:
    monkeypatch.setattr(logins, "run", lambda argv, stdin=None: line)
    assert logins.expired("ops") is over


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may ask PAM about others")
def test_pam_is_asked_about_an_account() -> None:
    done = subprocess.run(
        [sys.executable, "-c", logins.PAM, "casemate-no-such-service", "root", "192.0.2.1"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split()[0].isdigit()


def test_the_probe_tells_it_of_this_machine() -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    argv = [sys.executable, str(ROOT / "module_utils/casemate/host/logins.py"), name, "allowusers nobody-else\n"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    account = host_facts.answer_of("logins", host_facts.parse(said))
    assert account["account"] == name
    assert name in account["groups"]
    argv[2] = "nobody-of-that-name"
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert host_facts.parse(said) == {"logins": "{}", "people": '{"least": 1000, "uids": {}}'}


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Failed to connect to the host via ssh: Password change required but no TTY available.", "chage -M -1 -d"),
        ("Your account has expired; please contact your system administrator.", "chage -E -1"),
        ("System is booting up. Unprivileged users are not permitted to log in yet.", "/run/nologin"),
        ("The host did not answer the probe (rc 1): rbash: line 1: /bin/sh: restricted: cannot specify `/'", "chsh -s"),
    ],
)
def test_what_keeps_the_account_out_from_the_start_comes_with_advice(said: str, hint: str) -> None:
    assert hint in advice.advised(said)


@pytest.mark.parametrize(
    "said",
    [
        "sudo: Account or password is expired, reset your password and try again",
        "sudo: account validation failure, is your account locked?",
        'sudo: Account expired or PAM config lacks an "account" section for sudo, contact your system administrator',
        "sudo: unable to change expired password: Authentication token manipulation error",
    ],
)
@pytest.mark.parametrize("password", [False, True])
def test_an_account_that_expired_meanwhile_is_no_matter_of_passwords(said: str, password: bool) -> None:
    assert "chage -l ACCOUNT" in escalation.refusal(said, password)


def test_the_probe_tells_who_of_the_people_has_an_account() -> None:
    script = host_facts.script(sys.executable, account="root", people=["daemon", "nobody.such"])
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    there = host_facts.answer_of("people", host_facts.parse(done.stdout))
    assert there == {"uids": {"root": 0, "daemon": 1}, "least": 1000}
