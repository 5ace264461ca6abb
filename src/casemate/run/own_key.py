"""The public half of the key by which Ansible comes in, which `casemate bootstrap` gives to the account that it makes.

ssh itself is asked which keys it would offer (`ssh -G`), and ssh-keygen for the public half. Nothing of a private key
is kept, shown or sent anywhere.

Sources: ssh_config(5) IdentityFile, IdentityAgent, IdentitiesOnly; ssh-keygen(1) -l, -y; ssh-add(1) -L.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FIX = "name the key in ansible_ssh_private_key_file, or its public half in casemate_automation_key (--public-key FILE)"


class Key(NamedTuple):
    """A public key as one line, its fingerprint, and the file, or agent, that it comes from."""

    line: str
    fingerprint: str
    source: str


class NoKeyError(Exception):
    """No key is known by which Ansible would come in; the message says what to do."""


def public(file: Path) -> Key:
    """The key that stands in a file of public keys; raises NoKeyError where there is not exactly one."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as unread:
        raise NoKeyError(f"{file} cannot be read ({unread.strerror}): {FIX}") from unread
    lines = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) != 1 or not (found := _key(lines[0], str(file))):
        raise NoKeyError(f"{file} is no file with one public key, as ssh-keygen writes it into a file .pub: {FIX}")
    return found


def offered(asked: Sequence[tuple[str, str]], named: str = "") -> Key:
    """The key that ssh would come in with; raises NoKeyError where there is none that can be told.

    `asked` is what `ssh -G` says of the connection, `named` the file that Ansible names besides. A key that is usable
    without asking anybody goes before one that wants a passphrase: nobody is there to type it.
    """
    options = dict(asked)
    held = _agent(options.get("identityagent", ""))
    files = [named] if named else [value for key, value in asked if key == "identityfile"]
    locked = []
    for file in (Path(os.path.expanduser(_plain(one))) for one in files):
        if not file.is_file() and not file.with_name(f"{file.name}.pub").is_file():
            continue
        if found := _of_file(file, held):
            return found
        locked.append(file)
    if held and options.get("identitiesonly") != "yes" and not named:
        return held[0]
    if named and locked:  # whoever names it knows how it is opened
        public_half = locked[0].with_name(f"{locked[0].name}.pub")
        if public_half.is_file():
            return public(public_half)
    if locked:
        shown = ", ".join(map(str, locked))
        raise NoKeyError(f"{shown} cannot be read without a passphrase, and no agent has it: ssh-add it, or {FIX}")
    if named:
        raise NoKeyError(f"ansible_ssh_private_key_file names {named}, where no key is: {FIX}")
    raise NoKeyError(f"ssh has no key, neither in its usual files nor in an agent: make one with ssh-keygen, or {FIX}")


def _of_file(file: Path, held: Sequence[Key]) -> Key | None:
    """The public half of a key that can be used: it needs no passphrase, or an agent holds it."""
    half = file.with_name(f"{file.name}.pub")
    for place in (file, half):  # ssh takes a public key for an IdentityFile, whose private half an agent holds
        try:
            written = public(place) if place.is_file() else None
        except NoKeyError:
            written = None
        if written and any(one.fingerprint == written.fingerprint for one in held):
            return written
    said = _said("ssh-keygen", "-y", "-P", "", "-f", str(file))
    return _key(said.strip(), str(file)) if said else None


def _agent(socket: str) -> list[Key]:
    """The keys of the agent that ssh asks; ssh_config(5) names it by IdentityAgent or leaves it to the environment."""
    environment = dict(os.environ)
    if socket and socket not in ("SSH_AUTH_SOCK", "none"):
        environment["SSH_AUTH_SOCK"] = os.path.expanduser(os.path.expandvars(_plain(socket)))
    if socket == "none" or not environment.get("SSH_AUTH_SOCK"):
        return []
    lines = _said("ssh-add", "-L", environment=environment).splitlines()
    return [found for line in lines if (found := _key(line, "the agent"))]


def _key(line: str, source: str) -> Key | None:
    """A line of a public key; None for anything else, one with options too."""
    said = _said("ssh-keygen", "-l", "-f", "-", stdin=f"{line}\n").split()
    words = line.split()
    begins = words[0].startswith(("ssh-", "ecdsa-", "sk-")) if words else False
    return Key(line, said[1], source) if begins and len(said) > 1 and "\n" not in line else None


def _plain(value: str) -> str:
    return value.strip().strip('"')


def _said(*argv: str, stdin: str = "", environment: dict[str, str] | None = None) -> str:
    """What a program prints, or nothing where it fails."""
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=20, check=False, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""
