"""Flip every declared setting of this machine by hand and tell what one pass of the engine in check mode then names.

Runs as root on an applied machine of the lab: test_flips_lab.py sends it as the main file of a zip, with module_utils
and given.json beside it, and reads the one JSON object that it prints. Standard library only, Python 3.9.
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import functools
import glob
import http.server
import json
import math
import os
import re
import shlex
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from module_utils.casemate.engine import run as engine
from module_utils.casemate.host.machine import Host
from module_utils.casemate.k3s.etcd import Etcd
from module_utils.casemate.k3s.services import running_unit
from module_utils.casemate.kinds import journal_args
from module_utils.casemate.kinds.sysctl import below_proc

Setting = dict[str, Any]
Statuses = dict[str, str]
Undone = contextlib.AbstractContextManager[Any]
Flips = Iterator[tuple[str, Callable[[], Undone]]]

ALSO = {
    ("HOME-FOLDERS-PRIVATE", "missing"): {"PEOPLE-ACCOUNTS-KNOWN": "fail"},  # nobody declared that account either
    ("PEOPLE-ACCOUNTS-DECLARED", "no shell"): {"ACCOUNT-NOLOGIN-LOCKED": "fail"},  # and she has a password
    ("PEOPLE-ACCOUNTS-KNOWN", "a line more"): {"HOME-FOLDERS-PRIVATE": "fail"},  # the same, the other way round
    ("SUDO-PASSWORD-ASKED", "sudoers"): {"SUDO-RULES-DECLARED": "fail"},  # nor that rule
    ("ACCOUNT-HASHES-STRONG", "passwd"): {  # everybody reads that hash, and it has no shell
        "ACCOUNT-PASSWORDS-SHADOWED": "fail", "ACCOUNT-NOLOGIN-LOCKED": "fail",
    },
    ("ACCOUNT-PASSWORDS-SHADOWED", "a line more"): {"ACCOUNT-NOLOGIN-LOCKED": "fail"},  # the same
    ("ACCOUNT-UID0-UNIQUE", "passwd"): {"ACCOUNT-UIDS-UNIQUE": "fail"},
    ("HOST-APT-VOUCHED", "planted in /etc/apt/apt.conf.d"): {"PATCH-AUTOMATIC-EFFECTIVE": "error"},  # unreadable
    ("ACCOUNT-GID0-UNIQUE", "a line more"): {"HOST-GROUPS-VOUCHED": "fail"},  # a group that gives root
    ("GROUP-GID0-UNIQUE", "a line more"): {"GROUP-GIDS-UNIQUE": "fail"},  # root has that number, too
    ("HOST-GROUPS-VOUCHED", "a second line"): {"GROUP-GIDS-UNIQUE": "fail", "GROUP-NAMES-UNIQUE": "fail"},
    ("HOST-GROUPS-VOUCHED", "group of an account"): {"ACCOUNT-GID0-UNIQUE": "fail"},
    ("CLUSTER-KUBELETS-CURRENT", "old node"): {"CLUSTER-NODES-DECLARED": "fail"},  # nobody declared it either
    ("CLUSTER-NAMESPACES-CURRENT", "labelled"): {"CLUSTER-TOKENS-UNMOUNTED": "fail"},  # apply has not met it yet
    ("CLUSTER-NAMESPACES-RESTRICTED", "labelled"): {"CLUSTER-TOKENS-UNMOUNTED": "fail"},
    ("CLUSTER-NODES-DECLARED", "stranger"): {"CLUSTER-KUBELETS-CURRENT": "fail"},  # and it says no version
    ("ETCD-CIPHER-ACTIVE", "other cipher"): {  # nor did K3s write it, and nothing is stored with its key
        "ETCD-ENCRYPTION-ACTIVE": "fail", "ETCD-SECRETS-REWRITTEN": "fail",
    },
    ("ETCD-ENCRYPTION-ACTIVE", "identity first"): {"ETCD-SECRETS-REWRITTEN": "not_evaluated"},  # there is no active key
    ("NET-FORWARDING-KEPT", "live"): {"NET-REDIRECTS-REFUSED": "fail"},  # without it the kernel accepts redirects again
    ("NODE-BINARY-VERIFIED", "a byte more"): {"NODE-VERSION-PATCHED": "not_evaluated"},  # foreign bytes prove nothing
    ("NODE-CLUSTER-JOINED", "other authority"): {  # it signed nothing here; and of which cluster are the tokens?
        "KUBELET-AUTHORITIES-VOUCHED": "fail", "NODE-TOKENS-CURRENT": "not_evaluated",
    },
    ("NODE-TOKENS-CURRENT", "older /etc/rancher/k3s/token"): {"NODE-TOKEN-PRIVATE": "fail"},  # K3s has not read it
    ("NODE-TOKENS-CURRENT", "older /etc/rancher/k3s/agent-token"): {"NODE-AGENT-TOKEN-SEPARATE": "fail"},
    ("NODE-MAIN-CONFIG-PRIVATE", "planted"): {"NODE-CONFIG-RUNNING": "fail"},  # K3s has not read the new file
    ("PAM-ACCOUNT-ASKED", "first in /etc/pam.d/common-account"): {"HOST-PAM-VOUCHED": "fail"},  # it is of no profile
    ("PAM-PROOF-ASKED", "first in /etc/pam.d/common-auth"): {"HOST-PAM-VOUCHED": "fail"},  # the same
    ("SSH-LISTENER-PLAIN", "second daemon"): {"HOST-SOCKETS-VOUCHED": "fail"},  # no unit runs it
    ("port", "listening"): {"HOST-SOCKETS-VOUCHED": "fail"},  # the same, whichever port it is
    ("NODE-VERSION-PATCHED", "older binary"): {  # it is another file
        "NODE-BINARY-VERIFIED": "fail", "NODE-PROCESS-VERIFIED": "fail",
    },
}  # fmt: skip
MASKS = {"HOST-MASKS-VOUCHED": "fail"}
UNITS, PAM = {"HOST-UNITS-VOUCHED": "fail"}, {"HOST-PAM-VOUCHED": "fail"}
ALSO |= {
    (cid, flip): UNITS
    for cid in (
        *("FW-UNIT-RUNNING", "IMAGES-WATCH-RUNNING", "NODE-UNIT-RUNNING"),
        *("SERVICE-INDEXES-RUNNING", "SERVICE-UPGRADES-RUNNING", "SYSCTL-LOADER-RUNNING"),
    )
    for flip in ("drop-in", "drop-in, read")
}
ALSO |= {  # then nobody knows whether the run came in by the only key of its account
    (cid, flip): {"SSH-OWNKEYS-VOUCHED": "fail"}
    for cid in ("SSH-AUTHORITIES-DECLARED", "SSH-KEYCOMMAND-ABSENT")
    for flip in ("foreign", "foreign, read", "edited")
}
# Told first: a line that no control asks for.
ALSO[("SSH-KEYCOMMAND-ABSENT", "edited")] = {**ALSO[("SSH-KEYCOMMAND-ABSENT", "edited")], "PEOPLE-FACTOR-ASKED": "fail"}
ALSO[("service", "started")] = UNITS
ALSO[("registries", "one more")] = {"CONTAINERD-NETWORKS-VOUCHED": "fail"}  # K3s did not write it
ALSO[("REGISTRIES-TLS-VERIFIED", "one more")] = {"REGISTRIES-RUNTIME-LIMITED": "fail"}  # nor is it listed
ALSO |= {  # K3s was started before, so nobody knows whether containerd asks
    ("CONTAINERD-DROPINS-DECLARED", flip): {"IMAGES-VERIFIER-ASKED": "fail"} for flip in ("planted", "planted, hidden")
}
ALSO[("IMAGES-VERIFIER-ASKED", "pulls by itself")] = {"CONTAINERD-DROPINS-DECLARED": "fail"}
ALSO[("IMAGES-VERIFIER-ANSWERS", "lax")] = {"IMAGES-VERIFIER-INSTALLED": "fail"}
ALSO[("IMAGES-VERIFIER-INSTALLED", "removed")] = {"IMAGES-VERIFIER-ANSWERS": "fail"}
UNSIGNED = {"IMAGES-VERIFIER-ANSWERS": "fail", "IMAGES-RUNNING-LISTED": "fail"}
# Its first file says who may sign, and the verifier goes by none that others may write.
ALSO |= {("IMAGES-LIST-INSTALLED", flip): UNSIGNED for flip in ("removed", "chmod", "chown", "chmod of the folder")}
ALSO[("IMAGES-RUNNING-LISTED", "unsigned")] = {**UNSIGNED, "IMAGES-LIST-INSTALLED": "fail"}
ALSO |= {(cid, "mask"): MASKS for cid in ("MODULE-LOADER-RUNNING", "SYSCTL-LOADER-RUNNING")}
ALSO[("ACCOUNT-HASHING-YESCRYPT", "pam")] = PAM
ALSO[("PASSWORD-ASKED-ONCE", "pam")] = {**PAM, "PASSWORD-HISTORY-KEPT": "fail"}  # its line has that word, too
ALSO[("pam_line", "an option more")] = PAM  # a line of no profile
"""What a flip breaks besides its own control, really; those of them that are judged here."""
BY_STORY = "the lab asks for none of it; test_scans_lab.py runs what it names"
NOT_BY_HAND = {
    "API-ADMIN-ACCEPTED": "everything that asks the API server would go unanswered with it",
    "API-ARGUMENTS-DECLARED": "the lab declares no arguments of its own, so nothing is demanded",
    "HOST-MODULES-VOUCHED": "takes a module of somebody's own, built for this kernel",
    "IMAGES-BASES-CURRENT": BY_STORY,
    "IMAGES-LIST-SCANNED": BY_STORY,
    "IMAGES-RUNNING-RECENT": BY_STORY,
    "IMAGES-RUNNING-SCANNED": BY_STORY,
    "IMAGES-TAGS-CURRENT": BY_STORY,
    "KUBELET-CONFIG-FOLDER-RUNNING": "K3s gives this argument last, whatever its configuration says",
    "NODE-PROCESS-VERIFIED": "takes another program in the place of the running K3s",
}
"""Controls that nobody can flip here, and why."""
ALIKE = (
    "sysctl", "file", "new_files", "link", "package", "account", "port", "leftover",
    "vouched", "vouched_entries", "vouched_state",
)  # fmt: skip
"""Kinds that judge each setting by itself, so many can be flipped at once; see `crossed`."""

CONTAINERD = "/var/lib/rancher/k3s/agent/etc/containerd"
CONFIG, SSHD = "/etc/rancher/k3s/config.yaml.d", "/etc/ssh/sshd_config"
RELOAD_NFT = "nft -f /etc/casemate/firewall.nft"
REREAD_SSH = "systemctl reset-failed ssh; systemctl restart ssh; sleep 0.05"
"""Not a reload, which returns before sshd has read anything: it would meet what is undone next. The kernel dates files
by a clock that is up to a hundredth of a second behind: what changes at once would count as before the restart."""
SSHD_VALUES = {
    "allowusers": "alice", "loglevel": "QUIET", "maxauthtries": "9", "logingracetime": "600",
    "maxstartups": "100:30:200", "maxsessions": "99", "clientaliveinterval": "0", "clientalivecountmax": "9",
    "banner": "none", "ciphers": "aes256-ctr", "macs": "hmac-sha2-256", "kexalgorithms": "curve25519-sha256",
    "hostkey": "/etc/ssh/ssh_host_ecdsa_key", "yes": "no", "no": "yes", "authorizedkeysfile": "/var/tmp/%u",
    "pubkeyauthoptions": "none", "authenticationmethods": "publickey",
    "authorizedkeyscommand": "/bin/false\nauthorizedkeyscommanduser nobody",
    "trustedusercakeys": "/etc/ssh/ssh_host_ed25519_key.pub",
}  # fmt: skip
RUNNING = {
    "kubelet-anonymous-auth": "false", "kubelet-authorization-mode": "Webhook",
    "anonymous-auth": "true", "authorization-mode": "RBAC,Node", "profiling": "true", "bind-address": "127.0.0.2",
    "use-service-account-credentials": "false", "read-only-port": "10254",
}  # fmt: skip
"""Arguments with which K3s starts all the same; a path is replaced by that of a copy."""


NAMESPACED = (
    "Secret", "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "ReplicationController", "CronJob", "Job", "Pod",
)  # fmt: skip
"""Kinds of objects of a namespace that flips plant through a list of all namespaces."""


class Flip(NamedTuple):
    """One way to break one control, and all that it breaks."""

    control: str
    name: str
    by: Callable[[], Undone]
    breaks: Statuses


def sh(command: str, stdin: str = "") -> str:
    done = subprocess.run(["sh", "-c", command], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command}: {done.stderr.strip()}")
    return done.stdout


# --- what is done by hand, and how it is undone -------------------------------------------------------------------


@contextlib.contextmanager
def after(*commands: str, by: Undone | None = None) -> Iterator[None]:
    """Run commands once a flip is undone, also where undoing is all that they do."""
    try:
        with by or contextlib.nullcontext():
            yield
    finally:
        for command in commands:
            sh(command)


@contextlib.contextmanager
def did(command: str, undo: str) -> Iterator[None]:
    with after(undo):
        sh(command)
        yield


@contextlib.contextmanager
def rewritten(path: str, change: Callable[[str], str] | None) -> Iterator[None]:
    """Change the text of a file, or remove it. Its bytes, mode, owner and times, and its folder's, come back."""
    above, seen = os.stat(os.path.dirname(path)), os.stat(path)
    with open(path, "rb") as handle:
        old = handle.read()
    new = change(old.decode()).encode() if change else b""
    if new == old:
        raise ValueError(f"{path} has nothing to change")
    try:
        replace(path, new, seen)
        if change is None:
            os.remove(path)
        yield
    finally:
        replace(path, old, seen)
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        os.utime(os.path.dirname(path), ns=(above.st_atime_ns, above.st_mtime_ns))


