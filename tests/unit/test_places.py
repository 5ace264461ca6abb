"""A finding that apply leaves as it is names the file and line in which a person heals it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.formats.sshd_files import decider, given_by, unreported
from module_utils.casemate.formats.sudoers import places, written
from module_utils.casemate.kinds import account

MAIN = "# %old ALL = NOPASSWD: ALL\nroot ALL=(ALL) ALL\n"
MAIN += "User_Alias PLAY = games, \\\n  sync\n@includedir sudoers.d\n@include /etc/more\n"
SUDOERS = {
    "/etc/sudoers": MAIN,
    "/etc/sudoers.d/90-games": "Defaults !lecture\n\ngames ALL=(ALL) \\\n  NOPASSWD: ALL\n",
    "/etc/sudoers.d/95-sync": "sync ALL=(ALL) NOPASSWD: ALL\n",
    "/etc/sudoers.d/skipped.bak": "games ALL=(ALL) NOPASSWD: ALL\n",
    "/etc/sudoers.d/skipped~": "games ALL=(ALL) NOPASSWD: ALL\n",
    "/etc/more": "PLAY ALL = NOPASSWD: /bin/ls\n#include /etc/sudoers\n",
}
NOPASSWD = r"\bNOPASSWD\b"


@pytest.mark.parametrize(
    ("whom", "where"),
    [
        (["games"], "/etc/sudoers.d/90-games:3"),
        (["sync"], "/etc/sudoers.d/95-sync:1"),
        (["games", "sync"], "/etc/sudoers.d/90-games:3, /etc/sudoers.d/95-sync:1"),
        (["another"], "/etc/sudoers.d/90-games:3, /etc/sudoers.d/95-sync:1, /etc/more:1"),
    ],
)
def test_a_rule_of_sudo_is_told_by_file_and_line(tmp_path: Path, whom: list[str], where: str) -> None:
    files = {**SUDOERS, "/etc/more": SUDOERS["/etc/more"].replace("#include /etc/sudoers\n", "")}
    assert places(written(FakeHost(tmp_path, files), "/etc/sudoers"), NOPASSWD, whom) == where.split(", ")


def test_a_uid_begins_no_comment(tmp_path: Path) -> None:
    lines = "# 2001 is gone\n#2001 ALL=(ALL) NOPASSWD: ALL\n"
    assert places(written(FakeHost(tmp_path, {"/etc/sudoers": lines}), "/etc/sudoers"), NOPASSWD, ["#2001"]) == [
        "/etc/sudoers:2"
    ]


def test_files_that_include_each_other_end(tmp_path: Path) -> None:
    assert len(written(FakeHost(tmp_path, SUDOERS), "/etc/sudoers")) < 500


def test_who_needs_no_password_is_told_with_the_line_and_the_remedy(tmp_path: Path) -> None:
    policy = {
        "User_Specs": [
            {
                "User_List": [{"username": "games"}],
                "Cmnd_Specs": [{"Options": [{"authenticate": False}], "Commands": [{"command": "ALL"}]}],
            }
        ]
    }
    passwd = {"/etc/passwd": "root:x:0:0::/root:/bin/bash\n", "/etc/shadow": "root:*:1::::::\n"}
    host = FakeHost(tmp_path, {**SUDOERS, **passwd}, {"cvtsudoers": (0, json.dumps(policy), "")})
    setting: Any = {"check": "nopasswd_sudo", "allow": []}
    verdict = account.assess(setting, account.observe([setting], host)[0])
    assert not verdict.ok
    assert "games may use sudo without a password" in verdict.reason
    assert "remove that from /etc/sudoers.d/90-games:3" in verdict.reason


UNIT = (
    "ActiveState=active\nMainPID=7\nFragmentPath=/lib/systemd/system/ssh.service\n"
    "DropInPaths=/etc/systemd/system/ssh.service.d/x.conf\nEnvironmentFiles=/etc/default/ssh (ignore_errors=yes)\n"
    "ExecStart={ path=/usr/sbin/sshd ; argv[]=/usr/sbin/sshd -D $SSHD_OPTS ; ignore_errors=no }\n"
)


@pytest.mark.parametrize(
    ("files", "option", "source"),
    [
        (
            {"/etc/default/ssh": 'SSHD_OPTS="-o PermitRootLogin=yes"\n'},
            ("-o", "PermitRootLogin=yes"),
            "/etc/default/ssh",
        ),
        ({"/etc/default/ssh": "SSHD_OPTS=-oPermitRootLogin=yes\n#-p 9\n"}, ("-p", "9"), ""),
        ({"/etc/default/ssh": "SSHD_OPTS='-p 2222'\n"}, ("-p", "2222"), "/etc/default/ssh"),
        (
            {"/etc/systemd/system/ssh.service.d/x.conf": "[Service]\nExecStart=/usr/sbin/sshd -D -o 'UsePAM no'\n"},
            ("-o", "UsePAM no"),
            "/etc/systemd/system/ssh.service.d/x.conf",
        ),
        ({}, ("-o", "UsePAM no"), ""),
    ],
)
def test_an_option_of_sshd_is_told_with_the_file_that_gives_it(
    tmp_path: Path, files: dict[str, str], option: tuple[str, str], source: str
) -> None:
    host = FakeHost(tmp_path, files, {"systemctl show ssh.service": (0, UNIT, "")})
    ending = f", given by {source}" if source else ""
    assert given_by(host, (option,)) == ending
    assert unreported(host, {"next start": (option,)}, set()) == [
        f"{' '.join(option)} on the command line of the next start{ending}"
    ]
    key = option[1].split("=")[0].split(" ")[0].lower()
    if option[0] == "-o":
        assert decider(host, key, (), "next start", (option,), []).endswith(f"({' '.join(option)}){ending}")
