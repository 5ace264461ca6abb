"""Attacks on SSH and sudo: root, passwords, people who are not listed, and old cryptography."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from testinfra.host import Host

from .planted import confined, folder

# A second daemon with the machine's own configuration, and a key made for the occasion. Options on a command line come
# first, so the attack can be given everything it needs but the one thing that is on trial.
TRIAL = """
d=$(mktemp -d)
ssh-keygen -q -t ed25519 -N '' -f "$d/key" && cp "$d/key.pub" "$d/keys"
/usr/sbin/sshd -D -e -p "$1" -o ListenAddress=127.0.0.1 -o PidFile=none -o StrictModes=no \
  -o AuthorizedKeysFile="$d/keys" $2 2>"$d/log" & p=$!
i=0; while [ $i -lt 120 ] && kill -0 $p && ! grep -q listening "$d/log"; do sleep 0.3; i=$((i + 1)); done
ssh -q -F none -p "$1" -i "$d/key" -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
  -o UserKnownHostsFile=/dev/null root@127.0.0.1 'echo in' </dev/null
grep -q listening "$d/log" || { echo "did not start"; cat "$d/log" >&2; }
"""
APPROVED = {
    "kex": {"sntrup761x25519-sha512@openssh.com", "curve25519-sha256", "curve25519-sha256@libssh.org"},
    "hostkey": {"ssh-ed25519"},
    "cipher": {"chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-gcm@openssh.com"},
    "mac": {"hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com"},
}


def variables(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = host.backend.get_variables()
    return found


def where(host: Host) -> tuple[str, int]:
    known = variables(host)
    return str(known.get("ansible_host") or known["inventory_hostname"]), int(known.get("ansible_port") or 22)


T = TypeVar("T")


def patiently(attempt: Callable[[], T], turned_away: Callable[[T], bool]) -> T:
    """Try again while sshd does not listen: from OpenSSH 9.8 on it turns an address away that failed too often."""
    end = time.monotonic() + 120
    while turned_away(said := attempt()) and time.monotonic() < end:
        time.sleep(5)
    return said


def ssh(host: Host, user: str, *options: str, command: str = "true", **env: str) -> subprocess.CompletedProcess[str]:
    """A new login from the controller, as the inventory says how."""
    known = variables(host)
    address, port = where(host)
    argv = ["ssh", *options, "-o", "ControlPath=none", "-o", "ConnectTimeout=10", "-p", str(port)]
    argv += shlex.split(str(known.get("ansible_ssh_common_args") or ""))
    if "-i" not in options and known.get("ansible_ssh_private_key_file"):
        argv += ["-i", str(known["ansible_ssh_private_key_file"])]
    run = functools.partial(
        subprocess.run, [*argv, f"{user}@{address}", command], capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL, env={**os.environ, **env},
    )  # fmt: skip
    return patiently(run, lambda said: "kex_exchange_identification" in said.stderr)


def automation(host: Host) -> str:
    """Whom Casemate logs in as: what the inventory names, or else whom this very connection comes as."""
    return str(variables(host).get("casemate_automation_user") or host.check_output('echo "$SUDO_USER"'))


def trial(host: Host, *options: str) -> bool:
    """Whether root gets in by key at a second daemon with the machine's configuration and these options."""
    port = secrets.randbelow(10000) + 20000  # no port that an outgoing connection may have
    done = confined(host, TRIAL, str(port), " ".join("-o " + o for o in options))
    assert "did not start" not in done.stdout, done.stderr
    return "in" in done.stdout.split()


@pytest.mark.control("SSH-ROOT-REFUSED")
def test_root_is_refused_even_with_an_accepted_key(nodes: list[Host]) -> None:
    for host in nodes:
        listed = ["AllowUsers=root"]
        assert trial(host, *listed, "PermitRootLogin=prohibit-password"), "without the control this attack gets in"
        assert not trial(host, *listed)


@pytest.mark.control("SSH-USERS-LISTED")
def test_a_user_who_is_not_listed_is_refused(nodes: list[Host]) -> None:
    for host in nodes:
        allowed = ["PermitRootLogin=prohibit-password"]
        assert trial(host, *allowed, "AllowUsers=root"), "without the control this attack gets in"
        assert not trial(host, *allowed)


@pytest.mark.control(
    "SSH-PASSWORD-REFUSED", "SSH-KEYBOARD-REFUSED", "SSH-HOSTBASED-REFUSED", "SSH-GSSAPI-REFUSED", "SSH-PUBKEY-ACCEPTED"
)
@pytest.mark.parametrize("user", ["", "root", "nobody", "no-such-user"])
def test_nothing_but_a_key_is_asked_for(nodes: list[Host], user: str) -> None:
    for host in nodes:
        said = ssh(host, user or automation(host), "-o", "PreferredAuthentications=none", "-o", "BatchMode=yes")
        assert said.returncode == 255
        assert "Permission denied (publickey)." in said.stderr


