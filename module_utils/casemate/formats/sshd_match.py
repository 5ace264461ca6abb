"""A connection for each set of Match blocks of sshd's configuration that one can meet, in the words of `sshd -T -C`.

Source: sshd_config(5), Match and PATTERNS of ssh_config(5) (a list needs one match and no negated one), CIDR lists of
addresses; sshd(8), -C. Measured with OpenSSH 9.2 and 10.0: without lport, or with 0, any `Match LocalPort` makes sshd
fail; invalid-user is a word without a value, and Version compares with sshd's own, so that it needs none.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Callable, Dict, FrozenSet, NamedTuple, Optional, Tuple, TypeVar

from ..host.accounts import group, passwd
from ..host.machine import Host
from ..host.ssh_patterns import fits, listed, negated, positive

T = TypeVar("T")
Spec = dict[str, Optional[str]]
Criteria = Dict[str, str]
"""Criterion of a Match block -> its patterns."""
Met = Tuple[str, ...]
"""The blocks that a connection meets, as they stand after Match."""

STRANGER: Spec = {
    "user": "casemate-stranger",
    "host": "stranger.invalid",
    "addr": "192.0.2.1",
    "laddr": "192.0.2.2",
    "lport": "22",
}
ALONE = ("all", "invalid-user")
"""Criteria without a value."""
NAMES = {"host": "host", "address": "addr", "localaddress": "laddr", "localport": "lport", "rdomain": "rdomain"}
FILLS = ("x", "y", "casemate", "0")
PARTS = ("1", "1.1", "1.1.1", "1.1.1.1", ":1", "1::1", "::1")


def criteria(block: str) -> Criteria:
    """Criterion -> its patterns, of what stands after Match; a comment ends it."""
    words = re.split(r"\s*=\s*|\s+", block.strip())
    found: Criteria = {}
    while words:
        name = words.pop(0).lower()
        if name.startswith("#"):
            break
        found[name] = "" if name in ALONE else words.pop(0) if words else ""
    return found


def plain(blocks: Iterable[str]) -> Spec:
    """A connection that only blocks for all meet: what -C does not say matches nothing, but the port has to be said."""
    taken = {criteria(block).get("localport") for block in blocks}
    free = (str(port) for port in range(1, len(taken) + 2))
    return {"lport": next(port for port in free if port not in taken)} if taken - {None} else {}


class Person(NamedTuple):
    """Somebody who may come, and what Match can ask about them."""

    name: str
    groups: FrozenSet[str]
    is_unknown: bool


def connections_of(host: Host, blocks: Sequence[str], lists: Sequence[Collection[str]]) -> list[Tuple[Met, Spec]]:
    """The blocks that a connection meets, and such a connection, for every set of blocks that one can meet (now).

    Blocks are not looked at one by one: of two that a connection meets the first one decides, so one that asks for an
    address may undo what another one demands of a user. Users who are in other `lists` are kept apart too.
    """
    asked = {block: criteria(block) for block in dict.fromkeys(blocks)}
    people = _told_apart(_people(host, asked.values(), lists), lambda one: (_of_person(one, asked), _in(one, lists)))
    values = {name: _told_apart(_values(name, asked), partial(_of_value, name, asked)) for name in NAMES}
    places = [dict(zip(NAMES, place)) for place in itertools.product(*values.values())]
    found: Dict[Tuple[Met, Tuple[bool, ...]], Tuple[Met, Spec]] = {}
    for person, place in itertools.product(people, places):
        met = tuple(block for block, one in asked.items() if _meets(one, person, place))
        spec: Spec = {"user": person.name, **{NAMES[name]: value for name, value in place.items() if value is not None}}
        if person.is_unknown:
            spec["invalid-user"] = None
        found.setdefault((met, _in(person, lists)), (met, spec))
    return [one for (met, listed_in), one in found.items() if met or any(listed_in)]


def _told_apart(candidates: Iterable[T], by: Callable[[T], Any]) -> list[T]:
    """The first one of all that no criterion tells apart."""
    found: Dict[Any, T] = {}
    for one in candidates:
        found.setdefault(by(one), one)
    return list(found.values())


def _in(person: Person, lists: Sequence[Collection[str]]) -> Tuple[bool, ...]:
    return tuple(person.name in names for names in lists)


def _of_person(person: Person, asked: Mapping[str, Criteria]) -> Tuple[bool, ...]:
    return tuple(_is_for(one, person) for one in asked.values())


def _of_value(name: str, asked: Mapping[str, Criteria], value: str | None) -> Tuple[bool, ...]:
    return tuple(_is_at(name, one, value) for one in asked.values())


def _meets(asked: Criteria, person: Person, place: Mapping[str, str | None]) -> bool:
    return _is_for(asked, person) and all(_is_at(name, asked, value) for name, value in place.items())


def _is_for(asked: Criteria, person: Person) -> bool:
    """Whether a block is for somebody. A user whom the system does not know is in no group."""
    if "invalid-user" in asked and not person.is_unknown:
        return False
    if "user" in asked and not listed(person.name, asked["user"]):
        return False
    return "group" not in asked or (
        any(fits(group, one) for group in person.groups for one in positive(asked["group"]))
        and not any(fits(group, one) for group in person.groups for one in negated(asked["group"]))
    )


def _is_at(name: str, asked: Criteria, value: str | None) -> bool:
    """Whether a block is for a host, an address, a port or a domain of routes."""
    if name not in asked:
        return True
    if value is None:
        return False
    if not name.endswith("address"):
        return listed(value, asked[name].lower() if name == "host" else asked[name])
    inside = any(covers(one, value) for one in positive(asked[name]))
    return inside and not any(covers(one, value) for one in negated(asked[name]))


def _people(host: Host, asked: Iterable[Criteria], lists: Iterable[Collection[str]]) -> list[Person]:
    """Root, a stranger, who is in one of the lists, whom a pattern means, and every account."""
    groups, blocks = groups_of(host), list(asked)
    unknown_is_asked = any("invalid-user" in one for one in blocks)
    expected = {name for names in lists for name in names}
    patterns = [one for block in blocks for one in block.get("user", "").split(",")]
    names = ["root", str(STRANGER["user"]), *sorted(expected), *_filled(patterns), *groups]
    return [
        Person(name, groups.get(name, frozenset()), unknown_is_asked and name not in {*groups, *expected, "root"})
        for name in dict.fromkeys(names)
    ]


def _values(name: str, asked: Mapping[str, Criteria]) -> list[str | None]:
    """What a connection may have of a criterion: something usual, nothing, and what the patterns mean."""
    lists = [one[name] for one in asked.values() if name in one]
    neutral = STRANGER.get(NAMES[name])
    if name == "localport":
        neutral = plain(asked).get("lport", neutral)
    patterns = [one.lstrip("!") for patterns in lists for one in patterns.split(",")]
    if name.endswith("address"):
        return [neutral, None, *(made for one in patterns for made in addresses(one))]
    return [
        neutral,
        *([] if name == "localport" else [None]),
        *_filled(one.lower() if name == "host" else one for one in patterns),
    ]


def _filled(patterns: Iterable[str]) -> Iterator[str]:
    """Names that patterns match."""
    for pattern in patterns:
        for fill in FILLS:
            made = re.sub(r"[*?]", fill, pattern.lstrip("!"))
            if made:
                yield made


def addresses(pattern: str) -> Iterator[str]:
    """Addresses all over a network, or for the places of wildcards whatever makes an address of them."""
    net = network(pattern)
    if net is not None:
        yield from (str(net[2**bit - 1]) for bit in range(net.max_prefixlen - net.prefixlen + 1))
        return
    if pattern == "*":
        yield str(STRANGER["addr"])
    for part in PARTS:
        made = pattern.replace("?", "1").replace("*", part)
        if network(made) is not None:
            yield made


def covers(pattern: str, one: str) -> bool:
    """Whether a network or a pattern matches an address."""
    net = network(pattern)
    return fits(one, pattern) if net is None else ipaddress.ip_address(one) in net


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The network of an address or CIDR; None for what is none."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def groups_of(host: Host) -> Dict[str, FrozenSet[str]]:
    """Account -> the groups that it is in, named there or by the group of its own."""
    groups = group(host.text("/etc/group") or "")
    found: Dict[str, FrozenSet[str]] = {}
    for account in passwd(host.text("/etc/passwd") or ""):
        own = {one.name for one in groups if one.gid == account.gid or account.name in one.members}
        found.setdefault(account.name, frozenset(own))
    return found
