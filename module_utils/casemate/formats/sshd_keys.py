"""The host keys that a control declares: whether sshd can load them, and how the missing one is made.

Source: sshd(8), HostKey: a key that anybody else can read is refused; ssh-keygen(1).
"""

from __future__ import annotations

import fnmatch
import re
import tempfile
from collections.abc import Iterable

from ..host.machine import EnforceError, Host


def state(host: Host, paths: list[str]) -> dict[str, str]:
    """What is wrong with the declared host keys (`keys`), and what of that apply cannot heal (`stuck`)."""
    faults, makes = {path: fault(host, path) for path in paths}, to_make(host, paths)
    stuck = (host.barred(path) if path in makes else said for path, said in faults.items())
    return {"keys": "; ".join(filter(None, faults.values())), "stuck": "; ".join(filter(None, stuck))}


def fault(host: Host, path: str) -> str:
    """What is wrong with a host key; empty where sshd can load it, or a control of its mode tells why not."""
    if lacks(host, path):
        return f"there is no {path}"
    if any(fnmatch.fnmatchcase(path, pattern) for pattern in host.failing_files):
        return ""
    done = host.run(["ssh-keygen", "-y", "-P", "", "-f", host.path(path)])
    said = done.err.strip().split("\n")[-1]
    return "" if done.rc in (0, 127) else f"{path} cannot be loaded ({said}): remove it, and apply makes another"


def lacks(host: Host, path: str) -> bool:
    """Whether there is no host key: nothing at all, or the empty file that a full disk leaves."""
    seen = host.stat(path)
    return seen is None or seen.st_size == 0


def sort_of(path: str) -> str:
    """The type of the key that belongs at a path such as /etc/ssh/ssh_host_ed25519_key; empty where that is open."""
    parts = re.search(r"/ssh_host_([a-z0-9]+)_key$", path)
    return parts[1] if parts else ""


def to_make(host: Host, paths: Iterable[str]) -> list[str]:
    """The host keys that lack and that apply can make."""
    return [path for path in paths if lacks(host, path) and sort_of(path)]


def generate(host: Host, path: str, sort: str) -> bool:
    """Make a key as `ssh-keygen -A` does; whether it could."""
    return host.run(["ssh-keygen", "-q", "-t", sort, "-f", path, "-N", ""]).rc == 0


def give(host: Host, path: str) -> None:
    """Put a new host key and its public half in their places, each at once. Raises EnforceError."""
    with tempfile.TemporaryDirectory(prefix="casemate-") as folder:
        if not generate(host, f"{folder}/key", sort_of(path)):
            raise EnforceError(f"{path} was not made: ssh-keygen could not make a key of type {sort_of(path)}")
        for end, mode in ((".pub", 0o644), ("", 0o600)):
            with open(f"{folder}/key{end}", "rb") as made:
                host.write(path + end, made.read(), mode=mode, owner=(0, 0), sensitive=True, stays=True)
