"""What Casemate wrote for controls that are waived now: what of it still stands, and what a finding says of that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..core.finding import Finding
from ..core.verdict import Left
from ..host.machine import Host
from ..kinds.kind import Pass
from .control import Control


def still_standing(controls: list[Control], waived: Iterable[int], run: Pass, host: Host) -> dict[int, Left]:
    """What we have written for each waived control that apply enforces, by index."""
    ours = controls[0].kind.owned
    return {i: ours.left(controls[i].setting, run, host) for i in waived if controls[i].enforced}


def go(left: Mapping[int, Left]) -> set[int]:
    """Those of which something stands that does not have to stay."""
    return {i for i, one in left.items() if one.where and not one.stays}


def stale_units(controls: list[Control], gone: Iterable[int]) -> set[str]:
    """Units that read at their start what has been taken back."""
    return {unit for i in gone for unit in controls[i].kind.read_at_start(controls[i].setting)}


def say_done(made: Finding, left: Left, refused: str) -> None:
    """What became of a taking back."""
    if left.where:
        reason = "; ".join(part for part in (refused, left.where) if part)
        made.update(action="blocked", before=None, reason=reason)
    else:
        made.update(action="changed", reason="")


def say_standing(made: Finding, left: Left, check: bool) -> None:
    """A waived control whose setting still stands is no pass of its own: it says what apply does about it."""
    if not left.where or made["status"] not in ("pass", "fail"):
        return
    blocked = made["action"] == "blocked" and not left.stays
    made.update(status="waived", action="blocked" if blocked else "none")
    if left.stays:
        made["reason"] = f"{left.where}; it stays: {left.stays}"
    elif check:
        made.update(action="would_change", after=None, reason=f"{left.where}; apply takes that back")
