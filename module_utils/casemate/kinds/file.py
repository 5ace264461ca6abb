"""Files, folders and links: presence, mode, owner, ACL, content, and whether their unit runs with them.

A file that Casemate owns declares `content` and an exact `mode`; a file of K3s or of the system declares
`mode_max` ("or more restrictive", as CIS words it). `path` may be a pattern; each match is judged.
"""

from __future__ import annotations

import fnmatch
import grp
import hashlib
import os
import pwd
import secrets
import stat as statmod
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

from ..base import EnforceError, Host, Observation, Setting, Unavailable, Verdict
from ..schema import Field

SCHEMA = {
    "path": Field("str", True, pattern=r"/\S.*", help="absolute path, or a pattern with * and ?"),
    "state": Field("str", choices=("file", "directory", "absent"), help="default: file"),
    "mode": Field("str", pattern=r"0[0-7]{3,4}", help="exact mode"),
    "mode_max": Field("str", pattern=r"0[0-7]{3,4}", help="no bit beyond these"),
    "owner": Field("str", help="user name"),
    "group": Field("str", help="group name"),
    "content": Field("str", help="the exact content (never a secret)"),
    "random_bytes": Field("int", help="create it once with this many random bytes, in hex; never read back"),
    "no_acl": Field("bool", help="no access beyond the mode's bits"),
    "validate": Field("list", help="command with %s for the new file; its failure leaves the old bytes"),
    "reload": Field("list", choices=(), help="allow-listed command that loads the new content"),
    "unit": Field("str", help="unit that must have started after the file last changed"),
    "guard": Field("bool", help="arm the on-host guard before changing it"),
    "missing": Field("str", choices=("fail", "pass", "k3s"), help="what absence of a matched path means"),
    "sensitive": Field("bool", help="never show content, not even in a diff"),
    "enforced": Field("bool", help="false: observe only"),
}
ENFORCED_BY = "engine"
RELOADS = (
    ("systemctl", "restart", "casemate-firewall.service"),
    ("systemctl", "daemon-reload"),
    ("systemctl", "restart", "systemd-journald.service"),
)


def identity(setting: Setting) -> str:
    """One control per path, whatever aspects of it are demanded."""
    return str(setting["path"])


def _names(uid: int, gid: int) -> Tuple[str, str]:
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    return user, group


def _type(mode: int) -> str:
    for name, test in (("file", statmod.S_ISREG), ("directory", statmod.S_ISDIR), ("link", statmod.S_ISLNK)):
        if test(mode):
            return name
    return "special"


def _digest(data: Optional[bytes]) -> str:
    return "" if data is None else "sha256:" + hashlib.sha256(data).hexdigest()


def observe(settings: List[Setting], host: Host) -> List[Observation]:
    """Every matched path with type, mode, owner, group, ACL, digest, and when its unit started."""
    seen: List[Observation] = []
    for setting in settings:
        pattern = any(c in setting["path"] for c in "*?[")
        paths = host.glob(setting["path"]) if pattern else [setting["path"]]
        entries: List[Dict[str, Any]] = []
        for path in paths:
            found = host.stat(path)
            if found is None:
                continue
            user, group = _names(found.st_uid, found.st_gid)
            entries.append(
                {
                    "path": path,
                    "type": _type(found.st_mode),
                    "mode": statmod.S_IMODE(found.st_mode),
                    "owner": user,
                    "group": group,
                    "acl": "system.posix_acl_access" in _attributes(host.path(path)),
                    "digest": _digest(host.read(path)) if "content" in setting else "",
                    "size": found.st_size,
                    "changed": max(found.st_mtime, found.st_ctime),
                }
            )
        unit = setting.get("unit")
        seen.append({"entries": entries, "started": host.started(unit) if unit else None})
    return seen


