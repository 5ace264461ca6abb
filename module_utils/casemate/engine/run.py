"""The engine: observe effective values, compare, and enforce unless only checking, in one pass.

Check mode is drift detection, because it is the same code with the one enforcing step left out.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.finding import Finding, finding
from ..core.legible import legible, veiled
from ..core.verdict import Unavailable, Verdict
from ..host.machine import EnforceError, Host
from ..host.text import show
from ..kinds import KINDS, nft
from . import take_back, waiver
from .control import Control, out_of_bound, parse_all

Seen = tuple[Control, Any]
FILE, LEFTOVER = KINDS["file"], KINDS["leftover"]
K3S = ("k3s", "k3s-agent")
RUNNING = ("active", "reloading", "activating", "deactivating")
UNITS = ("init.scope", *(f"{name}.service" for name in K3S), "ssh.service", "ssh.socket")
"""What several kinds ask systemd about: each call takes as long as all of them in one."""
PLACES = ("path", "file", "unit")
"""Fields of a setting that name a place, the narrowest first."""
SHOWN = 100_000
"""Characters of a text in a diff; Ansible leaves out what is larger, too."""


@dataclass
class Outcome:
    """What one pass found and did. `due` names roles for which apply would change something, `stale` units to restart.

    `todo` holds, for each control that a check finds due, what apply acts on: what is observed, or a part of it.

    `unsettled` says what could not be written, or not even be judged, and why: nothing that needs it may start.

    `barred` says what is wrong by those controls before whose pass nothing may be started (`gate`).

    `left_out` names the controls that a quick pass does not judge; they have no finding, so nothing claims them.
    `runs_k3s` is whether systemd runs K3s, or tries to.
    """

    findings: list[Finding] = field(default_factory=list)
    due: list[str] = field(default_factory=list)
    todo: dict[str, Any] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    barred: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    changed: bool = False
    runs_k3s: bool = False


def run(
    catalogue: Mapping[str, Sequence[Mapping[str, Any]]],
    host: Host,
    check: bool,
    waivers: Mapping[str, Mapping[str, Any]] | None = None,
    scan: bool = False,
    today: datetime.date | None = None,
) -> Outcome:
    """Judge every control of `catalogue` (role -> raw controls) and, unless `check`, enforce what differs.

    Raises ControlError before anything is observed when any control is malformed.
    """
    controls = parse_all({**raw, "role": role} for role, raws in catalogue.items() for raw in raws)
    controls = [c for c in controls if not c.os or system(host) in c.os]
    outcome, every = Outcome(), controls
    if not scan:
        outcome.left_out = [c.id for c in controls if c.cost == "scan"]
        controls = [c for c in controls if c.cost != "scan"]
    day = today or _day(host)
    holds = waiver.holding(waivers or {}, day)
    lacking = capabilities(host)
    host.ask_units([*UNITS, *(c.setting["unit"] for c in controls if "unit" in c.setting)])
    outcome.runs_k3s = any(host.systemctl(f"{name}.service").get("ActiveState") in RUNNING for name in K3S)
    by_kind: dict[str, list[Control]] = {}
    done: dict[str, Finding] = {}
    for control in controls:
        early = _not_observed(control, lacking)
        if early is not None:
            done[control.id] = early
        else:
            by_kind.setdefault(control.setting["kind"], []).append(control)
    run_ = take_back.Run([c.setting for c in every if c.id not in holds], check)
    for name in sorted(by_kind, key=list(KINDS).index):  # files come before what reads them
        declared = [c.setting for c in every if c.setting["kind"] == name]
        for made in _judge_kind(by_kind[name], host, run_, holds, declared, outcome):
            done[made["control"]] = made
    for control in controls:
        made = _waive(done[control.id], (waivers or {}).get(control.id), control.id in holds)
        outcome.findings.append(legible(made))
    outcome.unsettled += [f"{m['control']}: {m['reason']}" for m in outcome.findings if m["status"] == "error"]
    outcome.due = [role for role in catalogue if role in outcome.due]
    outcome.changed = bool(host.changes)
    return outcome


def foreseen(
    catalogue: Mapping[str, Sequence[Mapping[str, Any]]], findings: Sequence[Finding], host: Host
) -> list[dict[str, str]]:
    """What apply would change, as Ansible's diffs: the text where a control declares a file, else `key: value` lines.

    All but that text is taken from the findings, so what is sensitive stays veiled; its file is not even read.
    """
    settings = {raw["id"]: raw["setting"] for raws in catalogue.values() for raw in raws}
    shown: list[dict[str, str]] = []
    for made in (made for made in findings if made["action"] == "would_change"):
        setting, values, pairs = settings[made["control"]], [made["observed"], made["expected"]], []
        text = setting.get("content", setting.get("ruleset")) if made["status"] == "fail" else None
        if text is not None and not setting.get("sensitive"):
            pairs = [[_short(show(host.read(setting.get("path", nft.FILE)))), _short(text)]]
            values = [{k: v for k, v in v.items() if k != "content"} if isinstance(v, dict) else v for v in values]
        lines = [_short(_lines(value)) for value in values]
        if made["status"] == "waived":
            lines = [f"{made['reason']}\n", ""]
        if lines[0] == lines[1] and not any(before != after for before, after in pairs):
            lines[0] += f"wrong: {made['reason']}\n"
        header = f"{KINDS[setting['kind']].identity(setting)} ({made['control']})"
        shown += [
            {"before_header": header, "after_header": header, "before": before, "after": after}
            for before, after in [*pairs, lines]
            if before != after
        ]
    return shown


def _lines(value: Any) -> str:
    keys = sorted(value) if isinstance(value, dict) else ()
    parts = [value[key] for key in keys] if keys else value if isinstance(value, list) else [value]
    words = [part if isinstance(part, str) else json.dumps(part, sort_keys=True, default=str) for part in parts]
    return "".join(f"{line}\n" for line in (map(": ".join, zip(keys, words)) if keys else words))


def _short(text: str) -> str:
    if "\0" in text:
        return "(not text)\n"
    return text if len(text) <= SHOWN else f"({len(text)} characters, not shown)\n"


def system(host: Host) -> str:
    """The system and its version, such as debian12, which a control may be for (`os`)."""
    release = host.cached("os-release", lambda: host.text("/etc/os-release") or "")
    told: dict[str, str] = dict(re.findall(r"^(ID|VERSION_ID)=[\"']?(.*?)[\"']?$", release, re.MULTILINE))
    return told.get("ID", "") + told.get("VERSION_ID", "")


def capabilities(host: Host) -> dict[str, str]:
    """What this machine lacks, as capability -> why; whatever is not named here is there.

    Decided by what works here (is this writable, is this loaded), never by "it is a container".
    """
    lacking: dict[str, str] = {}
    if not os.access(host.path("/proc/sys/kernel/panic"), os.W_OK):
        lacking["kernel"] = "/proc/sys is read-only here; the machine's own kernel settings are its host's"
    if not os.path.isdir(host.path("/lib/modules/" + os.uname().release)):
        lacking["modules"] = "the running kernel's modules are not on this machine"
    if (host.text("/sys/module/apparmor/parameters/enabled") or "").strip() != "Y":
        lacking["apparmor"] = "the running kernel has no AppArmor"
    if "api_semantics" not in host.context.get("capabilities", ("api_semantics",)):
        lacking["api_semantics"] = "the installed release is a double without a real API server, kubelet or etcd"
    return lacking


def enforced(control: Control) -> bool:
    """Whether apply changes what fails; `enforced: false` makes a setting observe-only."""
    return bool(control.kind.ENFORCED_BY) and control.setting.get("enforced") is not False


def _not_observed(control: Control, lacking: Mapping[str, str]) -> Finding | None:
    for need in control.needs:
        if need in lacking:
            return finding(control.declared, "not_evaluated", need, reason=f"{need}: {lacking[need]}")
    if control.vantage not in ("self", "controller"):
        return finding(
            control.declared,
            "not_evaluated",
            "vantage",
            reason=f"vantage: seen only from a {control.vantage}; run casemate prove",
        )
    return None


def _day(host: Host) -> datetime.date:
    """Today in UTC, by the controller's clock where it says so."""
    given = host.context.get("today")
    return datetime.date.fromisoformat(str(given)) if given else waiver.today_in_utc()


