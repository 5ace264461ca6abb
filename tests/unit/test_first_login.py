"""The first login: who is tried, what a host that was just handed over answers, and what people are told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from casemate.preflight import first_login, host_facts

ANSWER = "Last login: today\ncasemate:uid=0\ncasemate:os=debian 12\n"
OF_CLOUD_INIT = 'Please login as the user "debian" rather than the user "root".\n\n'


def test_the_refusal_of_root_names_the_command_that_makes_another_account() -> None:
    (said,) = host_facts.login_problems("root", "root", [], False)
    assert "casemate bootstrap -i hosts.yml" in said
    assert "ansible_user" in said


@pytest.mark.parametrize("name", ["ops", "john.doe", "j_d-1", "OPS", "_x", "debian"])
def test_names_that_useradd_of_debian_takes_are_right(name: str) -> None:
    assert first_login.account_problems(name) == []


@pytest.mark.parametrize(
    "name", ["root", "-x", ".x", "a b", "a:b", "a,b", "a/b", "+a", "~a", "1000", "ALL", "", "a" * 33]
)
def test_other_names_are_refused_with_what_to_do(name: str) -> None:
    (said,) = first_login.account_problems(name)
    assert "ansible_user in the inventory" in said


@pytest.mark.parametrize(
    ("given", "connecting", "account", "first"),
    [
        ("", "ops", "ops", "root"),
        ("debian", "ops", "ops", "debian"),
        ("", "debian", "ops", "debian"),  # ansible_user: debian, casemate_automation_user: ops
        ("root", "debian", "ops", "root"),
    ],
)
def test_who_is_tried_first(given: str, connecting: str, account: str, first: str) -> None:
    assert first_login.first(given, connecting, account) == first


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (ANSWER, ""),
        (OF_CLOUD_INIT, "casemate bootstrap --first-user debian"),
        ("This account is currently not available.\n", "This account is currently not available."),
        ("", "who hears: nothing"),
        ("WARNING: Your password has expired.\nPassword change required but no TTY available.\n", "ssh debian@HOST"),
        ("You are required to change your password immediately (administrator enforced).\n", "has to be changed there"),
        (OF_CLOUD_INIT.replace("debian", "NONE"), "the image has made nobody else"),
        ("casemate:uid=1000\n", "debian does not become root there: give it sudo with NOPASSWD"),
    ],
)
def test_what_leads_nowhere_is_refused_with_the_way_out(said: str, told: str) -> None:
    found = first_login.problems(said, "debian")
    assert (told in found[0]) if told else found == []


def test_what_lacks_is_known_by_the_probe_itself() -> None:
    """It is run by a shell that finds no program of its own."""
    argv = ["/bin/sh", "-c", f"PATH=/nonexistent; {first_login.PROBE}"]
    bare = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert first_login.missing(bare.stdout) == ["python3", "sudo"]
    assert first_login.missing(ANSWER) == []


def test_packages_are_installed_through_the_proxy_quoted() -> None:
    made = first_login.script(["sudo"], {"http_proxy": "http://proxy.example.org:3128/; reboot"})
    assert "http_proxy='http://proxy.example.org:3128/; reboot'; export http_proxy;" in made
    assert made.endswith("install sudo")
    assert "DPkg::Lock::Timeout" in made
    assert subprocess.run(["/bin/sh", "-n", "-c", made], check=False).returncode == 0


def test_who_comes_in_as_nobody_reads_both_reasons() -> None:
    words = [f"{name}@192.0.2.1: Permission denied (publickey)." for name in ("ops", "root")]
    said = first_login.nobody("ops", words[0], "root", words[1])
    assert "neither ops nor root comes in" in said
    assert "root@192.0.2.1: Permission denied" in said
    assert "--first-user ACCOUNT" in said
    down = first_login.nobody("ops", "No route to host", "root", "No route to host")
    assert down.count("No route") == 1
    assert "--first-user" not in down


def test_whoever_would_not_get_in_is_told_why() -> None:
    after = {
        "allowusers": "root", "authorizedkeysfile": ".ssh/authorized_keys", "pubkeyauthentication": "yes",
        "usepam": "yes",
    }  # fmt: skip
    seen = {
        "account": "ops", "address": "192.0.2.7", "groups": ["ops"], "now": after, "after": after, "nologin": [],
        "files": {"now": {}, "after": {"/home/ops/.ssh/authorized_keys": {"keys": ["SHA256:x"], "unsafe": ""}}},
        "accepted": {"method": "password", "account": "root"}, "expired": False,
        "pam": {"code": 0, "said": "", "modules": []},
    }  # fmt: skip
    (said,) = first_login.made_problems(seen)
    assert "AllowUsers root" in said
    assert first_login.made_problems({**seen, "after": {**after, "allowusers": ""}}) == []


def test_another_apt_is_waited_for_and_nothing_else(tmp_path: Path) -> None:
    """A machine that boots for the first time updates itself; a source that does not answer is none of that."""
    for name, text in {
        "apt-get": 'echo "$*" >>"$0.said"; [ -e "$0.free" ] || { touch "$0.free"; echo "E: $PROBLEM"; exit 100; }',
        "sleep": "true",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = first_login.script(["sudo"], {})
    for problem, updates in (("Could not get lock /var/lib/apt/lists/lock. It is held by 7", 2), ("no network", 1)):
        for left in tmp_path.glob("apt-get.*"):
            left.unlink()
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PROBLEM": problem}
        subprocess.run(["/bin/sh", "-c", script], env=environment, check=True, timeout=60)
        said = (tmp_path / "apt-get.said").read_text().splitlines()
        assert [line for line in said if line.endswith("update")] == ["--quiet=2 update"] * updates
        assert said[-1].endswith("install sudo")
