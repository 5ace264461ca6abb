"""Files, folders and links: presence, mode, owner, ACL, content, and whether their unit runs with them.

A file that Casemate owns declares `content` and an exact `mode`; a file of K3s or of the system declares
`mode_max` ("or more restrictive", as CIS words it). `path` may be a pattern; each match is judged, hidden ones too.
"""

from __future__ import annotations

import os
import secrets
import stat as statmod
from collections.abc import Collection
from typing import Annotated, Literal, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Unasked, Unavailable, Verdict
from ..host import entries as file_entries
from ..host.entries import bring_back, digest, make_folder, matches
from ..host.machine import EnforceError, Host
from .file_shown import difference, shown
from .kind import Enforceable, Kind, Owned, own_unit
from .owned_file import left


class Needed(TypedDict):
    """What every setting of this kind says."""

    path: Annotated[str, Key("absolute path, or a pattern with *, ? and **", pattern=r"/\S.*")]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind may demand."""

    state: Annotated[Literal["file", "directory", "absent"], Key("default: file")]
    mode: Annotated[str, Key("exact mode", pattern=r"0[0-7]{3,4}")]
    mode_max: Annotated[str, Key("no bit beyond these", pattern=r"0[0-7]{3,4}")]
    owner: Annotated[str, Key("user name")]
    group: Annotated[str, Key("group name")]
    content: Annotated[str, Key("the exact content (never a secret)")]
    random_bytes: Annotated[int, Key("create it once with this many random bytes, in hex; never read back")]
    no_acl: Annotated[bool, Key("no access beyond the mode's bits")]
    validate: Annotated[list[str], Key("command with %s for the new file; its failure leaves the old bytes")]
    reload: Annotated[list[str], Key("allow-listed command that loads the new content")]
    made: Annotated[str, Key("file that the reload makes of it; where there is none, nothing is missing")]
    holds: Annotated[str, Key("what that file then holds")]
    unit: Annotated[str, Key("unit that must have started after the file last changed")]
    known: Annotated[list[str], Key("absent: paths below the pattern's folder that may be there all the same")]
    login: Annotated[bool, Key("it logs in the account whose home holds it, which has to be able to read it")]
    advice: Annotated[str, Key("absent: what becomes of it or what to do, told where it is there")]
    missing: Annotated[Literal["fail", "pass", "k3s"], Key("what absence of a matched path means")]
    sensitive: Annotated[bool, Key("never show content, not even in a diff")]
    unset: Annotated[str, Key("why nobody asks for it, so that it is taken away; empty where somebody does")]


RELOADS = (
    ("systemctl", "restart", "casemate-firewall.service"),
    ("systemctl", "daemon-reload"),
    ("systemctl", "restart", "systemd-journald.service"),
    ("update-grub",),
)
UNITS = "/etc/systemd/system"
SLOW: dict[tuple[str, ...], int] = {("update-grub",): 300}
"""Reload -> seconds that it may take: GRUB looks at every disk for other systems."""


def identity(setting: Setting) -> str:
    """One control per path, whatever aspects of it are demanded."""
    return str(setting["path"])


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """Every matched path with what it is like, whether its unit runs with it, and what bars apply from it.

    A file with a control of its own is left out of the patterns that match it too: one fault, one finding.
    """
    seen: list[Observation] = []
    own = {setting["path"] for setting in settings if "mode" in setting or "mode_max" in setting}
    for setting in settings:
        matched = matches(setting, host)
        started = host.started(setting["unit"]) if "unit" in setting else None
        judged = (path for path in matched if path == setting["path"] or path not in own)
        entries = [one for one in (file_entries.entry(path, setting, host, started) for path in judged) if one]
        barred, untaken = "" if matched else file_entries.absent(setting, host), _untaken(setting, host)
        for one in entries:
            one["untaken"] = untaken
        seen.append({"entries": entries, "matched": len(matched), "barred": barred})
    return seen


def _untaken(setting: Setting, host: Host) -> str:
    """The file that should have been made of this one and was not, as after a reload that failed; else nothing."""
    made = host.text(setting["made"]) if "made" in setting else None
    return setting["made"] if made is not None and setting.get("holds", "") not in made else ""


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Compare every match; the verdict shows only what was demanded, and the first offender by path."""
    state, entries, evidence = _state(setting), seen["entries"], f"stat {setting['path']}"
    if setting.get("unset") and not entries:
        raise Unasked(setting["unset"])
    if state == "absent":
        there = ", ".join(entry["path"] for entry in entries)
        bars = "; ".join(entry["barred"] for entry in entries if entry["barred"])
        reason = "; ".join(filter(None, ["it is there" if there else "", there and setting.get("advice"), bars]))
        return Verdict(
            ok=not there,
            expected="absent",
            observed=there or "absent",
            reason=reason,
            evidence=evidence,
            blocked_by=bars,
            unwritable=bars,
            where=tuple(entry["path"] for entry in entries),
        )
    expected: Observation = {"state": state}
    expected.update({n: setting[n] for n in ("mode", "mode_max", "owner", "group") if n in setting})
    expected.update({"content": digest(setting["content"].encode())} if "content" in setting else {})
    expected.update({"acl": False} if setting.get("no_acl") else {})
    if not entries:
        if seen["matched"]:
            return Verdict(
                ok=True, expected=expected, observed="only files with controls of their own", evidence=evidence
            )
        if setting.get("missing") == "k3s":
            raise Unavailable("k3s", f"{setting['path']} does not exist: K3s has not run here")
        ok = setting.get("missing") == "pass"
        bars = seen["barred"]
        reason = "; ".join(filter(None, ["it is missing", bars]))
        reason, bars = ("", "") if ok else (reason, bars)
        return Verdict(
            ok=ok,
            expected=expected,
            observed={"state": "absent"},
            reason=reason,
            evidence=evidence,
            blocked_by=bars,
            unwritable=bars,
        )
    judged = [(entry, _faults(setting, expected, entry)) for entry in entries]
    wrong = [pair for pair in judged if pair[1]]
    entry, faults = (wrong or judged)[0]
    shown = {**entry, "mode": f"{entry['mode']:04o}", "mode_max": f"{entry['mode']:04o}"}
    observed = {n.replace("_max", ""): shown[n] for n in expected}
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    reason = f"{entry['path']}{more}: {', '.join(faults)}" if wrong else ""
    stale = (setting["unit"],) if any(entry["late"] for entry, _ in wrong) else ()
    barred = [entry["barred"] for entry, faults in wrong if entry["barred"] and faults != [_stale(setting, entry)]]
    reason = "; ".join([reason, *barred])
    alien = [entry["path"] for entry, _ in wrong if entry["state"] != state]  # apply replaces no link and no folder
    blocked_by = dict.fromkeys([*alien, *barred])
    evidence += f" ({len(entries)} matched)"
    return Verdict(
        ok=not wrong,
        expected=expected,
        observed=observed,
        reason=reason,
        evidence=evidence,
        stale=stale,
        blocked_by=", ".join(blocked_by),
        still_enforced=len(blocked_by) < len(wrong),
        unwritable="; ".join(barred),
        where=tuple(entry["path"] for entry, _ in wrong),
    )


