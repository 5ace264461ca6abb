"""Whether PAM lets in somebody who cannot prove who they are, by the order in which it really asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.formats import pam_profiles
from module_utils.casemate.kinds import pam_stack
from module_utils.casemate.kinds.pam_stack import KIND

COMMON = """\
auth\t[success=1 default=ignore]\tpam_unix.so nullok
auth\trequisite\t\t\tpam_deny.so
auth\trequired\t\t\tpam_permit.so
auth\toptional\t\t\tpam_cap.so
"""
OPEN = "auth sufficient pam_permit.so\n"
SSHD = "# login\n@include common-auth\naccount required pam_nologin.so\n"


def admits(tmp_path: Path, files: dict[str, str], facility: str = "auth") -> dict[str, str]:
    setting: Any = {"facility": facility, "known": []}
    elsewhere = {"/etc/security/open": OPEN}
    host = FakeHost(tmp_path, {**elsewhere, **{f"/etc/pam.d/{name}": text for name, text in files.items()}})
    (seen,) = pam_stack.observe([setting], host)
    verdict = KIND.assess(setting, seen)
    assert verdict.ok == (not seen["admits"])
    assert set(verdict.where) == set(seen["admits"].values())
    found: dict[str, str] = seen["admits"]
    return found


def test_what_debian_ships_refuses(tmp_path: Path) -> None:
    assert admits(tmp_path, {"sshd": SSHD, "common-auth": COMMON}) == {}


@pytest.mark.parametrize(
    ("line", "admitted"),
    [
        ("auth sufficient pam_permit.so", True),
        ("auth\tsufficient\t/lib/security/pam_permit.so", True),
        ("AUTH sufficient pam_permit.so", True),
        ("-auth sufficient pam_permit.so", True),
        ("auth [success=done default=ignore] pam_permit.so", True),
        ("auth [default=done] pam_permit.so", True),
        ("auth [success=2 default=ignore] pam_permit.so", True),  # over pam_unix and pam_deny
        ("auth suffi\\\ncient pam_permit.so", False),  # the backslash is a space
        ("auth sufficient \\\npam_permit.so", True),
        ("auth sufficient pam_succeed_if.so user ingroup staff", True),
        ("auth sufficient pam_exec.so /usr/local/bin/ask", True),
        ("auth sufficient pam_wheel.so trust", True),
        ("auth sufficient pam_wheel.so", False),
        ("auth sufficient pam_rootok.so", False),
        ("auth required pam_permit.so", False),  # pam_deny still follows
        ("auth optional pam_permit.so", False),
        ("auth required pam_faillock.so preauth", False),
        ("account sufficient pam_permit.so", False),
        ("# auth sufficient pam_permit.so", False),
        ("auth include /etc/security/open", True),  # whatever its place
        ("@include /etc/security/open", True),
        ("auth Include /etc/security/open", True),  # in any case
        ("auth SUBSTACK /etc/security/open", False),  # what it decides ends no more than itself: pam_deny still follows
        ("auth sufficient pam_unix.so", False),
    ],
)
def test_a_line_before_the_others(tmp_path: Path, line: str, admitted: bool) -> None:
    found = admits(tmp_path, {"sudo": "@include common-auth\n", "common-auth": f"{line}\n{COMMON}"})
    assert bool(found) == admitted
    assert "sudo" in found or not admitted


def test_the_line_is_named_that_lets_in(tmp_path: Path) -> None:
    found = admits(
        tmp_path, {"sshd": "#%PAM\nauth include other-auth\n", "other-auth": "\nauth required pam_permit.so\n"}
    )
    assert found == {"other-auth": "/etc/pam.d/other-auth:2", "sshd": "/etc/pam.d/other-auth:2"}


def test_what_ends_a_substack_ends_only_it(tmp_path: Path) -> None:
    inner = "auth sufficient pam_permit.so\n"
    whole = "auth {} inner\nauth required pam_unix.so\n"
    assert "x" in admits(tmp_path / "1", {"x": whole.format("include"), "inner": inner})
    assert "x" not in admits(tmp_path / "2", {"x": whole.format("substack"), "inner": inner})


def test_a_loop_ends(tmp_path: Path) -> None:
    assert admits(tmp_path, {"a": "@include b\n", "b": "@include a\n"}) == {}


def test_an_ended_account(tmp_path: Path) -> None:
    account = "account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\naccount requisite pam_deny.so\n"
    whole = account + "account required pam_permit.so\n"
    assert admits(tmp_path / "1", {"common-account": whole}, "account") == {}
    assert admits(tmp_path / "2", {"common-account": f"account sufficient pam_localuser.so\n{whole}"}, "account")


def test_lines_of_no_profile_are_strangers(tmp_path: Path) -> None:
    host = FakeHost(
        tmp_path,
        {
            "/usr/share/pam/common-auth": "$auth_primary\nauth\trequisite\tpam_deny.so\n",
            "/usr/share/pam-configs/unix": "Name: x\nAuth:\n\t[success=end default=ignore]\tpam_unix.so nullok\n",
            "/etc/pam.d/common-auth": "# here\nauth [success=1 default=ignore] pam_unix.so nullok\n"
            "auth [default=1] pam_permit.so\nauth requisite pam_deny.so\n"
            "auth required pam_exec.so expose_authtok /tmp/log\nauth [success=1 default=ignore] pam_unix.so\n",
        },
    )
    assert pam_profiles.strangers("/etc/pam.d/common-auth", host) == [
        "line 5 (auth required pam_exec.so expose_authtok /tmp/log)",
        "line 6 (auth [success=1 default=ignore] pam_unix.so)",
    ]
