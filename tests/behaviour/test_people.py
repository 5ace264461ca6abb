"""Attacks on what people are declared with: keys of one's own, accounts that were revoked, sudo that nobody gave."""

from __future__ import annotations

import re
import secrets
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from .planted import confined, planted
from .test_access import ssh, variables

# A second daemon that asks PAM and nobody else: a configuration of its own, and a key made for the occasion that it
# takes for everybody.
DOOR = """
d=$(mktemp -d) && chmod 755 "$d"
ssh-keygen -q -t ed25519 -N '' -f "$d/key" && cp "$d/key.pub" "$d/keys" && chmod 644 "$d/keys"
printf '%s\\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'ListenAddress 127.0.0.1' 'PidFile none' 'StrictModes no' \
  'UsePAM yes' 'PasswordAuthentication no' 'KbdInteractiveAuthentication no' "AuthorizedKeysFile $d/keys" >"$d/conf"
/usr/sbin/sshd -D -e -f "$d/conf" -p "$1" 2>"$d/log" & p=$!
i=0; while [ $i -lt 120 ] && kill -0 $p && ! grep -q listening "$d/log"; do sleep 0.3; i=$((i + 1)); done
ssh -q -F none -p "$1" -i "$d/key" -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
  -o UserKnownHostsFile=/dev/null "$2@127.0.0.1" 'echo in' </dev/null
grep -q listening "$d/log" || { echo "did not start"; cat "$d/log" >&2; }
"""

REFUSED = re.compile(r"Permission denied \(keyboard-interactive\)\.|Too many authentication failures")

# A second daemon with the files of the first one, which takes one key more from everybody: what else it asks counts.
OWN_DOOR = """
d=$(mktemp -d) && chmod 755 "$d"
ssh-keygen -q -t ed25519 -N '' -f "$d/key" && cp "$d/key.pub" "$d/keys" && chmod 644 "$d/keys"
/usr/sbin/sshd -D -e -p "$1" -o ListenAddress=127.0.0.1 -o PidFile=none \
  -o "AuthorizedKeysCommand=/usr/bin/cat $d/keys" -o AuthorizedKeysCommandUser=nobody 2>"$d/log" & p=$!
i=0; while [ $i -lt 120 ] && kill -0 $p && ! grep -q listening "$d/log"; do sleep 0.3; i=$((i + 1)); done
printf '#!/bin/sh\necho 000000\n' >"$d/ask"; chmod 755 "$d/ask"
SSH_ASKPASS="$d/ask" SSH_ASKPASS_REQUIRE=force ssh -F none -p "$1" -i "$d/key" -o IdentitiesOnly=yes \
  -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o "BatchMode=$3" "$2@127.0.0.1" 'echo in' </dev/null
grep -q listening "$d/log" || { echo "did not start"; cat "$d/log" >&2; }
"""


def people(host: Host, state: str) -> list[dict[str, Any]]:
    """Who is declared so and has an account on this host."""
    declared = variables(host).get("casemate_people") or []
    chosen = [one for one in declared if one.get("state", "present") == state]
    return [one for one in chosen if host.user(one["name"]).exists]


def admits(host: Host, name: str) -> bool:
    """Whether an account gets in where a right key is all that lacks."""
    port = secrets.randbelow(10000) + 20000
    done = confined(host, DOOR, str(port), name)
    assert "did not start" not in done.stdout, done.stderr
    return "in" in done.stdout.split()


def at_own_door(host: Host, name: str, asked: bool) -> str:
    """What ssh says where a right key is there, and a wrong code for whoever asks for one, or nothing."""
    port = secrets.randbelow(10000) + 20000
    done = confined(host, OWN_DOOR, str(port), name, "no" if asked else "yes")
    assert "did not start" not in done.stdout, done.stderr
    return f"{done.stdout}{done.stderr}"


def each(nodes: list[Host], state: str) -> list[tuple[Host, dict[str, Any]]]:
    """All of them on all hosts; where nobody is declared there is nobody to attack."""
    found = [(host, one) for host in nodes for one in people(host, state)]
    if not found:
        pytest.skip(f"people: this inventory declares nobody who is {state}")
    return found


@pytest.mark.control("SSH-KEYFILES-DECLARED", "PEOPLE-KEYS-DECLARED")
def test_a_key_that_is_written_into_a_home_lets_nobody_in(nodes: list[Host], tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = key.with_suffix(".pub").read_text().strip()
    for host, person in each(nodes, "present"):
        home = host.user(person["name"]).home
        place = f"{home}/.ssh/authorized_keys2"
        if host.file(place).exists:
            continue
        made = "" if host.file(f"{home}/.ssh").exists else f"; rmdir {home}/.ssh || [ ! -e {home}/.ssh ]"
        as_person = f"runuser -u {person['name']} -- sh -c "
        write = f"mkdir -p -m 700 {home}/.ssh; umask 077; echo {shlex.quote(public)} >{place}"
        with planted(host, as_person + shlex.quote(write), as_person + shlex.quote(f"rm -f {place}{made}")):
            said = ssh(host, person["name"], "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes")
        assert said.returncode == 255
        assert "Permission denied (publickey)." in said.stderr


@pytest.mark.control("PEOPLE-CODE-ASKED", "TOTP-CODE-ASKED", "PEOPLE-SECRETS-DECLARED", "SSH-KEYBOARD-REFUSED")
def test_the_key_of_who_needs_a_code_is_not_enough(nodes: list[Host]) -> None:
    chosen = [(host, one) for host, one in each(nodes, "present") if one.get("second_factor") == "totp"]
    if not chosen:
        pytest.skip("people: this inventory declares nobody who needs a code")
    for host, person in chosen:
        others = [one["name"] for one in people(host, "present") if one.get("second_factor", "none") == "none"]
        for name in others[:1]:
            said = at_own_door(host, name, asked=True)
            assert "in" in said.split(), f"a key is enough for {name}, so this door is one: {said}"
        for asked in (False, True):
            said = at_own_door(host, person["name"], asked)
            assert "in" not in said.split()
            assert REFUSED.search(said), said


@pytest.mark.control("PEOPLE-REVOKED-LOCKED", "PAM-ACCOUNT-ASKED")
def test_who_is_revoked_is_refused_even_with_an_accepted_key(nodes: list[Host]) -> None:
    each(nodes, "revoked")
    for host in nodes:
        for person in people(host, "present")[:1]:
            assert admits(host, person["name"]), "without the control this attack gets in"
        for person in people(host, "revoked"):
            assert not admits(host, person["name"])


@pytest.mark.control("PEOPLE-SESSIONS-ENDED")
def test_nothing_runs_for_who_is_revoked(nodes: list[Host]) -> None:
    for host, person in each(nodes, "revoked"):
        assert host.run("ps -o pid= -U %s", person["name"]).stdout.strip() == ""


@pytest.mark.control("PEOPLE-SUDO-DECLARED", "PEOPLE-GROUPS-DECLARED", "SUDO-RULES-DECLARED")
def test_people_become_root_as_it_is_declared_and_not_otherwise(nodes: list[Host]) -> None:
    for host, person in each(nodes, "present"):
        became = host.run("runuser -u %s -- env LC_ALL=C sudo -n id -u", person["name"])
        asked = {"with_password": "password is required", "without_password": ""}
        if person.get("sudo", "none") == "none":
            assert became.rc != 0
            assert "not allowed" in host.run("env LC_ALL=C sudo -l -U %s", person["name"]).stdout
        else:
            assert asked[person["sudo"]] in became.stderr
            assert (became.stdout.strip() == "0") is (person["sudo"] == "without_password")
