"""What the operator vouches for by name, with a digest and until a date, and what is said of that which nobody does.

The same for files of a host and for objects of the cluster.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, Dict, NamedTuple

from . import waiver
from .flow import several
from .verdict import Verdict


class Stranger(NamedTuple):
    """Something that neither a package nor K3s nor Casemate vouches for: why, its digest, and where it is said so."""

    name: str
    why: str
    content: str
    where: str = ""


def fault(name: str, entry: Mapping[str, Any], now: str, day: datetime.date) -> str:
    """Why an entry does not vouch for what is there now, by its digest; nothing where it does."""
    ended = waiver.ended(name, entry, day)
    if ended:
        return f"{entry['owner']} vouched for it until {ended}"
    return "" if now == entry["digest"] else f"{entry['owner']} vouched for {entry['digest']}, and it is {now}"


def unvouched(found: Iterable[Stranger], declared: Mapping[str, Any], day: datetime.date) -> Dict[str, Dict[str, str]]:
    """Those for which no entry vouches: by name their `faults`, why each counts, and their `contents`."""
    faults, contents = {}, {}
    for name, why, now, _ in found:
        entry = declared.get(name)
        wrong = fault(name, entry, now, day) if entry else ""
        if wrong or not entry:
            faults[name] = "; ".join(filter(None, (why, wrong)))
            contents[name] = now
    return {"faults": faults, "contents": contents}


def verdict(setting: Mapping[str, Any], seen: Mapping[str, Any], evidence: str) -> Verdict:
    """Right is that somebody vouches for everything.

    `seen` has by name why nobody does (`faults`), the digest of what is there (`contents`), and of what apply would not
    remove where the operator names the control, why (`left`; a kind that removes nothing has none).
    """
    left = seen.get("left", {})
    faults = {name: "; ".join(filter(None, (why, left.get(name)))) for name, why in seen["faults"].items()}
    goes = [name for name in faults if name not in left]
    words = several([f"{name}: {why}" for name, why in faults.items()])
    reason = f"{setting['used']}, and nobody vouches for it: {words}. "
    reason += "Remove what does not belong there; `casemate baseline` records what does"
    return Verdict(
        ok=not faults,
        expected="nothing that nobody vouches for",
        observed=dict(seen["contents"]) or "nothing",
        reason=reason if faults else "",
        evidence=evidence,
        blocked_by="; ".join(f"{name}: {why}" for name, why in left.items()) if setting.get("enforced") else "",
        still_enforced=bool(goes),
        todo=goes,
        where=tuple(faults),
    )