def replace(path: str, data: bytes, like: os.stat_result) -> None:
    """Write at once, since whatever starts just now may read it."""
    with open(path + ".new", "wb") as handle:
        os.fchown(handle.fileno(), like.st_uid, like.st_gid)
        os.fchmod(handle.fileno(), stat.S_IMODE(like.st_mode))
        handle.write(data)
    os.replace(path + ".new", path)


@contextlib.contextmanager
def planted(path: str, text: str = "", mode: int = 0o600) -> Iterator[None]:
    """A file that was not there, and its folder where that was not there either."""
    folder = os.path.dirname(path)
    made = not os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    above = os.stat(folder)
    try:
        with open(path, "x") as handle:
            handle.write(text)
        os.chmod(path, mode)
        yield
    finally:
        os.remove(path)
        os.utime(folder, ns=(above.st_atime_ns, above.st_mtime_ns))
        if made:
            os.rmdir(folder)


@contextlib.contextmanager
def linked(path: str, target: str) -> Iterator[None]:
    """A link that was not there."""
    with planted(path):
        os.remove(path)
        os.symlink(target, path)
        yield


@contextlib.contextmanager
def marked(path: str, change: Callable[[os.stat_result], object]) -> Iterator[None]:
    """Change mode, owner or ACL of what is there."""
    seen = os.stat(path)
    change(seen)
    try:
        yield
    finally:
        sh(f"setfacl -b '{path}'")
        os.chown(path, seen.st_uid, seen.st_gid)
        os.chmod(path, stat.S_IMODE(seen.st_mode))


@contextlib.contextmanager
def longer(path: str) -> Iterator[None]:
    """One byte more, for files that are too large to keep."""
    seen = os.stat(path)
    with open(path, "ab") as handle:
        handle.write(b"\n")
    try:
        yield
    finally:
        os.truncate(path, seen.st_size)
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


@contextlib.contextmanager
def aside(path: str, data: bytes) -> Iterator[None]:
    """Another file in the place of one, which comes back as it is."""
    os.rename(path, path + ".aside")
    try:
        with open(path, "wb") as handle:
            handle.write(data)
        yield
    finally:
        os.replace(path + ".aside", path)


def append(text: str) -> Callable[[str], str]:
    return lambda old: old + text


# --- the flips of each kind ---------------------------------------------------------------------------------------


def sysctl(setting: Setting) -> Flips:
    good = {str(value) for value in (setting["value"], *setting.get("accept", ()))}
    other = next(str(value) for value in range(9) if str(value) not in good)
    path = max(glob.glob("/proc/sys/" + below_proc(setting["key"])))
    if os.access(path, os.W_OK):
        with open(path) as handle:
            old = handle.read().strip()
        yield "live", lambda: did(f"echo {other} >{path}", f"echo {old} >{path}")
    file = f"/etc/sysctl.d/zzz-{setting['key'].replace('*', 'all')}.conf"
    yield "next boot", lambda: planted(file, f"{setting['key']} = {other}\n", 0o644)


def matching(pattern: str, word: str) -> str:
    """A path that a pattern of glob matches: the first letter of each set, and a word for each star."""
    return re.sub(r"\[(.)[^]]*\]", r"\1", pattern).replace("*", word)


def file(setting: Setting, own: frozenset[str]) -> Flips:
    path = setting["path"]
    matched = [name for name in sorted(glob.glob(path)) if name == path or name not in own]
    if not matched or setting.get("state") == "absent":
        name = matching(path.replace("/**", ""), "flipped")
        absent = setting.get("state") == "absent"
        yield "planted", lambda: planted(name, mode=0o600 if absent else 0o666)
        if absent and "/*" in path:
            folder, file = os.path.split(name)
            yield "planted, hidden", lambda: planted(f"{folder}/.{file}")
        if "/**" in path:
            yield "planted in a folder", lambda: planted(f"{folder}/.inner/{file}")
        return
    target = matched[-1]
    undo = [REREAD_SSH] if target.startswith(SSHD) else []  # the daemon minds the time of the last change of any sort
    if "content" in setting:
        yield "edited", lambda: rewritten(target, append("\n# by hand\n"))
        if "unit" in setting:
            return  # whatever is done to it next, it stays younger than its unit
        yield "removed", lambda: rewritten(target, None)
    yield "chmod", lambda: after(*undo, by=marked(target, lambda seen: os.chmod(target, seen.st_mode & 0o7777 | 2)))
    if "unit" in setting:
        return
    if "owner" in setting:
        yield "chown", lambda: after(*undo, by=marked(target, lambda _: os.chown(target, 12345, -1)))
    if "group" in setting:
        yield "chgrp", lambda: after(*undo, by=marked(target, lambda _: os.chown(target, -1, 12345)))
    if setting.get("no_acl"):
        yield "acl", lambda: after(*undo, by=marked(target, lambda _: sh(f"setfacl -m u:nobody:rw '{target}'")))


def new_files(setting: Setting) -> Flips:
    """New files as their programs ask for them, and as somebody else may read them."""
    path = setting["path"]
    again = f"setfacl -k '{path}'; setfacl -d -m u::rwx,g::-,o::- '{path}'"
    yield "removed", lambda: did(f"setfacl -k '{path}'", again)
    yield "readable", lambda: did(f"setfacl -d -m u:nobody:r '{path}'", again)


def leftover(setting: Setting) -> Flips:
    """A file of ours in each folder, so that whatever reads the folder reads it too."""
    ends = {"sudoers.d": "", "logrotate.d": "", "system": "", "config.yaml.d": ".yaml", "config-v3.toml.d": ".toml"}
    for pattern in setting["paths"]:
        folder, name = os.path.split(pattern)
        path = f"{folder}/{matching(name, 'old')}{ends.get(os.path.basename(folder), '.conf')}"
        yield f"planted {path}", functools.partial(planted, path, "# Managed by Casemate.\n", 0o400)


