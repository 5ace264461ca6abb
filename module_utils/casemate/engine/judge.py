"""One kind's controls: observe them together, assess each, enforce what fails, take back what is waived, and say so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ..core.finding import Finding, finding
from ..core.verdict import Setting, Unavailable, Verdict
from ..host.machine import EnforceError, Host
from ..kinds.kind import Pass
from . import take_back
from .control import Control, out_of_bound
from .outcome import Outcome

Seen = tuple[Control, Any]


def judge(
    controls: list[Control],
    host: Host,
    run: Pass,
    holds: Collection[str],
    declared: list[Setting],
    outcome: Outcome,
) -> list[Finding]:
    """The findings of one kind's controls, which this pass observes; all else that it learns is added to `outcome`.

    `holds` has the ids of controls whose waiver holds; `declared` all settings of the kind, observed or not.
    """
    kind, check = controls[0].kind, run.check
    waived = {i for i, c in enumerate(controls) if c.id in holds}
    # What may never go although it is waived goes on being written.
    unwritten = {i for i in waived if not kind.owned.lasting(controls[i].setting, host)}
    before = _assess_all(controls, host, unwritten, kind.owned.unasked(declared, host))
    failing = {i for i, v in enumerate(before) if isinstance(v, Verdict) and not v.ok} - waived
    todo = {i for i in failing if controls[i].enforced and (before[i].still_enforced or not before[i].blocked_by)}
    left = take_back.still_standing(controls, waived, run, host)
    back = take_back.go(left)
    if check:
        outcome.roles_to_apply += [controls[i].role for i in todo | back]
        for i in todo:
            acts_on = before[i].observed if before[i].todo is None else before[i].todo
            outcome.todo[controls[i].id] = kind.shown(controls[i].setting, acts_on)
            host.gone.update(kind.removes(acts_on))
    else:
        outcome.unsettled += [before[i].unwritable for i in sorted(failing) if before[i].unwritable]
    if check or not todo | back:
        made = [_plain(c, v, check) for c, v in zip(controls, before)]
        outcome.stale += _stale(before, failing, outcome)
    else:
        refused = _enforce(controls, todo, host, unwritten) if todo and kind.enforce else ""
        kept = _take_back(controls, back, host, unwritten) if back else ""
        after = _assess_all(controls, host, unwritten, kind.owned.unasked(declared, host))
        made = [_settled(c, b, a, i in todo, refused) for i, (c, b, a) in enumerate(zip(controls, before, after))]
        if refused and not any(made[i]["action"] == "blocked" for i in todo):
            _say_refused(made, controls, todo, refused)
        outcome.unsettled += [said for said in (refused, kept) if said]
        outcome.stale += _stale(after, set(range(len(controls))) - waived, outcome)
        left = take_back.still_standing(controls, waived, run, host)
        for i in back:
            take_back.say_done(made[i], left[i], kept)
        gone = {i for i in back if not left[i].where}
        outcome.stale += sorted(take_back.stale_units(controls, gone) - set(outcome.stale))
    for i, ours in left.items():
        take_back.say_standing(made[i], ours, check)
    for i, one in enumerate(made):
        if one["status"] == "fail":
            host.failing_files.update(kind.explains(controls[i].setting))
            outcome.barred += [one["reason"]] if controls[i].setting.get("gate") and i not in waived else []
        broken = out_of_bound(controls[i])
        if broken and one["status"] == "pass":
            reason = f"{broken}; set the knob within the bound, or waive the control"
            one.update(status="fail", code="out_of_bound", reason=reason)
    return made


def _assess_all(controls: list[Control], host: Host, unwritten: set[int], unasked: str) -> list[Any]:
    """A verdict for each control, or why there is none. What nothing asks for counts against one that is written."""
    found = [_assess(c, seen) for c, seen in _observe(controls, host, unwritten)]
    bearer = next(
        (
            i
            for i, (c, v) in enumerate(zip(controls, found))
            if isinstance(v, Verdict) and c.enforced and i not in unwritten
        ),
        None,
    )
    if unasked and bearer is not None:
        reason = "; ".join(part for part in (found[bearer].reason, unasked) if part)
        found[bearer] = dataclasses.replace(found[bearer], ok=False, reason=reason, still_enforced=True)
    return _frozen(controls, found, host, unwritten)


def _frozen(controls: list[Control], found: list[Any], host: Host, unwritten: set[int]) -> list[Any]:
    """The verdicts, where one of each file of ours that nobody can change any more, and nobody heal, says so."""
    found, files = list(found), set()
    for i, (control, verdict) in enumerate(zip(controls, found)):
        path = control.kind.owned.written(control.setting)
        if not path or path in files or not isinstance(verdict, Verdict) or not control.enforced or i in unwritten:
            continue
        files.add(path)
        if verdict.ok and host.is_fixed(path):
            barred = host.barred(path)
            reason = f"it is as declared, and nobody can change it any more, apply neither: {barred}"
            found[i] = dataclasses.replace(verdict, ok=False, reason=reason, blocked_by=barred, where=(path,))
    return found


def _take_back(controls: list[Control], back: set[int], host: Host, unwritten: set[int]) -> str:
    """Why what was written could not be taken back, or an empty string."""
    wanted = [c.setting for i, c in enumerate(controls) if i not in unwritten]
    ours = controls[0].kind.owned
    return _refusal(lambda: ours.take_back([controls[i].setting for i in sorted(back)], wanted, host))


def _observe(controls: list[Control], host: Host, unwritten: set[int]) -> list[Seen]:
    """Observe a kind's settings; it is told which apply leaves alone, since a kind foretells what apply would do."""
    try:
        seen: Sequence[Any] = controls[0].kind.observe([c.setting for c in controls], host, unwritten)
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


