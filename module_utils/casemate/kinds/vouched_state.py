"""What a host is doing, rather than what lies on it, and who vouches for it: a package, K3s, Casemate, or the operator.

Sockets that wait for others, rules of the kernel beside ours, modules that are loaded, programs that the kernel starts,
members of groups that give root, accounts by which somebody logs in, rules of sudo, keys of the account that Casemate
comes as. Nothing of it is taken away: the finding says how.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Annotated, Any, Callable, Dict, Iterator, List, Literal, TypedDict

from ..core import vouched_for, waiver
from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..core.vouched_for import Stranger
from ..host.machine import Host
from . import (
    state_accounts,
    state_groups,
    state_helpers,
    state_keys,
    state_modules,
    state_rules,
    state_sockets,
    state_sudo,
)
from .kind import Kind
from .vouchers import Known


class Needed(TypedDict):
    """What every setting of this kind says."""

    of: Annotated[
        Literal["sockets", "rules", "modules", "helpers", "groups", "accounts", "sudo", "keys"],
        Key("what is looked at"),
    ]
    used: Annotated[str, Key("what it does")]
    ours: Annotated[List[str], Key("files that Casemate writes: other controls judge them")]
    declared: Annotated[Dict[str, Any], Key("name to what the operator vouches for: digest, owner, reason, expires")]


class Setting(Needed, total=False):
    """What a control of this kind demands."""

    known: Annotated[
        List[str],
        Key("of sockets: programs that may listen under any unit; of rules: patterns of tables and chains of K3s"),
    ]
    groups: Annotated[
        List[str], Key("of groups: those whose members become root, or as good as; of sudo: those that others judge")
    ]
    accounts: Annotated[List[str], Key("of accounts and of sudo: whom the inventory lists")]
    marks: Annotated[int, Key("of rules: the bits of a packet's mark that let it through")]


Look = Callable[[Any, Known], Iterator[Stranger]]
LOOKS: Dict[str, Look] = {
    "sockets": state_sockets.strangers,
    "rules": state_rules.strangers,
    "modules": state_modules.strangers,
    "helpers": state_helpers.strangers,
    "groups": state_groups.strangers,
    "accounts": state_accounts.strangers,
    "sudo": state_sudo.strangers,
    "keys": state_keys.strangers,
}
PLACES = {
    "sockets": "/proc/net",
    "rules": "nft list ruleset",
    "modules": "/proc/modules",
    "helpers": "/proc/sys/kernel",
    "groups": "/etc/group",
    "accounts": "/etc/passwd",
    "sudo": "/etc/sudoers",
    "keys": "authorized_keys",
}


def identity(setting: Setting) -> str:
    """One control for a sort of state."""
    return setting["of"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """For each setting: for what nobody vouches, why, what it is and where."""
    known = Known(host, waiver.day(host.context))
    seen: List[Any] = []
    for setting in settings:
        try:
            found = {one.name: one for one in LOOKS[setting["of"]](setting, known)}
        except Unavailable as lacking:
            seen.append(lacking)
            continue
        unvouched = vouched_for.unvouched(found.values(), setting["declared"], known.day)
        seen.append({**unvouched, "where": [found[name].where or name for name in unvouched["faults"]]})
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that somebody vouches for everything."""
    made = vouched_for.verdict(setting, seen, PLACES[setting["of"]])
    return dataclasses.replace(made, where=tuple(seen["where"]))


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, places=lambda setting: [PLACES[setting["of"]]])