def vouched(setting: Setting) -> Flips:
    """A file of nobody's in the first folder of those that are there, and another byte in a package's file.

    What a unit writes counts as changed until it starts again, so that is left out.
    """
    host = Host()
    if setting.get("masks"):
        brought = (os.path.basename(path) for path in host.glob("/usr/lib/tmpfiles.d/*.conf"))
        mask = next(path for path in (f"/etc/tmpfiles.d/{name}" for name in brought) if not os.path.lexists(path))
        yield f"planted {mask}", functools.partial(planted, mask, "", 0o644)
        timer = "/run/systemd/system/dpkg-db-backup.timer"
        yield f"linked {timer}", functools.partial(linked, timer, "/dev/null")
        return
    patterns = [pattern for pattern in setting["paths"] if pattern.endswith("/*")]
    if setting.get("named_by") == "Exec":
        yield "changed", lambda: longer("/usr/lib/systemd/systemd-shutdown")
        return
    if not patterns:
        text = "192.0.2.66 deb.debian.org\n" if setting["paths"] == ["/etc/hosts"] else "flipped: flipped\n"
        path = setting["paths"][0]
        if os.path.exists(path):
            yield f"changed {path}", lambda: rewritten(path, append(text))
        else:
            yield f"planted {path}", lambda: planted(path, text)
        return
    named = [pattern.split("/**/")[0].removesuffix("/*") for pattern in patterns]
    folders = [folder for pattern in named for folder in host.glob(pattern)]
    there = (folder for folder in folders if os.path.isdir(folder) and not os.path.islink(folder))
    folder = next(there, named[0])
    text = re.sub(r"^\(\?[im]+\)|\|.*", "", setting.get("matters", "flipped")) + "\n"
    mode = 0o4755 if setting.get("powerful") else 0o644
    yield f"planted in {folder}", functools.partial(planted, f"{folder}/flipped", text, mode)
    if setting.get("names_only"):
        return
    found = (path for pattern in patterns[::-1] for path in host.glob(pattern, hidden=True))
    found = (path for path in found if not any(fnmatch.fnmatchcase(path, one) for one in setting.get("writes", ())))
    found = (path for path in found if os.path.isfile(path) and not os.path.islink(path))
    path = next((path for path in found if (host.read(path) or b"").isascii()), None)
    if path and path not in setting["ours"]:
        yield f"changed {path}", lambda: rewritten(path, append(text if "matters" in setting else "\n"))


def vouched_entries(setting: Setting) -> Flips:
    """One more of what is looked through."""
    path = setting["paths"][0]
    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    with open("/var/lib/rancher/k3s/agent/client-kubelet.key") as handle:
        key = handle.read()
    makers: dict[str, Callable[[], Undone]] = {
        "authorities": lambda: rewritten(path, append(certificate)),
        "cluster_authorities": lambda: rewritten(path, append(certificate)),
        "libraries": lambda: aside(path, b"flipped"),
        "plugins": lambda: linked(path.replace("*", "flipped"), "/usr/bin/true"),
        "credentials": lambda: planted(re.sub(r"/\*.*", "/flipped", path), key),
    }
    yield setting["of"], makers[setting["of"]]


