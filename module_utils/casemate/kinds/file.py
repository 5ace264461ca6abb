"""Files, folders and links: presence, mode, owner, ACL, content, and whether their unit runs with them.

A file that Casemate owns declares `content` and an exact `mode`; a file of K3s or of the system declares
`mode_max` ("or more restrictive", as CIS words it). `path` may be a pattern; each match is judged.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import secrets
import stat as statmod
from typing import Any, Callable

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
    "reload": Field("list", help="allow-listed command that loads the new content"),
    "unit": Field("str", help="unit that must have started after the file last changed"),
    "guard": Field("bool", help="arm the on-host guard before changing it"),
    "known": Field("list", help="absent: names that may be there all the same"),
    "missing": Field("str", choices=("fail", "pass", "k3s"), help="what absence of a matched path means"),
    "sensitive": Field("bool", help="never show content, not even in a diff"),
    "enforced": Field("bool", help="false: observe only"),
}
ENFORCED_BY = "engine"
PLAIN = ("state", "mode", "mode_max", "owner", "group", "acl")
"""What is shown of a sensitive file, too."""
RELOADS = (
    ("systemctl", "restart", "casemate-firewall.service"),
    ("systemctl", "daemon-reload"),
    ("systemctl", "restart", "systemd-journald.service"),
)
TYPES = (("file", statmod.S_ISREG), ("directory", statmod.S_ISDIR), ("link", statmod.S_ISLNK))


def identity(setting: Setting) -> str:
    """One control per path, whatever aspects of it are demanded."""
    return str(setting["path"])


def _name(lookup: Callable[[int], Any], number: int) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def _digest(data: bytes | None) -> str:
    return "" if data is None else "sha256:" + hashlib.sha256(data).hexdigest()


def _look(path: str, setting: Setting, host: Host) -> dict[str, Any] | None:
    found = host.stat(path)
    if found is None:
        return None
    state = next((name for name, test in TYPES if test(found.st_mode)), "special")
    content = _digest(host.read(path)) if "content" in setting and state == "file" else ""
    entry = {"path": path, "state": state, "content": content, "mode": statmod.S_IMODE(found.st_mode)}
    entry.update(owner=_name(pwd.getpwuid, found.st_uid), group=_name(grp.getgrgid, found.st_gid))
    entry.update(acl=host.has_acl(path), size=found.st_size, changed=found.st_ctime)
    return entry


def observe(settings: list[Setting], host: Host) -> list[Observation]:
    """Every matched path with type, mode, owner, group, ACL, digest, and when its unit started.

    A file with a control of its own is left out of the patterns that match it too: one fault, one finding.
    """
    seen: list[Observation] = []
    own = {setting["path"] for setting in settings if "mode" in setting or "mode_max" in setting}
    for setting in settings:
        matched = [p for p in host.glob(setting["path"]) if os.path.basename(p) not in (setting.get("known") or ())]
        entries = [_look(path, setting, host) for path in matched if path == setting["path"] or path not in own]
        started = host.started(setting["unit"]) if "unit" in setting else None
        seen.append({"entries": [entry for entry in entries if entry], "started": started, "matched": len(matched)})
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Compare every match; the verdict shows only what was demanded, and the first offender by path."""
    state, entries, evidence = setting.get("state", "file"), seen["entries"], f"stat {setting['path']}"
    if state == "absent":
        there = ", ".join(entry["path"] for entry in entries)
        return Verdict(not there, "absent", there or "absent", "it is there" if there else "", evidence)
    expected: Setting = {"state": state}
    expected.update({n: setting[n] for n in ("mode", "mode_max", "owner", "group") if n in setting})
    expected.update({"content": _digest(setting["content"].encode())} if "content" in setting else {})
    expected.update({"acl": False} if setting.get("no_acl") else {})
    if not entries:
        if seen["matched"]:
            return Verdict(True, expected, "only files with controls of their own", evidence=evidence)
        if setting.get("missing") == "k3s":
            raise Unavailable("k3s", f"{setting['path']} does not exist: K3s has not run here")
        ok = setting.get("missing") == "pass"
        return Verdict(ok, expected, {"state": "absent"}, "" if ok else "it is missing", evidence)
    judged = [(entry, _faults(setting, expected, entry, seen["started"])) for entry in entries]
    wrong = [pair for pair in judged if pair[1]]
    entry, faults = (wrong or judged)[0]
    shown = {**entry, "mode": f"{entry['mode']:04o}", "mode_max": f"{entry['mode']:04o}"}
    observed = {n.replace("_max", ""): shown[n] for n in expected}
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    reason = f"{entry['path']}{more}: {', '.join(faults)}" if wrong else ""
    stale = (setting["unit"],) if any("still runs" in f for _, some in wrong for f in some) else ()
    alien = [entry["path"] for entry, _ in wrong if entry["state"] != state]  # apply replaces no link and no folder
    evidence += f" ({len(entries)} matched)"
    return Verdict(not wrong, expected, observed, reason, evidence, stale, ", ".join(alien), len(alien) < len(wrong))


