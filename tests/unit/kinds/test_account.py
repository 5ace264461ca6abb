"""Accounts: what the files together allow, and never a hash in what is shown."""

from __future__ import annotations

import ctypes
import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.formats.sudoers import nopasswd
from module_utils.casemate.host import accounts
from module_utils.casemate.kinds import account

PASSWD = "root:x:0:0:root:/root:/bin/bash\nbin:x:2:2:bin:/bin:/usr/sbin/nologin\nops:x:1000:1000::/home/ops:/bin/bash\n"
SHADOW = "root:*:1::::::\nbin:!*:1::::::\nops:$y$j9T$SALTSALT$HASHHASH:1::::::\n"
GOOD = {"/etc/passwd": PASSWD, "/etc/shadow": SHADOW, "/etc/login.defs": "UID_MIN 1000\nENCRYPT_METHOD SHA512\n"}
PAM = "password\t[success=1 default=ignore]\t/lib/security/pam_unix.so obscure yescrypt\n"


def judge(tmp: Path, setting: Any, **files: str) -> Any:
    host = FakeHost(tmp, {**GOOD, **files})
    seen = account.observe([setting], host)[0]
    verdict = account.assess(setting, seen)
    assert "HASH" not in json.dumps([seen, verdict.observed, verdict.reason, verdict.evidence])
    return verdict


def files(passwd: str = "", shadow: str = "") -> dict[str, str]:
    return {"/etc/passwd": PASSWD + passwd, "/etc/shadow": SHADOW + shadow}


def line(name: str, uid: int, shell: str = "/bin/bash", field: str = "x") -> str:
    return f"{name}:{field}:{uid}:{uid}::/:{shell}\n"


ODD = "\u2028\u2029\x85\x0c\x0b\x1c\x1d\x1e\r"
"""What Python takes for the end of a line, and libc for a part of it."""
LOCKED: Any = {"check": "locked", "user": "root"}
EMPTY, ZERO, SHELL = ({"check": c} for c in ("no_empty_password", "only_root_is_uid_0", "system_nologin"))
NOLOGIN: Any = {"check": "locked_without_shell"}
HASHES: Any = {"check": "hash_scheme", "schemes": ["y"]}
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
        (NOLOGIN, {}, []),
        (NOLOGIN, files(line("mail", 8, "/usr/sbin/nologin", "$y$SALT$HASH") + line("bob", 9)), ["mail"]),
        (NOLOGIN, files(line("shut", 8, "/bin/false", "!$y$SALT$HASH")), []),
        (HASHES, {}, []),
        (HASHES, UNLOCKED, ["root"]),
        (HASHES, files(line("old", 1002), "old:abHASHHASHxyz:1::::::\n"), ["old"]),
        (HASHES, files(line("inline", 1002, field="$1$SALT$HASH")), ["inline"]),
        (EMPTY, files("garbage\n:::\n\x00", "too:short\n\n:\n"), []),
    ],
)
def test_who_offends(tmp_path: Path, setting: Any, given: dict[str, str], offenders: list[str]) -> None:
    verdict = judge(tmp_path, setting, **given)
    assert (verdict.observed, verdict.ok) == (offenders, not offenders)