@contextlib.contextmanager
def listening(udp: bool) -> Iterator[None]:
    """This program, which no unit of its package runs, waits for others."""
    with socket.socket(type=socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as bound:
        bound.bind(("0.0.0.0", 0))
        if not udp:
            bound.listen()
        yield


@contextlib.contextmanager
def copied() -> Iterator[None]:
    """A program of nobody's, removed while it runs, which waits on the loopback."""
    path = shutil.copy(os.path.realpath(sys.executable), "/run/flipped")
    script = (
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); print(1, flush=True); s.accept()"
    )
    with subprocess.Popen([path, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        os.remove(path)
        try:
            assert running.stdout and running.stdout.readline()
            yield
        finally:
            running.kill()


def vouched_state(setting: Setting) -> Flips:
    """What nobody vouches for, in the running kernel."""
    if setting["of"] == "sockets":
        yield "tcp", lambda: listening(False)
        yield "udp", lambda: listening(True)
        yield "removed program", copied
    elif setting["of"] == "groups":
        yield "a second line", lambda: rewritten("/etc/group", append("sudo:x:27:nobody\n"))
        yield "group of an account", lambda: rewritten("/etc/passwd", append("eve:*:2001:0::/:/usr/sbin/nologin\n"))
    elif setting["of"] == "accounts":
        yield "a line more", lambda: rewritten("/etc/passwd", append("eve:x:2001:65534::/home/nowhere:/bin/bash\n"))
    elif setting["of"] == "sudo":
        for whom in ("eve", "%eve"):
            rule = f"{whom} ALL=(ALL:ALL) /bin/sh\n"
            yield f"a rule for {whom}", functools.partial(planted, "/etc/sudoers.d/zz-eve", rule, 0o440)
    elif setting["of"] == "keys":
        eve = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKwL5lGRUjV1kF0uX1bq3mK0yYbG3dWqW5dHnN8y9b1x eve\n"
        yield "a second one", lambda: rewritten("/home/ops/.ssh/authorized_keys", append(eve))
    elif setting["of"] == "helpers":
        path = "/proc/sys/kernel/core_pattern"
        yield (
            "core dumps",
            lambda: did(f"cp {path} /run/flipped; echo '|/run/run' >{path}", f"cat /run/flipped >{path}"),
        )
    elif setting["of"] == "rules":
        chains = {
            "rewritten": "type filter hook prerouting priority -300; ip saddr 192.0.2.66 ip saddr set 127.0.0.1;",
            "redirected": "type nat hook prerouting priority -110; ip saddr 192.0.2.66 tcp dport 9999 redirect to :22;",
            "policies": "type filter hook forward priority -300; ip saddr 192.0.2.66 meta mark set 0x30000;",
        }
        for name, chain in chains.items():
            adding = f"nft 'table ip flipped {{ chain flipped {{ {chain} }}; }}'"
            yield name, functools.partial(did, adding, "nft delete table ip flipped")


def systemd_setting(setting: Setting) -> Flips:
    folder, value = f"/etc/{setting['config']}.d", "flipped=1" if "nvironment" in setting["key"] else "1"
    text = f"[{setting['section']}]\n{setting['key']}={value}\n"
    yield "a later drop-in", functools.partial(planted, f"{folder}/99-zzz.conf", text, 0o644)


def pwquality(setting: Setting) -> Flips:
    yield "main file", lambda: rewritten("/etc/security/pwquality.conf", append("minlen = 6\n"))


def pam_stack(setting: Setting) -> Flips:
    path, line = f"/etc/pam.d/common-{setting['facility']}", f"{setting['facility']} sufficient pam_permit.so\n"
    yield f"first in {path}", lambda: rewritten(path, lambda text: line + text)


def pam_line(setting: Setting) -> Flips:
    """Its line goes, with those of its profile, or gets another option; and somebody writes into the profile."""
    path = f"/etc/pam.d/common-{setting['facility']}"
    module = re.escape(" ".join([setting["module"], *setting["options"][:1]]))
    own = rf"(?m)^.*\s{module}(?!\S).*\n"
    before = "".join(rf"^.*{re.escape(line.split()[-1])}\n" for line in setting.get("ahead", ()))
    yield "removed", edited(path, own.replace("(?m)", "(?m)" + before), "")
    if "profile" in setting:
        yield (
            "an option more",
            lambda: rewritten(path, lambda text: re.sub(own, lambda at: f"{at[0][:-1]} debug\n", text)),
        )
        profile = f"/usr/share/pam-configs/{setting['profile']}"
        yield "profile", lambda: rewritten(profile, append("Other: by hand\n"))


def ageing(setting: Setting) -> Flips:
    file, shadow = setting.get("file", ""), "/etc/shadow"
    if file:
        between = "=" if file.endswith("/useradd") else " "
        for name in (*setting.get("at_most", ()), *setting.get("at_least", ()), *setting.get("exactly", ())):
            yield name, functools.partial(rewritten, file, append(f"{name}{between}-1\n"))
        return
    changes = {
        "keys": (r"(?m)^ops:([^:]*):([^:]*):([^:]*):[^:]*", r"ops:\1:\2:\3:90"),
        "dates": (r"(?m)^alice:([^:]*):[^:]*", r"alice:\1:99999"),
        "passwords": (r"(?m)^alice:([^:]*):([^:]*):([^:]*):[^:]*", r"alice:\1:\2:\3:9999"),
    }
    old, new = changes[setting["of"]]
    yield "shadow", lambda: rewritten(shadow, lambda text: re.sub(old, new, text))


def audit_rules(setting: Setting) -> Flips:
    """A rule goes, and somebody else's comes after it, or before."""
    folder = "/etc/audit/rules.d"
    if setting["of"] == "silencers":
        yield "exclude", lambda: planted(f"{folder}/zz-flipped.rules", "-a always,exclude -F msgtype=SYSCALL\n")
        yield "never", lambda: planted(f"{folder}/00-flipped.rules", "-a never,exit -F auid=0\n")
        yield "deleted", lambda: planted(f"{folder}/zz-flipped.rules", "-W /etc/shadow -p wa -k identity\n")
    elif setting["of"] == "written":
        rule = re.escape(setting["rules"][0])
        yield "removed", edited(f"{folder}/10-casemate.rules", rf"(?m)^{rule}\n", "")
        if setting["rules"] == ["-e 2"]:
            yield "a later one", lambda: planted(f"{folder}/zz-flipped.rules", "-e 1\n")


def audit_daemon(setting: Setting) -> Flips:
    for name in (*setting["values"], *setting["at_least"]):
        yield name, functools.partial(rewritten, "/etc/audit/auditd.conf", append(f"{name} = halt\n"))


def patch(setting: Setting) -> Flips:
    status = "/var/lib/dpkg/status"
    if setting["of"] == "automatic":
        line = 'Unattended-Upgrade::Automatic-Reboot "true";\n'
        yield "reboot", lambda: planted("/etc/apt/apt.conf.d/99zzz", line, 0o644)
    elif setting["of"] == "held":
        whole = "Package: tzdata\nStatus: install ok installed"
        yield (
            "held",
            lambda: rewritten(status, lambda text: text.replace(whole, whole.replace("install ok", "hold ok"))),
        )
    elif setting["of"] == "broken":
        stanza = "\nPackage: flipped\nStatus: install ok half-configured\nVersion: 1\n"
        yield "half-way", lambda: rewritten(status, append(stanza))
    elif setting["of"] == "libraries":
        path = "/usr/lib/flipped"
        start = f"cp /bin/sleep {path}; {path} 999 >/dev/null 2>&1 & echo $! >/run/flipped.pid; sleep 0.2; rm {path}"
        yield "replaced", lambda: did(start, "kill $(cat /run/flipped.pid); rm /run/flipped.pid")


def package(setting: Setting) -> Flips:
    name, installed = setting["name"].replace("*", "x"), "Status: install ok installed\n"
    stanza = f"Package: {name}\n{installed}"

    def change(text: str) -> str:
        if setting.get("state") == "absent":
            return f"{text}\n{stanza}Version: 1\n"
        return text.replace(stanza, f"Package: {name}\nStatus: deinstall ok config-files\n")

    yield "dpkg", lambda: rewritten("/var/lib/dpkg/status", change)


def account(setting: Setting) -> Flips:
    lines = {
        "no_empty_password": "eve:x:2001:65534::/:/usr/sbin/nologin",
        "only_root_is_uid_0": "toor:*:0:65534::/:/usr/sbin/nologin",
        "system_nologin": "daemon9:*:199:65534::/:/bin/bash",
        "hash_scheme": "mallory:$1$salt$hash:2002:65534::/:/usr/sbin/nologin",
    }
    check = setting["check"]
    if check == "no_empty_password":
        yield (
            "shadow",
            lambda: both(
                rewritten("/etc/passwd", append(lines[check] + "\n")),
                rewritten("/etc/shadow", append("eve::19000::::::\n")),
            ),
        )
    elif check == "locked_without_shell":
        yield (
            "shadow",
            lambda: both(
                rewritten("/etc/passwd", append("mallet:x:2003:65534::/:/usr/sbin/nologin\n")),
                rewritten("/etc/shadow", append("mallet:$y$j9T$a$b:19000::::::\n")),
            ),
        )
    elif check in lines:
        yield "passwd", lambda: rewritten("/etc/passwd", append(lines[check] + "\n"))
    elif check == "locked":
        user = re.compile(rf"(?m)^{setting['user']}:[^:]*")
        yield "password", lambda: rewritten("/etc/shadow", lambda text: user.sub(f"{setting['user']}:$y$j9T$a$b", text))
    elif check == "login_def":
        yield "login.defs", lambda: rewritten("/etc/login.defs", append(f"{setting['key']} flipped\n"))
    elif check == "pam_module":
        word = setting.get("option") or setting["module"]
        yield "pam", lambda: rewritten(f"/etc/pam.d/{setting['service']}", lambda text: text.replace(word, "flipped"))
    elif check == "nopasswd_sudo":
        yield "sudoers", lambda: planted("/etc/sudoers.d/eve", "#2001 ALL=(ALL) NOPASSWD: ALL\n", 0o440)
        yield "defaults", lambda: planted("/etc/sudoers.d/all", "Defaults !authenticate\n", 0o440)
    elif check == "sudo_folder":
        inner = sh("cat /etc/sudoers.d/*")  # which goes on to count
        line = re.compile(r"(?m)^[@#]includedir .*$")
        yield "not included", lambda: rewritten("/etc/sudoers", lambda text: line.sub(lambda _: inner, text))
    elif check == "sudo_defaults":
        for name in setting["options"]:
            other = f"{name}=-1" if name == "timestamp_timeout" else f"!{name}"
            yield name, functools.partial(planted, "/etc/sudoers.d/eve", f"Defaults:eve {other}\n", 0o440)


def person(setting: Setting) -> Flips:
    """Somebody who is declared is not as declared any more."""
    present = [one for one in setting["people"] if one["state"] == "present"]
    revoked = [one for one in setting["people"] if one["state"] == "revoked"]
    line = {one["name"]: re.compile(rf"(?m)^{re.escape(one['name'])}:.*\n") for one in setting["people"]}

    def field(path: str, name: str, number: int, value: str) -> Callable[[], Undone]:
        def change(found: re.Match[str]) -> str:
            fields = found[0].rstrip("\n").split(":")
            return ":".join([*fields[:number], value, *fields[number + 1 :]]) + "\n"

        return lambda: rewritten(path, lambda text: line[name].sub(change, text))

    if setting["of"] == "accounts" and present:
        name = present[0]["name"]
        yield "no shell", field("/etc/passwd", name, 6, "/usr/sbin/nologin")
        yield "lost", lambda: rewritten("/etc/passwd", lambda text: line[name].sub("", text))
    elif setting["of"] == "groups" and present:
        joined = re.compile(r"(?m)^(video:x:\d+:).*$")
        name = present[0]["name"]
        yield "joined", lambda: rewritten("/etc/group", lambda text: joined.sub(rf"\g<1>{name}", text))
        for group in present[0]["groups"]:
            yield f"left {group}", functools.partial(left_by_all, group)
    elif setting["of"] == "last_days" and present:
        yield "another day", field("/etc/shadow", present[0]["name"], 7, "30000")
        yield "no end", field("/etc/shadow", present[0]["name"], 7, "")
    elif setting["of"] == "revoked" and revoked:
        yield "a password", field("/etc/shadow", revoked[0]["name"], 1, "$y$j9T$a$b")
        yield "no end", field("/etc/shadow", revoked[0]["name"], 7, "")


def left_by_all(group: str) -> Undone:
    members = re.compile(rf"(?m)^({re.escape(group)}:[^:]*:\d+:).*$")
    return rewritten("/etc/group", lambda text: members.sub(r"\1", text))


def sessions(setting: Setting) -> Flips:
    """A process of somebody who is revoked; and one that would outlive a logout."""
    name = next((one["name"] for one in setting["people"] if one["state"] == "revoked"), "")
    if name:
        start = f"setpriv --reuid={name} --regid={name} --clear-groups sleep 999 >/dev/null 2>&1 &"
        yield (
            "a process",
            lambda: did(
                f"{start} echo $! >/run/flipped.pid", "kill $(cat /run/flipped.pid); rm /run/flipped.pid; sleep 0.1"
            ),
        )
        yield "linger", lambda: planted(f"/var/lib/systemd/linger/{name}")


def folder(setting: Setting) -> Flips:
    """A folder of our own: other content, one file more, one less, another mode or owner."""
    path = setting["path"]
    first = f"{path}/{min(setting['files'])}"
    yield "edited", lambda: rewritten(first, append("# by hand\n"))
    yield "removed", lambda: rewritten(first, None)
    yield "planted", lambda: planted(f"{path}/eve", "ssh-ed25519 AAAA\n", 0o644)
    yield "planted, hidden", lambda: planted(f"{path}/.eve", mode=0o644)
    yield "chmod", lambda: marked(first, lambda seen: os.chmod(first, seen.st_mode & 0o7777 | 2))
    yield "chown", lambda: marked(first, lambda _: os.chown(first, 12345, -1))
    yield "chmod of the folder", lambda: marked(path, lambda seen: os.chmod(path, seen.st_mode & 0o7777 | 2))


def image_verifier(setting: Setting) -> Flips:
    """containerd that asks nobody, once it starts again; or a program that lets everything through."""
    if setting["aspect"] == "asked":
        text = "version = 3\n[plugins.'io.containerd.cri.v1.images']\nuse_local_image_pull = true\n"
        yield "pulls by itself", lambda: planted(f"{CONTAINERD}/config-v3.toml.d/zz-flipped.toml", text)
    else:
        path = f"{setting['folder']}/{setting['program']}"
        yield "lax", lambda: rewritten(path, lambda _: "#!/bin/sh\nexit 0\n")


def image_running(setting: Setting) -> Flips:
    """A list that nobody signed has nothing of what runs."""
    yield "unsigned", lambda: rewritten(f"{setting['lists']}/list.json.sig", lambda old: old.replace("A", "B"))


def registries(setting: Setting) -> Flips:
    """Another file than is declared; or whom containerd asks, which is in force at once."""
    if setting["aspect"] == "file":
        yield "edited", lambda: rewritten("/etc/rancher/k3s/registries.yaml", append("# by hand\n"))
        yield "removed", lambda: rewritten("/etc/rancher/k3s/registries.yaml", None)
        return
    folder = f"{CONTAINERD}/certs.d/flipped.example.org"
    told = {"limited": "https://flipped.example.org", "verified": "http://flipped.example.org"}[setting["aspect"]]
    yield "one more", lambda: planted(f"{folder}/hosts.toml", f'server = "{told}"\n')


def totp_secrets(setting: Setting) -> Flips:
    """Other secrets or options in a file of ours, codes that are right once, another mode or owner, a file more."""
    path = setting["path"]
    first = f"{path}/{min(setting['secrets'])}"
    yield "emptied", lambda: rewritten(first, lambda _: "")
    yield "another secret", edited(first, r"\A.*", "A" * 32)
    yield "used again", edited(first, r'(?m)^" DISALLOW_REUSE.*\n', "")
    yield "a code more", lambda: rewritten(first, append("12345678\n"))
    yield "removed", lambda: rewritten(first, None)
    yield "planted", lambda: planted(f"{path}/eve", f"{'A' * 32}\n", 0o600)
    yield "chmod", lambda: marked(first, lambda seen: os.chmod(first, seen.st_mode & 0o7777 | 4))
    yield "chown", lambda: marked(first, lambda _: os.chown(first, 12345, -1))
    yield "chmod of the folder", lambda: marked(path, lambda seen: os.chmod(path, seen.st_mode & 0o7777 | 0o55))


def account_lists(setting: Setting) -> Flips:
    passwd, group = "/etc/passwd", "/etc/group"
    lines = {
        "accounts_of_gid_0": (passwd, "eve:x:2001:0::/:/usr/sbin/nologin"),
        "groups_of_gid_0": (group, "flipped:x:0:"),
        "shadowed": (passwd, "eve:$y$j9T$a$b:2001:65534::/:/usr/sbin/nologin"),
        "groups_of_accounts": (passwd, "eve:x:2001:2001::/:/usr/sbin/nologin"),
        "uids": (passwd, "eve:x:1:65534::/:/usr/sbin/nologin"),
        "gids": (group, "flipped:x:1:"),
        "account_names": (passwd, "daemon:x:2001:65534::/:/usr/sbin/nologin"),
        "group_names": (group, "daemon:x:2001:"),
        "shells": ("/etc/shells", "/usr/sbin/nologin"),
    }
    path, line = lines[setting["of"]]
    yield "a line more", lambda: rewritten(path, append(f"{line}\n"))


def home(setting: Setting) -> Flips:
    path = "/home/alice" if setting["of"] == "homes" else "/home/alice/.profile"
    yield "chmod", lambda: marked(path, lambda seen: os.chmod(path, seen.st_mode & 0o7777 | 2))
    yield "chown", lambda: marked(path, lambda _: os.chown(path, 12345, -1))
    if setting["of"] == "dot_files":
        yield "lets in", lambda: planted("/home/alice/.rhosts", "+ +\n")
    else:
        line = "eve:x:2001:65534::/home/nowhere:/bin/bash\n"
        yield "missing", lambda: rewritten("/etc/passwd", append(line))


@contextlib.contextmanager
def both(*flips: Undone) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for flip in flips:
            stack.enter_context(flip)
        yield


def port(setting: Setting, address: str) -> Flips:
    def listen() -> Undone:
        with contextlib.ExitStack() as stack:
            sort = socket.SOCK_DGRAM if setting.get("proto") == "udp" else socket.SOCK_STREAM
            bound = stack.enter_context(socket.socket(type=sort))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((address, setting["port"]))
            if sort == socket.SOCK_STREAM:
                bound.listen()
            return stack.pop_all()
        raise AssertionError("not reached")

    yield "listening", listen


def sshd(setting: Setting) -> Flips:
    key = setting["key"]
    if key == "daemon":
        yield "edited", lambda: after(REREAD_SSH, by=rewritten(SSHD, append("# by hand\n")))
        for path in (f"{SSHD}.d/00-casemate.conf", f"{SSHD}.d"):
            yield f"touched {path}", functools.partial(did, f"touch {path}", REREAD_SSH)
        own, ahead = f"{SSHD}.d/00-casemate.conf", "touch --date='+1 year'"
        yield "dated in the future", lambda: did(f"{ahead} {own}", f"touch {own}; {REREAD_SSH}")
        return
    if key == "listener":
        given, other, pid = "/etc/default/ssh", "/run/other_config", "/run/second.pid"

        def config() -> Undone:
            return both(planted(other), rewritten(given, append(f"SSHD_OPTS='-f {other}'\n")))

        yield "option", lambda: rewritten(given, append('SSHD_OPTS="-o VersionAddendum=x"\n'))
        yield "another file, read", lambda: after(REREAD_SSH, by=reloaded(config()))
        start = f"/usr/sbin/sshd -p 2222 -o PidFile={pid}; until [ -s {pid} ]; do sleep 0.1; done; sleep 0.2"
        gone = f"pid=$(cat {pid}); kill $pid; while kill -0 $pid 2>/dev/null; do sleep 0.1; done"
        yield "second daemon", lambda: did(start, gone)
        return
    if setting.get("users_only") and not setting["users"]:
        return
    line = f"{key} {SSHD_VALUES.get(key) or SSHD_VALUES[setting['value']]}\n"
    name = "zz" if key == "maxstartups" else "00-aaa"  # of this one the last value wins, of the others the first
    foreign, ours = f"{SSHD}.d/{name}.conf", re.compile(rf"(?m)^{key} .*\n")
    own = f"{SSHD}.d/00-casemate.conf"
    if not setting.get("users_only"):
        yield "foreign", lambda: planted(foreign, line)
        yield "foreign, read", lambda: after(REREAD_SSH, by=reloaded(planted(foreign, line)))
        yield "edited", lambda: after(REREAD_SSH, by=rewritten(own, lambda text: ours.sub(line, text)))
    if setting.get("users"):
        other = f"{key} no\n" if setting["users_value"] == "yes" else line
        whose = f"Match User {setting['users'][0]}\n{other}"
        yield "foreign, by address", lambda: planted(foreign, f"Match Address *,!192.0.2.0/24\n{other}")
        yield "foreign, for one", lambda: planted(foreign, whose)
        special = re.compile(rf"(?m)^ +{key} .*\n")
        yield "edited, for some", lambda: after(REREAD_SSH, by=rewritten(own, lambda text: special.sub(other, text)))


@contextlib.contextmanager
def reloaded(by: Undone, command: str = REREAD_SSH) -> Iterator[None]:
    with by:
        sh(command)
        yield


def k3s_config(setting: Setting) -> Flips:
    def foreign(text: str) -> Callable[[], Undone]:
        return lambda: planted(f"{CONFIG}/zz.yaml", text)

    own = f"{CONFIG}/{setting.get('file', 'casemate-k3s_node.yaml')}"
    if setting.get("lint"):
        yield "unknown key", foreign("no-such-key: true\n")
    elif setting.get("current"):
        yield "edited", lambda: rewritten(own, append("# by hand\n"))
    elif "absent_key" in setting:
        yield "foreign", foreign(f"{setting['absent_key']}: true\n")
    for key, value in (setting.get("options") or {setting.get("key"): setting.get("value")}).items():
        if key is None or (key.endswith("-arg") and value == []):
            continue
        for item in (value if isinstance(value, list) else [value]) if key.endswith("-arg") else []:
            other = item.partition("=")[0] + "=flipped"
            yield f"foreign {item}", foreign(f'{key}+:\n- "{other}"\n')
            yield f"edited {item}", edited(own, re.escape(item), other)
        if not key.endswith("-arg"):
            other = "[flipped]" if isinstance(value, list) else "flipped" if value not in (True, False) else ""
            line = f"{key}: {other or str(not value).lower()}\n"
            yield f"foreign {key}", foreign(line)
            yield f"edited {key}", edited(own, rf"(?m)^{key}:.*\n( +- .*\n)*", line)


def edited(path: str, old: str, new: str) -> Callable[[], Undone]:
    """A file of text in which a pattern is replaced."""
    return lambda: rewritten(path, lambda text: re.sub(old, lambda _: new, text))


def service(setting: Setting) -> Flips:
    unit = setting["unit"]
    state = dict(line.split("=", 1) for line in sh(f"systemctl show -p LoadState,UnitFileState {unit}").split())
    reread = "systemctl daemon-reload"
    if setting.get("state") == "stopped":
        if state["LoadState"] == "not-found":
            planting = planted(f"/run/systemd/system/{unit}", "[Service]\nExecStart=/bin/sleep 999\n")
            start, stop = f"{reread}; systemctl start {unit}", f"systemctl stop {unit}"
            yield "started", lambda: after(reread, by=both(planting, did(start, stop)))
        else:
            masked = state["LoadState"] == "masked"
            on, off = f"systemctl -q enable {unit}", f"systemctl -q disable {unit}"
            unmask, mask = f"systemctl -q unmask {unit}; {on}", f"{off}; systemctl -q mask {unit}"
            yield "enabled", lambda: did(unmask if masked else on, mask if masked else off)
        return
    off, on = ("mask", "unmask") if state["UnitFileState"] == "static" else ("disable", "enable")
    yield off, lambda: did(f"systemctl -q {off} {unit}", f"systemctl -q {on} {unit}")
    drop = f"/etc/systemd/system/{unit}.d/zz.conf"
    yield "drop-in", lambda: after(reread, by=planted(drop, "[Unit]\nDescription=by hand\n"))
    yield "drop-in, read", lambda: after(reread, by=reloaded(planted(drop, "[Unit]\nDescription=by hand\n"), reread))
    if not unit.startswith("k3s"):  # without it nothing of it can be judged
        yield "stopped", lambda: did(f"systemctl stop {unit}", f"systemctl start {unit}")


def link(setting: Setting) -> Flips:
    path = setting["path"]
    back = f"ln -sfn {setting['target']} {path}"
    yield "removed", functools.partial(did, f"rm {path}", back)
    yield "turned away", functools.partial(did, f"ln -sfn /bin/true {path}", back)
    yield "replaced", functools.partial(did, f"rm {path}; cp /bin/true {path}", back)


def resolver(setting: Setting) -> Flips:
    """The lab's machines have no other file of resolvers, so K3s is told of the same one all the time."""
    path = setting["files"][0]
    for name, text in {"loopback": "nameserver 127.0.0.53\n", "among others": "nameserver ::1\n"}.items():
        yield name, functools.partial(rewritten, path, append(text))
    yield "none", lambda: rewritten(path, lambda text: text.replace("nameserver", "#nameserver"))


def nft(setting: Setting) -> Flips:
    def rule(text: str) -> Callable[[], Undone]:
        return lambda: did(f"nft {text}", RELOAD_NFT)

    if "ruleset" in setting:
        yield "dormant", rule("'add table inet casemate { flags dormant; }'")
        yield "foreign rule", rule("insert rule inet casemate input tcp dport 9999 accept")
        yield "edited", lambda: rewritten("/etc/casemate/firewall.nft", append("# by hand\n"))
        yield "lost rule", rule(f"delete rule inet casemate entry handle {handle('entry', 'past the chain input')}")
    elif "policy" in setting:
        other = "accept" if setting["policy"] == "drop" else "drop"
        yield "policy", rule(f"'chain inet casemate {setting['chain']} {{ policy {other}; }}'")
    elif not setting["ports"]:  # behind the rule that keeps everybody else from the named ports
        yield "opened", rule(f"add rule inet casemate {setting['chain']} meta l4proto {setting['proto']} accept")
    for number in setting.get("ports", ()):
        about = f"{setting['proto']} dport {number}"
        yield f"opened {number}", rule(f"insert rule inet casemate {setting['chain']} {about} accept")
    if setting.get("ports") and setting["sources"]:
        admitting = rf"{setting['proto']} dport [^\n]*\b{setting['ports'][0]}\b[^\n]* saddr [^\n]* accept"
        yield "shut", rule(f"delete rule inet casemate {setting['chain']} handle {handle(setting['chain'], admitting)}")


def admission(setting: Setting) -> Flips:
    present = [one["name"] for one in setting["people"] if one["state"] == "present"]
    if present:
        line = f"DenyUsers {present[0]}\n"
        yield "denied", lambda: after(REREAD_SSH, by=reloaded(planted(f"{SSHD}.d/zz.conf", line)))


def other_firewalls(setting: Setting) -> Flips:
    kept = 'ct state established,related accept; iifname "lo" accept'  # what runs goes on, and the host with itself
    for name, policy, last in (("policy", "drop", "counter"), ("last rule", "accept", "counter drop")):
        chain = f"type filter hook input priority 10; policy {policy}; {kept}; {last};"
        adding = f"nft 'table inet flipped {{ chain input {{ {chain} }}; }}'"
        yield name, functools.partial(did, adding, "nft delete table inet flipped")
    enabled = "mkdir -p /etc/ufw /lib/ufw; touch /lib/ufw/ufw-init; echo ENABLED=yes >/etc/ufw/ufw.conf"
    yield "ufw enabled", functools.partial(did, enabled, "rm -r /etc/ufw /lib/ufw")


def handle(chain: str, about: str) -> str:
    """The number by which a rule is deleted, found by a pattern."""
    found = re.search(rf"{about}[^\n]* # handle (\d+)", sh(f"nft -a list chain inet casemate {chain}"))
    return found[1] if found else ""


def mount_option(setting: Setting) -> Flips:
    path = setting["path"]

    def remounted(now: str, then: str) -> Callable[[], Undone]:
        return lambda: did(f"mount -o remount,{now} {path}", f"mount -o remount,{then} {path}")

    for option in setting.get("options", ()):
        yield f"without {option}", remounted(option[2:], option)
    if setting.get("enforced") is not False:
        yield "line of fstab", edited("/etc/fstab", rf"(?m)^(\S+ {path} .*)", f"tmpfs {path} tmpfs defaults 0 0")
    for option in setting.get("without", ()):
        yield f"with {option}", remounted(f"bind,{option}", f"bind,{option[2:]}")


def artifact(setting: Setting) -> Flips:
    path = setting.get("path", "/usr/local/bin/k3s")
    if setting["aspect"] == "file" and os.path.exists(path):
        yield "a byte more", lambda: longer(path)
    elif setting["aspect"] == "version":
        older = "/run/older-k3s"
        script = "#!/bin/sh\n# -X github.com/k3s-io/k3s/pkg/version.Version=v1.1.1+k3s1 -s\n"
        mounting = did(f"mount --bind {older} {path}", f"umount {path}")
        yield "older binary", lambda: both(planted(older, script, 0o755), mounting)


def accepted_lock(setting: Setting) -> Flips:
    """A host that accepted a newer lock than this one, or on which somebody wrote something else."""
    path = "/var/lib/casemate/accepted_lock.json"

    def kept(text: str) -> Callable[[], Undone]:
        return lambda: rewritten(path, lambda _: text) if os.path.exists(path) else planted(path, text)

    yield "newer", kept(json.dumps({"serial": setting["serial"] + 1}))
    yield "no record", kept("none\n")


def web(setting: Setting) -> Flips:
    """Somebody answers in the place of K3s: only where the control looks, and without asking for a certificate."""

    class Intruder(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == setting.get("path", "/") else 401)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    @contextlib.contextmanager
    def intrusion() -> Iterator[None]:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Intruder)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*(f"/var/lib/rancher/k3s/agent/serving-kubelet.{end}" for end in ("crt", "key")))
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f"ip daddr {setting['address']} tcp dport {setting['port']}"
        rule = f"add rule ip flipped output {where} redirect to :{server.server_port}"
        chain = "add chain ip flipped output { type nat hook output priority -150; }"
        with did(f"nft 'add table ip flipped; {chain}; {rule}'", "nft delete table ip flipped"):
            yield
        server.shutdown()
        server.server_close()

    yield "intruder", intrusion


