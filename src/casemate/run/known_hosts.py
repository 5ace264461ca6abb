"""Which of a host's keys this controller knows, as ssh looks them up, and how a run goes on where it knows none.

Once sshd proves a host by another key than before, the next login fails on controllers that know the old one only.
The new key was read over a connection that the old one proved, so it can be trusted as much; a run gives it to ssh for
this host's connections (KnownHostsCommand, which adds to the operator's files and loosens nothing), and says which line
the operator has to add.

Source: ssh_config(5); sshd(8), SSH_KNOWN_HOSTS FILE FORMAT; ssh looks for [host]:port first and for the host then.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WITHOUT_ASKING = ("false", "off", "no", "accept-new")
"""Values of StrictHostKeyChecking with which ssh takes a key that it does not know by itself."""


class Unknown(NamedTuple):
    """The arguments by which ssh accepts a host's new key, and the line of known_hosts that lacks."""

    arguments: str
    line: str
    file: str


def unknown(asked: Mapping[str, str], keys: Sequence[str]) -> Unknown | None:
    """What to do for a host with these keys (`type base64`); None where ssh knows one of them, or accepts any.

    `asked` is what `ssh -G` says of the connection.
    """
    if not keys or not asked or asked.get("stricthostkeychecking") in WITHOUT_ASKING:
        return None
    name, port = asked.get("hostkeyalias") or asked.get("hostname", ""), asked.get("port", "22")
    names = [name] if port == "22" or asked.get("hostkeyalias") else [f"[{name}]:{port}", name]
    own = shlex.split(asked.get("userknownhostsfile", ""))
    files = [*own, *shlex.split(asked.get("globalknownhostsfile", ""))]
    lines = [line for file in files for one in names for line in listed(file, one)]
    if any(" ".join(words[:2]) in keys for marker, words in lines if not marker):
        return None
    key = min(keys, key=lambda one: not one.startswith("ssh-ed25519 "))
    given = f"KnownHostsCommand=/bin/echo %H {key}"
    return Unknown(f"-o {shlex.quote(given)}", f"{names[0]} {key}", own[0] if own else "~/.ssh/known_hosts")


def listed(file: str, name: str) -> list[tuple[str, list[str]]]:
    """The entries of a file for a name, hashed ones and patterns too: marker (@cert-authority, @revoked), key."""
    argv = ["ssh-keygen", "-F", name, "-f", file]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    entries = [line.split() for line in done.stdout.splitlines() if line.strip() and not line.startswith("#")]
    return [(words[0], words[2:]) if words[0].startswith("@") else ("", words[1:]) for words in entries]