def _judge_kind(
    controls: list[Control],
    host: Host,
    run_: take_back.Run,
    holds: Mapping[str, Any],
    declared: list[dict[str, Any]],
    outcome: Outcome,
) -> list[Finding]:
    kind, check = controls[0].kind, run_.check
    ours = take_back.KINDS.get(controls[0].setting["kind"], take_back.Kind())
    # What may never go although it is waived goes on being written.
    unwritten = {c.id for c in controls if c.id in holds and not ours.lasting(c.setting, host)}
    before = _judge(controls, host, unwritten, ours.unasked(declared, host))
    failing = {i for i, v in enumerate(before) if isinstance(v, Verdict) and not v.ok and controls[i].id not in holds}
    todo = {i for i in failing if enforced(controls[i]) and (before[i].still_enforced or not before[i].blocked_by)}
    left = _left(controls, host, run_, holds, ours)
    back = {i for i, one in left.items() if one.where and not one.stays}
    broken = {i: out_of_bound(c) for i, c in enumerate(controls)}
    if check:
        outcome.due += [controls[i].role for i in todo | back]
        for i in todo:
            acts_on = before[i].observed if before[i].todo is None else before[i].todo
            outcome.todo[controls[i].id] = _veil(controls[i], acts_on)
            if kind is LEFTOVER:
                host.gone.update(acts_on)
    else:
        outcome.unsettled += [before[i].unwritable for i in sorted(failing) if before[i].unwritable]
    if check or not todo | back:
        made = [_plain(c, v, check) for c, v in zip(controls, before)]
        outcome.stale += _stale(before, failing, outcome)
    else:
        refused = _enforce(controls, todo, host, unwritten) if todo and kind.ENFORCED_BY == "engine" else ""
        kept = _take_back(controls, back, host, unwritten, ours) if back else ""
        after = _judge(controls, host, unwritten, ours.unasked(declared, host))
        made = [_settled(c, b, a, i in todo, refused) for i, (c, b, a) in enumerate(zip(controls, before, after))]
        if refused and not any(made[i]["action"] == "blocked" for i in todo):
            _say_refused(made, controls, todo, refused)
        if refused:
            outcome.unsettled.append(refused)
        outcome.stale += _stale(after, {i for i, c in enumerate(controls) if c.id not in holds}, outcome)
        outcome.unsettled += [kept] if kept else []
        left = _left(controls, host, run_, holds, ours)
        for i in back:
            gone = not left[i].where
            made[i].update(action="changed" if gone else "blocked", before=made[i]["before"] if gone else None)
            made[i]["reason"] = "" if gone else "; ".join(part for part in (kept, left[i].where) if part)
        outcome.stale += sorted(_read_at_start(controls, back, left) - set(outcome.stale))
    for i, ours_left in left.items():
        _say_what_is_left(made[i], ours_left, check)
    host.failing_files.update(
        c.setting["path"] for c, one in zip(controls, made) if kind is FILE and one["status"] == "fail"
    )
    outcome.barred += [
        one["reason"]
        for c, one in zip(controls, made)
        if c.setting.get("gate") and one["status"] == "fail" and c.id not in holds
    ]
    for i, one in enumerate(made):
        if broken[i] and one["status"] == "pass":
            one.update(
                status="fail",
                code="out_of_bound",
                reason=broken[i] + "; set the knob within the bound, or waive the control",
            )
    return made


