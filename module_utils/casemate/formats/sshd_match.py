"""A connection that meets each Match block of sshd's configuration, in the words of `sshd -T -C`.

Source: sshd_config(5), Match and PATTERNS of ssh_config(5) (a list needs one match and no negated one), CIDR lists of
addresses; sshd(8), -C. Measured with OpenSSH 9.2 and 10.0: without lport, or with 0, any `Match LocalPort` makes sshd
fail; invalid-user is a word without a value, and Version compares with sshd's own, so that it needs none.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Iterator
from typing import Optional

from ..host.accounts import number, passwd
from ..host.machine import Host
from ..host.text import split_lines

Spec = dict[str, Optional[str]]

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


def criteria(block: str) -> dict[str, str]:
    """Criterion -> its patterns, of what stands after Match; a comment ends it."""
    words = re.split(r"\s*=\s*|\s+", block.strip())
    found: dict[str, str] = {}
    while words:
        name = words.pop(0).lower()
        if name.startswith("#"):
            break
        found[name] = "" if name in ALONE else words.pop(0) if words else ""
    return found


def plain(blocks: list[str]) -> Spec:
    """A connection that only blocks for all meet: what -C does not say matches nothing, but the port has to be said."""
    taken = {criteria(block).get("localport") for block in blocks}
    free = (str(port) for port in range(1, len(taken) + 2))
    return {"lport": next(port for port in free if port not in taken)} if taken - {None} else {}


def connections_of(host: Host, block: str) -> list[Spec]:
    """One connection for each user that shows what a block does; none where nobody can meet it (now)."""
    asked, spec = criteria(block), dict(STRANGER)
    for name, key in NAMES.items():
        if name not in asked:
            continue
        patterns = asked[name].lower() if name == "host" else asked[name]
        sampled = address(patterns) if name.endswith("address") else sample(patterns)
        if not sampled:
            return []
        spec[key] = sampled
    if "invalid-user" in asked:
        spec["invalid-user"] = None
    return [{**spec, "user": user} for user in dict.fromkeys(users(host, asked)) if user]


def users(host: Host, asked: dict[str, str]) -> list[str]:
    """Whom a block is about: members of its groups, a user of its list, or root and a stranger."""
    if "group" in asked:
        there = [name for pattern in positive(asked["group"]) for name in members(host, pattern)]
        out = {name for pattern in negated(asked["group"]) for name in members(host, pattern)}
        met = [name for name in there if name not in out and ("user" not in asked or listed(name, asked["user"]))]
        return met[:1]
    if "user" in asked:
        return [sample(asked["user"])]
    stranger = str(STRANGER["user"])
    return [stranger] if "invalid-user" in asked else ["root", stranger]


def positive(patterns: str) -> list[str]:
    """What a list asks for."""
    return [one for one in patterns.split(",") if one and not one.startswith("!")]


def negated(patterns: str) -> list[str]:
    """What a list leaves out."""
    return [one[1:] for one in patterns.split(",") if one.startswith("!")]


def listed(name: str, patterns: str) -> bool:
    """Whether a list of patterns matches a name."""
    return any(fits(name, one) for one in positive(patterns)) and not any(fits(name, one) for one in negated(patterns))


def fits(name: str, pattern: str) -> bool:
    """Whether one pattern matches; in those of OpenSSH * and ? alone are special."""
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def sample(patterns: str) -> str:
    """A name that a list of patterns matches; empty where there is none to think of."""
    tries = (re.sub(r"[*?]", fill, pattern) for pattern in positive(patterns) for fill in FILLS)
    return next((name for name in tries if listed(name, patterns)), "")


def address(patterns: str) -> str:
    """An address that a list of networks and patterns matches; empty where there is none to think of."""
    tries = (one for pattern in positive(patterns) for one in addresses(pattern))
    return next((one for one in tries if not any(covers(out, one) for out in negated(patterns))), "")


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


def members(host: Host, group: str) -> list[str]:
    """Who is in the groups that match a pattern, named there or by the group of their own."""
    found: list[str] = []
    accounts = passwd(host.text("/etc/passwd") or "")
    for line in split_lines(host.text("/etc/group") or ""):
        name, _, gid, named = [*line.split(":"), "", "", "", ""][:4]
        if fits(name, group):
            found += [one.name for one in accounts if one.name in named.split(",") or one.gid == number(gid)]
    return found
