"""Which host keys this controller knows: ssh itself says for each kind of entry whether we judged as it does."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from casemate.run import known_hosts

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILzyZAnJ/26WOWES8WW7WCA7c+/tMQG0o51zHL8wQRv9"
ANOTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJXHEUbOz3yfuLzHMpxKX5fkk9uRWmC5RrKpQIAkiQyd"
ECDSA = (
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBM6hejQYlLQZnm3XuXn+5UCQsDy5lSBaiYeeTyAl"
    "nWnhnsEiZj9kfqNuO4mEaEWt8JIeAQv8EWoCCIJW59XjXxo="
)
PORT, ALIAS = ("-o", "Port=2222"), ("-o", "HostKeyAlias=node1")
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], bool, str | None]] = {
    "nothing": ((), (), False, "node.example"),
    "the key": ((f"node.example {ED25519}",), (), False, None),
    "the key, hashed": ((f"node.example {ED25519}",), (), True, None),
    "another type": ((f"node.example {ECDSA}",), (), False, "node.example"),
    "another type, hashed": ((f"node.example {ECDSA}",), (), True, "node.example"),
    "the key of another host": ((f"other.example {ED25519}",), (), True, "node.example"),
    "both types": ((f"node.example {ECDSA}", f"node.example {ED25519}"), (), True, None),
    "a pattern": ((f"*.example {ED25519}",), (), False, None),
    "a pattern that leaves it out": ((f"*.example,!node.example {ED25519}",), (), False, "node.example"),
    "a list of names": ((f"node,node.example,192.0.2.7 {ED25519}",), (), False, None),
    "another port": ((f"[node.example]:2222 {ED25519}",), PORT, False, None),
    "another port, hashed": ((f"[node.example]:2222 {ED25519}",), PORT, True, None),
    "the usual port's key on another port": ((f"node.example {ED25519}",), PORT, False, None),
    "another port's key on the usual port": ((f"[node.example]:2222 {ED25519}",), (), False, "node.example"),
    "nothing on another port": ((f"[node.example]:2222 {ECDSA}",), PORT, False, "[node.example]:2222"),
    "an alias": ((f"node1 {ED25519}",), ALIAS, False, None),
    "an alias on another port": ((f"node1 {ED25519}",), (*ALIAS, *PORT), False, None),
    "an alias that is not known": ((f"node.example {ED25519}",), ALIAS, False, "node1"),
    "an authority": ((f"@cert-authority *.example {ANOTHER}",), (), False, "node.example"),
    "the key as an authority only": ((f"@cert-authority *.example {ED25519}",), (), False, "node.example"),
    "a revoked key beside": ((f"@revoked * {ANOTHER}", f"node.example {ED25519}"), (), False, None),
    "accept-new": ((), ("-o", "StrictHostKeyChecking=accept-new"), False, None),
    "no checking": ((), ("-o", "StrictHostKeyChecking=no"), False, None),
    "off": ((), ("-o", "StrictHostKeyChecking=off"), False, None),
    "asked": ((), ("-o", "StrictHostKeyChecking=ask"), False, "node.example"),
    "checked": ((), ("-o", "StrictHostKeyChecking=yes"), False, "node.example"),
}


def asked(file: Path, options: tuple[str, ...] = ()) -> dict[str, str]:
    argv = ["ssh", "-F", "none", "-o", f"UserKnownHostsFile={file}", "-o", "GlobalKnownHostsFile=/dev/null", *options]
    said = subprocess.run([*argv, "-G", "node.example"], capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)


@pytest.mark.parametrize("case", CASES)
def test_a_key_is_known_as_ssh_knows_it(tmp_path: Path, case: str) -> None:
    lines, options, hashed, name = CASES[case]
    file = tmp_path / "known"
    file.write_text("".join(f"{line}\n" for line in lines))
    if hashed:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
        assert "example" not in file.read_text()
    found = known_hosts.unknown(asked(file, options), [ED25519])
    assert (found and found.line) == (name and f"{name} {ED25519}")


def test_what_is_given_to_ssh_is_one_more_known_key_and_loosens_nothing(tmp_path: Path) -> None:
    file = tmp_path / "known"
    found = known_hosts.unknown(asked(file), [ECDSA, ED25519])
    assert found is not None
    before, after = asked(file), asked(file, tuple(shlex.split(found.arguments)))
    assert after.pop("knownhostscommand") == f"/bin/echo %H {ED25519}"
    assert after == before
    assert found.file == str(file)


def test_a_host_that_shows_no_key_asks_for_nothing(tmp_path: Path) -> None:
    assert known_hosts.unknown(asked(tmp_path / "known"), []) is None
    assert known_hosts.unknown({}, []) is None
