"""What a listing of nftables does: who reaches a port, and which differences a control of a port tells already.

Pure. An accept with a condition that is not understood counts as open, a drop with one does not count. Source:
libnftables-json(5).
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.verdict import Setting

Thing = dict[str, Any]
Specific = list[tuple[Setting, bool]]  # controls of a policy or of ports, and whether they hold
FLAGS = re.compile(r"^\tflags (.+)\n", re.MULTILINE)  # of the table: those of its sets are further in
ANY = ("0.0.0.0/0", "::/0")
Network = Any  # ipaddress' two classes have no common public base


def listed(text: str) -> list[Thing]:
    """Objects of a JSON listing, without what differs from one load to the next."""
    found = []
    for item in json.loads(text or "{}").get("nftables", []):
        for name, body in item.items():
            if name in ("set", "chain", "rule", "map", "element"):
                found.append({"is": name, **{k: v for k, v in body.items() if k != "handle"}})
    return found


def flagged(text: str) -> list[Thing]:
    """Flags of the table, from its listing as text, as objects of their own: a dormant one does nothing."""
    return [{"is": "the table is", "name": flag} for some in FLAGS.findall(text) for flag in re.split(r"[, ]+", some)]


def shown(thing: Thing) -> str:
    """A short name for people: a rule by its comment."""
    return f"{thing['is']} {thing.get('comment') or thing.get('name') or json.dumps(thing.get('expr'))[:80]}"


def judged(setting: Setting, live: list[Thing], policy: str | None) -> tuple[Any, Any, str]:
    """(demanded, found, reason) of a chain's policy or of the networks that reach ports; equal where it holds.

    Ports are judged as if the chain had the `policy` that a control of its own demands: that control tells of it.
    """
    chain: Thing = next((o for o in live if o["is"] == "chain" and o["name"] == setting["chain"]), {})
    if "policy" in setting:
        return setting["policy"], str(chain.get("policy", "no such base chain")), ""
    if policy and "policy" in chain:
        chain = {**chain, "policy": policy}
    want = merged(setting["sources"])
    for port in setting["ports"] or [unnamed(live)]:
        have = merged(reachable(live, chain, setting["proto"], int(port)))
        if have != want:
            open_to, shut_to = [n for n in have if not covered(n, want)], [n for n in want if not covered(n, have)]
            said = [
                f"{word} {', '.join(which)}" for word, which in (("open to", open_to), ("shut to", shut_to)) if which
            ]
            return want, have, f"{setting['proto']}/{port}: {'; '.join(said)}"
    return want, want, ""


def differences(live: list[Thing], declared: list[Thing], specific: Specific) -> str:
    """How a live table differs from the declared one, but for what a failing control of a policy or of ports tells."""
    both = [*live, *declared]
    live, declared = without_reported(live, both, specific), without_reported(declared, both, specific)
    lost = [shown(thing) for thing in declared if thing not in live]
    more = [shown(thing) for thing in live if thing not in declared]
    said = [f"{word}: {', '.join(what[:3])}" for word, what in (("lost", lost), ("added", more)) if what]
    return "; ".join(said) or ("the order of the rules differs" if live != declared else "")


def judges(settings: Sequence[Setting], live: list[Thing], policies: Mapping[str, str]) -> Specific:
    """Which controls of a policy or of ports hold. One that cannot judge such rules tells nothing."""
    found: Specific = []
    for setting in settings:
        try:
            want, have, _ = judged(setting, live, policies.get(setting["chain"]))
        except (KeyError, TypeError, ValueError):
            continue
        found.append((setting, want == have))
    return found


def without_reported(things: list[Thing], both: list[Thing], specific: Specific) -> list[Thing]:
    """A listing without the rules that failing controls tell of, those rules' elements, and failing policies."""
    if all(holds for _, holds in specific):
        return things
    policies = [s["chain"] for s, holds in specific if "policy" in s and not holds]
    sets = [name for rule in both if reported(rule, both, specific) for name in named_sets(rule)]
    left = []
    for thing in things:
        if thing["is"] == "set" and thing["name"] in sets:
            thing = {k: v for k, v in thing.items() if k != "elem"}
        elif thing["is"] == "chain" and thing["name"] in policies:
            thing = {k: v for k, v in thing.items() if k != "policy"}
        if not reported(thing, both, specific):
            left.append(thing)
    return left


def reported(thing: Thing, both: list[Thing], specific: Specific) -> bool:
    """Whether failing controls report a rule; one that is not understood never is."""
    try:
        return thing["is"] == "rule" and concerned(thing, both, specific)
    except (KeyError, TypeError, ValueError):
        return False


def concerned(thing: Thing, both: list[Thing], specific: Specific) -> bool:
    """Whether a rule decides about a port of a failing control, and about no port that no control judges.

    A rule for any port is told only where the controls of the rest fail for every protocol that it decides about.
    """
    rest = unnamed(both)
    known = {
        (s["proto"], int(port)): holds
        for s, holds in specific
        if "sources" in s and s["chain"] == thing["chain"]
        for port in s["ports"] or [rest]
    }
    ports = named_ports(thing, both)
    if sum(high - low + 1 for low, high in ports) > len(known):
        return False
    about = [
        (proto, port)
        for proto in ("tcp", "udp")
        for low, high in ports or [(rest, rest)]
        for port in range(low, high + 1)
        if effect(thing, proto, port, both)[1]
    ]
    fails = [known.get(one) is False for one in about]
    return all(one in known for one in about) and (any(fails) if ports else bool(fails) and all(fails))


