"""Accounts: what the files together allow, and never a hash in what is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.kinds import account

PASSWD = "root:x:0:0:root:/root:/bin/bash\nbin:x:2:2:bin:/bin:/usr/sbin/nologin\nops:x:1000:1000::/home/ops:/bin/bash\n"
SHADOW = "root:*:1::::::\nbin:!*:1::::::\nops:$y$j9T$SALTSALT$HASHHASH:1::::::\n"
GOOD = {"/etc/passwd": PASSWD, "/etc/shadow": SHADOW, "/etc/login.defs": "UID_MIN 1000\nENCRYPT_METHOD SHA512\n"}
PAM = "password\t[success=1 default=ignore]\t/lib/security/pam_unix.so obscure yescrypt\n"


def judge(tmp: Path, setting: dict[str, Any], **files: str) -> Any:
    host = FakeHost(tmp, {**GOOD, **files})
    seen = account.observe([setting], host)[0]
    verdict = account.assess(setting, seen)
    assert "HASH" not in json.dumps([seen, verdict.observed, verdict.reason, verdict.evidence])
    return verdict


def files(passwd: str = "", shadow: str = "") -> dict[str, str]:
    return {"/etc/passwd": PASSWD + passwd, "/etc/shadow": SHADOW + shadow}


def line(name: str, uid: int, shell: str = "/bin/bash", field: str = "x") -> str:
    return f"{name}:{field}:{uid}:{uid}::/:{shell}\n"


LOCKED = {"check": "locked", "user": "root"}
EMPTY, ZERO, SHELL = ({"check": c} for c in ("no_empty_password", "only_root_is_uid_0", "system_nologin"))
HASHES = {"check": "hash_scheme", "schemes": ["y"]}
UNLOCKED = {"/etc/shadow": SHADOW.replace("root:*", "root:$6$SALT$HASH")}


@pytest.mark.parametrize(
    ("setting", "given", "offenders"),
    [
        (LOCKED, {}, []),
        (LOCKED, UNLOCKED, ["root"]),
        (LOCKED, {"/etc/shadow": SHADOW.replace("root:*", "root:")}, ["root"]),
        (LOCKED, {"/etc/shadow": SHADOW.replace("root:*", "root:!$6$SALT$HASH")}, []),
        (EMPTY, {}, []),
        (EMPTY, files(line("eve", 1001), "eve::1::::::\n"), ["eve"]),
        (EMPTY, files(line("eve", 1001, field="")), ["eve"]),
        (ZERO, {}, []),
        (ZERO, files(line("toor", 0)), ["toor"]),
        (ZERO, files(line("root2", 0)) | {}, ["root2"]),
        (SHELL, {}, []),
        (SHELL, files(line("daemon", 1)), ["daemon"]),
        (SHELL, files(line("daemon", 1, "/bin/false") + line("sync", 4, "/bin/sync")), []),
        (SHELL, files(line("nobody", 65534, "/bin/sh")), ["nobody"]),
        ({**SHELL, "allow": ["backup"]}, files(line("backup", 34) + line("evil", 35)), ["evil"]),
        (SHELL, files(line("hidden", 500, "")), ["hidden"]),
        (HASHES, {}, []),
        (HASHES, UNLOCKED, ["root"]),
        (HASHES, files(line("old", 1002), "old:abHASHHASHxyz:1::::::\n"), ["old"]),
        (HASHES, files(line("inline", 1002, field="$1$SALT$HASH")), ["inline"]),
        (EMPTY, files("garbage\n:::\n\x00", "too:short\n\n:\n"), []),
    ],
)
def test_who_offends(tmp_path: Path, setting: dict[str, Any], given: dict[str, str], offenders: list[str]) -> None:
    verdict = judge(tmp_path, setting, **given)
    assert (verdict.observed, verdict.ok) == (offenders, not offenders)


@pytest.mark.parametrize(
    ("field", "kind"),
    [("", "empty"), ("*", "locked"), ("!", "locked"), ("!!x", "locked"), ("$y$j9T$a$b", "y"), ("$6$a$b", "6"),
     ("$2b$12$x", "2b"), ("abJnggxhB/yWI", "des"), ("_J9..K0AyUubLWd4cX9.", "des"), ("$", "des")],
)  # fmt: skip
def test_kinds_of_password(field: str, kind: str) -> None:
    assert account.password(field) == kind


@pytest.mark.parametrize(
    ("given", "ok"),
    [
        ({"common-password": PAM}, True),
        ({"common-password": "#" + PAM}, False),
        ({"common-password": "@include other\n", "other": PAM}, True),
        ({"common-password": "password include other\n", "other": PAM}, True),
        ({"common-password": PAM.replace("yescrypt", "md5 # yescrypt")}, False),
        ({"common-password": PAM.replace("pam_unix", "pam_evil")}, False),
        ({"common-password": "@include common-password\n"}, False),
        ({}, False),
    ],
)
def test_pam_stack(tmp_path: Path, given: dict[str, str], ok: bool) -> None:
    setting = {"check": "pam_module", "service": "common-password", "module": "pam_unix.so", "option": "yescrypt"}
    assert judge(tmp_path, setting, **{f"/etc/pam.d/{n}": t for n, t in given.items()}).ok is ok


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"sudoers": "root ALL=(ALL) ALL\n"}, []),
        ({"sudoers": "eve ALL=(ALL:ALL) NOPASSWD: ALL\n"}, ["eve"]),
        ({"sudoers": "eve ALL=(root) \\\n  NOPASSWD: /bin/sh\n"}, ["eve"]),
        ({"sudoers": "# eve ALL=(ALL) NOPASSWD: ALL\n"}, []),
        ({"sudoers": "@includedir /etc/sudoers.d\n", "sudoers.d/a": "%adm ALL=NOPASSWD: ALL\n"}, ["%adm"]),
        ({"sudoers": "#includedir /etc/sudoers.d\n", "sudoers.d/a": "ops ALL=NOPASSWD:ALL\n"}, []),
        ({"sudoers": "@includedir /etc/sudoers.d\n", "sudoers.d/a.bak": "eve ALL=NOPASSWD:ALL\n"}, []),
        ({"sudoers": "Defaults !authenticate\n"}, ["Defaults"]),
        ({"sudoers": "@include /etc/sudoers\n"}, []),
    ],
)
def test_sudo_without_a_password(tmp_path: Path, given: dict[str, str], names: list[str]) -> None:
    setting = {"check": "nopasswd_sudo", "allow": ["ops"]}
    assert judge(tmp_path, setting, **{f"/etc/{n}": t for n, t in given.items()}).observed == names


@pytest.mark.parametrize(("values", "ok"), [(["SHA512", "YESCRYPT"], True), (["YESCRYPT"], False)])
def test_login_defs(tmp_path: Path, values: list[str], ok: bool) -> None:
    assert judge(tmp_path, {"check": "login_def", "key": "ENCRYPT_METHOD", "values": values}).ok is ok


def test_a_later_line_of_login_defs_wins_and_comments_do_not() -> None:
    assert account.login_defs("A 1\n#A 3\nA  2 \nB\n") == {"A": "2"}


def test_unreadable_accounts_are_an_error_and_never_nobody(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="passwd"):
        account.observe([LOCKED], FakeHost(tmp_path))


def test_identities_tell_checks_apart() -> None:
    settings = [LOCKED, EMPTY, {"check": "login_def", "key": "A"}, {"check": "login_def", "key": "B"}]
    assert len({account.identity(s) for s in settings}) == 4
