"""Whether updates have arrived: installed, and what runs runs with them. Observe-only.

Each fault says what to do. Nothing is restarted or updated here: when a node may is the cluster's to say.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Callable, Dict, List, Literal, Mapping, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..formats.dpkg_status import STATUS
from ..host.machine import Host
from . import patch_packages, patch_running
from .kind import Kind, each


class Needed(TypedDict):
    """What every setting of this kind says."""

    of: Annotated[
        Literal["automatic", "pending", "held", "broken", "libraries", "kernel", "microcode"], Key("what is looked at")
    ]


class Setting(Needed, total=False):
    """What a control of this kind demands."""

    origins: Annotated[List[str], Key("automatic: patterns of unattended-upgrades of which updates have to come")]
    file: Annotated[str, Key("automatic: the file of ours that declares them")]
    tracker: Annotated[str, Key("pending: file on the host with the data of Debian's security tracker; empty: none")]


Look = Callable[[Mapping[str, Any], Host], Dict[str, str]]
LOOKS: Dict[str, Look] = {
    "automatic": patch_packages.automatic,
    "pending": patch_packages.pending,
    "held": patch_packages.held,
    "broken": patch_packages.broken,
    "libraries": patch_running.libraries,
    "kernel": patch_running.kernel,
    "microcode": patch_running.microcode,
}
PLACES = {
    "automatic": "/etc/apt/apt.conf.d",
    "pending": "/var/lib/apt/lists",
    "held": STATUS,
    "broken": STATUS,
    "libraries": "/proc",
    "kernel": "/boot",
    "microcode": "/lib/firmware",
}


def identity(setting: Setting) -> str:
    """One control for a sort of fault."""
    return setting["of"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """For each setting: what is behind, and why."""
    return each(settings, lambda setting: {"faults": LOOKS[setting["of"]](setting, host)})


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that nothing is behind."""
    faults = dict(sorted(seen["faults"].items()))
    return Verdict(
        ok=not faults,
        expected="nothing",
        observed=sorted(faults) or "nothing",
        reason=several([f"{name}: {why}" for name, why in faults.items()]),
        evidence=PLACES[setting["of"]],
    )


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, places=lambda setting: [PLACES[setting["of"]]])