# --- flips of objects of a real API server ------------------------------------------------------------------------


@contextlib.contextmanager
def replaced(path: str, change: Callable[[Setting], None] | None) -> Iterator[None]:
    """Change an object, or delete it. What was ours is ours again afterwards: else no apply would ever remove it."""
    old = json.loads(sh(f"k3s kubectl get --raw {path}"))
    ours = any(one["manager"] == "casemate" for one in old["metadata"].get("managedFields", ()))
    by = "?fieldManager=casemate" if ours else ""
    for volatile in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
        old["metadata"].pop(volatile, None)
    text = json.dumps(old)
    if change is None:
        sh(f"k3s kubectl delete --raw {path}")
    else:
        change(old)
        put(path, old)
    try:
        yield
    finally:
        if change is None:
            sh(f"k3s kubectl create --raw {os.path.dirname(path)}{by} -f -", text)
        else:
            put(path, json.loads(text), by)


def put(path: str, made: Setting, by: str = "") -> None:
    """Replace an object. What decides on admission is replaced only by who names its version."""
    if made["apiVersion"].startswith("admissionregistration.k8s.io/"):
        now = json.loads(sh(f"k3s kubectl get --raw {path}"))
        made["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"]
    sh(f"k3s kubectl replace --raw {path}{by} -f -", json.dumps(made))


