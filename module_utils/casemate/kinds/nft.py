"""The firewall that is loaded: one own table, judged rule by rule, and as a whole against its declaration.

Who reaches a port is computed from the live rules in order, and carefully: an accept with a condition that is not
understood counts as open, a drop with one does not count. Whether anything was added or removed is told by loading
the declared rules in an empty network namespace and comparing the two listings. Source: libnftables-json(5).
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from ..base import EnforceError, Host, Observation, Setting, Verdict
from ..schema import Field

SCHEMA = {
    "ruleset": Field("str", help="the whole declared file: it is written, loaded, and compared with what is live"),
    "chain": Field("str", pattern=r"[a-z_]+", help="base chain to judge"),
    "policy": Field("str", choices=("accept", "drop"), help="what the chain does with the rest"),
    "proto": Field("str", choices=("tcp", "udp"), help="with sources: who reaches these ports by it"),
    "ports": Field("list", help="with sources: ports; empty for any port that no rule names"),
    "sources": Field("list", help="exactly these networks may open connections"),
}
ENFORCED_BY = "engine"
FILE, UNIT = "/etc/casemate/firewall.nft", "casemate-firewall.service"
LIST = "list table inet casemate"
SCRATCH = ("unshare", "--net", "sh", "-c", f"nft -f - && nft -j {LIST}")  # constants only: no value meets a shell
RELOAD = ("systemctl", "reload-or-restart", UNIT)
ANY = ("0.0.0.0/0", "::/0")
Network = Any  # ipaddress' two classes have no common public base


def identity(setting: Setting) -> str:
    """The declaration as a whole, the policy of a chain, or the sources of ports."""
    if "ruleset" in setting:
        return "ruleset"
    what = "policy" if "policy" in setting else f"{setting.get('proto')}:{setting.get('ports')}"
    return f"{setting.get('chain')}:{what}"


def listed(text: str) -> list[dict[str, Any]]:
    """Objects of a JSON listing, without what differs from one load to the next."""
    found = []
    for item in json.loads(text or "{}").get("nftables", []):
        for name, body in item.items():
            if name in ("set", "chain", "rule", "map", "element"):
                found.append({"is": name, **{k: v for k, v in body.items() if k != "handle"}})
    return found


def observe(settings: list[Setting], host: Host) -> list[Observation]:
    """The live table, and what the declared one looks like when it is loaded where nothing else is."""
    live = host.run(["nft", "-j", *LIST.split()])
    seen: list[Observation] = []
    for setting in settings:
        found: Observation = {"live": listed(live.out) if live.rc == 0 else None}
        if "ruleset" in setting and live.rc != 127:
            scratch = host.run(SCRATCH, stdin=setting["ruleset"])
            if scratch.rc != 0:
                raise OSError(f"the declared rules do not load: {(scratch.err or scratch.out).strip()[:300]}")
            found.update(declared=listed(scratch.out), file=host.text(FILE))
        seen.append(found)
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Compare the whole, a policy, or the networks that reach each port."""
    live, evidence = seen["live"], f"nft -j {LIST}"
    if live is None:
        return Verdict(False, "the table inet casemate", "no such table", "the table is not loaded", evidence)
    if "ruleset" in setting:
        lost = [shown(o) for o in seen["declared"] if o not in live]
        more = [shown(o) for o in live if o not in seen["declared"]]
        reason = "; ".join(f"{word}: {', '.join(what[:3])}" for word, what in (("lost", lost), ("added", more)) if what)
        if not reason and live != seen["declared"]:
            reason = "the order of the rules differs"
        if seen["file"] != setting["ruleset"]:
            reason = "; ".join(part for part in (f"{FILE} differs, so the next boot would", reason) if part)
        return Verdict(not reason, "as declared", "as declared" if not reason else "different", reason, evidence)
    chain: dict[str, Any] = next((o for o in live if o["is"] == "chain" and o["name"] == setting["chain"]), {})
    if "policy" in setting:
        have = str(chain.get("policy", "no such base chain"))
        return Verdict(have == setting["policy"], setting["policy"], have, evidence=evidence)
    want = merged(setting["sources"])
    for port in setting["ports"] or [unnamed(live)]:
        have_networks = merged(reachable(live, chain, setting["proto"], int(port)))
        if have_networks != want:
            open_to = ", ".join(n for n in have_networks if n not in want)
            shut_to = ", ".join(n for n in want if n not in have_networks)
            reason = "; ".join(
                p for p in (f"open to {open_to}" * bool(open_to), f"shut to {shut_to}" * bool(shut_to)) if p
            )
            return Verdict(False, want, have_networks, f"{setting['proto']}/{port}: {reason}", evidence)
    return Verdict(True, want, want, evidence=evidence)


def shown(thing: dict[str, Any]) -> str:
    """A short name for people: a rule by its comment."""
    return f"{thing['is']} {thing.get('comment') or thing.get('name') or json.dumps(thing.get('expr'))[:80]}"


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


def values(right: Any, live: list[dict[str, Any]]) -> list[Any]:
    """The right side of a match as a list: one value, an anonymous set, or the elements of a named one."""
    if isinstance(right, str) and right.startswith("@"):
        return next((o.get("elem", []) for o in live if o["is"] == "set" and o["name"] == right[1:]), [])
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    return right if isinstance(right, list) else [right]


def within(port: int, ports: list[Any]) -> bool:
    """Whether a port is one of some ports and ranges."""
    return any(p["range"][0] <= port <= p["range"][1] if isinstance(p, dict) else p == port for p in ports)


def unnamed(live: list[dict[str, Any]]) -> int:
    """A port that no rule names."""
    named = [p for o in live for e in o.get("expr", []) if "match" in e for p in values(e["match"]["right"], live)]
    return next(port for port in range(1, 65536) if not within(port, [p for p in named if port_like(p)]))


def port_like(value: Any) -> bool:
    """Whether a value of a match can be a port or a range of ports."""
    return isinstance(value, int) or (isinstance(value, dict) and isinstance(value.get("range", [""])[0], int))


def reachable(live: list[dict[str, Any]], chain: dict[str, Any], proto: str, port: int) -> list[Any]:
    """Sources from which a new connection to this port passes the chain."""
    admitted: list[Any] = []
    for rule in (o for o in live if o["is"] == "rule" and o["chain"] == chain.get("name")):
        sources, verdict, sure = effect(rule, proto, port, live)
        if verdict in ("drop", "reject") and sure and sources == list(ANY):
            return admitted
        if verdict and verdict not in ("drop", "reject"):
            admitted += sources
    return admitted if chain.get("policy") == "drop" else [*admitted, *ANY]


def effect(rule: dict[str, Any], proto: str, port: int, live: list[dict[str, Any]]) -> tuple[list[Any], str, bool]:
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


def enforce(settings: list[Setting], failing: set[int], host: Host) -> None:
    """Write the declared file and load it in one transaction, under the guard. No other table is touched."""
    ruleset = next((s["ruleset"] for s in settings if "ruleset" in s), None)
    if ruleset is None:
        raise EnforceError("the control that declares the rules is not here or waived, so nothing was loaded")
    host.arm([FILE])
    host.write(FILE, ruleset.encode(), mode=0o600, owner=(0, 0), validate=("nft", "-c", "-f", "%s"))
    done = host.run(RELOAD)
    if done.rc != 0:
        raise EnforceError(f"{' '.join(RELOAD)} failed: {(done.err or done.out).strip()[:300]}")
    host.changed(UNIT, "other rules\n", "reloaded\n")