def _enforce(controls: list[Control], todo: set[int], host: Host, unwritten: set[int]) -> str:
    """Why something could not be enforced, or an empty string."""
    enforce, wanted = controls[0].kind.enforce, [i for i in range(len(controls)) if i not in unwritten]
    chosen = {n for n, i in enumerate(wanted) if i in todo}
    return _refusal(lambda: enforce([controls[i].setting for i in wanted], chosen, host)) if enforce else ""


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
        seen = None if verdict.observed is None else control.kind.shown(control.setting, verdict.observed)
        said = str(verdict)
        return finding(
            control.declared, "not_evaluated", verdict.code, reason=said, where=control.places, observed=seen
        )
    if isinstance(verdict, Exception):
        reason = f"{type(verdict).__name__}: {verdict}"
        return finding(control.declared, "error", "crash", reason=reason, where=control.places)
    action = "none"
    if not verdict.ok and control.enforced:
        action = "blocked" if verdict.blocked_by else "would_change" if check else "none"
    observed, expected = (
        control.kind.shown(control.setting, verdict.observed),
        control.kind.shown(control.setting, verdict.expected),
    )
    reason = verdict.reason
    if control.kind.evicts and verdict.todo:
        reason += f", and `casemate apply --evict {control.id}` removes what can go of all that, and keeps a copy"
    return finding(
        control.declared, "pass" if verdict.ok else "fail", fault(verdict), action,
        expected=expected, observed=observed, reason=reason,
        where=list(verdict.where) or control.places, evidence=verdict.evidence,
        before=observed, after=expected if action == "would_change" else observed,
    )  # fmt: skip


def fault(verdict: Verdict) -> str:
    """What sort of fault a verdict tells, as the code of its finding."""
    if verdict.ok:
        return ""
    if verdict.unwritable or verdict.blocked_by:
        return "unwritable" if verdict.unwritable else "blocked"
    return "stale" if verdict.stale else "differs"


def _settled(control: Control, before: Any, after: Any, tried: bool, refused: str) -> Finding:
    """The finding of a control after an enforcing pass over its kind."""
    made = _plain(control, after, check=False)
    if isinstance(before, Verdict):
        made["before"] = control.kind.shown(control.setting, before.observed)
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
    bearer = next((i for i in sorted(todo) if controls[i].kind.reloads(controls[i].setting)), min(todo))
    made[bearer].update(status="fail", action="blocked", reason=refused)


def _stale(verdicts: Sequence[Any], failing: set[int], outcome: Outcome) -> list[str]:
    units = {unit for i in failing if isinstance(verdicts[i], Verdict) for unit in verdicts[i].stale}
    return sorted(units - set(outcome.stale))