@contextlib.contextmanager
def created(collection: str, body: Setting, gone: str = "") -> Iterator[None]:
    name = body.get("metadata", {}).get("name", "flipped")
    body["metadata"] = {**body.get("metadata", {}), "name": name}
    with after(gone or f"k3s kubectl delete --raw {collection}/{name}"):
        sh(f"k3s kubectl create --raw {collection} -f -", json.dumps(body))
        yield


def encryption(demand: str) -> Flips:
    """K3s' own file, for less than the minute after which the API server would load it."""

    def change(text: str) -> str:
        made = json.loads(text)
        providers = made["resources"][0]["providers"]
        other = {"keys": [{"name": "flipped", "secret": base64.b64encode(b"flipped " * 4).decode()}]}
        cipher = "aescbc" if demand == "secretbox" else "secretbox"
        providers.insert(0, providers.pop() if demand == "active" else {cipher: other})
        return json.dumps(made)

    name = "identity first" if demand == "active" else "other cipher"
    yield name, lambda: rewritten("/var/lib/rancher/k3s/server/cred/encryption-config.json", change)


def k8s_object(setting: Setting) -> Flips:
    path = setting["path"].replace("{namespace}", "default")
    if "encryption" in setting:
        yield from encryption(setting["encryption"])
    elif "only" in setting and path.endswith("/namespaces"):
        label = setting["only"]["field"].split(".", 2)[2].replace("\\.", ".")
        value = "v1.25" if label.endswith("-version") else "privileged"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"labels": {label: value}}}
        yield "labelled", lambda: created(path, dict(body), "k3s kubectl delete namespace flipped")
    elif "only" in setting and path.endswith("/nodes"):
        node = {"status": {"nodeInfo": {"kubeletVersion": "v1.1.1+k3s1"}}}
        yield "old node", lambda: created(path, {"apiVersion": "v1", "kind": "Node", **node})
    elif "only" in setting:
        group, select = "rbac.authorization.k8s.io", setting["select"]
        role = {"apiGroup": group, "kind": "ClusterRole", "name": select.get("roleRef.name", "view")}
        who = {"apiGroup": group, "kind": "Group", "name": select.get("subjects.name", "eve")}
        sort = "ClusterRoleBinding" if path.endswith("/clusterrolebindings") else "RoleBinding"
        path = path.replace("/v1/rolebindings", "/v1/namespaces/default/rolebindings")
        binding = {"apiVersion": f"{group}/v1", "kind": sort, "roleRef": role, "subjects": [who]}
        yield "bound", lambda: created(path, dict(binding))
    elif setting["body"]["kind"].startswith("ValidatingAdmissionPolicy"):
        yield "deleted", lambda: replaced(path, None)
        yield "let through", lambda: replaced(path, let_through)
    elif "spec" in setting["body"]:
        yield "deleted", lambda: replaced(path, None)
        nothing = {"matchLabels": {"no": "pod"}}
        yield "no pod", lambda: replaced(path, lambda old: old["spec"].update(podSelector=nothing))
        yield "opened", lambda: replaced(path, lambda old: old["spec"].update(ingress=[{}, {}]))
    elif "automountServiceAccountToken" in setting["body"]:
        yield "mounted", lambda: replaced(path, lambda old: old.update(automountServiceAccountToken=True))
    for label in setting.get("body", {}).get("metadata", {}).get("labels", ()):
        yield f"without {label}", unlabelled(path, label)


def let_through(policy: dict[str, Any]) -> None:
    """A policy, or its binding, that refuses nobody."""
    spec = policy["spec"]
    if "validationActions" in spec:
        spec["validationActions"] = ["Audit"]
    else:
        spec["validations"] = [{"expression": "true"}]


