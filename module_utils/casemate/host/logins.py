"""What decides on a host whether an account gets in by SSH once sshd has read its files and what apply would write.

Run by the probe as it stands, by the host's own Python as root, before the first change: so it imports nothing of ours.
It reads only, and asks PAM what every login asks it. Neither keys nor passwords are told, only fingerprints.

A line that denies an account may lie in a file for days: it counts from the first reload on, which an apply brings, and
which no guard takes back. So sshd is asked about its files, not about the running daemon.

Sources: sshd(8), -T; auth.c and misc.c of OpenSSH (safe_path, and Debian's patch for groups of one's own); pam(3).
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import stat
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

SSHD, MAIN = "/usr/sbin/sshd", "/etc/ssh/sshd_config"
TOLD = (
    "allowusers", "allowgroups", "denyusers", "denygroups", "authenticationmethods", "authorizedkeyscommand",
    "authorizedkeysfile", "chrootdirectory", "forcecommand", "pubkeyacceptedalgorithms", "pubkeyauthentication",
    "strictmodes", "trustedusercakeys", "usepam",
)  # fmt: skip
ACCEPTED = re.compile(r"Accepted (\S+) for (\S+) from (\S+) port (\d+) ssh2(?:: (\S+) (\S+))?(?:.*? CA \S+ (\S+))?")
"""method, account, address, port, type of key, fingerprint, fingerprint of its authority: sshd's own words."""
OF_PEOPLE = 1000
"""The least uid of a person's account where /etc/login.defs names none (login.defs(5), UID_MIN)."""
NOLOGIN = ("/run/nologin", "/etc/nologin")
"""The files for which pam_nologin(8) turns away everybody but root."""


def run(argv: List[str], stdin: Optional[str] = None) -> str:
    """What a command says, or nothing where it fails."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    given = None if stdin is None else stdin.encode("utf-8", "surrogateescape")
    try:
        done = subprocess.run(argv, input=given, capture_output=True, timeout=20, check=False, env=environment)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def text(path: str) -> str:
    """A file's text, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def session() -> List[str]:
    """Address and port of the client, and of this host, of the SSH session that runs this; nothing where there is none.

    sudo drops SSH_CONNECTION, so the parents are asked for it.
    """
    process = str(os.getpid())
    while process and int(process) > 1:
        said = re.search(r"(?:^|\0)SSH_CONNECTION=([^\0]+)", text(f"/proc/{process}/environ"))
        if said and len(said.group(1).split()) == 4:
            return said.group(1).split()
        above = re.search(r"(?m)^PPid:\s*(\d+)", text(f"/proc/{process}/status"))
        process = above.group(1) if above else ""
    return []


def accepted(session: List[str]) -> Dict[str, str]:
    """How this session was let in, as sshd wrote it down: method, account, key, authority; nothing where it did not."""
    if not session:
        return {}
    words = rf"Accepted \S+ for \S+ from {re.escape(session[0])} port {session[1]} "
    of_sshd = ["-t", "sshd", "-t", "sshd-session", "--since", "-7d", "-o", "cat", "--no-pager", "-r", "-n", "1"]
    found = ACCEPTED.search(run(["journalctl", "-q", *of_sshd, "--grep", words]))
    if not found:
        lines = [one for one in text("/var/log/auth.log").split("\n") if re.search(words, one)]
        found = ACCEPTED.search(lines[-1]) if lines else None
    names = ("method", "account", "address", "port", "type", "key", "authority")
    return {name: value for name, value in zip(names, found.groups()) if value} if found else {}


def effective(account: str, session: List[str], ours: Optional[str] = None) -> Dict[str, str]:
    """What sshd's files say for a login of the account; with `ours` as if these lines were read before them."""
    address, _, here, port = session or ["192.0.2.1", "", "192.0.2.2", "22"]
    spec = f"user={account},host={address},addr={address},laddr={here},lport={port}"
    argv = [SSHD, "-T", "-C", spec] + ([] if ours is None else ["-f", "/dev/stdin"])
    found: Dict[str, List[str]] = {}
    for line in run(argv, None if ours is None else f"{ours}\n{text(MAIN)}").split("\n"):
        key, _, value = line.partition(" ")
        if key in TOLD:
            found.setdefault(key, []).append(value)
    return {key: " ".join(values) for key, values in found.items()}


def own_group(group: int, account: pwd.struct_passwd) -> bool:
    """Whether nobody but the account is in a group: Debian's sshd lets such a group write."""
    try:
        listed = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        return False
    return listed | {one.pw_name for one in pwd.getpwall() if one.pw_gid == group} == {account.pw_name}


def unsafe(path: str, account: pwd.struct_passwd) -> str:
    """The file or folder for which sshd takes no key from a path, with what is wrong; empty where it does."""
    place, home = os.path.realpath(path), os.path.realpath(account.pw_dir)
    while True:
        try:
            seen = os.stat(place)
        except OSError:
            return ""
        if seen.st_uid not in (0, account.pw_uid):
            return f"{place} is neither {account.pw_name}'s nor root's"
        group = seen.st_mode & stat.S_IWGRP and not own_group(seen.st_gid, account)
        if seen.st_mode & stat.S_IWOTH or group:
            return f"others may write {place}"
        if place in (home, "/"):
            return ""
        place = os.path.dirname(place)


