"""Take back on a host what the last run changed there, outside of packages, K3s and the cluster.

The host goes back to the applied state by itself where no fresh login confirms it, as with every change.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Dict, List, Set

from ..formats import pam_profiles
from ..host.guard import Guard
from ..host.last_change import Entry, LastChange
from ..host.machine import EnforceError, Host
from ..k3s.services import UNITS
from ..kinds import nft, other_firewalls, sysctl

OF_THE_KERNEL = "/proc/sys/"
CHANGED = "somebody has changed it after that run"
GONE = "it is there no more"
NEEDED = "K3s is installed, and its kubelet starts with these values only"
CLOSES = "K3s is installed, and this firewall would close what nodes and pods need"
INSTEAD = "it stands in for a firewall that stays off"
WHOLE = "what pam-auth-update makes goes back as a whole, and packages or somebody else have changed some of it"


@dataclass(frozen=True)
class Plan:
    """What goes back, and what stays, with the reason."""

    back: List[Entry]
    stay: Dict[str, str]


def plan(entries: List[Entry], changed: List[str], runs_k3s: bool, gone: Collection[str] = ()) -> Plan:
    """Which of what the last run changed goes back. Pure."""
    files = {one.name for one in entries if one.sort == "file"}  # which come back whole, and so do their modes
    stay = {**dict.fromkeys(set(gone) - files, GONE), **dict.fromkeys(changed, CHANGED)}
    if runs_k3s:
        kernel = (one for one in entries if one.name == sysctl.OWNED or one.name.startswith(OF_THE_KERNEL))
        stay.update({one.name: NEEDED for one in kernel})
        stay.update(_firewalls({one.name for one in entries}))
    stay.update({name: stay.get(name, WHOLE) for name in _half_of_pam({one.name for one in entries}, stay)})
    return Plan([one for one in entries if one.name not in stay], stay)


def _firewalls(names: Set[str]) -> Dict[str, str]:
    """Where apply has switched off another firewall: that one and ours stay as they are, so that there is one."""
    others = names & {other_firewalls.UFW, *(f"{name}.service" for name in other_firewalls.STOPPED)}
    ours = {name for name in names if name == nft.FILE or name.rpartition("/")[2] == nft.UNIT}
    return {**dict.fromkeys(others, CLOSES), **dict.fromkeys(ours if others else (), INSTEAD)}


def _half_of_pam(names: Set[str], stay: Collection[str]) -> Set[str]:
    """What may not go back since its counterpart stays: the files that PAM reads, the profiles, and what they were.

    Otherwise pam-auth-update would take our lines for an administrator's, and leave its files alone from then on.
    """
    profiles = {name for name in names if name.startswith(f"{pam_profiles.PROFILES}/casemate-")}
    saved = names & {*pam_profiles.STATE}
    ours = profiles | saved | names & {*pam_profiles.COMMON}
    pairs = zip(pam_profiles.COMMON, (f"{pam_profiles.SAVED}/{name}" for name in pam_profiles.TYPES))
    halved = any((one in names) != (other in names) for one, other in pairs) or (profiles and not saved)
    return ours if halved or ours & set(stay) else set()


def look(host: Host, last: LastChange) -> Plan:
    """What a revert of this host would do."""
    installed = any(host.systemctl(unit).get("LoadState") == "loaded" for unit in UNITS)
    return plan(last.entries(), last.changed_since(), installed, last.gone())


def take_back(guard: Guard, last: LastChange, planned: Plan) -> None:
    """Put it back under the guard, which waits for its confirmation then.

    Raises EnforceError where that fails; the guard has put everything as it was, then.
    """
    by_sort: Dict[str, List[str]] = {}
    gone = last.gone()  # of which there is no state that could be kept
    for one in (one for one in planned.back if one.sort == "file" or one.name not in gone):
        by_sort.setdefault(one.sort, []).append(one.name)
    for sort, names in by_sort.items():
        guard.arm(names, sort)
    guard.final()
    try:
        last.set_aside()
        last.leave(planned.stay)
        last.restore()
    except (EnforceError, OSError) as failed:
        guard.revert()
        raise EnforceError(f"{failed}; this host is as it was before") from failed
