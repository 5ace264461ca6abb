"""Whether the lists of accounts and groups agree with themselves. Observe-only: which entry is right, people know.

Sources: passwd(5), group(5), shells(5). CIS Debian Linux 12 1.1.0, 5.4.2.2, 5.4.2.3, 5.4.3.1, 7.2.1, 7.2.3 to 7.2.8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Annotated, Callable, Dict, List, Literal, NamedTuple, Set, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host.accounts import NO_SHELL, Account, passwd
from ..host.machine import Host
from ..host.text import split_lines
from .kind import Kind


class Setting(TypedDict):
    """What a control of this kind demands."""

    of: Annotated[
        Literal[
            "accounts_of_gid_0", "groups_of_gid_0", "shadowed", "groups_of_accounts", "uids", "gids", "account_names",
            "group_names", "shells",
        ],
        Key("what has to be so"),
    ]  # fmt: skip


class Lists(NamedTuple):
    """The lists as they are: accounts, (name, gid) of groups, shells that people may choose."""

    accounts: List[Account]
    groups: List[tuple[str, str]]
    shells: List[str]


def _twice(values: List[str], what: str) -> Dict[str, str]:
    return {value: f"{what} {value} stands {count} times" for value, count in Counter(values).items() if count > 1}


def _groupless(accounts: List[Account], gids: Set[str]) -> Dict[str, str]:
    lacking = (one for one in accounts if str(one.gid) not in gids)
    return {one.name: f"{one.name} has the group {one.gid}, which is not there" for one in lacking}


LOOKS: Dict[str, Callable[[Lists], Dict[str, str]]] = {
    "accounts_of_gid_0": lambda of: {
        a.name: f"{a.name} has the group of root" for a in of.accounts if a.gid == 0 and a.name != "root"
    },
    "groups_of_gid_0": lambda of: {
        name: f"the group {name} is another name of root's" for name, gid in of.groups if gid == "0" and name != "root"
    },
    "shadowed": lambda of: {
        a.name: f"{a.name} has its password in a file that everybody reads (by hand: pwconv)"
        for a in of.accounts
        if a.password not in ("x", "*", "!", "")  # what is empty is told as that
    },
    "groups_of_accounts": lambda of: _groupless(of.accounts, {gid for _, gid in of.groups}),
    "uids": lambda of: _twice([str(a.uid) for a in of.accounts], "the uid"),
    "gids": lambda of: _twice([gid for _, gid in of.groups], "the gid"),
    "account_names": lambda of: _twice([a.name for a in of.accounts], "the account"),
    "group_names": lambda of: _twice([name for name, _ in of.groups], "the group"),
    "shells": lambda of: {s: f"{s} lets nobody in" for s in of.shells if s.rsplit("/", 1)[-1] in NO_SHELL},
}
PLACES = {"groups_of_gid_0": "/etc/group", "gids": "/etc/group", "group_names": "/etc/group", "shells": "/etc/shells"}


def identity(setting: Setting) -> str:
    """One control for each thing that has to be so."""
    return setting["of"]


def place(setting: Setting) -> str:
    """The list that is judged."""
    return PLACES.get(setting["of"], "/etc/passwd")


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """What is wrong, by name. Raises OSError where the accounts cannot be read."""
    accounts = passwd(host.text("/etc/passwd") or "")
    if not accounts:
        raise OSError("/etc/passwd cannot be read as accounts")
    fields = (line.split(":") for line in split_lines(host.text("/etc/group") or ""))
    groups = [(one[0], one[2]) for one in fields if len(one) > 2 and one[2].isdigit()]
    shells = [line.strip() for line in split_lines(host.text("/etc/shells") or "") if line.strip().startswith("/")]
    lists = Lists(accounts, groups, shells)
    return [{"faults": LOOKS[setting["of"]](lists)} for setting in settings]


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that nothing is wrong."""
    faults = dict(sorted(seen["faults"].items()))
    reason = f"{several(list(faults.values()))}; correct it in {place(setting)}" if faults else ""
    return Verdict(
        ok=not faults, expected="nothing", observed=sorted(faults) or "nothing", reason=reason, evidence=place(setting)
    )


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, places=lambda setting: [place(setting)])