@pytest.mark.parametrize(
    ("setting", "given", "offenders"),
    [
        (ZERO, files("+::::::\n-eve::::::\n+toor::0:0:::\n+toor::0:0\n"), []),
        (ZERO, files("toor:x:0:0\n"), ["toor"]),
        (ZERO, files(line("toor", 0).replace(":0:0:", ": 0:+0:")), ["toor"]),
        (ZERO, files(line("toor", 0).replace(":0:0:", ":-0:00:")), ["toor"]),
        (ZERO, files("  \t" + line("toor", 0)), ["toor"]),
        (ZERO, files(line("toor", 0).replace("/bin/bash", "/bin/sh:x:y")), ["toor"]),
        (ZERO, files("".join(f"c{n}:x:1001:1001:a{c}b::\n{line(f'toor{n}', 0)}" for n, c in enumerate(ODD))),
         [f"toor{n}" for n in range(len(ODD))]),
        (ZERO, files(f"x:x:1001:1001:{ODD}toor:x:0:0::/:/bin/sh\n"), []),
        (ZERO, files("# toor:x:0:0::/:/bin/sh\n\n   \n:\n\0toor:x:0:0::/:\ntoor:x:zero:0::/:\ntoor:x:0x0:0::/:\n"), []),
        (ZERO, files(line("big", 2**32) + line("bigger", 2**64) + line("less", -1)), []),
        (ZERO, files("toor:x:0:0::/:" + "a" * 9000 + "\n"), ["toor"]),
        (SHELL, files(line("twice", 2000) + line("twice", 200)), ["twice"]),
        (EMPTY, files(line("eve", 1001), "eve:!:1::::::\neve::1::::::\n"), []),
        (EMPTY, files(line("eve", 1001), "eve::1::::::\neve:!:1::::::\n"), ["eve"]),
        (EMPTY, files(line("eve", 1001), "eve::never::::::\neve:!:1::::::\n"), []),
        (EMPTY, files(line("eve", 1001), "mal:!:1::::\x0ceve:!:1::::::\neve::1::::::\n"), ["eve"]),
        (EMPTY, files(line("eve", 1001), "+eve::1::::::\n"), []),
    ],
)  # fmt: skip
def test_lines_are_those_that_libc_reads(
    tmp_path: Path, setting: Any, given: dict[str, str], offenders: list[str]
) -> None:
    assert judge(tmp_path, setting, **given).observed == offenders


LISTED = {"/etc/passwd": PASSWD + line("ops2", 998) + line("daemon", 1) + line("alice", 500) + line("a;b", 3)}
OPEN = {"/etc/passwd": PASSWD, "/etc/shadow": "root::1::::::\nops::1::::::\n"}


@pytest.mark.parametrize(
    ("setting", "account_is", "people", "given", "todo", "remedies"),
    [
        (SHELL, "ops2", [], LISTED, ["alice", "daemon"], ["k3s_host_system_shell_accounts", "'a;b'"]),
        (SHELL, "ops2", ["alice"], LISTED, ["daemon"], ["usermod -s /usr/sbin/nologin ops2", "k3s_access_allow_users"]),
        (SHELL, "ops", [], files(line("only", 998)), None, []),
        (SHELL, "only", [], files(line("only", 998)), [], ["Casemate logs in as only"]),
        (SHELL, "nobody", [], files(line("nobody", 65534)), [], ["Casemate logs in as nobody"]),
        (SHELL, "low", [], {**files(line("low", 4000)), "/etc/login.defs": "UID_MIN 5000\n"}, ["ops"], ["in as low"]),
        (SHELL, "ops", [], files(line("twice", 2000) + line("twice", 200)), [], ["second line"]),
        (EMPTY, "ops", [], OPEN, ["root"], ["passwd ops"]),
        (EMPTY, "root", ["ops"], OPEN, ["ops"], ["passwd root"]),
        (LOCKED, "root", [], UNLOCKED, [], ["Casemate logs in as root"]),
        (LOCKED, "ops", [], UNLOCKED, None, []),
    ],
)  # fmt: skip
def test_the_account_of_casemate_is_told_and_left_alone(
    tmp_path: Path, setting: Any, account_is: str, people: list[str], given: dict[str, str],
    todo: list[str] | None, remedies: list[str],
) -> None:  # fmt: skip
    host = FakeHost(tmp_path, {**GOOD, **given}, context={"account": account_is, "people": people})
    verdict = account.assess(setting, account.observe([setting], host)[0])
    assert not verdict.ok
    assert (verdict.todo, verdict.still_enforced) == (todo, bool(todo))
    assert bool(verdict.blocked_by) is (todo is not None)
    for remedy in remedies:
        assert remedy in verdict.blocked_by
        assert remedy in verdict.reason


@pytest.mark.parametrize(
    ("value", "least"),
    [("1000", 1000), ("500 ", 500), ('"500"', 500), ("0x1f4", 500), ("0764", 500), ("many", 1000), ("", 1000)],
)
def test_uid_min_as_login_defs_means_it(tmp_path: Path, value: str, least: int) -> None:
    host = FakeHost(tmp_path, {**GOOD, "/etc/login.defs": f"#UID_MIN 1\n\t UID_MIN\t{value}\n"})
    assert account.observe([{"check": "system_nologin"}], host)[0]["uid_min"] == least