def _state(setting: Setting) -> str:
    return "absent" if setting.get("unset") else setting.get("state", "file")


def _stale(setting: Setting, entry: Observation) -> str:
    return f"{setting['unit']} still runs with what was there before {entry['late']} changed" if entry["late"] else ""


def _faults(setting: Setting, expected: Observation, entry: Observation) -> list[str]:
    if entry["state"] != expected["state"]:
        return [f"is a {entry['state']}, not a {expected['state']}"]
    have = entry["mode"]
    exact = int(setting.get("mode", f"{have:o}"), 8)
    most = file_entries.most(setting, entry["owner"] == "root", entry.get("logs_in", ""))
    found = {
        f"mode is {have:04o}, not {exact:04o}": have != exact,
        f"mode {have:04o} allows more than {most:04o}": bool(have & ~most),
        "its content differs": entry["content"] != expected.get("content", ""),
        "an ACL grants access beyond the mode": entry["acl"] and bool(setting.get("no_acl")),
        f"it is {entry['owner']}'s, so sshd takes no key from it": entry.get("anothers", False),
        "it is too short": entry["short"],
        _stale(setting, entry): bool(entry["late"]),
        f"{entry.get('untaken')} was not made of it": bool(entry.get("untaken")),
    }
    for n in ("owner", "group"):
        found[f"{n} is {entry[n]}, not {expected.get(n)}"] = n in expected and entry[n] != expected[n]
    return [fault for fault, there in found.items() if there]


