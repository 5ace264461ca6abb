"""What the files that a setting names are like, and what keeps them from being changed.

A name with a leading dot is a name: Go's os.ReadDir, filepath.Glob and filepath.WalkDir, by which K3s, containerd and
the kubelet list their folders, see it, and so does whoever may read it.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import re
import shlex
import stat as statmod
from typing import Any, Callable

from ..core.verdict import Setting
from .accounts import passwd
from .clock import Start, after, stays_ahead
from .machine import Host

STRICT = 0o022
"""The bits of a mode with which sshd reads no keys (StrictModes in sshd_config(5); OpenSSH's safe_path)."""
TYPES = (("file", statmod.S_ISREG), ("directory", statmod.S_ISDIR), ("link", statmod.S_ISLNK))


def matches(setting: Setting, host: Host) -> list[str]:
    """The paths that match, without those that are known to be there; ** stands for any folders, or none."""
    path = setting["path"]
    above = re.split(r"/[^/]*[*?[]", path)[0]
    known = {f"{above}/{name}" for name in setting.get("known") or ()}
    return [found for found in host.glob(path, hidden=True) if found not in known]


def name_of(lookup: Callable[[int], Any], number: int) -> str:
    """The name of an account or group, or its number where it has none."""
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def digest(data: bytes | None) -> str:
    """What stands for a content in findings."""
    return "" if data is None else "sha256:" + hashlib.sha256(data).hexdigest()


def entry(path: str, setting: Setting, host: Host, started: Start | None) -> dict[str, Any] | None:
    """Type, mode, owner, group, ACL, digest; whether its unit started before it changed; what bars apply from it."""
    found = host.stat(path)
    if found is None:
        return None
    state = next((name for name, test in TYPES if test(found.st_mode)), "special")
    content = digest(host.read(path)) if "content" in setting and state == "file" else ""
    short = found.st_size < 2 * setting.get("random_bytes", 0)
    account = whom_it_logs_in(path, host)
    replaced = short or setting.get("state") == "absent" or content != _wanted(setting)
    return {
        "path": path,
        "state": state,
        "content": content,
        "mode": statmod.S_IMODE(found.st_mode),
        "logs_in": account,
        "owner": name_of(pwd.getpwuid, found.st_uid),
        "group": name_of(grp.getgrgid, found.st_gid),
        "acl": host.has_acl(path) and not account,  # what of an ACL lets others write shows in the mode
        "anothers": is_anothers(path, account, host),
        "short": short,
        "late": host.dated(path) if started and after(found.st_ctime, started) else "",
        "barred": spared(path, setting, host) or host.barred(path, replaced),
    }


def most(setting: Setting, roots: bool, account: str = "") -> int:
    """The bits that a mode may have. What logs an account in is read by the account itself, also where it is root's.

    Of what logs `account` in, as which Casemate comes, only that counts at which sshd stops reading keys.
    """
    if account:
        return 0o7777 & ~STRICT
    allowed = int(setting.get("mode_max", "07777"), 8)
    widened = 0o055 if setting.get("state") == "directory" else 0o044
    return allowed | widened if roots and setting.get("login") else allowed


def whom_it_logs_in(path: str, host: Host) -> str:
    """The account as which Casemate comes, where a path is its ~/.ssh or lies below it; else nothing."""
    account = str(host.context.get("account") or "")
    home = account_of(account, host)[1]
    folder = os.path.join(os.path.realpath(host.path(home)), ".ssh") if home else ""
    there = folder and f"{os.path.realpath(host.path(path))}/".startswith(f"{folder}/")
    return account if there else ""


def spared(path: str, setting: Setting, host: Host) -> str:
    """Why apply leaves alone what logs somebody in, with what to do by hand; empty for all else."""
    found, account = host.stat(path), whom_it_logs_in(path, host)
    if found is None:
        return ""
    named = shlex.quote(path)
    by_hand = f"chmod {statmod.S_IMODE(found.st_mode) & most(setting, found.st_uid == 0, account):04o} {named}"
    if account:
        by_hand = f"chown {account}: {named}; {by_hand}" if is_anothers(path, account, host) else by_hand
        return f"{path} logs {account} in, as which Casemate comes, so it is left alone; by hand: {by_hand}"
    if setting.get("login") and found.st_uid == 0 and host.has_acl(path):
        by_hand = f"setfacl -b {named}; {by_hand}"
        return f"{path} is root's and its ACL may be what lets the account read it; by hand: {by_hand}"
    return ""


def is_anothers(path: str, account: str, host: Host) -> bool:
    """Whether what logs an account in is neither its own nor root's, so that sshd takes no key from it."""
    found = host.stat(path)
    return bool(account) and found is not None and found.st_uid not in (0, account_of(account, host)[0])


def account_of(name: str, host: Host) -> tuple[int, str]:
    """Uid and home of an account, of the files or of a directory; an empty home where there is none."""
    listed = host.cached("accounts by name", lambda: _listed(host))
    if name in listed or host.root != "/":
        return listed.get(name, (-1, ""))
    try:
        known = pwd.getpwnam(name)
    except KeyError:
        return -1, ""
    return known.pw_uid, known.pw_dir


def _listed(host: Host) -> dict[str, tuple[int, str]]:
    """Uid and home of every account in /etc/passwd; of several lines of a name the first counts."""
    return {one.name: (one.uid, one.home) for one in reversed(passwd(host.text("/etc/passwd") or ""))}


def _wanted(setting: Setting) -> str:
    return digest(setting["content"].encode()) if "content" in setting else ""


def absent(setting: Setting, host: Host) -> str:
    """What keeps apply from making what is not there."""
    makes = "content" in setting or "random_bytes" in setting or setting.get("state") == "directory"
    return host.barred(setting["path"]) if makes and not re.search(r"[*?[]", setting["path"]) else ""


def bring_back(setting: Setting, path: str, host: Host) -> None:
    """Date a file with the present where it would stay younger than its unit whatever is restarted."""
    if "unit" in setting and stays_ahead(host.stat(path)):
        host.touch(path)


def ids(setting: Setting) -> tuple[int, int] | None:
    """Owner and group as numbers, -1 for one that nothing demands. Raises KeyError for a name that is not there."""
    if "owner" not in setting and "group" not in setting:
        return None
    uid = pwd.getpwnam(setting["owner"]).pw_uid if "owner" in setting else -1
    gid = grp.getgrnam(setting["group"]).gr_gid if "group" in setting else -1
    return uid, gid


def make_folder(path: str, host: Host) -> None:
    """Make a folder that only root reads; its mode is set after that."""
    with host.folder(path, make=True) as folder:
        os.mkdir(os.path.join(folder, os.path.basename(path)), mode=0o700)
    host.changed(path, "", "directory\n")