def test_accounts_are_those_of_the_machines_own_libc(tmp_path: Path) -> None:
    """The same bytes are read by glibc, entry by entry; of NIS entries it leaves the judgement to its callers."""
    names = iter(range(10**6))
    rests = [
        ":x:0:0:g:/h:/s",
        ":x:0:0",
        ":x:0",
        ":x: 0:+0::",
        ":x:-0:-1::",
        f":x:{2**32}:0::",
        f":x:0:{2**64}::",
        f":x:-{2**64 - 1}:{2**32 - 1}::",
        ":x:-1:0::",
        ":x:-0:-0::",
        ":x:0x0:0::",
        "",
        ":x::0::",
        ":x:1 :0::",
        ":x:0:0:::a:b:c",
        ":x:0:0:\x0c:\x0b:\x85",
        ":::",
        ":x:00:01:",
    ]
    starts = ["n", " \t n", "#n", "+n", "-n", "\x0bn"]
    text = "".join(f"{start}{next(names)}{rest}\n" for start in starts for rest in rests) + "\n \nlast:x:0:0:::"
    (tmp_path / "passwd").write_text(text, encoding="latin-1")
    libc = ctypes.CDLL(None)
    libc.fopen.restype = libc.fgetpwent.restype = ctypes.c_void_p
    stream, expected = ctypes.c_void_p(libc.fopen(str(tmp_path / "passwd").encode(), b"r")), []
    layout = struct.Struct("@PPIIPPP")
    while entry := libc.fgetpwent(stream):
        name, _, uid, gid, _, home, shell = layout.unpack(ctypes.string_at(entry, layout.size))
        strings = [ctypes.string_at(one).decode("latin-1") if one else "" for one in (name, home, shell)]
        if strings[0][:1] not in ("+", "-"):
            expected.append((strings[0], uid, gid, *strings[1:]))
    libc.fclose(stream)
    assert len(expected) > 20
    assert [(a.name, a.uid, a.gid, a.home, a.shell) for a in accounts.passwd(text)] == expected


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
        ({"common-password": PAM.replace("yescrypt", "yescrypt sha512")}, False),  # the last one counts
        ({"common-password": PAM.replace("yescrypt", "sha512 yescrypt")}, True),
        ({"common-password": PAM.replace("pam_unix", "pam_evil")}, False),
        ({"common-password": "@include common-password\n"}, False),
        ({"common-password": "password substack other\n", "other": PAM}, True),
        ({"common-password": PAM.replace(" yescrypt", " \\\nyescrypt")}, True),
        ({"common-password": PAM, "passwd": "@include common-password\n"}, True),
        ({"common-password": PAM, "passwd": PAM.replace("yescrypt", "md5")}, False),  # which passwd(1) goes by
        ({"common-password": PAM, "passwd.dpkg-old": PAM.replace("yescrypt", "md5")}, True),
        ({"passwd": PAM}, False),
        ({}, False),
    ],
)
def test_pam_stack(tmp_path: Path, given: dict[str, str], ok: bool) -> None:
    setting: Any = {"check": "pam_module", "service": "common-password", "module": "pam_unix.so", "option": "yescrypt"}
    setting["beaten_by"] = ["md5", "sha512"]
    assert judge(tmp_path, setting, **{f"/etc/pam.d/{n}": t for n, t in given.items()}).ok is ok


NOPASSWD: Any = {"authenticate": False}
EVE, OPS, ALL = {"username": "eve"}, {"username": "ops"}, {"username": "ALL"}


def rule(*users: Any, options: tuple[dict[str, bool], ...] = (NOPASSWD,)) -> Any:
    return {"User_List": list(users), "Cmnd_Specs": [{"Commands": []}, {"Options": [{"setenv": True}, *options]}]}


def no(member: Any) -> Any:
    return {**member, "negated": True}