def cluster_object(kind: str) -> Setting:
    """An object of a kind that gives power, as somebody may leave it in the namespace default, or in kube-system."""
    admission, rbac = "admissionregistration.k8s.io/v1", "rbac.authorization.k8s.io"
    rules: list[Setting] = [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["limitranges"]}
    ]
    hook: Setting = {
        "name": "flipped.example.org",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "rules": rules,
    }
    hook |= {"failurePolicy": "Ignore", "clientConfig": {"url": "https://192.0.2.66/"}}
    matched = {"matchConstraints": {"resourceRules": rules}, "failurePolicy": "Ignore"}
    jsonpatch = {"expression": '[JSONPatch{op: "test", path: "/spec", value: ""}]'}
    mutation = {"mutations": [{"patchType": "JSONPatch", "jsonPatch": jsonpatch}], "reinvocationPolicy": "Never"}
    container = {"name": "main", "image": "docker.io/library/busybox:1.36", "securityContext": {"privileged": True}}
    template: Setting = {"metadata": {"labels": {"app": "flipped"}}, "spec": {"containers": [container]}}
    workload = {"selector": {"matchLabels": {"app": "flipped"}}, "template": template, "replicas": 0}
    once = {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": "edit"}
    subjects = [{"kind": "ServiceAccount", "namespace": "default", "name": "flipped"}]
    rights = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    schema = {"openAPIV3Schema": {"type": "object"}}
    converted = {"conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://192.0.2.66/"}}
    made: dict[str, Setting] = {
        "ValidatingWebhookConfiguration": {"apiVersion": admission, "webhooks": [hook]},
        "MutatingWebhookConfiguration": {"apiVersion": admission, "webhooks": [hook]},
        "ValidatingAdmissionPolicy": {
            "apiVersion": admission, "spec": {**matched, "validations": [{"expression": "true"}]}
        },
        "ValidatingAdmissionPolicyBinding": {
            "apiVersion": admission, "spec": {"policyName": "flipped", "validationActions": ["Audit"]}
        },
        "MutatingAdmissionPolicy": {"apiVersion": admission, "spec": {**matched, **mutation}},
        "MutatingAdmissionPolicyBinding": {"apiVersion": admission, "spec": {"policyName": "flipped"}},
        "CustomResourceDefinition": {
            "apiVersion": "apiextensions.k8s.io/v1",
            "metadata": {"name": "flips.flipped.example.org"},
            "spec": {
                "group": "flipped.example.org", "scope": "Cluster",
                "names": {"plural": "flips", "singular": "flip", "kind": "Flip"},
                "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
                "conversion": {"strategy": "Webhook", "webhook": converted},
            },
        },
        "ConfigMap": {"apiVersion": "v1", "metadata": {"name": "coredns-custom"}, "data": {"x.override": "log\n"}},
        "APIService": {
            "apiVersion": "apiregistration.k8s.io/v1",
            "metadata": {"name": "v1.flipped.example.org"},
            "spec": {
                "group": "flipped.example.org", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
                "insecureSkipTLSVerify": True, "service": {"namespace": "default", "name": "flipped"},
            },
        },
        "ClusterRole": {"apiVersion": f"{rbac}/v1", "rules": rights},
        "Role": {"apiVersion": f"{rbac}/v1", "rules": rights},
        "ClusterRoleBinding": {"apiVersion": f"{rbac}/v1", "roleRef": role, "subjects": subjects},
        "RoleBinding": {"apiVersion": f"{rbac}/v1", "roleRef": role, "subjects": subjects},
        "Secret": {
            "apiVersion": "v1", "type": "kubernetes.io/service-account-token",
            "metadata": {"annotations": {"kubernetes.io/service-account.name": "default"}},
        },
        "NetworkPolicy": {"apiVersion": "networking.k8s.io/v1", "spec": {"podSelector": {}, "ingress": [{}]}},
        "Service": {"apiVersion": "v1", "spec": {"type": "NodePort", "ports": [{"port": 8443}]}},
        "EndpointSlice": {
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4",
            "ports": [{"name": "https", "port": 6443}],
            "endpoints": [{"addresses": ["192.0.2.66"], "conditions": {"ready": False}}],  # so that nobody is led there
        },
        "Deployment": {"apiVersion": "apps/v1", "spec": workload},
        "DaemonSet": {
            "apiVersion": "apps/v1",
            "spec": {
                **workload, "replicas": None,
                "template": {**template, "spec": {"containers": [container], "nodeSelector": {"no": "node"}}},
            },
        },
        "StatefulSet": {"apiVersion": "apps/v1", "spec": {**workload, "serviceName": "flipped"}},
        "ReplicaSet": {"apiVersion": "apps/v1", "spec": {**workload, "replicas": 1}},
        "ReplicationController": {
            "apiVersion": "v1", "spec": {**workload, "selector": {"app": "flipped"}}
        },
        "Job": {"apiVersion": "batch/v1", "spec": once},
        "CronJob": {
            "apiVersion": "batch/v1",
            "spec": {"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": {"spec": once}},
        },
        "Pod": {
            "apiVersion": "v1",
            "metadata": {"namespace": "kube-system"},
            "spec": {"containers": [container], "hostPID": True, "nodeSelector": {"no": "node"}},
        },
        "PersistentVolume": {
            "apiVersion": "v1",
            "spec": {
                "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/etc"},
            },
        },
    }  # fmt: skip
    return {"kind": kind, **made.get(kind, {})}


@contextlib.contextmanager
def chart(collection: str, kind: str) -> Iterator[None]:
    """Where no Helm controller runs, as in the lab, its resources are made first; one that runs is told to wait."""
    group, plural = collection.split("/")[2], os.path.basename(collection)
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    crd = {"kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.{group}"}, "spec": spec}
    metadata = {"namespace": "default", "annotations": {"helmcharts.cattle.io/unmanaged": "true"}}
    body = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": metadata, "spec": {"chart": "flipped"}}
    resources: Undone = contextlib.nullcontext()
    if not sh(f"k3s kubectl get crd --ignore-not-found {plural}.{group}"):
        making = json.dumps({"apiVersion": "apiextensions.k8s.io/v1", **crd})
        waiting = f"until k3s kubectl get --raw {collection}; do sleep 0.1; done"
        make = f"echo {shlex.quote(making)} | k3s kubectl create -f - && timeout 20 sh -c '{waiting}'"
        resources = did(make, f"k3s kubectl delete crd {plural}.{group}")
    with both(resources, created(f"{os.path.dirname(collection)}/namespaces/default/{plural}", body)):
        yield


def vouched_objects(setting: Setting) -> Flips:
    """An object of nobody's in each list."""
    for place in setting["objects"]:
        if place["kind"].startswith("Helm"):
            yield f"planted {place['kind']}", functools.partial(chart, place["path"], place["kind"])
            continue
        body = cluster_object(place["kind"])
        path = place["path"].partition("?")[0]
        namespace = body.get("metadata", {}).pop("namespace", "default")
        if "/namespaces/" not in path and place["kind"] in NAMESPACED:
            path = f"{os.path.dirname(path)}/namespaces/{namespace}/{os.path.basename(path)}"
        yield f"planted in {path}", functools.partial(created, path, body)


def addon_objects(setting: Setting) -> Flips:
    """One of each kind that K3s makes of its manifests and that may be edited in place; most add-ons may be off."""
    system = "namespaces/kube-system"
    edits: dict[str, Callable[[Setting], None]] = {
        f"/api/v1/{system}/configmaps/local-path-config": lambda old: old["data"].update(setup="#!/bin/sh\n"),
        f"/api/v1/{system}/configmaps/coredns": lambda old: old["data"].update(more="flipped"),
        f"/api/v1/{system}/serviceaccounts/coredns": lambda old: old.update(automountServiceAccountToken=True),
        f"/api/v1/{system}/services/metrics-server": lambda old: old["spec"]["selector"].update(app="flipped"),
        # Paused, so that no pod is made anew.
        f"/apis/apps/v1/{system}/deployments/metrics-server": lambda old: old["spec"].update(paused=True),
        "/apis/storage.k8s.io/v1/storageclasses/local-path": lambda old: old.update(allowVolumeExpansion=True),
    }
    for path in edits:
        asked = subprocess.run(["k3s", "kubectl", "get", "--raw", path], capture_output=True, check=False)
        if asked.returncode:
            continue
        yield f"edited {path}", functools.partial(replaced, path, edits[path])
    yield "deleted", lambda: replaced("/apis/node.k8s.io/v1/runtimeclasses/wws", None)


