"""`casemate init`: what it writes, what it refuses and in which words, and what it asks."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from casemate.cli import init, main
from casemate.preflight import inputs

ENOUGH = ("--server", "192.0.2.1", "--admin-source", "198.51.100.0/24")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments])


def written(path: str = "hosts.yml") -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load(Path(path).read_text())["all"]
    return made


def test_the_first_message_says_the_next_command() -> None:
    done = run(*ENOUGH, "-o", "my hosts.yml")
    assert (done.exit_code, done.output) == (0, "my hosts.yml is written. Next: casemate apply -i 'my hosts.yml'\n")


def test_hosts_have_the_names_and_addresses_that_were_given() -> None:
    assert run(*ENOUGH, "--server", "db=192.0.2.2", "--server", "192.0.2.3", "--agent", "2001:db8::9,192.0.2.9",
               "--user", "ops").exit_code == 1  # fmt: skip
    assert run(*ENOUGH, "--server", "db=192.0.2.2", "--server", "192.0.2.3", "--agent", "192.0.2.9,2001:db8::9",
               "--user", "ops").exit_code == 0  # fmt: skip
    made = written()
    assert made["vars"] == {"ansible_user": "ops", "casemate_admin_sources": ["198.51.100.0/24"]}
    assert made["children"] == {
        "k3s_server": {
            "hosts": {
                "server1": {"ansible_host": "192.0.2.1"},
                "db": {"ansible_host": "192.0.2.2"},
                "server3": {"ansible_host": "192.0.2.3"},
            }
        },
        "k3s_agent": {"hosts": {"agent1": {"ansible_host": "192.0.2.9", "k3s_node_ip": "192.0.2.9,2001:db8::9"}}},
    }


@pytest.mark.parametrize("name", ["yes", "NULL", "1", "007", "1e3", "2027-03-31", "true", "node1.example.org", "0x1f"])
def test_a_name_stays_a_text(name: str) -> None:
    assert run(*ENOUGH, "--agent", f"{name}=192.0.2.9", "--user", "off").exit_code == 0
    assert list(written()["children"]["k3s_agent"]["hosts"]) == [name]
    assert written()["vars"]["ansible_user"] == "off"


def test_examples_in_comments_are_right() -> None:
    """Each setting that is commented out may be used as it stands."""
    run(*ENOUGH)
    text = re.sub(r"(?m)^    # ( *)(- \{|[A-Z]+-[A-Z-]+: |\w+:( ops)?$)", r"    \1\2", Path("hosts.yml").read_text())
    values = yaml.safe_load(text)["all"]["vars"]
    assert set(values) == {"ansible_user", "casemate_admin_sources", "casemate_waivers", "k3s_firewall_allow"}
    ours = {name: value for name, value in values.items() if name != "ansible_user"}
    assert inputs.input_problems(ours, inputs.known_inputs()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--server is missing"),
        ((), "--admin-source is missing"),
        (("--server", "nowhere"), "--server is 'nowhere'; allowed: an IPv4 or IPv6 address"),
        (("--server", "192.0.2.0/24"), "--server is '192.0.2.0/24'; allowed: an IPv4 or IPv6 address"),
        (("--server", "a="), "--server a is ''; allowed: an IPv4 or IPv6 address"),
        (("--server", ""), "--server is ''; allowed"),
        (("--server", "=192.0.2.1"), "--server has the name ''; allowed: letters, digits"),
        (("--agent", "a_b=192.0.2.9"), "--agent has the name 'a_b'; allowed: letters, digits, dashes and dots"),
        (("--agent", "a b=192.0.2.9"), "--agent has the name 'a b'"),
        (("--agent", "a[1:3]=192.0.2.9"), "--agent has the name 'a[1:3]'"),
        (("--agent", "{{ x }}=192.0.2.9"), "--agent has the name '{{ x }}'"),
        (("--agent", "all=192.0.2.9"), "not all or ungrouped"),
        (("--agent", "a=192.0.2.8", "--agent", "a=192.0.2.9"), "--agent has the name a twice"),
        (("--agent", "server1=192.0.2.9"), "server1 is in both k3s_server and k3s_agent. Leave it in one"),
        (("--agent", "192.0.2.1"), "server1 and agent1 have the same k3s_node_ip, or else ansible_host, 192.0.2.1"),
        (("--agent", "2001:db8::1"), "is 2001:db8::1, IPv6, but the cluster's networks are IPv4"),
        (("--user", "root"), "root may not log in over SSH any more (SSH-ROOT-REFUSED)"),
        (("--user", ""), "--user is ''; allowed: the name of an account"),
        (("--user", "ALL"), "--user is 'ALL'; allowed: the name of an account"),
        (("--user", "ops,root"), "--user is 'ops,root'; allowed: the name of an account"),
        (("--admin-source", "192.0.2.1/24"), "--admin-source is '192.0.2.1/24'; allowed: an address or a network"),
        (("--admin-source", "office"), "--admin-source is 'office'; allowed: an address or a network"),
        (("--admin-source", "0.0.0.0/0"), "casemate_admin_sources has 198.51.100.0/24, 0.0.0.0/0, which is everybody"),
        (("--admin-source", "::/0"), "casemate_admin_sources has ::/0, which is everybody"),
        (("-o", "hosts.txt"), "--output is 'hosts.txt'; allowed: a name that ends in .yml or .yaml"),
        (("-o", "a,b.yml"), "--output is 'a,b.yml'; allowed"),
        (("-o", "nowhere/hosts.yml"), "there is no folder nowhere"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments) if not arguments else run(*ENOUGH, *arguments)
    assert done.exit_code == 1
    assert message in done.output
    assert list(Path().iterdir()) == []


def test_all_problems_are_told_at_once() -> None:
    done = run("--server", "a", "--user", "root", "--admin-source", "b")
    assert [line[:2] for line in done.output.splitlines()[1:]] == ["- "] * 3


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "folder"])
def test_what_is_there_is_never_overwritten(kind: str) -> None:
    there, kept = Path("hosts.yml"), Path("kept")
    if kind == "folder":
        there.mkdir()
    elif kind == "file":
        there.write_text("mine")
    else:
        there.symlink_to(kept)
    if kind == "link":
        kept.write_text("mine")
    done = run(*ENOUGH)
    assert done.exit_code == 1
    assert "hosts.yml is there already. Move it away, or name another file by --output" in done.output
    assert there.is_dir() == (kind == "folder")
    assert there.read_text() == "mine" if kind in ("file", "link") else not kept.exists()


def test_a_file_that_comes_meanwhile_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("hosts.yml").write_text("mine")
    monkeypatch.setattr(init, "file_problems", lambda _: [])
    done = run(*ENOUGH)
    assert done.exit_code == 1
    assert Path("hosts.yml").read_text() == "mine"


def test_an_even_number_of_servers_is_warned_of() -> None:
    done = run(*ENOUGH, "--server", "192.0.2.2")
    assert done.exit_code == 0
    assert "an odd number of servers is better" in done.output


def typed(answers: list[tuple[str, str]], *arguments: str) -> tuple[int, str]:
    """Run the command on a terminal and answer what it asks: (a piece of the question, the answer)."""
    ours, theirs = os.openpty()
    argv = [sys.executable, "-m", "casemate.cli", "init", *arguments]
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        said, seen, until = "", 0, time.monotonic() + 60
        while time.monotonic() < until and select.select([ours], [], [], 60)[0]:
            try:
                said += os.read(ours, 4096).decode()
            except OSError:  # it has ended
                break
            if answers and answers[0][0] in said[seen:]:
                seen = len(said)
                os.write(ours, answers.pop(0)[1].encode())
        if answers:
            process.kill()
    os.close(ours)
    assert answers == [], said
    return process.returncode, said


def test_what_lacks_is_asked_for_on_a_terminal() -> None:
    code, said = typed(
        [
            ("Servers", "nowhere\n"), ("Servers", "192.0.2.1 db=192.0.2.2\n"), ("Agents", "\n"),
            ("Account", "root\n"), ("Account", "ops\n"), ("Networks", "0.0.0.0/0\n"), ("Networks", "192.0.2.7\n"),
            ("Write to [hosts.yml]", "\n"),
        ]
    )  # fmt: skip
    assert code == 0
    for sentence in (
        "allowed: an IPv4",
        "root may not log in",
        "which is everybody",
        "Next: casemate apply -i hosts.yml",
    ):
        assert sentence in said
    assert list(written()["children"]["k3s_server"]["hosts"]) == ["server1", "db"]
    assert written()["vars"] == {"ansible_user": "ops", "casemate_admin_sources": ["192.0.2.7"]}


def test_what_is_given_is_judged_before_anything_is_asked() -> None:
    code, said = typed([], "--user", "root")
    assert code == 1
    assert "root may not log in" in said


def test_an_end_of_the_answers_writes_nothing() -> None:
    assert typed([("Servers", "\x04")])[0] == 1
    assert list(Path().iterdir()) == []