def named_ports(rule: Thing, things: list[Thing]) -> list[tuple[int, int]]:
    """Ranges of ports that a rule names by `dport ==`; empty for a rule about any port."""
    found = []
    for body in (part["match"] for part in rule["expr"] if "match" in part):
        if body["op"] in ("==", "in") and name_of(body["left"]).endswith(" dport"):
            for port in filter(port_like, values(body["right"], things)):
                low, high = port["range"] if isinstance(port, dict) else (port, port)
                found.append((low, high))
    return found


def named_sets(rule: Thing) -> list[str]:
    """Names of the sets that a rule looks into."""
    right = [part["match"]["right"] for part in rule["expr"] if "match" in part]
    return [one[1:] for one in right if isinstance(one, str) and one.startswith("@")]


def merged(sources: list[Any]) -> list[str]:
    """Networks (text, or nft's prefix and range) as the shortest sorted list of CIDRs."""
    networks: list[Network] = []
    for one in sources:
        if isinstance(one, dict) and "prefix" in one:
            one = f"{one['prefix']['addr']}/{one['prefix']['len']}"
        if isinstance(one, dict) and "range" in one:
            networks += ipaddress.summarize_address_range(*(ipaddress.ip_address(end) for end in one["range"]))
        else:
            networks.append(ipaddress.ip_network(str(one), strict=False))
    return [str(net) for v in (4, 6) for net in ipaddress.collapse_addresses([n for n in networks if n.version == v])]


def covered(network: str, networks: list[str]) -> bool:
    """Whether a network lies within one of some others."""
    one, others = ipaddress.ip_network(network), [ipaddress.ip_network(other) for other in networks]
    return any(one.version == other.version and one.subnet_of(other) for other in others)  # type: ignore[arg-type]


def values(right: Any, live: list[Thing]) -> list[Any]:
    """The right side of a match as a list: one value, an anonymous set, or the elements of a named one."""
    if isinstance(right, str) and right.startswith("@"):
        return next((o.get("elem", []) for o in live if o["is"] == "set" and o["name"] == right[1:]), [])
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    return right if isinstance(right, list) else [right]


def within(port: int, ports: list[Any]) -> bool:
    """Whether a port is one of some ports and ranges."""
    return any(p["range"][0] <= port <= p["range"][1] if isinstance(p, dict) else p == port for p in ports)


def unnamed(live: list[Thing]) -> int:
    """A port that no rule names; any where rules name all of them."""
    found = [p for o in live for e in o.get("expr", []) if "match" in e for p in values(e["match"]["right"], live)]
    named = [port for port in found if port_like(port)]
    # The lowest one is the first port of all, or comes right after one that is named.
    after = sorted((port["range"][1] if isinstance(port, dict) else port) + 1 for port in named)
    return next((port for port in (1, *after) if port <= 65535 and not within(port, named)), 1)


def port_like(value: Any) -> bool:
    """Whether a value of a match can be a port or a range of ports."""
    return isinstance(value, int) or (isinstance(value, dict) and isinstance(value.get("range", [""])[0], int))


def reachable(live: list[Thing], chain: Thing, proto: str, port: int) -> list[Any]:
    """Sources from which a new connection to this port passes the chain."""
    admitted: list[Any] = []
    for rule in (o for o in live if o["is"] == "rule" and o["chain"] == chain.get("name")):
        sources, verdict, sure = effect(rule, proto, port, live)
        if verdict in ("drop", "reject") and sure and sources == list(ANY):
            return admitted
        if verdict and verdict not in ("drop", "reject"):
            admitted += sources
    return admitted if chain.get("policy") == "drop" else [*admitted, *ANY]


def effect(rule: Thing, proto: str, port: int, live: list[Thing]) -> tuple[list[Any], str, bool]:
    """(sources, verdict, whether every condition is understood) of a rule for a new connection from elsewhere.

    An empty verdict: the rule does not decide about such a connection.
    """
    sources, verdict, sure = list(ANY), "", True
    for part in rule["expr"]:
        ((what, body),) = part.items()
        if what == "match":
            left, have = name_of(body["left"]), values(body["right"], live)
            if body["op"] not in ("==", "in"):
                if left == "fib type" and have == ["local"]:
                    return sources, "", True  # not for this machine
                sure = False
            elif left in ("tcp dport", "udp dport", "th dport"):
                if left[:3] not in (proto, "th ") or not within(port, have):
                    return sources, "", True
            elif left in ("ip saddr", "ip6 saddr"):
                sources = have
            elif (left == "ct state" and {*have} <= {"established", "related", "invalid"}) or (
                left == "meta iifname" and have == ["lo"]
            ):
                return sources, "", True
            elif left == "meta l4proto":
                if proto not in have:
                    return sources, "", True
            else:
                sure = False
        elif what not in ("counter", "log", "comment", "limit"):
            verdict = what
        elif what == "limit":
            sure = False
    return sources, verdict, sure


def name_of(left: Any) -> str:
    """`tcp dport`, `ip saddr`, `ct state`, `meta iifname`, `fib type`, or an empty string."""
    (what, body), *_ = left.items() if isinstance(left, dict) else [("", {})]
    if what == "payload":
        return f"{body.get('protocol')} {body.get('field')}"
    return f"{what} {body.get('key') or body.get('result')}" if isinstance(body, dict) else ""
