"""`casemate apply --evict ID`: which controls an operator may name, and what became of what these name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import click

from casemate import catalogue
from casemate.report.findings import Finding
from casemate.run.runner import Run
from module_utils.casemate.host.evicted import HOME

BY_HAND = ("vouched_entries", "vouched_state")
"""Kinds whose findings say how each thing that they name goes: a file holds more than it, or whoever sees it first has
to know whether it is needed."""


def ids(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """The controls that are named. Refuses what is none, and what apply heals or leaves alone whoever names it."""
    if not given:
        return ()
    from module_utils.casemate.kinds import KINDS  # here because it takes 0.07 s, which other commands need not pay

    named = [part.strip().upper() for text in given for part in text.split(",")]
    known = catalogue.load()
    allowed = [cid for cid, control in known.items() if KINDS[control["setting"]["kind"]].evicts]
    for cid in named:
        if cid in allowed:
            continue
        hint = catalogue.nearest(cid, known if cid not in known and cid else allowed)
        if not cid:
            wrong = "an ID is empty"
        elif cid not in known:
            wrong = f"there is no control {cid!r}" + (f"; did you mean {hint}?" if hint else "")
        elif KINDS[known[cid]["setting"]["kind"]].enforced_by and known[cid]["setting"].get("enforced") is not False:
            wrong = f"{cid} is healed by apply itself, so there is nothing to evict: leave it out"
        elif known[cid]["setting"]["kind"] in BY_HAND:
            wrong = f"{cid} names what Casemate does not remove; its finding says how each goes: casemate check"
        else:
            wrong = f"{cid} names nothing that Casemate could remove: casemate explain {cid} says what it demands"
        raise click.BadParameter(f"{wrong}. An ID is one of {', '.join(allowed)}")
    return tuple(dict.fromkeys(named))


def variables(named: Iterable[str]) -> dict[str, Any]:
    """What a run is told of it; what only a scan finds is looked for."""
    named = list(named)
    if not named:
        return {}
    scan = any(catalogue.load()[cid].get("cost") == "scan" for cid in named)
    return {"__casemate_evict": named, **({"__casemate_scan": True} if scan else {})}


def planned(run: Run, named: Iterable[str]) -> Iterator[str]:
    """What an apply would remove, as steps, and what it would leave."""
    for cid in named:
        for host in run.hosts.values():
            for made in host.passes.get(cid, ())[-1:]:
                if made["action"] == "would_change":
                    yield f"evict from {host.name} what {cid} names: {', '.join(made['where'])}"
                elif made["action"] == "blocked":
                    yield f"evict from {host.name} what can go of what {cid} names: {made['reason']}"


def done(run: Run, named: Iterable[str]) -> Iterator[str]:
    """What was removed and where copies lie, and which controls no host was judged by."""
    for cid in named:
        judged = {host.name: host.passes[cid] for host in run.hosts.values() if cid in host.passes}
        for name, passes in judged.items():
            gone = [path for path in _found(passes[0]) if path not in _found(passes[-1])]
            if gone:
                yield f"{name}: {cid}: removed {', '.join(gone)}; copies lie below {HOME}"
        if run.hosts and not judged:
            yield f"{cid} is judged on no host of this run, so nothing of it was evicted"


def _found(made: Finding) -> list[str]:
    """What a finding names that nobody vouches for; where it passes, `where` is what the control is about."""
    return list(made["where"]) if made["status"] == "fail" else []
