"""Advisories about what is installed that nobody answers for, as the controller found them.

The host tells what it is made of, and the data lies on the controller, which compares the two (src/casemate/supply/
advisory_policy.py). What came of that is in the context, under `advisories`: for each setting's `of` the `open` ones in
words, the `places` that they are in, why data is `stale` (old, or of other modules), and in `lacks` why there is no
judgement, as [code, reason].
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, List, Literal, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Unasked, Unavailable, Verdict
from ..host.machine import Host
from .kind import Kind

UNSET = "casemate_advisory_data is not set, so no advisories are consulted"
EXPECTED = "no advisory without an answer"
TODO = "update, or answer each in casemate_advisory_waivers or by OpenVEX; casemate advisories names all"
SHOWN = 5
"""Advisories that a finding names; `casemate advisories` names all."""


class Setting(TypedDict):
    """What a control of this kind demands: that what it is of has no advisory that counts and nobody answers for."""

    of: Annotated[Literal["k3s", "system"], Key("K3s and its parts, or Debian's packages and the kernel")]
    data: Annotated[List[str], Key("paths of the advisories on the controller; none: they are not asked for")]


def identity(setting: Setting) -> str:
    """What it is of."""
    return setting["of"]


def observe(settings: List[Setting], host: Host, _: Collection[int]) -> List[Any]:
    """What the controller found for each, or why there is nothing."""
    return [_found(setting, host) for setting in settings]


def _found(setting: Setting, host: Host) -> Any:
    if not setting["data"]:
        return Unasked(UNSET)
    found = (host.context.get("advisories") or {}).get(setting["of"])
    if found is None:
        return Unavailable("advisories", "nothing was compared with them")
    return Unavailable(*found["lacks"]) if found["lacks"] and not found["open"] + found["stale"] else found


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Every advisory that is open fails, and so does data that says too little of what is there today."""
    wrong = [*seen["open"], *seen["stale"]]
    shown = "; ".join(wrong[:SHOWN]) + (f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "")
    reason = TODO if seen["open"] else "the data is too old, or was asked for other modules" if wrong else ""
    return Verdict(
        ok=not wrong,
        expected=EXPECTED,
        observed=shown or EXPECTED,
        reason=reason,
        evidence=", ".join(setting["data"]),
        where=tuple(seen["places"]),
    )


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    places=lambda setting: setting["data"] or ["casemate_advisory_data"],
    made_of=lambda setting: bool(setting["data"]),
)
