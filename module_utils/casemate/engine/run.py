"""The engine: observe effective values, compare, and enforce unless only checking, in one pass.

Check mode is drift detection, because it is the same code with the one enforcing step left out.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from ..core import waiver
from ..core.finding import Finding, finding
from ..core.legible import legible
from ..host.machine import Host
from ..k3s.services import UNITS
from ..kinds import KINDS
from ..kinds.kind import Pass
from .control import Control, parse_all
from .judge import judge
from .machine import capabilities, system
from .outcome import Outcome

RUNNING = ("active", "reloading", "activating", "deactivating")


def run(
    catalogue: Mapping[str, Sequence[Mapping[str, Any]]],
    host: Host,
    check: bool,
    waivers: Mapping[str, Mapping[str, Any]] | None = None,
    scan: bool = False,
    today: datetime.date | None = None,
    from_outside: bool = False,
) -> Outcome:
    """Judge every control of `catalogue` (role -> raw controls) and, unless `check`, enforce what differs.

    With `from_outside`, `host` is where the node is looked at from: whether K3s runs there is not asked.
    Raises ControlError before anything is observed when any control is malformed.
    """
    controls = parse_all({**raw, "role": role} for role, raws in catalogue.items() for raw in raws)
    controls = [c for c in controls if not c.os or system(host) in c.os]
    outcome, every = Outcome(), controls
    if not scan:
        outcome.left_out = [c.id for c in controls if c.cost == "scan"]
        controls = [c for c in controls if c.cost != "scan"]
    day = today or waiver.day(host.context)
    holds = waiver.holding(waivers or {}, day)
    lacking = capabilities(host)
    of_k3s = () if from_outside else UNITS
    host.ask_units([*of_k3s, *(unit for c in controls for unit in c.kind.units(c.setting))])
    outcome.runs_k3s = any(host.systemctl(unit).get("ActiveState") in RUNNING for unit in of_k3s)
    by_kind: dict[str, list[Control]] = {}
    done: dict[str, Finding] = {}
    for control in controls:
        early = _not_observed(control, lacking)
        if early is not None:
            done[control.id] = early
        else:
            by_kind.setdefault(control.setting["kind"], []).append(control)
    this = Pass([c.setting for c in every if c.id not in holds], check)
    for name in sorted(by_kind, key=list(KINDS).index):  # what explains a fault comes before what it explains
        declared = [c.setting for c in every if c.setting["kind"] == name]
        for made in judge(by_kind[name], host, this, holds, declared, outcome):
            done[made["control"]] = made
    for control in controls:
        made = waiver.excused(done[control.id], (waivers or {}).get(control.id), day)
        outcome.findings.append(legible(made))
    outcome.unsettled += [f"{m['control']}: {m['reason']}" for m in outcome.findings if m["status"] == "error"]
    outcome.roles_to_apply = [role for role in catalogue if role in outcome.roles_to_apply]
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
        setting = settings[made["control"]]
        kind = KINDS[setting["kind"]]
        if made["status"] == "waived":
            pairs = [(f"{made['reason']}\n", "")]
        else:
            pairs = kind.difference(setting, made["observed"], made["expected"], host)
            if all(before == after for before, after in pairs):
                pairs[-1] = (f"{pairs[-1][0]}wrong: {made['reason']}\n", pairs[-1][1])
        header = f"{kind.identity(setting)} ({made['control']})"
        shown += [
            {"before_header": header, "after_header": header, "before": before, "after": after}
            for before, after in pairs
            if before != after
        ]
    return shown


def _not_observed(control: Control, lacking: Mapping[str, str]) -> Finding | None:
    for need in control.needs:
        if need in lacking:
            reason = f"{need}: {lacking[need]}"
            return finding(control.declared, "not_evaluated", need, reason=reason, where=control.places)
    if control.vantage not in ("self", "controller"):
        return finding(
            control.declared,
            "not_evaluated",
            "vantage",
            reason=f"vantage: seen only from a {control.vantage}; run casemate prove",
            where=control.places,
        )
    return None