def _judge(controls: list[Control], host: Host, unwritten: set[str], unasked: str) -> list[Any]:
    """A verdict for each control, or why there is none. What nothing asks for counts against one that is written."""
    found = [_assess(c, seen) for c, seen in _observe(controls, host, unwritten)]
    bearer = next(
        (
            i
            for i, (c, v) in enumerate(zip(controls, found))
            if isinstance(v, Verdict) and enforced(c) and c.id not in unwritten
        ),
        None,
    )
    if unasked and bearer is not None:
        reason = "; ".join(part for part in (found[bearer].reason, unasked) if part)
        found[bearer] = dataclasses.replace(found[bearer], ok=False, reason=reason, still_enforced=True)
    return found


def _left(
    controls: list[Control], host: Host, run_: take_back.Run, holds: Mapping[str, Any], ours: take_back.Kind
) -> dict[int, take_back.Left]:
    """What we have written for each waived control and is still there."""
    waived = [i for i, c in enumerate(controls) if c.id in holds and enforced(c)]
    return {i: ours.left(controls[i].setting, run_, host) for i in waived}


def _take_back(controls: list[Control], back: set[int], host: Host, unwritten: set[str], ours: take_back.Kind) -> str:
    wanted = [c.setting for c in controls if c.id not in unwritten]
    return _refusal(lambda: ours.take([controls[i].setting for i in sorted(back)], wanted, host))


