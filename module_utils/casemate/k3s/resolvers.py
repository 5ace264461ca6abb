"""Files of resolvers (resolv.conf(5)) and whether pods can use what stands in them. Shared by kinds and preflight.

The rule is K3s' own (pkg/agent/config: isValidResolvConf): each resolver has to be a unicast address that is reached
from another network namespace, so none on loopback and none that is good on one link only. K3s looks at no file that it
is told of, and hands pods a public resolver where it finds none by itself; the kubelet copies what it is given.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Sequence, TypeVar, cast

from ..host.machine import Host
from .files import merged, sources, value_of

METADATA = ipaddress.ip_address("169.254.169.254")
"""The resolver of some clouds: of one link by its number, but routed to for pods, too."""
S = TypeVar("S", bound=Mapping[str, Any])
Read = Callable[[str], Optional[str]]


class Resolver(NamedTuple):
    """One `nameserver` line: its number and address, and why pods cannot use it, or nothing."""

    line: int
    address: str
    fault: str


def parse(text: str) -> List[Resolver]:
    """Every resolver of a file, as the kubelet reads it: white space in front is skipped, the first word decides."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if words[:1] == ["nameserver"]:
            address = words[1] if len(words) > 1 else ""
            found.append(Resolver(number, address, unusable(address)))
    return found


def unusable(address: str) -> str:
    """Why pods cannot use a resolver at an address, or nothing."""
    try:
        there = ipaddress.ip_address(address)
    except ValueError:
        return "is no address that a pod can use"  # one with a zone (fe80::1%eth0) is of one link of the host
    there = getattr(there, "ipv4_mapped", None) or there
    if there == METADATA:
        return ""
    if there.is_loopback:
        return "is on loopback, where each pod meets itself"
    if there.is_link_local:
        return "is on a link of the node, which pods are not on"
    if there.is_unspecified or there.is_multicast or there == ipaddress.ip_address("255.255.255.255"):
        return "is no address of a single machine"
    return ""


def faults(path: str, text: Optional[str]) -> List[str]:
    """What is wrong with a file for pods, each with its place; empty when they can use all that it names."""
    if text is None:
        return [f"{path} is missing"]
    found = parse(text)
    wrong = [f"{path}:{one.line}: nameserver {one.address} {one.fault}" for one in found if one.fault]
    return wrong if found else [f"{path} names no resolver"]


def choose(paths: Sequence[str], read: Read, now: str = "") -> str:
    """The first file whose resolvers pods can all use; else the one that is used `now`, or the first.

    With none named K3s would take a public resolver by itself, and another one that is as useless is worth no restart.
    """
    usual = now if now in paths else paths[0]
    return next((path for path in paths if not faults(path, read(path))), usual)


def chosen(settings: Sequence[S], host: Host) -> List[S]:
    """The settings with the value of each that names files to choose from."""
    made: List[S] = []
    for setting in settings:
        if "resolvers" in setting:
            now = value_of(merged(sources(host)).get(setting["key"], []))
            setting = cast(S, {**setting, "value": choose(setting["resolvers"], host.text, str(now))})
        made.append(setting)
    return made
