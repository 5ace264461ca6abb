"""What the operator vouches for by name, with a digest and until a date, and what is said of that which nobody does.

The same for files of a host and for objects of the cluster.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from . import waiver
from .verdict import Verdict

SHOWN = 5
"""Of how many things a finding says what is wrong with them; it names all."""


def fault(name: str, entry: Mapping[str, Any], now: str, day: datetime.date) -> str:
    """Why an entry does not vouch for what is there now, by its digest; nothing where it does."""
    ended = waiver.ended(name, entry, day)
    if ended:
        return f"{entry['owner']} vouched for it until {ended}"
    return "" if now == entry["digest"] else f"{entry['owner']} vouched for {entry['digest']}, and it is {now}"


def verdict(used: str, faults: Mapping[str, str], contents: Mapping[str, str], evidence: str) -> Verdict:
    """Right is that somebody vouches for everything: name -> why nobody does, and name -> its digest."""
    words = [f"{name}: {why}" for name, why in list(faults.items())[:SHOWN]]
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    reason = f"{used}, and nobody vouches for it: {'; '.join([*words, *more])}. "
    reason += "Remove what does not belong there; `casemate baseline` records what does"
    return Verdict(
        ok=not faults,
        expected="nothing that nobody vouches for",
        observed=dict(contents) or "nothing",
        reason=reason if faults else "",
        evidence=evidence,
        where=tuple(faults),
    )
