"""AppArmor's profiles as the kernel has them: one that only complains confines nobody. Observe-only.

Source: apparmor(7), aa-status(8); /sys/kernel/security/apparmor/profiles has a line `name (mode)` for each.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, List, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host.machine import Host
from .kind import Kind


class Setting(TypedDict):
    """What a control of this kind demands."""

    modes: Annotated[List[str], Key("modes that a loaded profile may have, such as enforce")]


PROFILES = "/sys/kernel/security/apparmor/profiles"


def identity(setting: Setting) -> str:
    """One control for all profiles."""
    return "profiles"


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """The loaded profiles with their modes. Raises OSError where the kernel does not tell."""
    text = host.text(PROFILES)
    if text is None:
        raise OSError(f"{PROFILES} cannot be read: is securityfs mounted?")
    return [{"profiles": re.findall(r"(?m)^(.+) \((\w+)\)$", text)}] * len(settings)


def assess(setting: Setting, seen: Observation) -> Verdict:
    """There are profiles, and each has one of the modes."""
    wrong = {name: mode for name, mode in seen["profiles"] if mode not in setting["modes"]}
    words = [f"{name} is in mode {mode} (by hand: aa-enforce {name})" for name, mode in sorted(wrong.items())]
    reason = several(words) if seen["profiles"] else "no profile is loaded; by hand: systemctl restart apparmor"
    return Verdict(
        ok=bool(seen["profiles"]) and not wrong,
        expected=" or ".join(setting["modes"]),
        observed=sorted(wrong) or f"{len(seen['profiles'])} profiles",
        reason=reason,
        evidence=PROFILES,
    )


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, places=lambda setting: [PROFILES])
