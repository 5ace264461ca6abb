"""Rules of the kernel's audit: those that are written for it, those that silence others, and those that run.

augenrules puts the files of /etc/audit/rules.d together at each start; ours sorts first, because the first rule that
matches decides. Where the kernel audits this machine, a change is loaded at once, unless audit is locked: then it
comes with the next boot. Sources: audit.rules(7), augenrules(8), auditctl(8).
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

from ..core.schema import Key
from ..core.verdict import Left, Observation, Unavailable, Verdict
from ..host import audit
from ..host.machine import EnforceError, Host
from ..host.text import split_lines
from .kind import Kind, Owned, Pass, not_waived
from .owned_entries import beyond, entries, in_file


class Needed(TypedDict):
    """What every setting of this kind says."""

    of: Annotated[
        Literal["written", "silencers", "running"],
        Key("written: rules on disk; silencers: no other's rule hides any; running: the kernel has these alone"),
    ]


class Setting(Needed, total=False):
    """What a control of this kind may demand."""

    rules: Annotated[list[str], Key("written: lines of audit.rules(7)")]


OWNED = "/etc/audit/rules.d/10-casemate.rules"
FOLDER = "/etc/audit/rules.d"
HEADER = "# Managed by Casemate (roles/k3s_host). The first rule that matches decides, so this file sorts first.\n"
LOCK, CLEAR = "-e 2", "-D"
"""Lines that keep the rules as they are until the next boot, and that remove all before the others are loaded."""
STATES = {0: "off", 1: "on", audit.LOCKED: "locked"}
WAITS = "pending reboot: audit is locked, and its rules change at the next boot"
LAST_WINS = ("-b", "-e", "-f", "-r")
"""Options of audit itself: of several lines the last one counts."""
ONLY_X86 = {"chmod", "chown", "creat", "lchown", "open", "rename", "unlink"}
"""System calls that 64-bit architectures have which are older than arm64."""
SAME = [
    (re.compile(r"^(auid!?=)(?:-1|4294967295)$"), r"\1unset"),
    (re.compile(r"^arch=(?:x86_64|aarch64)$"), "arch=b64"),
    (re.compile(r"^arch=(?:i386|arm)$"), "arch=b32"),
    (re.compile(rf"^exit=-{errno.EACCES}$"), "exit=-EACCES"),
    (re.compile(rf"^exit=-{errno.EPERM}$"), "exit=-EPERM"),
]
"""How auditctl lists what is written in another way."""
COMPARED = re.compile(r"([a-z]+)(!?=)([a-z]+)")
Normal = tuple[Any, ...]


class Line(NamedTuple):
    """One line of the rules that the next start loads: what it means, as it is written, and where."""

    means: Normal
    text: str
    where: str


def identity(setting: Setting) -> str:
    """What it is about, and its rules."""
    return ":".join([setting["of"], *setting.get("rules", ())])


def normal(text: str) -> Normal:
    """What a line means, however it is written and in whichever order auditctl lists it; nothing for none. Pure."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        words = text.split()
    pairs = list(zip(words[::2], words[1::2]))
    given: dict[str, list[str]] = {}
    for option, value in pairs:
        given.setdefault(option, []).append(value)
    fields = [*map(_field, given.get("-F", ())), *map(_comparison, given.get("-C", ()))]
    named = {name: value for name, _, value in (one.partition("=") for one in fields)}
    key = (given.get("-k") or [named.get("key", "")])[0]
    if "-w" in given:
        return _watch(given["-w"][0], (given.get("-p") or ["rwxa"])[0], key)
    if not {"-a", "-A"} & set(given):
        return ("option", *words) if words else ()
    kept = frozenset(one for one in fields if not one.startswith("key="))
    calls = frozenset(name for value in given.get("-S", ()) for name in value.split(",")) - {"all"}
    if not calls and "perm" in named and set(named) <= {"path", "dir", "perm", "key"}:
        return _watch(named.get("path") or named.get("dir", ""), named["perm"], key)
    where = (given.get("-a") or given["-A"])[0]
    return ("rule", "-A" if "-A" in given else "-a", frozenset(where.split(",")), kept, calls, key)


def _field(text: str) -> str:
    for pattern, other in SAME:
        text = pattern.sub(other, text)
    return text


def _comparison(text: str) -> str:
    """Two fields that are compared with each other, in one order."""
    match = COMPARED.fullmatch(text)
    return f"-C {match[2].join(sorted([match[1], match[3]]))}" if match else text