def _read_at_start(controls: list[Control], back: set[int], left: Mapping[int, take_back.Left]) -> set[str]:
    """Units that read a file which was taken back, when they started."""
    return {controls[i].setting["unit"] for i in back if "unit" in controls[i].setting and not left[i].where}


def _say_what_is_left(made: Finding, left: take_back.Left, check: bool) -> None:
    """A waived control whose setting still stands is no pass of its own: it says what apply does about it."""
    if not left.where or made["status"] not in ("pass", "fail"):
        return
    made.update(status="waived", action=made["action"] if made["action"] == "blocked" and not left.stays else "none")
    if left.stays:
        made["reason"] = f"{left.where}; it stays: {left.stays}"
    elif check:
        made.update(action="would_change", after=None, reason=f"{left.where}; apply takes that back")


def _observe(controls: list[Control], host: Host, unwritten: set[str]) -> list[Seen]:
    """Observe a kind's settings; those that apply leaves alone are marked, since a kind foretells what it would do."""
    settings = [{**c.setting, "waived": True} if c.id in unwritten else c.setting for c in controls]
    try:
        seen: Sequence[Any] = controls[0].kind.observe(settings, host)
        if len(seen) != len(controls):
            raise AssertionError(f"{len(seen)} observations for {len(controls)} settings")
    except Unavailable as lacking:
        seen = [lacking] * len(controls)
    except Exception as crash:  # noqa: BLE001 - a check that could not run is an error of that check, not of the run
        seen = [crash] * len(controls)
    return list(zip(controls, seen))


def _assess(control: Control, seen: Any) -> Any:
    if isinstance(seen, Exception):
        return seen
    try:
        return control.kind.assess(control.setting, dict(seen))
    except Unavailable as lacking:
        return lacking
    except Exception as crash:  # noqa: BLE001 - as above
        return crash


def _enforce(controls: list[Control], todo: set[int], host: Host, unwritten: set[str]) -> str:
    wanted = [i for i, c in enumerate(controls) if c.id not in unwritten]
    chosen = {n for n, i in enumerate(wanted) if i in todo}
    return _refusal(lambda: controls[0].kind.enforce([controls[i].setting for i in wanted], chosen, host))


def _refusal(change: Callable[[], None]) -> str:
    """Why a change was refused, or an empty string."""
    try:
        change()
    except EnforceError as refusal:
        return str(refusal)
    except OSError as error:
        return f"{error.strerror}: {error.filename or ''}".rstrip(": ")
    except Exception as crash:  # noqa: BLE001 - what was done before it must still be reported
        return f"{type(crash).__name__}: {crash}"
    return ""