@pytest.mark.parametrize(
    ("rules", "aliases", "names"),
    [
        ([], {}, []),
        ([rule(ALL, options=())], {}, []),
        ([rule(ALL, options=({"authenticate": True},))], {}, []),
        ([rule(OPS), rule({"username": "root"}), rule({"userid": 0}), rule({"userid": 1000})], {}, []),
        ([rule(EVE, OPS)], {}, ["eve"]),
        ([rule(ALL)], {}, ["ALL"]),
        ([rule({"userid": 2}, {"userid": 77})], {}, ["#77", "bin"]),
        ([rule({"usergroup": "adm"}, {"usergid": 27}, {"netgroup": "n"})], {}, ["%#27", "%adm", "+n"]),
        ([rule({"nonunixgroup": "dom"}, {"unheard-of": "x"})], {}, ["%:dom", "x"]),
        ([rule({"useralias": "A"})], {"A": [{"useralias": "B"}], "B": [EVE, no(OPS)]}, ["eve"]),
        ([rule(ALL, no(EVE))], {}, ["ALL"]),
        ([rule(no({"useralias": "A"}))], {"A": [ALL, no(EVE)]}, ["eve"]),
        ([rule(no({"useralias": "A"}))], {"A": [EVE]}, []),
        ([rule({"useralias": "A"}, {"useralias": "gone"})], {"A": [{"useralias": "A"}]}, []),
    ],
)
def test_sudo_without_a_password(tmp_path: Path, rules: list[Any], aliases: Any, names: list[str]) -> None:
    assert sudo(tmp_path, {"User_Specs": rules, "User_Aliases": aliases}).observed == names


def sudo(tmp: Path, policy: Any, rc: int = 0, sudoers: bool = True) -> Any:
    """What is said where cvtsudoers answers so."""
    setting: Any = {"check": "nopasswd_sudo", "allow": ["ops"]}
    given: Any = {**GOOD, **({"/etc/sudoers": ""} if sudoers else {})}
    host = FakeHost(tmp, given, {"cvtsudoers": (rc, policy if rc else json.dumps(policy), policy if rc else "")})
    return account.assess(setting, account.observe([setting], host)[0])


@pytest.mark.parametrize(
    ("defaults", "names"),
    [
        ([{"Options": [{"env_reset": True}, {"authenticate": True}]}], []),
        ([{"Options": [{"authenticate": False}]}], ["those of Defaults !authenticate"]),
        ([{"Binding": [OPS], "Options": [{"authenticate": False}]}], ["those of Defaults !authenticate"]),
        ([{"Options": [{"exempt_group": "adm"}]}], ["%adm"]),
        ([{"Options": [{"exempt_group": False}]}], []),
    ],
)
def test_defaults_that_ask_nobody(tmp_path: Path, defaults: list[Any], names: list[str]) -> None:
    assert sudo(tmp_path, {"Defaults": defaults}).observed == names


DEFAULTS: Any = {"use_pty": True, "logfile": "/l", "timestamp_timeout": 5}
GOOD_DEFAULTS = [{"Options": [{"use_pty": True}, {"logfile": "/l"}, {"timestamp_timeout": "5"}, {"env_reset": True}]}]


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ([], []),
        ([{"Options": [{"use_pty": False}]}], ["use_pty is off"]),
        ([{"Options": [{"use_pty": False}]}, {"Options": [{"use_pty": True}]}], []),
        ([{"Binding": [EVE], "Options": [{"use_pty": False}]}, {"Options": [{"use_pty": True}]}], ["use_pty is off"]),
        ([{"Options": [{"logfile": False}]}], ["logfile is off"]),
        ([{"Options": [{"logfile": "/dev/null"}]}], ["logfile is /dev/null"]),
        ([{"Options": [{"timestamp_timeout": False}]}], []),
        ([{"Options": [{"timestamp_timeout": "0.5"}]}], []),
        ([{"Options": [{"timestamp_timeout": "15"}]}], ["timestamp_timeout is 15"]),
        ([{"Options": [{"timestamp_timeout": "-1"}]}], ["timestamp_timeout is -1"]),
        ([{"Options": [{"timestamp_timeout": True}]}], ["timestamp_timeout is on"]),
    ],
)
def test_defaults_that_take_ours_back(tmp_path: Path, more: list[Any], wrong: list[str]) -> None:
    setting: Any = {"check": "sudo_defaults", "options": DEFAULTS, "file": "/etc/sudoers.d/ours"}
    said: Any = {"cvtsudoers": (0, json.dumps({"Defaults": GOOD_DEFAULTS + more}), "")}
    host = FakeHost(tmp_path, {**GOOD, "/etc/sudoers": ""}, said)
    assert account.assess(setting, account.observe([setting], host)[0]).observed == wrong
    host.failing_files = {"/etc/sudoers.d/ours"}
    assert account.assess(setting, account.observe([setting], host)[0]).ok


