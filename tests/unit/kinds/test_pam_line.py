"""A line of PAM that every service has to ask: how it is brought, what does without it, and what stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Left
from module_utils.casemate.formats import pam_profiles
from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.kinds import pam_line, pam_stack
from module_utils.casemate.kinds.kind import Pass
from module_utils.casemate.kinds.pam_line import KIND

FOLDER = "/usr/share/pam-configs"
HEAD = '# here are the per-package modules (the "Primary" block)\n'
MIDDLE = """\
# here's the fallback if no module succeeds
auth\trequisite\t\t\tpam_deny.so
auth\trequired\t\t\tpam_permit.so
# and here are more per-package modules (the "Additional" block)
"""
END = "# end of pam-auth-update config\n"
SU = """\
auth\t[success=ignore default=1]\tpam_succeed_if.so quiet service in su:su-l
auth\trequisite\tpam_wheel.so use_uid group=root
"""
BEFORE = "auth\trequisite\tpam_faillock.so preauth deny=5\n"
UNIX = "auth\t[success=2 default=ignore]\tpam_unix.so nullok\n"
AFTER = "auth\t[default=die]\tpam_faillock.so authfail deny=5\n"
RESET = "auth\trequired\tpam_faillock.so authsucc\n"
WHOLE = HEAD + SU + BEFORE + UNIX + AFTER + MIDDLE + RESET + END
FILES = {
    "/etc/pam.d/sudo": "@include common-auth\n@include common-account\n",
    "/etc/pam.d/su": "auth sufficient pam_rootok.so\n@include common-auth\n",
    "/etc/pam.d/su-l": "auth\tinclude\tsu\n",
    "/etc/pam.d/runuser": "auth sufficient pam_rootok.so\n",
}
REFUSE: Any = {
    "facility": "auth", "module": "pam_faillock.so", "options": ["preauth", "deny=5"], "asked": "refuses",
    "profile": "casemate-refuse", "title": "refuse", "priority": 1024, "block": "Primary", "control": "requisite",
}  # fmt: skip
COUNT: Any = {
    **REFUSE, "options": ["authfail", "deny=5"], "asked": "after_failure", "profile": "casemate-count",
    "priority": 0, "control": "[default=die]",
}  # fmt: skip
FORGIVE: Any = {
    **REFUSE, "options": ["authsucc"], "asked": "after_success", "profile": "casemate-forgive", "block": "Additional",
    "control": "required",
}  # fmt: skip
WHEEL: Any = {
    **REFUSE, "module": "pam_wheel.so", "options": ["use_uid", "group=root"], "services": ["su", "su-l"],
    "profile": "casemate-su", "priority": 2048,
    "ahead": ["[success=ignore default=1]\tpam_succeed_if.so quiet service in su:su-l"],
}  # fmt: skip
ALL = [REFUSE, COUNT, FORGIVE, WHEEL]
QUALITY: Any = {"facility": "password", "module": "pam_pwquality.so", "options": [], "asked": "refuses"}
MERGED = {f"/var/lib/pam/{name}": "Module: null\n[default=1]\t\t\tpam_permit.so\n" for name in pam_profiles.TYPES}


def block(name: str) -> str:
    kind = name.partition("-")[0]
    return f"{HEAD}{kind}\t[default=1]\t\t\tpam_permit.so\n{MIDDLE.replace('auth', kind)}{END}"


def made(tmp_path: Path, auth: str = WHOLE) -> FakeHost:
    files = {path: block(path.rsplit("common-", 1)[1]) for path in pam_profiles.COMMON}
    files |= {**FILES, **MERGED, "/etc/pam.d/common-auth": auth, "/var/lib/pam/seen": "unix\n"}
    files["/var/lib/pam/auth"] = (
        "Module: casemate-su\n" + SU.replace("auth\t", "")
        + "Module: casemate-refuse\n" + BEFORE.replace("auth\t", "", 1)
        + "Module: unix\n[success=end default=ignore]\tpam_unix.so nullok\n"
        + "Module: casemate-count\n[default=die]\tpam_faillock.so authfail deny=5\n"
        + "Module: casemate-forgive\nrequired\tpam_faillock.so authsucc\n"
    )  # fmt: skip
    files |= {pam_line.path_of(one): pam_line.content_of(one) for one in ALL}
    return FakeHost(tmp_path, files, {"env DEBIAN_FRONTEND=noninteractive pam-auth-update": (0, "", "")})


def verdicts(host: FakeHost, settings: list[Any]) -> list[Any]:
    return [KIND.assess(one, seen) for one, seen in zip(settings, pam_line.observe(settings, host), strict=True)]


def test_what_the_profiles_make_holds(tmp_path: Path) -> None:
    assert [(one.ok, one.reason) for one in verdicts(made(tmp_path), ALL)] == [(True, "")] * 4


@pytest.mark.parametrize(
    ("auth", "fail"),
    [
        (WHOLE.replace(BEFORE, ""), [REFUSE]),
        (WHOLE.replace(AFTER, ""), [COUNT]),
        (WHOLE.replace(RESET, ""), [FORGIVE]),
        (WHOLE.replace(SU, ""), [WHEEL]),
        (WHOLE.replace("preauth deny=5", "preauth deny=500"), [REFUSE]),
        (WHOLE.replace("preauth deny=5", "preauth deny=5 deny=500"), [REFUSE]),
        (WHOLE.replace("requisite\tpam_faillock.so preauth", "optional\tpam_faillock.so preauth"), [REFUSE]),
        (WHOLE.replace("group=root", "group=users"), [WHEEL]),
        (WHOLE.replace("service in su:su-l", "service in su"), [WHEEL]),
        (WHOLE.replace("[success=2", "[success=1"), [FORGIVE]),  # to pam_deny: no password is right any more
    ],
)
def test_the_line_that_lacks_is_named(tmp_path: Path, auth: str, fail: list[Any]) -> None:
    named = [one["profile"] for one, said in zip(ALL, verdicts(made(tmp_path, auth), ALL), strict=True) if not said.ok]
    assert set(named) >= {one["profile"] for one in fail}
    if "success=1" not in auth:
        assert named == [one["profile"] for one in fail]


CODE: Any = {
    **REFUSE, "module": "pam_google_authenticator.so", "options": ["secret=/x/${USER}", "user=root"],
    "services": ["sshd"], "profile": "casemate-code", "priority": 1536, "control": "[success=done default=die]",
    "ahead": ["[success=ignore default=1]\tpam_succeed_if.so quiet service in sshd"], "needed_by": ["erin"],
}  # fmt: skip
CODE_LINES = """\
auth\t[success=ignore default=1]\tpam_succeed_if.so quiet service in sshd
auth\t[success=done default=die]\tpam_google_authenticator.so secret=/x/${USER} user=root
"""


def coded(tmp_path: Path, lines: str = CODE_LINES, sshd: str = "@include common-auth\n", auth: str = WHOLE) -> FakeHost:
    """A machine whose sshd asks for codes."""
    host = made(tmp_path, auth.replace(SU, SU + lines))
    Path(host.path("/etc/pam.d/sshd")).write_text(sshd)
    Path(host.path(pam_line.path_of(CODE))).write_text(pam_line.content_of(CODE))
    saved = Path(host.path("/var/lib/pam/auth"))
    code = "Module: casemate-code\n" + CODE_LINES.replace("auth\t", "")
    saved.write_text(saved.read_text().replace("Module: casemate-refuse", f"{code}Module: casemate-refuse"))
    return host


def test_where_a_code_is_asked_no_password_is_taken(tmp_path: Path) -> None:
    """So the lines about passwords are not missed there, and sudo goes on asking for its password."""
    said = verdicts(coded(tmp_path), [*ALL, CODE])
    assert [(one.ok, one.reason) for one in said] == [(True, "")] * 5


@pytest.mark.parametrize(
    ("lines", "sshd"),
    [
        ("", "@include common-auth\n"),
        (CODE_LINES.replace("user=root", "user=root nullok"), "@include common-auth\n"),
        (CODE_LINES.replace("default=die", "default=ignore"), "@include common-auth\n"),
        (CODE_LINES.replace("secret=/x", "secret=/tmp"), "@include common-auth\n"),
        (CODE_LINES.replace("in sshd", "in login"), "@include common-auth\n"),
        (CODE_LINES, "auth sufficient pam_unix.so\n@include common-auth\n"),
        (CODE_LINES, "auth required pam_unix.so\n"),
    ],
    ids=[
        "removed",
        "nullok",
        "not decisive",
        "another folder",
        "another service",
        "a password before",
        "only a password",
    ],
)
def test_whatever_lets_in_without_a_code_is_named_by_that_line_alone(tmp_path: Path, lines: str, sshd: str) -> None:
    host = coded(tmp_path, lines, sshd)
    (said,) = verdicts(host, [CODE])
    assert not said.ok and "sshd" in said.reason
    if sshd.startswith("@"):
        assert all(one.ok for one in verdicts(host, ALL))
        (open_to_all,) = pam_stack.observe([{"facility": "auth", "known": []}], host)
        assert "sshd" not in open_to_all["admits"]


def test_where_nobody_needs_it_nothing_is_demanded_and_what_was_written_goes(tmp_path: Path) -> None:
    nobody: Any = {**CODE, "needed_by": []}
    host = coded(tmp_path)
    assert verdicts(host, [nobody])[0].ok
    assert f"{FOLDER}/casemate-code" in pam_line.unasked_profiles([*ALL, nobody], host)
    pam_line.enforce([*ALL, nobody], {0}, host)
    assert host.stat(f"{FOLDER}/casemate-code") is None
    assert pam_line.unasked_profiles([*ALL, nobody], host) == ""


def test_a_service_that_asks_before_is_named_with_its_line(tmp_path: Path) -> None:
    host = made(tmp_path)
    Path(host.path("/etc/pam.d/login")).write_text("auth sufficient pam_unix.so\n@include common-auth\n")
    (said,) = verdicts(host, [REFUSE])
    assert not said.ok
    assert "/etc/pam.d/login:1" in said.where
    assert said.blocked_by.startswith("remove the line that decides before it")


def test_who_lets_in_whoever_comes_is_told_elsewhere(tmp_path: Path) -> None:
    host = made(tmp_path, "auth sufficient pam_permit.so\n" + WHOLE)
    assert all(one.ok for one in verdicts(host, ALL))


def test_the_way_a_package_asks_is_only_observed(tmp_path: Path) -> None:
    asks = "password requisite pam_pwquality.so retry=3\npassword required pam_unix.so use_authtok\n"
    for name, text, ok in (("1", asks, True), ("2", asks.replace("requisite", "optional"), False)):
        host = FakeHost(tmp_path / name, {"/etc/pam.d/common-password": text})
        (said,) = verdicts(host, [QUALITY])
        assert (said.ok, said.blocked_by) == (ok, "")


def test_lines_of_nobody_keep_pam_auth_update_away(tmp_path: Path) -> None:
    host = made(tmp_path, WHOLE.replace(BEFORE, "").replace(UNIX, f"auth optional pam_echo.so hm\n{UNIX}"))
    (said,) = verdicts(host, [REFUSE])
    assert (
        "line 4 of /etc/pam.d/common-auth (auth optional pam_echo.so hm) is of no profile: remove it" in said.blocked_by
    )
    with pytest.raises(EnforceError, match="line 4 of"):
        pam_line.enforce([REFUSE], {0}, host)
    assert host.armed == []


def test_what_it_merges_does_not_keep_it_away(tmp_path: Path) -> None:
    assert pam_profiles.left_alone(made(tmp_path)) == ""
    assert pam_profiles.left_alone(made(tmp_path / "more", WHOLE.replace("nullok", "nullok audit"))) == ""
    assert pam_profiles.left_alone(made(tmp_path / "less", WHOLE.replace(BEFORE, ""))) == ""
    assert pam_profiles.left_alone(made(tmp_path / "beside", "auth optional pam_echo.so\n" + WHOLE)) == ""
    assert "lacks a comment" in pam_profiles.left_alone(made(tmp_path / "whole", WHOLE.replace(END, "")))


def test_the_guard_comes_first_and_our_lines_are_made_anew(tmp_path: Path) -> None:
    host = made(tmp_path)
    pam_line.enforce([REFUSE, COUNT, FORGIVE, WHEEL], {0}, host)
    assert {*pam_profiles.COMMON, *pam_profiles.STATE, f"{FOLDER}/casemate-refuse"} <= set(host.armed)
    names = [one["profile"] for one in ALL]
    assert [argv[3:] for argv in host.ran] == [["--package", "--enable", *names]]


def test_what_was_changed_of_our_lines_is_no_wish_that_it_would_merge(tmp_path: Path) -> None:
    changed = WHOLE.replace("authfail deny=5", "authfail deny=500").replace("nullok", "nullok audit").replace(SU, "")
    host = made(tmp_path, changed)
    before = host.text("/var/lib/pam/auth") or ""
    after = pam_profiles.as_it_stands("auth", "casemate-", host)
    assert after == before.replace("authfail deny=5", "authfail deny=500")
    pam_line.enforce(ALL, {1}, host)
    assert host.text("/var/lib/pam/auth") == after


def test_a_changed_line_that_another_one_hides_is_told(tmp_path: Path) -> None:
    """Where every service ends with a code, nobody's password is counted: that ends once the codes' line is healed."""
    weak = WHOLE.replace("authfail deny=5", "authfail deny=500")
    host = coded(tmp_path, CODE_LINES.splitlines(keepends=True)[1], auth=weak)
    said = verdicts(host, [COUNT])[0]
    assert (said.ok, said.where, said.blocked_by) == (False, ("/etc/pam.d/common-auth",), "")
    assert "does not have the lines of casemate-count as it brings them" in said.reason


def test_a_profile_that_nothing_asks_for_goes(tmp_path: Path) -> None:
    host = made(tmp_path)
    assert f"no control asks for {FOLDER}/casemate-su any more" in pam_line.unasked_profiles(
        [REFUSE, COUNT, FORGIVE], host
    )
    pam_line.take_back([WHEEL], [REFUSE, COUNT, FORGIVE], host)
    assert host.stat(f"{FOLDER}/casemate-su") is None
    assert [argv[4:] for argv in host.ran] == [
        ["--remove", "casemate-su", "--enable", "casemate-refuse", "casemate-count", "casemate-forgive"]
    ]
    assert pam_line.left(WHEEL, Pass([], True), host) == Left()


def test_a_refusal_of_pam_auth_update_is_said(tmp_path: Path) -> None:
    host = made(tmp_path)
    host.commands["env DEBIAN_FRONTEND=noninteractive pam-auth-update"] = (1, "", "config.dat is locked")
    with pytest.raises(EnforceError, match="is locked"):
        pam_line.enforce([REFUSE], {0}, host)


def test_the_profile_is_one_that_pam_auth_update_reads(tmp_path: Path) -> None:
    setting: Any = {**WHEEL, "first": ["use_uid"]}
    text = pam_line.content_of(setting)
    assert text.startswith("Name: Casemate: refuse\nComment: Managed by Casemate")
    assert "Auth-Type: Primary\nAuth:\n\t[success=ignore default=1]\tpam_succeed_if.so" in text
    assert text.endswith("Auth-Initial:\n\t[success=ignore default=1]\tpam_succeed_if.so quiet service in su:su-l\n"
                         "\trequisite\tpam_wheel.so use_uid\n")  # fmt: skip


@pytest.mark.parametrize(
    ("conf", "place"),
    [
        ("admin_group = users\n", 1),  # whose members are spared, as root is
        ("# admin_group = users\n", 0),
        ("silent\n  dir=/tmp/faillock # where everybody empties it\n", 2),
        ("deny = 3\n", 0),  # the line of PAM says otherwise, and counts
    ],
)
def test_what_the_file_of_a_module_undoes(tmp_path: Path, conf: str, place: int) -> None:
    setting = {**REFUSE, "conf": "/etc/security/faillock.conf", "without": ["admin_group", "dir"]}
    host = made(tmp_path)
    (tmp_path / "etc/security").mkdir()
    (tmp_path / "etc/security/faillock.conf").write_text(conf)
    (verdict,) = verdicts(host, [setting])
    where = (f"/etc/security/faillock.conf:{place}",) if place else ()
    assert (verdict.ok, verdict.where, bool(verdict.blocked_by)) == (not place, where, bool(place))
    assert not verdict.still_enforced


def test_what_apply_can_do_beside_that_is_done(tmp_path: Path) -> None:
    setting = {**REFUSE, "conf": "/etc/security/faillock.conf", "without": ["admin_group"]}
    host = made(tmp_path, WHOLE.replace(BEFORE, ""))
    (tmp_path / "etc/security").mkdir()
    (tmp_path / "etc/security/faillock.conf").write_text("admin_group=users\n")
    (verdict,) = verdicts(host, [setting])
    assert not verdict.ok
    assert verdict.blocked_by
    assert verdict.still_enforced