@pytest.mark.control("SSH-PASSWORD-REFUSED")
def test_a_person_with_the_right_password_is_refused(nodes: list[Host], tmp_path: Path) -> None:
    for host in nodes:
        known = variables(host)
        if not known.get("lab_person_password_file"):
            pytest.skip("account: this inventory names no account with a password to try")
        ask = tmp_path / "ask"
        ask.write_text(f"#!/bin/sh\ncat {shlex.quote(known['lab_person_password_file'])}\n")
        ask.chmod(0o700)
        only = ["-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "PubkeyAuthentication=no"]
        said = ssh(host, known["lab_person"], *only, SSH_ASKPASS=str(ask), SSH_ASKPASS_REQUIRE="force")
        assert said.returncode == 255
        assert "Permission denied (publickey)." in said.stderr


def exact(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("the daemon hung up")
        data += more
    return data


def first_packet(host: Host) -> bytes:
    """What the daemon sends after its banner (RFC 4253, 6), or nothing where it does not speak to us."""
    with contextlib.suppress(ConnectionError), socket.create_connection(where(host), timeout=10) as connection:
        connection.sendall(b"SSH-2.0-casemate\r\n")
        line = b""
        while not line.startswith(b"SSH-") or not line.endswith(b"\n"):
            line = (b"" if line.endswith(b"\n") else line) + exact(connection, 1)
        return exact(connection, int.from_bytes(exact(connection, 4), "big"))
    return b""


def offered(host: Host) -> dict[str, set[str]]:
    """The algorithms in the daemon's first packet (RFC 4253, 7.1)."""
    body = patiently(lambda: first_packet(host), lambda said: not said)[1 + 1 + 16 :]
    assert body, "the daemon does not speak to the controller"
    lists: list[set[str]] = []
    for _ in range(6):
        length = int.from_bytes(body[:4], "big")
        lists.append(set(body[4 : 4 + length].decode().split(",")))
        body = body[4 + length :]
    return {"kex": lists[0], "hostkey": lists[1], "cipher": lists[2] | lists[3], "mac": lists[4] | lists[5]}


@pytest.mark.control("SSH-KEX-MODERN", "SSH-HOSTKEY-ED25519", "SSH-CIPHERS-MODERN", "SSH-MACS-MODERN")
@pytest.mark.parametrize("family", sorted(APPROVED))
def test_only_modern_algorithms_are_offered(nodes: list[Host], family: str) -> None:
    for host in nodes:
        real = {name for name in offered(host)[family] if not name.startswith(("kex-strict-", "ext-info-"))}
        assert real
        assert real <= APPROVED[family]


@pytest.mark.control("SSH-CIPHERS-MODERN", "SSH-KEX-MODERN", "SSH-HOSTKEY-ED25519")
@pytest.mark.parametrize(
    ("option", "refusal"),
    [
        ("Ciphers=aes256-ctr", "no matching cipher"),
        ("Ciphers=aes128-cbc", "no matching cipher"),
        ("KexAlgorithms=diffie-hellman-group14-sha256", "no matching key exchange"),
        ("KexAlgorithms=ecdh-sha2-nistp256", "no matching key exchange"),
        ("HostKeyAlgorithms=rsa-sha2-512,ecdsa-sha2-nistp256", "no matching host key type"),
    ],
)
def test_a_client_with_old_algorithms_is_refused(nodes: list[Host], option: str, refusal: str) -> None:
    for host in nodes:
        said = ssh(host, automation(host), "-o", option, "-o", "BatchMode=yes")
        assert said.returncode == 255
        assert refusal in said.stderr


@pytest.mark.control("SSH-KEX-MODERN", "SSH-HOSTKEY-ED25519", "SSH-CIPHERS-MODERN", "SSH-MACS-MODERN")
def test_ssh_audit_finds_no_failure_and_at_strict_no_warning(nodes: list[Host]) -> None:
    tool = shutil.which("ssh-audit", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not tool:
        pytest.skip("tool: ssh-audit is not installed on the controller")
    for host in nodes:
        address, port = where(host)
        argv = [tool, "-j", "--skip-rate-test", "-p", str(port), address]
        audit = functools.partial(subprocess.run, argv, capture_output=True, text=True, timeout=60, check=False)
        found = json.loads(patiently(audit, lambda said: '"kex"' not in said.stdout).stdout)
        notes = {
            (a["algorithm"], grade, text)
            for family in ("kex", "key", "enc", "mac")
            for a in found[family]
            for grade in ("fail", "warn")
            for text in a.get("notes", {}).get(grade, [])
        }
        assert any(found[family] for family in ("kex", "key", "enc", "mac"))
        assert not {n for n in notes if n[1] == "fail"}
        expected = "does not provide protection against post-quantum attacks"
        strict = variables(host).get("casemate_level") == "strict"
        assert not {n for n in notes if strict or n[2] != expected}


@pytest.mark.control("SSH-AGENT-REFUSED")
def test_an_agent_is_not_forwarded(nodes: list[Host]) -> None:
    # The agent ends with the command that it was started with.
    begin = ["ssh-agent", "sh", "-c", 'echo "$SSH_AUTH_SOCK"; exec sleep 60']
    with subprocess.Popen(begin, stdout=subprocess.PIPE, text=True) as agent:
        own = agent.stdout.readline().strip() if agent.stdout else ""
        seen = [ssh(host, automation(host), "-A", command="echo sock=$SSH_AUTH_SOCK", SSH_AUTH_SOCK=own)
                for host in nodes]  # fmt: skip
        agent.kill()
    assert own
    assert [said.stdout.strip() for said in seen] == ["sock="] * len(nodes)


@pytest.mark.control("SSH-BANNER-SHOWN")
def test_the_banner_comes_before_the_login(nodes: list[Host]) -> None:
    for host in nodes:
        banner = host.file("/etc/issue.net").content_string.strip()
        said = ssh(host, "no-such-user", "-o", "BatchMode=yes", "-o", "LogLevel=INFO")
        assert banner
        assert " ".join(banner.split()) in " ".join(said.stderr.split())


@pytest.mark.control("SSH-TRIES-LIMITED")
def test_guessing_ends_the_connection(nodes: list[Host], tmp_path: Path) -> None:
    keys: list[str] = []
    for number in range(8):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / f"k{number}"], check=True)
        keys += ["-i", str(tmp_path / f"k{number}")]
    for host in nodes:
        said = ssh(host, automation(host), *keys, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes")
        assert "Too many authentication failures" in said.stderr


@pytest.mark.control("SSH-HOSTKEYS-PRIVATE", "SSH-CONFIG-PRIVATE", "SSH-DROPINS-PRIVATE", "SUDO-FILE-PRIVATE",
                     "SUDO-DROPINS-PRIVATE", "SUDO-FOLDER-PRIVATE")  # fmt: skip
@pytest.mark.parametrize(
    "path",
    [
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/ssh/sshd_config",
        "/etc/ssh/sshd_config.d/00-casemate.conf",
        "/etc/sudoers",
        "/etc/sudoers.d/00-casemate",
    ],
)
def test_an_ordinary_user_reads_nothing_that_guards_the_door(nodes: list[Host], path: str) -> None:
    for host in nodes:
        assert host.file(path).exists
        assert host.run(f"setpriv --reuid=65534 --regid=65534 --clear-groups cat {path}").rc != 0


@pytest.mark.control("SUDO-COMMANDS-RECORDED")
def test_a_command_by_sudo_leaves_a_line(nodes: list[Host]) -> None:
    for host in nodes:
        marker = f"casemate-{secrets.token_hex(8)}"
        host.run(f"sudo -n /bin/echo {marker}")
        assert marker in host.file("/var/log/sudo.log").content_string


@pytest.mark.control("SSH-DAEMON-CURRENT")
def test_the_running_daemon_has_the_settings_of_its_files(nodes: list[Host]) -> None:
    """What the daemon offers on the wire is what its files say now."""
    for host in nodes:
        shown = dict(line.split(" ", 1) for line in host.check_output("/usr/sbin/sshd -T").splitlines() if " " in line)
        live = offered(host)
        assert live["cipher"] == set(shown["ciphers"].split(","))
        assert live["mac"] == set(shown["macs"].split(","))
        assert set(shown["kexalgorithms"].split(",")) == {
            name for name in live["kex"] if not name.startswith(("kex-strict-", "ext-info-"))
        }


@pytest.mark.control("HOME-FOLDERS-PRIVATE")
def test_a_stranger_reads_no_home(nodes: list[Host]) -> None:
    """Root's, and that of everybody who logs in but the automation, whose home is left as it was given."""
    stranger = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    for host in nodes:
        with folder(host, "755") as home:
            host.check_output(f"touch {home}/kubeconfig")
            assert "kubeconfig" in host.run(f"{stranger} ls -A {home}").stdout, "without it this attack reads a home"
        accounts = [line.split(":") for line in host.check_output("getent passwd").splitlines()]
        people = [one[5] for one in accounts if 1000 <= int(one[2]) < 65534 and one[6].endswith("sh")]
        ours = next(one[5] for one in accounts if one[0] == automation(host))
        for home in ["/root", *(home for home in people if home != ours)]:
            assert host.run(f"{stranger} ls -A {shlex.quote(home)}").rc != 0, home
