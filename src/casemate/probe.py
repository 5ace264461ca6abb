"""What a host says of itself before the first change, and whether the lock holds what it needs.

Pure but for reading the lock and the release on the controller.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from casemate import ROOT
from casemate.lock import ARCHITECTURES, LockError, load, verify
from casemate.preflight import network

SUPPORTED = {
    ("debian", "12"): True,
    ("debian", "13"): True,
    ("ubuntu", "22.04"): False,
    ("ubuntu", "24.04"): False,
}
SPACE = {
    "data": ("/var/lib/rancher", 1024, 200),
    "binary": ("/usr/local/bin", 100, 100),
    "home": ("$home", 300, 100),
    "state": ("/var/lib/casemate", 16, 16),
    "etc": ("/etc", 16, 16),
}
"""What is asked of the probe -> (folder, MiB that must be free before K3s is installed, and after).

Files that the controller brings go through the login account's home, one at a time.
"""
PROBE = r"""
say() { printf 'casemate:%s=%s\n' "$1" "$2"; }
near() {
  d=$1
  while [ ! -d "$d" ]; do d=${d%/*}; d=${d:-/}; done
  df -Pk "$d" | awk 'END { print int($4 / 1024) }'
}
say uid "$(id -u)"
say login "${SUDO_USER:-$(id -un)}"
say machine "$(uname -m)"
home=$(getent passwd "${SUDO_USER:-$(id -un)}" | cut -d: -f6)
say os "$(. /etc/os-release; printf '%s %s' "$ID" "$VERSION_ID")"
for p in PYTHONS; do
  v=$("$p" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) && say python "$v" && break
done
SPACE
[ -w /etc ] && say writable yes
[ -e /usr/local/bin/k3s ] && say installed yes
p=$$
while [ "${p:-1}" -gt 1 ]; do
  s=$(tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | sed -n 's/^SSH_CONNECTION=\([^ ]*\) .*/\1/p')
  [ -n "$s" ] && say source "$s" && break
  p=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$p/status" 2>/dev/null)
done
true
"""
"""Run by root's sh on the host; reads only. sudo drops SSH_CONNECTION, so its parents are asked for it."""
PYTHONS = "python3.13 python3.12 python3.11 python3.10 python3.9 python3"


def script(interpreter: str = "") -> str:
    """The probe for a host whose `ansible_python_interpreter` is given: a path is taken at its word."""
    asked = PROBE.replace("PYTHONS", shlex.quote(interpreter) if interpreter.startswith("/") else PYTHONS, 1)
    return asked.replace("SPACE", "\n".join(f'say {key} "$(near "{path}")"' for key, (path, *_) in SPACE.items()), 1)


def parse(output: str) -> dict[str, str]:
    """The key=value lines of PROBE; whatever else a host prints (banners) is ignored."""
    return dict(re.findall(r"^casemate:(\w+)=(.*?)\s*$", output, re.MULTILINE))


def login_problems(login: str, automation: str, others: Sequence[str], root: bool) -> list[str]:
    """Whether the account that Ansible came as would still get in; `root` says that root may (a waiver)."""
    if "root" in (login, automation) and not root:
        told = "root may not log in over SSH any more (SSH-ROOT-REFUSED): make an account with a key and NOPASSWD sudo"
        return [f"{told}, and name it in ansible_user"]
    if login and login not in (automation, *others):
        told = f"Ansible comes as {login}, but only {automation or 'nobody'} would stay admitted over SSH: name {login}"
        return [f"{told} in ansible_user or casemate_automation_user, or list it in k3s_access_allow_users"]
    return []


def host_problems(seen: Mapping[str, str], sources: Sequence[str], brought: bool = True) -> tuple[list[str], list[str]]:
    """(problems, warnings) of a host, from what PROBE said; `brought`: K3s comes from the controller."""
    problems, warnings = [], []
    if seen.get("uid") != "0":
        problems.append(f"the tasks run with uid {seen.get('uid')}, not as root: give the account NOPASSWD sudo")
    name, _, version = seen.get("os", "").partition(" ")
    tested = SUPPORTED.get((name, version))
    if tested is None:
        problems.append(
            f"{name} {version} is not supported; supported: Debian 12 and 13 (Ubuntu 22.04, 24.04 untested)"
        )
    elif not tested:
        warnings.append(f"{name} {version} is accepted but untested; Debian 12 and 13 are tested")
    if seen.get("machine") not in ARCHITECTURES:
        problems.append(f"machine type {seen.get('machine')} is not supported; supported: {', '.join(ARCHITECTURES)}")
    python = seen.get("python", "")
    if not python or tuple(map(int, python.split("."))) < (3, 9):
        problems.append(f"Python is {python or 'missing'}; 3.9 or newer is needed: apt-get install python3")
    for key, (path, fresh, installed) in SPACE.items():
        free, least = seen.get(key, ""), installed if seen.get("installed") else fresh
        if key == "home" and not brought:
            continue
        if not free.isdigit() or int(free) < least:
            folder = "the home of the login account" if path == "$home" else path
            problems.append(f"{folder} has {free or '?'} MiB free; {least} MiB are needed: free or add disk space")
    if not seen.get("writable"):
        problems.append("/etc cannot be written: remount its filesystem read-write")
    source = seen.get("source", "")
    if source and not any(inside(source, net) for net in sources):
        problems.append(
            f"casemate_admin_sources does not contain {source}, where this controller comes from: "
            "add it, or the firewall would lock the controller out"
        )
    return problems, warnings


def inside(address: str, net: str) -> bool:
    """Whether an address (also an IPv4 one mapped into IPv6, or with a zone) is in a network."""
    there, home = network(address.partition("%")[0].removeprefix("::ffff:")), network(net)
    return bool(there and home and there.version == home.version and there.network_address in home)


def lock_problems(values: Mapping[str, Any], machine: str = "") -> list[str]:
    """What is wrong with the lock, its signature, and, for a machine type, with the local release folder."""
    path = _lock(values)
    signers, folder = values.get("casemate_allowed_signers"), values.get("casemate_artifact_dir")
    try:
        release = load(path).release(values.get("casemate_k3s_version"))
        if signers:
            verify(path, Path(str(signers)).expanduser())
        if not (machine and folder):
            return []
        name, digest = release.binary(machine)
        file = Path(str(folder)).expanduser() / name
        if not file.is_file():
            return [f"casemate_artifact_dir {folder} has no {name}: copy it from the release {release.version}"]
        with file.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
    except LockError as refusal:
        return [f"{refusal}. Review and sign the lock, or correct casemate_artifact_lock or casemate_k3s_version"]
    if found == digest:
        return []
    return [f"{file} has sha256 {found}; the lock demands {digest}: fetch it again, it is not the reviewed file"]


def version(values: Mapping[str, Any]) -> str:
    """The K3s version that is wanted: the one asked for, or the lock's default. Raises LockError."""
    return load(_lock(values)).release(values.get("casemate_k3s_version")).version


def _lock(values: Mapping[str, Any]) -> Path:
    given = values.get("casemate_artifact_lock") or ROOT / "roles/k3s_node/files/artifacts.lock.json"
    return Path(str(given)).expanduser()
