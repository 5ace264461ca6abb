"""The serial of the artifact lock that a host accepted last, which the host keeps, and which only rises.

Whoever puts an older lock in the place of the current one has it rightly signed. A controller may be a fresh one, and
know nothing of it; a host remembers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, List, Set, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host.machine import Host
from ..k3s.lock_validity import ACCEPTED, RecordError, accepted, older, record
from .kind import Kind

MODE, ROOT = 0o600, (0, 0)


class Setting(TypedDict):
    """What a control of this kind demands."""

    serial: Annotated[int, Key("the serial of the artifact lock; 0 where it has none")]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """The serial that was accepted last, or what is wrong with the record of it."""
    try:
        seen: Observation = {"accepted": accepted(host.text(ACCEPTED) or "")}
    except RecordError as wrong:
        seen = {"accepted": 0, "wrong": str(wrong)}
    return [seen for _ in settings]


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is the serial of the lock; apply writes a higher one, and nobody a lower one."""
    serial, kept = setting["serial"], seen["accepted"]
    refused = seen.get("wrong") or older(serial, kept)
    return Verdict(
        ok=not refused and serial == kept,
        expected=f"serial {serial}" if serial else "no serial",
        observed=f"serial {kept}" if kept else "no serial",
        reason=refused or ("" if serial == kept else "the host has not accepted this lock yet"),
        evidence=ACCEPTED,
        blocked_by=refused,
        where=(ACCEPTED,),
    )


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Note the serial; no guard takes it back, nor does `casemate revert`: an older lock would be accepted again."""
    for index in failing:
        host.write(ACCEPTED, record(settings[index]["serial"]), MODE, ROOT, stays=True)


KIND: Kind[Setting] = Kind(
    Setting,
    lambda setting: ACCEPTED,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    places=lambda setting: [ACCEPTED],
    is_note=True,
)
