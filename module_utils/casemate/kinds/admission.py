"""Whether sshd turns away somebody who is declared, by a list of others: DenyUsers, DenyGroups or AllowGroups.

Such lists add up over all files, or one is made where none was, so that no line of ours takes them back: the line is
named, and people remove it. A pattern that is for some addresses alone counts as none, since nobody here knows where
people come from; of blocks those count that a login meets which comes from where this run does. Source:
sshd_config(5); auth.c of OpenSSH, allowed_user.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, Any, Dict, FrozenSet, List, Tuple, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..formats import sshd_files
from ..formats.sshd_daemon import SOCKET, UNIT
from ..formats.sshd_files import Line
from ..formats.sshd_match import STRANGER, Spec, groups_of
from ..host import logins
from ..host.machine import Host
from ..host.ssh_patterns import fits
from .kind import Kind

LISTS = {"denyusers": "DenyUsers", "denygroups": "DenyGroups", "allowgroups": "AllowGroups"}
"""Keywords as `sshd -T` shows them -> as people write them."""


class Setting(TypedDict):
    """What a control of this kind demands."""

    people: Annotated[List[Any], Key("everybody who is declared; the account that Casemate comes as counts besides")]


def identity(setting: Setting) -> str:
    """There is one."""
    return "admission"


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """Name -> the list that turns somebody away, with the places of its lines. Without a list sshd is not asked."""
    lines, whole = sshd_files.directives(host), set(sshd_files.options(host).values())
    if not any(line.key in LISTS for line in lines) and not any(whole):
        return [{"away": {}, "broken": False} for _ in settings]
    known = groups_of(host)
    try:
        return [{"away": _away(setting, lines, known, whole, host), "broken": False} for setting in settings]
    except OSError:
        return [{"away": {}, "broken": True} for _ in settings]


def _away(
    setting: Setting,
    lines: List[Line],
    known: Dict[str, FrozenSet[str]],
    whole: Collection[sshd_files.Options],
    host: Host,
) -> Dict[str, Tuple[str, List[str]]]:
    account = str(host.context.get("account") or "")
    groups = {account: known.get(account, frozenset())} if account in known else {}
    for one in setting["people"]:
        if one["state"] == "present":
            name = str(one["name"])
            groups[name] = known.get(name, frozenset([name, *one["groups"]]))  # as useradd will put them in
    came, found = _as_this_run(), {}
    for name, own in groups.items():
        spec = {**came, "user": name}
        for extra in whole:
            values = sshd_files.effective(host, extra, spec)
            for key in _turning_away(name, own, values):
                places = [f"{line.path}:{line.number}" for line in lines if line.key == key and _tells(line, name, own)]
                found[name] = (f"{LISTS[key]} {values[key]}", places)
    return found


def _as_this_run() -> Spec:
    """A connection as the one by which this run came in: people come to the same address and port of this host."""
    session = logins.session()
    if not session:
        return STRANGER
    address, _, here, port = session
    return {"host": address, "addr": address, "laddr": here, "lport": port}


def _turning_away(name: str, groups: FrozenSet[str], values: Dict[str, str]) -> Iterator[str]:
    """The keywords of lists by which sshd turns an account away."""
    if any(_is_meant(name, pattern) for pattern in values.get("denyusers", "").split()):
        yield "denyusers"
    if any(fits(group, pattern) for pattern in values.get("denygroups", "").split() for group in groups):
        yield "denygroups"
    admitted = values.get("allowgroups", "").split()
    if admitted and not any(fits(group, pattern) for pattern in admitted for group in groups):
        yield "allowgroups"


def _is_meant(name: str, pattern: str) -> bool:
    user, _, address = pattern.partition("@")
    return fits(name, user) and address in ("", "*")


def _tells(line: Line, name: str, groups: FrozenSet[str]) -> bool:
    """Whether a line of a list is one that turns an account away: of those that admit all are, as none has it."""
    patterns = line.value.split()
    if line.key == "denyusers":
        return any(_is_meant(name, one) for one in patterns)
    return line.key == "allowgroups" or any(fits(group, one) for one in patterns for group in groups)


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Nobody may be turned away."""
    if seen["broken"]:
        raise Unavailable("sshd", "sshd cannot read its configuration, which the control of the daemon tells")
    away: Dict[str, Tuple[str, List[str]]] = seen["away"]
    words = [
        f"{name} does not get in by {said}: take that out of {', '.join(places) or 'the command line of sshd'}"
        for name, (said, places) in sorted(away.items())
    ]
    return Verdict(
        ok=not away,
        expected="nobody",
        observed=sorted(away) or "nobody",
        reason=several(words),
        evidence="sshd -T",
        where=tuple(dict.fromkeys(place for _, places in away.values() for place in places)),
    )


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    units=lambda setting: (UNIT, SOCKET),
    places=lambda setting: [sshd_files.MAIN],
)