def key_paths(patterns: str, name: str, uid: int, home: str) -> List[str]:
    """The paths that a value of AuthorizedKeysFile means for an account, whether or not something is there."""
    tokens = {"%%": "%", "%h": home, "%u": name, "%U": str(uid)}
    named = (re.sub("%[%huU]", lambda token: tokens[token[0]], pattern) for pattern in patterns.split())
    return [os.path.join(home, path) for path in named]


def key_files(patterns: str, account: pwd.struct_passwd) -> Dict[str, Dict[str, Any]]:
    """The files that a value of AuthorizedKeysFile means and that hold keys: their fingerprints, and what bars them."""
    found: Dict[str, Dict[str, Any]] = {}
    for path in key_paths(patterns, account.pw_name, account.pw_uid, account.pw_dir):
        keys = re.findall(r"(?m)^\d+ (\S+) ", run(["ssh-keygen", "-l", "-f", path]))
        if keys:
            found[path] = {"keys": keys, "unsafe": unsafe(path, account)}
    return found


def stack(service: str, depth: int = 0) -> List[str]:
    """The modules that PAM calls for an account of a service, includes followed."""
    found: List[str] = []
    for line in text(f"/etc/pam.d/{service}").split("\n"):
        words = re.sub(r"\[[^]]*\]", "control", line.split("#", 1)[0]).split()
        included = words[1:2] if words[:1] == ["@include"] else words[2:3] if words[1:2] == ["include"] else []
        if included and depth < 8 and (words[0] == "@include" or words[0].lstrip("-") == "account"):
            found += stack(included[0], depth + 1)
        elif len(words) > 2 and words[0].lstrip("-") == "account":
            found.append(os.path.basename(words[2]))
    return found


PAM = r"""
import ctypes, ctypes.util, sys
service, account, address = (word.encode() for word in sys.argv[1:4])
pam = ctypes.CDLL(ctypes.util.find_library("pam") or "libpam.so.0")
class Conversation(ctypes.Structure):
    _fields_ = [("conv", ctypes.c_void_p), ("data", ctypes.c_void_p)]
Talk = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
talk = Talk(lambda *_: 19)
spoken = Conversation(ctypes.cast(talk, ctypes.c_void_p), None)
handle = ctypes.c_void_p()
pam.pam_strerror.restype = ctypes.c_char_p
pam.pam_strerror.argtypes = [ctypes.c_void_p, ctypes.c_int]
pam.pam_set_item.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
pam.pam_acct_mgmt.argtypes = pam.pam_end.argtypes = [ctypes.c_void_p, ctypes.c_int]
if pam.pam_start(service, account, ctypes.byref(spoken), ctypes.byref(handle)) == 0:
    pam.pam_set_item(handle, 4, address)
    pam.pam_set_item(handle, 3, b"ssh")
    said = pam.pam_acct_mgmt(handle, 0x8000)
    print(said, pam.pam_strerror(handle, said).decode())
    pam.pam_end(handle, said)
"""
"""Asks PAM as sshd does whether an account may come in: PAM_RHOST is 4, PAM_TTY is 3, PAM_SILENT is 0x8000."""


def pam(account: str, address: str) -> Tuple[int, str]:
    """PAM's answer for an account that comes by SSH, and its words; 0 where it lets it in or cannot be asked."""
    said = run([sys.executable, "-c", PAM, "sshd", account, address]).split(None, 1)
    return (int(said[0]), said[1].strip()) if len(said) == 2 and said[0].isdigit() else (0, "")


def expired(account: str) -> bool:
    """Whether the last day of an account is over (shadow(5)): a stack of PAM says no more than that it refuses it."""
    fields = run(["getent", "shadow", account]).strip().split(":")
    return len(fields) > 7 and fields[7].isdigit() and 0 < int(fields[7]) <= int(time.time() // 86400)


def facts(name: str, ours: str) -> Dict[str, Any]:
    """All that is asked about one account; nothing where there is none of that name."""
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        return {}
    here = session()
    now, after = effective(name, here), effective(name, here, ours)
    code, words = pam(name, here[0] if here else "192.0.2.1") if after.get("usepam") == "yes" else (0, "")
    groups = []
    for number in os.getgrouplist(name, account.pw_gid):
        try:
            groups.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return {
        "account": name,
        "address": here[0] if here else "",
        "groups": groups,
        "now": now,
        "after": after,
        "files": {
            when: key_files(options.get("authorizedkeysfile", ""), account)
            for when, options in (("now", now), ("after", after))
        },
        "accepted": accepted(here),
        "pam": {"code": code, "said": words, "modules": stack("sshd")},
        "expired": expired(name),
        "nologin": [path for path in NOLOGIN if os.path.exists(path)],
    }


def known(names: List[str]) -> Dict[str, int]:
    """The uids of those names that are an account here, whatever knows it."""
    found = {}
    for name in names:
        try:
            found[name] = pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    return found


def main() -> None:
    """Say it of the account that is named, with the lines that apply would have sshd read first; and who is there."""
    print("casemate:logins=" + json.dumps(facts(sys.argv[1], sys.argv[2]), sort_keys=True))
    least = re.findall(r"(?m)^UID_MIN[ \t]+([0-9]+)", text("/etc/login.defs"))[-1:]
    there = {"uids": known([sys.argv[1], *sys.argv[3:]]), "least": int(least[0]) if least else OF_PEOPLE}
    print("casemate:people=" + json.dumps(there, sort_keys=True))


if __name__ == "__main__":
    main()
