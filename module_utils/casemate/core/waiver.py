"""Waivers: a control that somebody answers for not meeting, until a date. All dates are in UTC.

This is the only place that knows what a waiver is, when it holds, and what it does to a finding.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, Dict, Optional

from .finding import Finding
from .schema import ControlError

Waiver = Mapping[str, Any]
FIELDS = ("reason", "owner", "expires")


def added_up(places: Iterable[Any]) -> Dict[str, Any]:
    """Control -> waiver, of what stands in several places, from the most general to the most specific."""
    made: Dict[str, Any] = {}
    for value in places:
        made.update(value if isinstance(value, Mapping) else {})
    return made


def ended(control: str, waiver: Waiver, today: datetime.date) -> str:
    """The date on which a waiver ended, or "" while it holds: to the end of that day. Raises ControlError."""
    try:
        last = datetime.date.fromisoformat(str(waiver["expires"]))
    except (KeyError, TypeError, ValueError) as wrong:
        raise ControlError(f"the waiver of {control} needs `expires`, a date such as 2027-01-31") from wrong
    return last.isoformat() if last < today else ""


def holding(waivers: Mapping[str, Waiver], today: datetime.date) -> Dict[str, Waiver]:
    """Those that hold on this day; one that has ended counts as none."""
    return {control: waiver for control, waiver in waivers.items() if not ended(control, waiver, today)}


def excused(made: Finding, waiver: Optional[Waiver], today: datetime.date) -> Finding:
    """A failing finding as waived, or with the word that its waiver has ended. What passes needs no waiver."""
    if waiver is None or made["status"] not in ("fail", "waived"):
        return made
    made = {**made, "waiver": {field: str(waiver.get(field, "")) for field in FIELDS}}
    if made["status"] == "waived":
        return made
    if ended(made["control"], waiver, today):
        made["reason"] = f"the waiver expired on {made['waiver']['expires']}; {made['reason']}".rstrip("; ")
        return made
    return {**made, "status": "waived", "action": "changed" if made["action"] == "changed" else "none"}


def day(context: Mapping[str, Any]) -> datetime.date:
    """Today in UTC, by the controller's clock where the facts of a run say so."""
    given = context.get("today")
    return datetime.date.fromisoformat(str(given)) if given else today_in_utc()


def today_in_utc() -> datetime.date:
    """Today, wherever this runs."""
    return datetime.datetime.now(datetime.timezone.utc).date()
