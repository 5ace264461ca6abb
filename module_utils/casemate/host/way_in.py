"""What decides on this host whether an account comes in by SSH and becomes root: kept while a change is unconfirmed.

A change may lock people out by more than the files that it declares: by a script of a package, by a second run, by
somebody at work on the host at the same time. So the guard keeps all of this, whatever a run is about to change.

Sources: sshd(8), FILES and AUTHORIZED_KEYS FILE FORMAT; sshd_config(5); sudoers(5); pam(8); nsswitch.conf(5);
hosts_access(5), which Debian's sshd reads; systemd.unit(5).
"""

from __future__ import annotations

import os
import stat as statmod
from collections.abc import Iterable
from typing import List, Tuple

from . import logins
from .accounts import PLAIN, Account, passwd
from .backup import roots_alone
from .machine import Host

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


def kept(name: str, host: Host) -> Kept:
    """What an account needs to come in again, as far as it is there."""
    known = next((one for one in passwd(host.text("/etc/passwd") or "") if one.first and one.name == name), None)
    keys = host.glob(HOST_KEYS)
    halves = [half for key in keys for half in (key, f"{key}.pub")]
    return [
        ("unit", list(UNITS)),
        *(_of_account(known, host) if known and PLAIN.fullmatch(name) else []),
        ("lost", [path for path in halves if _is_file(path, host)]),
        ("mode", _settable([*keys, *MODES, "/"], host)),
        ("folder", list(FOLDERS)),
        ("file", [path for path in FILES if _is_file(path, host) or host.stat(path) is None]),
    ]


def _of_account(known: Account, host: Host) -> Kept:
    """An account, the files with its keys, and the modes of all that leads to them, and of its shell."""
    said = logins.effective(known.name, logins.session()).get("authorizedkeysfile", "") if host.root == "/" else ""
    meant = logins.key_paths(said or KEYS, known.name, known.uid, known.home)
    paths = [path for path in meant if _is_file(path, host)]
    ours = [path for path in paths if _roots_alone(os.path.dirname(path), host)]
    theirs = [path for path in paths if path not in ours and _owner(path, host) != 0]
    above = dict.fromkeys(folder for path in [*paths, f"{known.home}/"] for folder in _above(path))
    deepest_first = sorted(above, key=lambda folder: -folder.count("/"))
    shell = [known.shell] if _is_file(known.shell, host) else []
    modes = _settable([*paths, *deepest_first, *shell], host)
    return [("account", [known.name]), ("file", ours), ("theirs", theirs), ("mode", modes)]


def _above(path: str) -> List[str]:
    """The folders of a path, the deepest first, without the root."""
    folder = os.path.dirname(path)
    return [] if folder in ("/", "") else [folder, *_above(folder)]


def _is_file(path: str, host: Host) -> bool:
    """Whether it is a regular file, and no link."""
    seen = host.stat(path)
    return seen is not None and statmod.S_ISREG(seen.st_mode)


def _owner(path: str, host: Host) -> int:
    return os.lstat(host.path(path)).st_uid


def _roots_alone(folder: str, host: Host) -> bool:
    return os.path.isdir(host.path(folder)) and roots_alone(host.path(folder), host.root)


def _settable(paths: Iterable[str], host: Host) -> List[str]:
    """Those whose mode may come back: there, no link, and not root's in a folder of somebody else."""
    there = [path for path in dict.fromkeys(paths) if (seen := host.stat(path)) and not statmod.S_ISLNK(seen.st_mode)]
    return [path for path in there if _owner(path, host) or path == "/" or _roots_alone(os.path.dirname(path), host)]