def _watch(path: str, access: str, key: str) -> Normal:
    return ("watch", path.rstrip("/"), "".join(sorted(access)), key)


def for_machine(rules: Iterable[str], machine: str) -> list[str]:
    """The rules without the system calls that this architecture does not have. Pure."""
    if machine == "x86_64":
        return list(rules)
    kept = []
    for rule in rules:
        for given in re.findall(r"-S (\S+)", rule) if "arch=b64" in rule else []:
            there = [name for name in given.split(",") if name not in ONLY_X86]
            rule = rule.replace(f"-S {given}", f"-S {','.join(there)}") if there else ""
        kept += [rule] if rule else []
    return kept


def lines_of(setting: Setting) -> list[str]:
    """The lines that a setting asks for on this machine."""
    return for_machine(setting.get("rules", ()), os.uname().machine)


def written(settings: Sequence[Setting]) -> str:
    """The owned file that holds these settings."""
    return HEADER + "".join(f"{rule}\n" for rule in dict.fromkeys(rule for one in settings for rule in lines_of(one)))


def merged(host: Host, ours: str | None = None) -> list[Line]:
    """What the next start loads, in order; with `ours` as if that stood in the owned file already."""
    found: list[Line] = []
    paths = set(host.glob(f"{FOLDER}/*.rules")) | ({OWNED} if ours is not None else set())
    for path in sorted(paths, key=_natural):
        text = ours if ours is not None and path == OWNED else host.text(path) or ""
        for number, line in enumerate(split_lines(text), 1):
            means = normal(line)
            if means:
                found.append(Line(means, line.strip(), f"{path}:{number}"))
    return found


def _natural(path: str) -> list[tuple[str, int]]:
    """Numbers in names count as numbers, as augenrules sorts the files (ls -v)."""
    parts = re.findall(r"(\D*)(\d*)", os.path.basename(path), re.ASCII)
    return [(rest, int(number or 0)) for rest, number in parts]


def holds(rule: str, lines: Sequence[Line]) -> Line | None:
    """The line that decides what a rule says: it, or a later one of the same option; None where there is none."""
    means = normal(rule)
    if means[:1] == ("option",) and means[1] in LAST_WINS:
        same = [line for line in lines if line.means[:2] == means[:2]]
        return same[-1] if same else None
    return next((line for line in lines if line.means == means), None)


