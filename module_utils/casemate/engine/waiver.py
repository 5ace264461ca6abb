"""Waivers: a control that somebody answers for not meeting, until a date. All dates are in UTC."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Dict

from .control import ControlError

Waiver = Mapping[str, Any]
FIELDS = ("reason", "owner", "expires")


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


def shown(waiver: Waiver) -> Dict[str, str]:
    """A waiver as a finding has it."""
    return {field: str(waiver.get(field, "")) for field in FIELDS}


def today_in_utc() -> datetime.date:
    """Today, wherever this runs."""
    return datetime.datetime.now(datetime.timezone.utc).date()