def enforce(settings: list[Setting], failing: set[int], host: Host) -> None:
    """Write owned content, set modes and owners, remove, reload; one refusal does not stop the others."""
    reloads: list[tuple[str, ...]] = []
    refused: list[str] = []
    for setting in (settings[i] for i in sorted(failing) if settings[i].get("enforced") is not False):
        try:
            command = _reload(setting)
            _settle(setting, host)
        except (EnforceError, OSError) as error:
            refused.append(str(error))
            continue
        reloads += [command] if command else []
    for command in dict.fromkeys(reloads):
        try:
            _load(command, host)
        except EnforceError as error:
            refused.append(str(error))
    if refused:
        raise EnforceError("; ".join(refused))


def _settle(setting: Setting, host: Host) -> None:
    path, state, owner, refused = setting["path"], _state(setting), _ids(setting), []
    mode, found = int(setting["mode"], 8) if "mode" in setting else None, host.stat(path)
    if state == "absent":
        for match in matches(setting, host):
            _remove(match, host)
        return
    if "random_bytes" in setting and (found is None or found.st_size < 2 * setting["random_bytes"]):
        data = secrets.token_hex(setting["random_bytes"]).encode() + b"\n"
        host.write(path, data, mode or 0o600, owner or (0, 0), sensitive=True)
    elif "content" in setting:
        validate, secret = setting.get("validate") or (), bool(setting.get("sensitive"))
        host.write(path, setting["content"].encode(), mode, owner or (0, 0), validate, secret)
    elif state == "directory" and not matches(setting, host):
        make_folder(path, host)
    for match in matches(setting, host):
        seen = host.stat(match)
        if seen is not None and not statmod.S_ISLNK(seen.st_mode) and not file_entries.spared(match, setting, host):
            most = statmod.S_IMODE(seen.st_mode) & file_entries.most(setting, seen.st_uid == 0)
            try:
                host.restrict(match, most if mode is None else mode, owner, bool(setting.get("no_acl")))
                bring_back(setting, match, host)
            except (EnforceError, OSError) as error:  # one who sets a trap keeps nobody else from being settled
                refused.append(host.barred(match, False) or str(error))
    if refused:
        raise EnforceError("; ".join(refused))


def take_back(waived: list[Setting], wanted: list[Setting], host: Host) -> None:
    """Remove them, and load what is left."""
    for setting in waived:
        _remove(setting["path"], host)
        command = _reload(setting)
        if command:
            _load(command, host)


def _remove(path: str, host: Host) -> None:
    """Remove a file and, of a unit, the links by which systemd starts it at boot, which then would lead nowhere."""
    folder, name = os.path.split(path)
    if folder == UNITS:
        for link in host.glob(f"{folder}/*.wants/{name}"):
            if host.link_target(link) == path:
                host.remove(link)
    host.remove(path)


def _load(command: tuple[str, ...], host: Host) -> None:
    host.must_run(command, SLOW.get(command, 30))


def _reload(setting: Setting) -> tuple[str, ...]:
    """The command that loads the content, if there is one. Raises EnforceError for one that is not listed."""
    command = tuple(setting.get("reload") or ())
    if command and command not in RELOADS:
        raise EnforceError(f"{' '.join(command)} is not an allowed reload")
    return command


def _ids(setting: Setting) -> tuple[int, int] | None:
    try:
        return file_entries.ids(setting)
    except KeyError as unknown:
        raise EnforceError(f"{setting['path']}: no such owner or group on this host: {unknown}") from unknown


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    shown=shown,
    difference=difference,
    explains=lambda setting: [setting["path"]],
    reloads=lambda setting: bool(setting.get("reload")),
    read_at_start=own_unit,
    owned=Owned(left, take_back, written=lambda setting: setting["path"] if "content" in setting else ""),
)
