"""What a host says of itself before the first change, and whether lock and release folder hold what it needs.

Pure but for reading the lock and the release on the controller.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from casemate import ROOT
from casemate.catalogue import declarations
from casemate.preflight.inputs import network
from casemate.supply.artifact_lock import ARCHITECTURES, LockError, load, verify
from module_utils.casemate.host import conflicts, logins
from module_utils.casemate.host.signature import allowed
from module_utils.casemate.k3s import lock_validity, running

BOOTSTRAP = "casemate bootstrap -i hosts.yml"
"""What makes the account by which Casemate comes in, as messages name it."""
ROOT_LOGIN = declarations.control("sshd", key="permitrootlogin")
RULES = declarations.control("nft", gate=True)
"""The control by which the firewall is loaded."""
SUPPORTED = {
    ("debian", "12"): True,
    ("debian", "13"): True,
    ("ubuntu", "22.04"): False,
    ("ubuntu", "24.04"): False,
}
SPACE = {
    "data": ("/var/lib/rancher", 1024, 200),
    "binary": ("/usr/local/bin", 100, 100),
    "home": ("$home", 0, 0),
    "state": ("/var/lib/casemate", 16, 16),
    "etc": ("/etc", 16, 16),
}
"""What is asked of the probe -> (folder, MiB that must be free before K3s is installed, and after). Home: `room`."""
INSTALLED = {"k3s": "/usr/local/bin/k3s", "images": "/var/lib/rancher/k3s/agent/images/casemate-airgap-images.tar.zst"}
"""What is asked of the probe -> file whose size in bytes it tells."""
MARGIN = 64
SOON = datetime.timedelta(days=30)
"""How long before its last day a lock is warned of."""
PROBE = r"""
LC_ALL=C; export LC_ALL
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
"$p" -c RUNNING 2>/dev/null
"$p" -c CONFLICTS 2>/dev/null
"$p" -c LOGINS 2>/dev/null
SPACE
[ -w /etc ] && say writable yes
[ -e /usr/local/bin/k3s ] && say installed yes
ACCEPTED
DIGESTS
p=$$
while [ "${p:-1}" -gt 1 ]; do
  s=$(tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | sed -n 's/^SSH_CONNECTION=//p')
  [ -n "$s" ] && say source "${s%% *}" && say port "${s##* }" && break
  p=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$p/status" 2>/dev/null)
done
true
"""
"""Run by root's sh on the host; reads only. sudo drops SSH_CONNECTION, so its parents are asked for it."""
RUNNING, CONFLICTS, LOGINS = (Path(str(module.__file__)) for module in (running, conflicts, logins))
"""Run by the host's Python in the same call."""
PYTHONS = "python3.13 python3.12 python3.11 python3.10 python3.9 python3"


def script(
    interpreter: str = "",
    paths: Iterable[str] = (),
    resolvers: Iterable[str] = (),
    account: str = "",
    sshd: str = "",
    digests: bool = False,
    people: Iterable[str] = (),
) -> str:
    """The probe for a host whose `ansible_python_interpreter` is given: a path is taken at its word.

    `paths` are files of the host whose absence it tells, `resolvers` those whose text; it tells what lets `account` in
    once sshd reads the lines `sshd` first, and who of `people` has an account. `digests` is whether the files of
    INSTALLED are hashed, which takes a while.
    """
    asked = PROBE.replace("PYTHONS", shlex.quote(interpreter) if interpreter.startswith("/") else PYTHONS, 1)
    lines = [f'say {key} "$(near "{path}")"' for key, (path, *_) in SPACE.items()]
    lines += [f'say {key} "$(stat -c %s {path} 2>/dev/null)"' for key, path in INSTALLED.items()]
    hashed = [f'say {key}_sha256 "$(sha256sum 2>/dev/null <{path})"' for key, path in INSTALLED.items()]
    asked = asked.replace("ACCEPTED", f'say accepted "$(head -c 200 {lock_validity.ACCEPTED} 2>/dev/null)"', 1)
    asked = asked.replace("DIGESTS", "\n".join(hashed if digests else []), 1)
    scripts = {
        "RUNNING": [RUNNING.read_text(), *paths],
        "CONFLICTS": [CONFLICTS.read_text(), *resolvers],
        "LOGINS": [LOGINS.read_text(), account, sshd, *people],
    }
    asked = asked.replace("SPACE", "\n".join(lines), 1)
    return re.sub("RUNNING|CONFLICTS|LOGINS", lambda which: " ".join(map(shlex.quote, scripts[which[0]])), asked)


def parse(output: str) -> dict[str, str]:
    """The key=value lines of PROBE; whatever else a host prints (banners) is ignored."""
    return dict(re.findall(r"^casemate:(\w+)=(.*?)\s*$", output, re.MULTILINE))