def _faults(setting: Setting, expected: Setting, entry: Setting, started: float | None) -> list[str]:
    if entry["state"] != expected["state"]:
        return [f"is a {entry['state']}, not a {expected['state']}"]
    have, unit = entry["mode"], setting.get("unit")
    exact, most = int(setting.get("mode", f"{have:o}"), 8), int(setting.get("mode_max", "07777"), 8)
    found = {
        f"mode is {have:04o}, not {exact:04o}": have != exact,
        f"mode {have:04o} allows more than {most:04o}": bool(have & ~most),
        "its content differs": entry["content"] != expected.get("content", ""),
        "an ACL grants access beyond the mode": entry["acl"] and bool(setting.get("no_acl")),
        "it is too short": entry["size"] < 2 * setting.get("random_bytes", 0),
        f"{unit} still runs with the older one": started is not None and entry["changed"] > started,
    }
    for n in ("owner", "group"):
        found[f"{n} is {entry[n]}, not {expected.get(n)}"] = n in expected and entry[n] != expected[n]
    return [fault for fault, there in found.items() if there]


def enforce(settings: list[Setting], failing: set[int], host: Host) -> None:
    """Write owned content, set modes and owners, remove, reload; one refusal does not stop the others."""
    reloads: list[tuple[str, ...]] = []
    refused: list[str] = []
    for setting in (settings[i] for i in sorted(failing) if settings[i].get("enforced") is not False):
        command = tuple(setting.get("reload") or ())
        try:
            if command and command not in RELOADS:
                raise EnforceError(f"{' '.join(command)} is not an allowed reload")
            if setting.get("guard"):
                host.arm([setting["path"]])
            _settle(setting, host)
        except (EnforceError, OSError) as error:
            refused.append(str(error))
            continue
        reloads += [command] if command else []
    for command in dict.fromkeys(reloads):
        done = host.run(command)
        if done.rc != 0:
            refused.append(f"{' '.join(command)} failed: {(done.err or done.out).strip()[:300]}")
    if refused:
        raise EnforceError("; ".join(refused))


def _settle(setting: Setting, host: Host) -> None:
    path, state, owner, refused = setting["path"], setting.get("state", "file"), _ids(setting), []
    mode, found = int(setting["mode"], 8) if "mode" in setting else None, host.stat(path)
    if state == "absent":
        for match in host.glob(path):
            host.remove(match)
        return
    if "random_bytes" in setting and (found is None or found.st_size < 2 * setting["random_bytes"]):
        data = secrets.token_hex(setting["random_bytes"]).encode() + b"\n"
        host.write(path, data, mode or 0o600, owner or (0, 0), sensitive=True)
    elif "content" in setting:
        validate, secret = setting.get("validate") or (), bool(setting.get("sensitive"))
        host.write(path, setting["content"].encode(), mode, owner or (0, 0), validate, secret)
    elif state == "directory" and not host.glob(path):
        with host.folder(path, make=True) as folder:
            os.mkdir(os.path.join(folder, os.path.basename(path)), mode=0o700)
        host.changed(path, "", "directory\n")
    for match in host.glob(path):
        seen = host.stat(match)
        if seen is not None and not statmod.S_ISLNK(seen.st_mode):
            most = statmod.S_IMODE(seen.st_mode) & int(setting.get("mode_max", "07777"), 8)
            try:
                host.restrict(match, most if mode is None else mode, owner, bool(setting.get("no_acl")))
            except (EnforceError, OSError) as error:  # one who sets a trap keeps nobody else from being settled
                refused.append(str(error))
    if refused:
        raise EnforceError("; ".join(refused))


def _ids(setting: Setting) -> tuple[int, int] | None:
    if "owner" not in setting and "group" not in setting:
        return None
    try:
        uid = pwd.getpwnam(setting["owner"]).pw_uid if "owner" in setting else -1
        gid = grp.getgrnam(setting["group"]).gr_gid if "group" in setting else -1
    except KeyError as unknown:
        raise EnforceError(f"{setting['path']}: no such owner or group on this host: {unknown}") from unknown
    return uid, gid