def silences(lines: Sequence[Line]) -> list[Line]:
    """Lines of others that take rules or messages away: ours would not be told, or not in full."""
    first = next((index for index, line in enumerate(lines) if line.where.startswith(OWNED)), len(lines))
    found = []
    for index, line in enumerate(lines):
        sort, about = line.means[0], line.means[1]
        if line.where.startswith(OWNED):
            continue
        if sort == "option":
            takes = about in ("-d", "-W") or (about == "-D" and len(line.means) > 2)
            takes = takes or (about == "-r" and line.means[2:] != ("0",))
        else:
            hidden = sort == "rule" and ("never" in line.means[2]) and (about == "-A" or index < first)
            takes = hidden or (sort == "rule" and "exclude" in line.means[2])
        found += [line] if takes else []
    return found


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """What is on disk and would be, what keeps the owned file from being written, and what the kernel has."""
    ours = written(not_waived(settings, waived))
    bars = host.barred(OWNED) if host.text(OWNED) != ours else ""
    seen: Observation = {"lines": merged(host), "planned": merged(host, ours), "barred": bars}
    if any(setting["of"] == "running" for setting in settings):
        asked, kernel = host.run(["auditctl", "-l"]), audit.status()
        loaded = {normal(line): line.strip() for line in split_lines(asked.out)}
        rules = {means: text for means, text in loaded.items() if means and means[0] != "option"}
        seen.update(kernel=kernel, loaded=rules, failed=asked.err.strip())
    return [seen] * len(settings)


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that the rules are on disk, that nothing takes them away, and that the kernel has them."""
    if setting["of"] == "running":
        return _running(seen)
    if setting["of"] == "silencers":
        found = silences(seen["lines"])
        return Verdict(
            ok=not found,
            expected="no rule that silences others",
            observed=[line.text for line in found] or "none",
            reason="; ".join(f"{line.where}: {line.text}" for line in found) + ("; remove it" if found else ""),
            evidence=FOLDER,
            blocked_by=", ".join(line.where for line in found),
            where=tuple(line.where for line in found),
        )
    lacking, theirs = [], []
    for rule in lines_of(setting):
        now, then = holds(rule, seen["lines"]), holds(rule, seen["planned"])
        if now is None or now.means != normal(rule):
            lacking.append(rule)
            theirs += [then] if then and then.means != normal(rule) else []
    reason = f"missing: {'; '.join(lacking)}" if lacking else ""
    if theirs:
        reason += "; " + "; ".join(f"{line.where} says {line.text} and decides: remove it" for line in theirs)
    elif lacking and seen["barred"]:
        reason += f"; {seen['barred']}"
    return Verdict(
        ok=not lacking,
        expected=lines_of(setting),
        observed=[rule for rule in lines_of(setting) if rule not in lacking],
        reason=reason,
        evidence=FOLDER,
        blocked_by=", ".join(line.where for line in theirs) or (seen["barred"] if lacking else ""),
        unwritable=seen["barred"] if lacking and not theirs else "",
        where=(OWNED,) if lacking else (),
    )


def _running(seen: Observation) -> Verdict:
    """Right is that the kernel has the rules on disk and no others, and is locked where these say so.

    A rule that somebody loads may hide all others, and no file shows it.
    """
    kernel = seen["kernel"]
    if kernel.lacks:
        raise Unavailable("audit", kernel.lacks)
    wanted = [line for line in seen["lines"] if line.means[0] != "option"]
    lacking = [line.text for line in wanted if line.means not in seen["loaded"]]
    on_disk = {line.means for line in wanted}
    beyond = [text for means, text in seen["loaded"].items() if means not in on_disk]
    lock = holds(LOCK, seen["lines"])
    asks_lock = lock is not None and lock.means == normal(LOCK)
    state = STATES.get(kernel.enabled, "on")
    reasons = [
        "audit is off" if kernel.enabled == 0 else "",
        "audit is not locked, as the rules on disk say" if kernel.enabled == 1 and asks_lock else "",
        f"the kernel has no: {'; '.join(lacking)}" if lacking else "",
        f"the kernel has beyond those on disk: {'; '.join(beyond)}" if beyond else "",
        seen["failed"] if lacking else "",
    ]
    reasons = [reason for reason in reasons if reason]
    waits = WAITS if reasons and kernel.enabled == audit.LOCKED else ""
    return Verdict(
        ok=not reasons,
        expected=f"{'locked' if asks_lock else 'on'}, with {len(wanted)} rules and no others",
        observed=f"{state}, with {len(wanted) - len(lacking)} of them and {len(beyond)} others",
        reason="; ".join([*reasons, waits] if waits else reasons),
        evidence="auditctl -l",
        blocked_by=waits,
    )


def enforce(settings: list[Setting], failing: set[int], host: Host) -> None:
    """Write the owned file, and load all rules where the kernel audits this machine and audit is not locked."""
    text = written(settings)
    if host.text(OWNED) != text:
        if host.barred(OWNED):
            raise EnforceError(host.barred(OWNED))
        host.write(OWNED, text.encode(), mode=0o640, owner=(0, 0))
    kernel = audit.status()
    if not kernel.lacks and kernel.enabled != audit.LOCKED:
        if all(line.means != normal(CLEAR) for line in merged(host)):  # else loading adds to what is there
            host.must_run(["auditctl", CLEAR])
        host.must_run(["augenrules", "--load"])


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """Lines of the owned file."""
    have = entries(OWNED, host)
    there = [rule for rule in lines_of(setting) if rule in have]
    return in_file(OWNED, f"{OWNED} has {there[0]}" if there else "", host)


def take_back(waived: list[Setting], wanted: list[Setting], host: Host) -> None:
    """Write the owned file without them; one that would be empty goes."""
    if written(wanted) == HEADER:
        host.remove(OWNED)
    else:
        enforce(wanted, set(), host)


def unasked(settings: list[Setting], host: Host) -> str:
    """Lines in the owned file that no control has."""
    return beyond(OWNED, entries(OWNED, host), [rule for setting in settings for rule in lines_of(setting)])


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    places=lambda setting: [OWNED if setting["of"] == "written" else FOLDER],
    owned=Owned(left, take_back, unasked, written=lambda setting: OWNED if "rules" in setting else ""),
)