def vouched_rights(setting: Setting) -> Flips:
    """One of nobody's, and one of Kubernetes' own with more than it ships with."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    kinds = ["ClusterRole", "Role"] if setting["judged"] == "roles" else ["ClusterRoleBinding", "RoleBinding"]
    for kind in kinds:
        path = f"{rbac}/{'' if kind.startswith('Cluster') else 'namespaces/default/'}{kind.lower()}s"
        yield f"planted in {path}", functools.partial(created, path, cluster_object(kind))
    if setting["judged"] == "bindings":
        eve = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "eve"}
        own = f"{rbac}/clusterrolebindings/system:monitoring"
        yield "one more subject", lambda: replaced(own, lambda old: old["subjects"].append(eve))
        return
    more = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    own = f"{rbac}/clusterroles/system:discovery"
    yield "one more right", lambda: replaced(own, lambda old: old["rules"].append(more))
    label = "rbac.authorization.k8s.io/aggregate-to-view"
    joined = {**cluster_object("ClusterRole"), "metadata": {"labels": {label: "true"}}, "rules": [more]}
    yield "aggregated", functools.partial(created, f"{rbac}/clusterroles", joined)


def cluster_nodes(setting: Setting) -> Flips:
    if setting["aspect"] == "declared":
        addresses = [{"type": "InternalIP", "address": "192.0.2.66"}]
        node = {"apiVersion": "v1", "kind": "Node", "status": {"addresses": addresses}}
        yield "stranger", lambda: created("/api/v1/nodes", dict(node))
        return
    label = "node-role.kubernetes.io/control-plane"
    agents = sh(f"k3s kubectl get nodes --selector='!{label}' --output=name").split()
    relabel = f"k3s kubectl label {' '.join(agents)} {label}"
    yield "agent as server", lambda: did(f"{relabel}=true", f"{relabel}-")


def membership(setting: Setting) -> Flips:
    agent = "/var/lib/rancher/k3s/agent"
    if setting["aspect"] == "kubelet":
        with open(f"{agent}/client-ca.crt") as other:
            text = other.read()
        yield "other authority", lambda: rewritten(f"{agent}/server-ca.crt", lambda old: text)
    for path in setting.get("files", ()):
        older = functools.partial(rewritten, path, lambda old: old.strip() + "x\n")
        yield f"older {path}", older


def stored_secrets(setting: Setting) -> Flips:
    key = "/registry/secrets/default/flipped"
    if setting["where"] == "files":
        clear = f"{key}\x10\x01\x18\x01\x20\x01\x2a\x08k8s\0\n"
        yield "left behind", lambda: planted("/var/lib/rancher/k3s/server/db/state.db.migrated", clear, 0o600)
        return
    coded = base64.b64encode(key.encode()).decode()
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "flipped", "namespace": "default"}}
    value = base64.b64encode(json.dumps(body).encode()).decode()

    @contextlib.contextmanager
    def put() -> Iterator[None]:
        Etcd(Host()).call("/v3/kv/put", {"key": coded, "value": value})
        try:
            yield
        finally:
            Etcd(Host()).call("/v3/kv/deleterange", {"key": coded})

    yield "in the clear", put


def unlabelled(path: str, label: str) -> Callable[[], Undone]:
    return lambda: replaced(path, lambda old: old["metadata"]["labels"].pop(label))


# --- flipping and judging -----------------------------------------------------------------------------------------


class Machine:
    """The controls of this machine and their present statuses."""

    def __init__(self, controls: list[Setting], context: Setting) -> None:
        self.context = context
        self.catalogue: dict[str, list[Setting]] = {}
        for control in controls:
            self.catalogue.setdefault(control["role"], []).append(control)
        self.controls = controls
        self.wrong: list[str] = []
        self.base = self.start = self.look()

    def look(self) -> Statuses:
        found = engine.run(self.catalogue, Host(context=self.context), check=True).findings
        self.reasons = {one["control"]: str(one["reason"]) for one in found}
        return {one["control"]: str(one["status"]) for one in found}

    def changed(self, *flips: Flip) -> Statuses:
        """Controls whose status is another one while all these flips are in force."""
        with both(*(flip.by() for flip in flips)):
            now = self.look()
        return {control: status for control, status in now.items() if status != self.base[control]}

    def judge(self, flip: Flip, lasting: bool = False) -> None:
        """Flip one setting. A lasting flip leaves its own control failing until its unit is restarted."""
        try:
            found = self.changed(flip)
        except (OSError, ValueError, LookupError) as fault:
            self.wrong.append(f"{flip.control}, {flip.name}: could not be flipped: {type(fault).__name__}: {fault}")
            return
        said = []
        if found != flip.breaks:
            said = [f"{name} {status}: {self.reasons[name][:200]}" for name, status in found.items()] or ["nothing"]
        if found != flip.breaks or lasting:
            now = self.look()
            left = [name for name in now if now[name] != self.base[name] and not (lasting and name in flip.breaks)]
            said += [f"left behind: {', '.join(left)}"] if left else []
            self.base = now
        if said:
            self.wrong.append("\n    ".join([f"{flip.control}, {flip.name}: named", *said]))

    def crossed(self, flips: list[Flip]) -> None:
        """Flip each in two batches that share nothing but it.

        What one flip names beyond its own would have to be flipped in both batches to go unseen, and what fails to be
        named would have to be named by others in both, which then were seen themselves. So this is as exact as one by
        one where the flips of a batch add up; and where a batch is not as it should be, each is flipped alone.
        """
        side = math.isqrt(max(len(flips) - 1, 0)) + 1
        rows: dict[tuple[str, int], list[Flip]] = {}
        for number, flip in enumerate(flips):  # those of one control follow each other: no batch gets two of them
            rows.setdefault(("row", number % side), []).append(flip)
            rows.setdefault(("column", (number // side + number) % side), []).append(flip)
        doubtful: dict[tuple[str, str], Flip] = {}
        for batch in rows.values():
            try:
                fine = self.changed(*batch) == {k: v for flip in batch for k, v in flip.breaks.items()}
            except (OSError, ValueError, LookupError):
                fine = False
            if not fine:
                doubtful.update({(flip.control, flip.name): flip for flip in batch})
        for flip in doubtful.values():
            self.judge(flip)

    def restarted(self, units: set[str], expected: Statuses, seconds: int = 400) -> None:
        """Restart units, and wait until everything is as expected: K3s needs a while, and its journal too.

        An agent may fail to start while its server restarts as well; systemd tries again. One that starts may be silent
        for three minutes on a loaded machine.
        """
        if units:
            sh(f"systemctl restart --no-block {' '.join(sorted(units))}")
        end = time.monotonic() + seconds
        while (now := self.look()) != expected and time.monotonic() < end:
            time.sleep(0.5)
        off = [f"{n} {now[n]}, not {expected[n]}: {self.reasons[n][:200]}" for n in now if now[n] != expected[n]]
        if off:
            self.wrong.append(f"after a restart of {', '.join(sorted(units))}:\n    " + "\n    ".join(off))

    def arguments(self, controls: list[Setting]) -> None:
        """Restart K3s with another value of each argument that is judged, and back: once for all of them."""
        unit = f"{running_unit(Host())[0]}.service"
        running, copies = journal_args.running_args(Host()), "/run/flipped"
        os.makedirs(copies)
        lines: dict[str, str] = {}
        for setting in (control["setting"] for control in controls):
            component, flag = setting["component"], setting["flag"]
            path = "".join(running[component].get(flag, []))
            value, copy = RUNNING.get(f"{component}-{flag}", RUNNING.get(flag, "")), f"{copies}/{component}-{flag}"
            if path.startswith("/"):
                value = shutil.copy(path, copy)
            lines[component] = lines.get(component, f"{component}-arg+:\n") + f'- "{flag}={value}"\n'
        expected = {**self.start, **{control["id"]: "fail" for control in controls}}
        with planted(f"{CONFIG}/zz.yaml", "".join(lines.values())):
            self.restarted({unit}, expected)
        self.restarted({unit}, self.start)
        shutil.rmtree(copies)


def flips_of(control: Setting, machine: Machine) -> Flips:
    setting = control["setting"]
    kind = setting["kind"]
    if kind == "file":
        return file(
            setting, frozenset(c["setting"]["path"] for c in machine.controls if c["setting"]["kind"] == "file")
        )
    if kind == "port":
        return port(setting, machine.context["address"])
    makers: dict[str, Callable[[Setting], Flips]] = {
        "sysctl": sysctl, "package": package, "account": account, "account_lists": account_lists, "home": home,
        "person": person, "admission": admission, "sessions": sessions, "folder": folder,
        "totp_secrets": totp_secrets,
        "sshd": sshd, "k3s_config": k3s_config,
        "service": service, "nft": nft, "other_firewalls": other_firewalls,
        "mount_option": mount_option, "artifact": artifact, "accepted_lock": accepted_lock, "http": web,
        "k8s_object": k8s_object, "cluster_nodes": cluster_nodes, "membership": membership,
        "stored_secrets": stored_secrets, "resolver": resolver, "link": link, "leftover": leftover,
        "new_files": new_files, "addon_objects": addon_objects, "vouched": vouched, "vouched_objects": vouched_objects,
        "vouched_rights": vouched_rights, "vouched_entries": vouched_entries, "vouched_state": vouched_state,
        "pam_stack": pam_stack, "pam_line": pam_line, "ageing": ageing, "patch": patch, "pwquality": pwquality,
        "image_verifier": image_verifier, "image_running": image_running, "registries": registries,
        "systemd_setting": systemd_setting, "audit_rules": audit_rules, "audit_daemon": audit_daemon,
    }  # fmt: skip
    return makers[kind](setting) if kind in makers else iter(())


def lacking(setting: Setting) -> bool:
    """Whether this kernel has nothing to set: such a control holds whatever is done."""
    return setting["kind"] == "sysctl" and not glob.glob("/proc/sys/" + below_proc(setting["key"]))


def judged_with_its_unit(setting: Setting) -> bool:
    """Whether such a file counts as changed until its unit starts again, also once its bytes and times are back."""
    return setting["kind"] == "file" and "unit" in setting


def main() -> None:
    with zipfile.ZipFile(sys.argv[0]) as sent:
        given = json.loads(sent.read("given.json"))
    began, machine = time.monotonic(), Machine(given["controls"], given["context"])
    counts: dict[str, list[int]] = {}
    alike: list[Flip] = []
    alone: list[Flip] = []
    lasting: list[tuple[str, Flip]] = []
    read_at_start: list[tuple[set[str], Flip]] = []
    files = {c["id"]: c["setting"]["unit"] for c in machine.controls if judged_with_its_unit(c["setting"])}
    restarts: list[Setting] = []
    for control in machine.controls:
        cid, setting, status = control["id"], control["setting"], machine.start.get(control["id"])
        if status in ("fail", "error"):
            machine.wrong.append(f"{cid}: {status} before anything was flipped: {machine.reasons[cid]}")
        if status != "pass" or lacking(setting) or control["role"] in given.get("judged_only", ()):
            continue
        if setting["kind"] == "journal_args" and cid not in NOT_BY_HAND:
            restarts.append(control)
        made = []
        for name, by in flips_of(control, machine):
            breaks = {cid: "fail", **ALSO.get((cid, name), {}), **ALSO.get((setting["kind"], name), {})}
            made.append(Flip(cid, name, by, {n: s for n, s in breaks.items() if machine.start.get(n) == "pass"}))
        total = len(made) or control in restarts
        if bool(total) == (cid in NOT_BY_HAND):
            machine.wrong.append(
                f"{cid}: " + ("is flipped although it is said that nobody can" if total else "no flip")
            )
        tally = counts.setdefault(setting["kind"], [0, 0])
        tally[0] += bool(total)
        tally[1] += total
        if cid in files:
            lasting += [(files[cid], flip) for flip in made]
            continue
        for flip in made:
            if units := {files[name] for name in flip.breaks if name in files}:
                read_at_start.append((units, flip))
            else:
                (alike if setting["kind"] in ALIKE else alone).append(flip)
    machine.crossed(alike)
    for flip in alone:
        machine.judge(flip)
    for units, flip in read_at_start:
        machine.judge(flip, lasting=True)
        machine.base = machine.start
        machine.restarted(units, machine.start)
    for _, flip in lasting:
        machine.judge(flip, lasting=True)
    machine.base = machine.start
    machine.restarted({unit for unit, _ in lasting}, machine.start)
    if restarts:
        machine.arguments(restarts)
    json.dump({"wrong": machine.wrong, "flips": counts, "seconds": round(time.monotonic() - began)}, sys.stdout)


if __name__ == "__main__":
    main()