def test_defaults_that_nobody_sets_are_named_and_a_broken_file_is_told_once(tmp_path: Path) -> None:
    setting: Any = {"check": "sudo_defaults", "options": DEFAULTS}
    host = FakeHost(tmp_path, {**GOOD, "/etc/sudoers": ""}, {"cvtsudoers": (0, "{}", "")})
    assert len(account.assess(setting, account.observe([setting], host)[0]).observed) == 3
    host.commands = {"cvtsudoers": (1, "", "syntax error")}
    with pytest.raises(Unavailable, match="sudo"):
        account.assess(setting, account.observe([setting], host)[0])


def test_a_rule_without_a_password_is_told_with_its_line(tmp_path: Path) -> None:
    files = {**GOOD, "/etc/sudoers": "root ALL=(ALL) ALL\neve ALL=NOPASSWD: ALL\n"}
    rules = {"User_Specs": [{"User_List": [EVE], "Cmnd_Specs": [{"Options": [{"authenticate": False}]}]}]}
    host = FakeHost(tmp_path, files, {"cvtsudoers": (0, json.dumps(rules), "")})
    setting: account.Setting = {"check": "nopasswd_sudo", "allow": ["ops"]}
    assert account.assess(setting, account.observe([setting], host)[0]).where == ("/etc/sudoers:2",)


@pytest.mark.parametrize(
    ("given", "ok"),
    [
        ({"/etc/sudoers": "@includedir /etc/sudoers.d\n"}, True),
        ({"/etc/sudoers": '#includedir "/etc/sudoers.d/"\n'}, True),
        ({"/etc/sudoers": "@includedir sudoers.d\n"}, True),
        ({"/etc/sudoers": "@include sudoers.site\n", "/etc/sudoers.site": "@includedir /etc/sudoers.d\n"}, True),
        ({"/etc/sudoers": "root ALL=(ALL) ALL\n"}, False),
        ({"/etc/sudoers": "# @includedir /etc/sudoers.d\n"}, False),
        ({"/etc/sudoers": "@include /etc/sudoers\n"}, False),
        ({"/etc/sudoers": "@includedir /etc/sudoers.site\n"}, False),
        ({}, True),  # where there is no sudo nothing is given by it
    ],
)
def test_what_stands_in_the_folder_of_sudo_counts(tmp_path: Path, given: dict[str, str], ok: bool) -> None:
    verdict = judge(tmp_path, {"check": "sudo_folder"}, **given)
    assert verdict.ok is ok
    assert ok or "by hand, visudo, and @includedir /etc/sudoers.d" in verdict.reason


def test_sudo_that_cannot_be_asked_is_never_nobody(tmp_path: Path) -> None:
    broken = sudo(tmp_path, "/etc/sudoers.d/x:1:2: syntax error\neve ALL=(secret\n    ^~~~", 1)
    assert not broken.ok
    assert broken.reason.endswith("/etc/sudoers.d/x:1:2: syntax error. Mend it with `visudo -f /etc/sudoers.d/x`")
    with pytest.raises(Unavailable, match="cvtsudoers"):
        sudo(tmp_path, "", 127)
    assert sudo(tmp_path / "bare", "", 127, sudoers=False).ok


@pytest.mark.skipif(not shutil.which("cvtsudoers"), reason="sudo is not installed here")
def test_what_sudo_itself_makes_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "sudoers").write_text(f"User_Alias A=eve, %adm\n@includedir {tmp_path}/d\nroot ALL=(ALL) ALL\n")
    (tmp_path / "d/x").write_text("A ALL=(root) \\\n  NOPASSWD: /bin/sh, PASSWD: ALL\n#77 ALL=NOPASSWD:ALL\n")
    (tmp_path / "d/y.bak").write_text("zoe ALL=NOPASSWD:ALL\n")
    said = subprocess.run(["cvtsudoers", "-f", "json", tmp_path / "sudoers"], capture_output=True, check=True).stdout
    assert nopasswd(json.loads(said), {}) == ["#77", "%adm", "eve"]


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