def answer_of(what: str, seen: Mapping[str, str]) -> dict[str, Any]:
    """What k3s_running ("host"), conflicts or logins ("people", too) printed; empty where the host has no Python."""
    answer = json.loads(seen.get(what) or "{}")
    return answer if isinstance(answer, dict) else {}


def login_problems(login: str, automation: str, allowed: Sequence[str], root: bool) -> list[str]:
    """Whether the account that Ansible came as would still get in; `root` says that root may (a waiver)."""
    if "root" in (login, automation) and not root:
        problem = f"root may not log in over SSH any more ({ROOT_LOGIN}): name another account in ansible_user"
        return [f"{problem}; where it is not there yet, {BOOTSTRAP} makes it over root's login, with a key and sudo"]
    if login and login not in (automation, *allowed):
        problem = (
            f"Ansible comes as {login}, but only {automation or 'nobody'} would stay admitted over SSH: name {login}"
        )
        return [f"{problem} in ansible_user or casemate_automation_user, or list it in k3s_access_allow_users"]
    return []


def host_problems(seen: Mapping[str, str], sources: Sequence[str], home: int) -> tuple[list[str], list[str]]:
    """(problems, warnings) of a host, from what PROBE said; `home`: MiB that its login account's home has to hold."""
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
        least = home if key == "home" else installed if seen.get("installed") else fresh
        free = seen.get(key, "")
        if least and (not free.isdigit() or int(free) < least):
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


def port_problems(
    seen: Mapping[str, str], values: Mapping[str, Any], connected: Any, waived: Iterable[str]
) -> list[str]:
    """Whether the firewall will admit this controller at the port by which it came; `connected`: ansible_port, or 22.

    A port that is forwarded on the way, or that ssh's own configuration names, is another one than Ansible knows.
    """
    came, admitted = seen.get("port", ""), str(values.get("k3s_firewall_ssh_port", connected))
    if not came.isdigit() or came == admitted or RULES in waived:
        return []
    for rule in values.get("k3s_firewall_allow") or []:
        first, _, last = str(rule["port"]).partition("-")
        is_open = rule["proto"] == "tcp" and int(first) <= int(came) <= int(last or first)
        if is_open and any(inside(seen["source"], net) for net in rule["sources"]):
            return []
    given = "" if "k3s_firewall_ssh_port" in values else " (ansible_port, or 22)"
    problem = f"k3s_firewall_ssh_port is {admitted}{given}, and this controller comes in at port {came} of the host, so"
    return [
        f"{problem} the firewall would lock it out; allowed: {came}. Set k3s_firewall_ssh_port: {came} for this host"
    ]


def inside(address: str, net: str) -> bool:
    """Whether an address (also an IPv4 one mapped into IPv6, or with a zone) is in a network."""
    there, home = network(address.partition("%")[0].removeprefix("::ffff:")), network(net)
    return bool(there and home and there.version == home.version and there.network_address in home)