def _plain(control: Control, verdict: Any, check: bool) -> Finding:
    """The finding of a control that this pass did not touch."""
    if isinstance(verdict, Unavailable):
        return finding(control.declared, "not_evaluated", verdict.code, reason=str(verdict))
    if isinstance(verdict, Exception):
        return finding(control.declared, "error", "crash", reason=f"{type(verdict).__name__}: {verdict}")
    action = "none"
    if not verdict.ok and enforced(control):
        action = "blocked" if verdict.blocked_by else "would_change" if check else "none"
    observed, expected = _veil(control, verdict.observed), _veil(control, verdict.expected)
    return finding(
        control.declared, "pass" if verdict.ok else "fail", fault(verdict), action,
        expected=expected, observed=observed, reason=verdict.reason,
        where=list(verdict.where) or places(control.setting), evidence=verdict.evidence,
        before=observed, after=expected if action == "would_change" else observed,
    )  # fmt: skip


def fault(verdict: Verdict) -> str:
    """What sort of fault a verdict tells, as the code of its finding."""
    if verdict.ok:
        return ""
    if verdict.unwritable or verdict.blocked_by:
        return "unwritable" if verdict.unwritable else "blocked"
    return "stale" if verdict.stale else "differs"


def places(setting: Mapping[str, Any]) -> list[str]:
    """The file, unit or object that a setting is about, as far as its declaration names one."""
    return [str(setting[name]) for name in PLACES if setting.get(name)][:1]


def _settled(control: Control, before: Any, after: Any, tried: bool, refused: str) -> Finding:
    """The finding of a control after an enforcing pass over its kind."""
    made = _plain(control, after, check=False)
    if isinstance(before, Verdict):
        made["before"] = _veil(control, before.observed)
    if not tried:
        return made
    if made["status"] == "pass":
        made["action"] = "changed"
    else:
        made["action"] = "blocked"
        made["code"] = "refused" if refused else made["code"]
        made["reason"] = "; ".join(part for part in (refused, made["reason"]) if part)
    return made


def _say_refused(made: list[Finding], controls: list[Control], todo: set[int], refused: str) -> None:
    """What was refused although all is as demanded now, as the reload of a right file: one finding tells it."""
    bearer = next((i for i in sorted(todo) if controls[i].setting.get("reload")), min(todo))
    made[bearer].update(status="fail", action="blocked", reason=refused)


def _stale(verdicts: Sequence[Any], failing: set[int], outcome: Outcome) -> list[str]:
    units = {unit for i in failing if isinstance(verdicts[i], Verdict) for unit in verdicts[i].stale}
    return sorted(units - set(outcome.stale))


def _veil(control: Control, value: Any) -> Any:
    """What a sensitive setting demands or has, as `veiled`; by key, so that a reader sees which one differs.

    A kind names in PLAIN the keys that hold no secret. One that lists its sensitive keys veils them itself.
    """
    if control.setting.get("sensitive") is not True:
        return value
    if isinstance(value, dict):
        plain = getattr(control.kind, "PLAIN", ())
        return {key: one if key in plain else veiled(one) for key, one in value.items()}
    return veiled(value)


def _waive(made: Finding, given: Mapping[str, Any] | None, holds: bool) -> Finding:
    """Mark a failing finding as waived, or say that its waiver has expired. What passes needs no waiver."""
    if given is None or made["status"] not in ("fail", "waived"):
        return made
    made["waiver"] = waiver.shown(given)
    if made["status"] == "waived":
        return made
    if holds:
        made.update(status="waived", action=made["action"] if made["action"] == "changed" else "none")
    else:
        made["reason"] = f"the waiver expired on {made['waiver']['expires']}; {made['reason']}".rstrip("; ")
    return made
