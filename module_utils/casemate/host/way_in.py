"""What decides on this host whether an account comes in by SSH and becomes root: kept while a change is unconfirmed.

A change may lock people out by more than the files that it declares: by a script of a package, by a second run, by
somebody at work on the host at the same time. So the guard keeps all of this, whatever a run is about to change.

Sources: sshd(8), FILES and AUTHORIZED_KEYS FILE FORMAT; sshd_config(5); sudoers(5); pam(8); nsswitch.conf(5);
hosts_access(5), which Debian's sshd reads; systemd.unit(5).
"""

from __future__ import annotations

import glob
import os
import stat as statmod
from collections.abc import Iterable
from typing import List, Tuple

from . import logins
from .accounts import PLAIN, Account, passwd
from .backup import roots_alone
from .files import stat_of

FILES = (
    "/etc/ssh/sshd_config", "/etc/default/ssh", "/etc/sudoers", "/etc/nsswitch.conf", "/etc/hosts.allow",
    "/etc/hosts.deny", "/etc/nologin", "/etc/ld.so.preload", "/etc/casemate/firewall.nft",
)  # fmt: skip
FOLDERS = (
    "/etc/ssh/sshd_config.d", "/etc/sudoers.d", "/etc/pam.d", "/etc/security", "/etc/systemd/system/ssh.service.d",
    "/etc/systemd/system/ssh.socket.d",
)  # fmt: skip
MODES = (
    "/usr/bin/sudo", "/etc/sudoers", "/etc/sudoers.d", "/etc/pam.d", "/etc/ssh/sshd_config.d", "/etc/ssh", "/etc",
    "/usr/bin", "/usr",
)  # fmt: skip
HOST_KEYS = "/etc/ssh/ssh_host_*_key"
UNITS = ("ssh.socket", "ssh.service")
KEYS = ".ssh/authorized_keys .ssh/authorized_keys2"
"""AuthorizedKeysFile where sshd does not say."""
Kept = List[Tuple[str, List[str]]]
"""Sorts (see backup.py) and names; what is kept last comes back first."""


def account() -> str:
    """Who came in: whoever sudo made root, which is the only way that Casemate takes, or root itself."""
    return os.environ.get("SUDO_USER") or "root"


def kept(name: str, root: str = "/") -> Kept:
    """What an account needs to come in again, as far as it is there. `root` lets tests point it at a folder."""
    real = _Real(root)
    found: Kept = [("unit", list(UNITS))]
    known = next((one for one in passwd(real.text("/etc/passwd")) if one.first and one.name == name), None)
    if known and PLAIN.fullmatch(name):
        found += [("account", [name]), *_at_home(known, real)]
    keys = real.glob(HOST_KEYS)
    return [
        *found,
        ("lost", [path for key in keys for path in (key, f"{key}.pub") if real.is_file(path)]),
        ("mode", real.settable([*keys, *MODES, "/"])),
        ("folder", list(FOLDERS)),
        ("file", [path for path in FILES if real.is_file(path) or not real.is_there(path)]),
    ]


def _at_home(known: Account, real: _Real) -> Kept:
    """The files with the keys of an account, and the modes of all that leads to them, and of its shell."""
    said = logins.effective(known.name, []).get("authorizedkeysfile", "") if real.root == "/" else ""
    paths = logins.key_paths(said or KEYS, known.name, known.uid, known.home)
    paths = [path for path in paths if real.is_file(path)]
    ours = [path for path in paths if real.roots_alone(os.path.dirname(path))]
    theirs = [path for path in paths if path not in ours and real.owner(path) != 0]
    above = [folder for path in [*paths, f"{known.home}/"] for folder in _above(path)]
    deepest_first = sorted(dict.fromkeys(above), key=lambda folder: -folder.count("/"))
    shell = [known.shell] if real.is_file(known.shell) else []
    return [("file", ours), ("theirs", theirs), ("mode", real.settable([*paths, *deepest_first, *shell]))]


def _above(path: str) -> List[str]:
    """The folders of a path, the deepest first, without the root."""
    folder = os.path.dirname(path)
    return [] if folder in ("/", "") else [folder, *_above(folder)]


class _Real:
    """Files below a root that tests may choose."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, path: str) -> str:
        return path if self.root == "/" else os.path.join(self.root, path.lstrip("/"))

    def text(self, path: str) -> str:
        return logins.text(self.path(path))

    def glob(self, pattern: str) -> List[str]:
        above = 0 if self.root == "/" else len(self.root)
        return sorted(path[above:] for path in glob.glob(self.path(pattern)))

    def is_there(self, path: str) -> bool:
        return os.path.lexists(self.path(path))

    def is_file(self, path: str) -> bool:
        """Whether it is a regular file, and no link."""
        seen = stat_of(self.path(path))
        return seen is not None and statmod.S_ISREG(seen.st_mode)

    def owner(self, path: str) -> int:
        return os.lstat(self.path(path)).st_uid

    def roots_alone(self, folder: str) -> bool:
        return os.path.isdir(self.path(folder)) and roots_alone(self.path(folder), self.root)

    def settable(self, paths: Iterable[str]) -> List[str]:
        """Those whose mode may come back: there, no link, and not root's in a folder of somebody else."""
        there = (path for path in dict.fromkeys(paths) if self.is_there(path) and not os.path.islink(self.path(path)))
        return [path for path in there if self.owner(path) or path == "/" or self.roots_alone(os.path.dirname(path))]