def lock_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the lock and its signature."""
    if importlib.util.find_spec("jsonschema") is None:  # Galaxy installs a collection without what it needs of Python
        todo = f"Install what the collection needs: pip install -r {shlex.quote(f'{ROOT}/requirements.txt')}"
        return [f"jsonschema, which judges the artifact lock, is not installed beside {sys.executable}. {todo}"]
    signers = values.get("casemate_allowed_signers")
    revoked, needed = values.get("casemate_revoked_signers"), int(values.get("casemate_lock_threshold") or 1)
    try:
        version(values)
        if unfit := _threshold_problems(needed, _path(signers)):
            return unfit
        if signers:
            verify(lock(values), _path(signers), needed, _path(revoked))
    except LockError as refusal:
        return [f"{refusal}. Review and sign the lock, or correct casemate_artifact_lock or casemate_k3s_version"]
    return []


def _threshold_problems(needed: int, signers: Path | None) -> list[str]:
    """Whether so many could sign at all."""
    if needed == 1:
        return []
    if signers is None:
        unset = f"casemate_lock_threshold is {needed}, and casemate_allowed_signers is not set, so nobody may sign."
        return [f"{unset} Set that to your allowed_signers file, or remove casemate_lock_threshold"]
    try:
        listed = allowed(str(signers))
    except OSError as unread:
        return [f"casemate_allowed_signers {signers} cannot be read: {unread.strerror}. Let this account read it"]
    if needed <= len(listed):
        return []
    lists = (
        f"casemate_lock_threshold is {needed}, and casemate_allowed_signers {signers} lists {len(listed)} who may sign"
    )
    who = f"the lock ({', '.join(listed) or 'nobody'}); lines that share a name or a key count once"
    return [f"{lists} {who}. Add a signer, or lower casemate_lock_threshold"]


def lock_over(values: Mapping[str, Any], today: datetime.date) -> str:
    """Why the lock does not hold on this day, and what to do; or nothing. Raises LockError."""
    return load(lock(values)).over(today)


def lock_warnings(values: Mapping[str, Any], today: datetime.date) -> list[str]:
    """That the lock ends soon. Raises LockError."""
    end = load(lock(values)).expires
    if not end or not today <= datetime.date.fromisoformat(end) <= today + SOON:
        return []
    return [
        f"The artifact lock {lock(values)} ends on {end}, and nothing is installed by it after. {lock_validity.RENEW}"
    ]


def over_problems(values: Mapping[str, Any], seen: Mapping[str, str], over: str) -> list[str]:
    """Why K3s is not brought to a host by a lock that does not hold (`over` says why), or nothing where all is there.

    `seen` is what the probe said, with digests. What is installed stays, and is settled like everything else.
    """
    if not over:
        return []
    release, machine = load(lock(values)).release(values.get("casemate_k3s_version")), seen.get("machine", "")
    wanted = {"k3s": release.binary(machine)[1]}
    wanted |= {what: digest for what, (_, digest) in brought(values, machine).items()}
    lacking = [what for what, digest in wanted.items() if seen.get(f"{what}_sha256", "").split(" ")[0] != digest]
    if not lacking:
        return []
    there = "another K3s is installed here" if seen.get("installed") else "no K3s is installed here"
    if "k3s" not in lacking:
        there = "its images are not here yet"
    return [f"casemate_artifact_lock {lock(values)} does not hold, and {there}, so nothing is installed: {over}"]


def accepted_problems(values: Mapping[str, Any], record: str, where: str = "") -> list[str]:
    """Why a host, which keeps this record of the lock that it accepted last, is not given an older one, or nothing.

    `where` names a host that this run leaves out.
    """
    try:
        refused = lock_validity.older(load(lock(values)).serial, lock_validity.accepted(record))
    except lock_validity.RecordError as wrong:
        refused = str(wrong)
    said = f"{where}: " if where else ""
    return [f"{said}casemate_artifact_lock {lock(values)} is refused: {refused}"] if refused else []


def folder_problems(values: Mapping[str, Any], machine: str) -> list[str]:
    """What is wrong with the files that the controller would bring to a machine type.

    Each host asks again (0.3 s for K3s' own files): Ansible forks a worker for each, and folders may differ by host.
    """
    problems = []
    try:
        for file, digest in brought(values, machine).values():
            with file.open("rb") as handle:
                found = hashlib.file_digest(handle, "sha256").hexdigest()
            if found != digest:
                problem = f"{file} has sha256 {found}; the lock demands {digest}: fetch it again, "
                problems.append(f"{problem}it is not the reviewed file")
    except FileNotFoundError:
        problem = f"casemate_artifact_dir {file.parent} has no {file.name}: copy it from the release {version(values)}"
        problems.append(problem)
    except OSError as unread:
        problems.append(f"{file} cannot be read ({unread.strerror}): let this account read it, or fetch it again")
    except LockError as refusal:
        problems.append(f"{refusal}. Correct casemate_artifact_lock or casemate_k3s_version")
    return problems


def room(values: Mapping[str, Any], seen: Mapping[str, str]) -> int:
    """MiB that must be free in the login account's home, through which files go one at a time; 0 when none is brought.

    What is there already is told by its size, which costs no reading: another release has another one.
    """
    try:
        files = {what: file.stat().st_size for what, (file, _) in brought(values, seen.get("machine", "")).items()}
    except (LockError, OSError):
        return 0  # refused for that
    largest = max((size for what, size in files.items() if str(size) != seen.get(what)), default=0)
    return -(-largest // 2**20) + MARGIN if largest else 0


def brought(values: Mapping[str, Any], machine: str) -> dict[str, tuple[Path, str]]:
    """Of INSTALLED what comes from the controller -> (file, sha256); images only where they lie in the folder."""
    if not values.get("casemate_artifact_dir"):
        return {}
    release = load(lock(values)).release(values.get("casemate_k3s_version"))
    named = {"k3s": release.binary(machine), "images": release.images(machine)}
    folder = Path(str(values["casemate_artifact_dir"])).expanduser()
    files = {what: (folder / file[0], file[1]) for what, file in named.items() if file}
    return {what: file for what, file in files.items() if what == "k3s" or file[0].is_file()}


def brings_images(values: Mapping[str, Any], machine: str) -> bool:
    """Whether the images of K3s itself come from the controller, verified; so that a node has to pull none of them."""
    try:
        return "images" in brought(values, machine)
    except (LockError, OSError):
        return False


def version(values: Mapping[str, Any]) -> str:
    """The K3s version that is wanted: the one asked for, or the lock's default. Raises LockError."""
    return load(lock(values)).release(values.get("casemate_k3s_version")).version


def lock(values: Mapping[str, Any]) -> Path:
    """The artifact lock of a host's inputs, that of the role by default."""
    given = values.get("casemate_artifact_lock") or ROOT / "roles/k3s_node/files/artifacts.lock.json"
    return Path(str(given)).expanduser()


def _path(given: Any) -> Path | None:
    return Path(str(given)).expanduser() if given else None