def _attributes(path: str) -> Sequence[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        return ()


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Compare every match; the verdict shows only what was demanded, and the first offenders by path."""
    state = setting.get("state", "file")
    expected: Dict[str, Any] = {"state": state}
    for name in ("mode", "mode_max", "owner", "group"):
        if name in setting:
            expected[name] = setting[name]
    if "content" in setting:
        expected["content"] = _digest(setting["content"].encode())
    if setting.get("no_acl"):
        expected["acl"] = False
    entries = seen["entries"]
    if state == "absent":
        offenders = [e["path"] for e in entries]
        return Verdict(not entries, "absent", ", ".join(offenders) or "absent", "it is there" if entries else "")
    if not entries:
        missing = setting.get("missing", "fail")
        if missing == "k3s":
            raise Unavailable("k3s", f"{setting['path']} does not exist: K3s has not run here")
        return Verdict(missing == "pass", expected, {"state": "absent"}, "it is missing", setting["path"])
    wrong = [(e, faults) for e in entries for faults in [_faults(setting, state, e, seen["started"])] if faults]
    evidence = f"stat {setting['path']} ({len(entries)} matched)" if len(entries) > 1 else f"stat {setting['path']}"
    if not wrong:
        return Verdict(True, expected, _shown(setting, entries[0]), evidence=evidence)
    entry, faults = wrong[0]
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    stale = any("still runs" in fault for fault in faults)
    return Verdict(
        False, expected, _shown(setting, entry), f"{entry['path']}{more}: {', '.join(faults)}", evidence,
        (setting["unit"],) if stale else (),
    )  # fmt: skip


def _shown(setting: Setting, entry: Dict[str, Any]) -> Dict[str, Any]:
    shown: Dict[str, Any] = {"state": entry["type"]}
    if "mode" in setting or "mode_max" in setting:
        shown["mode"] = f"{entry['mode']:04o}"
    for name in ("owner", "group"):
        if name in setting:
            shown[name] = entry[name]
    if "content" in setting:
        shown["content"] = entry["digest"]
    if setting.get("no_acl"):
        shown["acl"] = entry["acl"]
    return shown


def _faults(setting: Setting, state: str, entry: Dict[str, Any], started: Optional[float]) -> List[str]:
    if entry["type"] != state:
        return [f"is a {entry['type']}, not a {state}"]
    faults = []
    if "mode" in setting and entry["mode"] != int(setting["mode"], 8):
        faults.append(f"mode is {entry['mode']:04o}, not {setting['mode']}")
    if "mode_max" in setting and entry["mode"] & ~int(setting["mode_max"], 8):
        faults.append(f"mode {entry['mode']:04o} allows more than {setting['mode_max']}")
    faults += [
        f"{name} is {entry[name]}, not {setting[name]}"
        for name in ("owner", "group")
        if name in setting and entry[name] != setting[name]
    ]
    if "content" in setting and entry["digest"] != _digest(setting["content"].encode()):
        faults.append("its content differs")
    if setting.get("no_acl") and entry["acl"]:
        faults.append("an ACL grants access beyond the mode")
    if "random_bytes" in setting and entry["size"] < 2 * setting["random_bytes"]:
        faults.append("it is too short")
    if setting.get("unit") and started is not None and entry["changed"] > started:
        faults.append(f"{setting['unit']} still runs with the older one")
    return faults


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Write owned content, set modes and owners, remove; then run allow-listed reloads, each once."""
    reloads: List[Tuple[str, ...]] = []
    for setting in (settings[i] for i in sorted(failing)):
        if setting.get("enforced") is False:
            continue
        reload = tuple(setting.get("reload") or ())
        if reload and reload not in RELOADS:
            raise EnforceError(f"{' '.join(reload)} is not an allowed reload")
        if setting.get("guard"):
            host.arm([setting["path"]])
        _settle(setting, host)
        if reload and reload not in reloads:
            reloads.append(reload)
    for command in reloads:
        done = host.run(command)
        if done.rc != 0:
            raise EnforceError(f"{' '.join(command)} failed: {(done.err or done.out).strip()[:300]}")


def _settle(setting: Setting, host: Host) -> None:
    path, state = setting["path"], setting.get("state", "file")
    mode = int(setting["mode"], 8) if "mode" in setting else None
    owner = _ids(setting)
    if state == "absent":
        for match in host.glob(path):
            host.remove(match)
        return
    secret = bool(setting.get("sensitive") or "random_bytes" in setting)
    found = host.stat(path)
    if "random_bytes" in setting and (found is None or found.st_size < 2 * setting["random_bytes"]):
        data = secrets.token_hex(setting["random_bytes"]).encode() + b"\n"
        host.write(path, data, mode or 0o600, owner or (0, 0), sensitive=True)
    elif "content" in setting:
        host.write(
            path, setting["content"].encode(), mode, owner, setting.get("validate") or (), sensitive=secret
        )
    elif state == "directory" and found is None:
        os.makedirs(host.path(path), mode=0o700)
        host.changed(path, "", "directory\n")
    for match in [p for p in host.glob(path) if fnmatch.fnmatchcase(p, path)]:
        _attributes_of(setting, match, owner, host)


def _attributes_of(setting: Setting, path: str, owner: Optional[Tuple[int, int]], host: Host) -> None:
    seen = host.stat(path)
    if seen is None or statmod.S_ISLNK(seen.st_mode):
        return
    have = statmod.S_IMODE(seen.st_mode)
    want = int(setting["mode"], 8) if "mode" in setting else have & int(setting.get("mode_max", "07777"), 8)
    if setting.get("no_acl") and "system.posix_acl_access" in _attributes(host.path(path)):
        os.removexattr(host.path(path), "system.posix_acl_access")
        host.changed(path, "acl\n", "no acl\n")
    if owner is not None and owner != (seen.st_uid, seen.st_gid):
        os.chown(host.path(path), *owner, follow_symlinks=False)
        host.changed(path, f"owner {seen.st_uid}:{seen.st_gid}\n", f"owner {owner[0]}:{owner[1]}\n")
    if want != have:
        os.chmod(host.path(path), want)
        host.changed(path, f"mode {have:04o}\n", f"mode {want:04o}\n")


def _ids(setting: Setting) -> Optional[Tuple[int, int]]:
    if "owner" not in setting and "group" not in setting:
        return (0, 0) if "content" in setting else None
    try:
        uid = pwd.getpwnam(setting["owner"]).pw_uid if "owner" in setting else -1
        gid = grp.getgrnam(setting["group"]).gr_gid if "group" in setting else -1
    except KeyError as unknown:
        raise EnforceError(f"{setting['path']}: no such owner or group on this host: {unknown}") from unknown
    return uid, gid
