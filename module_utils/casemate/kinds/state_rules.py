"""What of the kernel's ruleset, and before it, changes packets so that our own rules judge something else.

The rules of nftables and of iptables in both its kinds; programs that a device runs for each packet (XDP), and rules of
tc for what comes in, both of which come before every table.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterator, Mapping

from ..core.verdict import Unavailable
from ..core.vouched_for import Stranger
from ..formats import nft_listing
from ..host.machine import Host
from ..k3s.listed import digest_of
from .vouchers import Known

VERSIONS = {"": "ip", "6": "ip6"}
BUNDLED = "/var/lib/rancher/k3s/data/current/bin/aux/"
"""K3s' own programs of iptables, for hosts without any."""


def strangers(setting: Mapping[str, Any], known: Known) -> Iterator[Stranger]:
    """Chains with rules that change what comes in, each with these rules, and devices that do.

    Raises Unavailable where the rules cannot be listed.
    """
    host = known.host
    shown = host.run(["nft", "--stateless", "list", "ruleset"])
    if shown.rc != 0:
        raise Unavailable("nftables", f"the kernel's rules cannot be listed: {(shown.err or shown.out).strip()[:200]}")
    every = nft_listing.chains(shown.out)
    for version, family in VERSIONS.items():
        if re.search(rf"table {family} \w+ is managed by iptables-nft", shown.out + shown.err):
            every.update(_saved(f"ip{version}tables-nft-save", family, host))
        if (host.text(f"/proc/net/ip{version}_tables_names") or "").strip():  # asking would load modules for it
            every.update(_saved(f"ip{version}tables-legacy-save", f"{family}-legacy", host))
    found = nft_listing.changing(every, setting["known"], setting["marks"])
    for (table, chain), rules in sorted(found.items()):
        told = "; ".join(f"`{rule}` {does}" for rule, does in rules)
        why = f"{told}; by hand: {_by_hand(table, chain)}"
        yield Stranger(f"{table}: chain {chain}", why, digest_of([rule for rule, _ in rules]))
    yield from _devices(host)


def _by_hand(table: str, chain: str) -> str:
    """How a rule is found and taken out of the kernel; what loads it comes back with its next start."""
    family, name = table.split()[1:3]
    if family.endswith("-legacy"):
        program = f"ip{'6' if '6' in family else ''}tables-legacy"
        return f"{program} -t {name} -L {chain} --line-numbers -n, then {program} -t {name} -D {chain} NUMBER"
    return f"nft -a list chain {family} {name} {chain}, then nft delete rule {family} {name} {chain} handle NUMBER"


def _saved(name: str, family: str, host: Host) -> nft_listing.Chains:
    """Rules of iptables. Raises Unavailable where it does not list what is there: nft alone does not show them all."""
    saved = host.run([name])
    saved = saved if saved.rc != 127 else host.run([BUNDLED + name])
    if saved.rc != 0 or "incompatible" in saved.out:
        raise Unavailable("iptables", f"{name} does not list all rules: {(saved.err or saved.out).strip()[:200]}")
    return nft_listing.saved_chains(saved.out, family)


def _devices(host: Host) -> Iterator[Stranger]:
    """Devices that give what comes in to a program, or to rules of tc; not the ends of pods, whose limits are such."""
    linked = json.loads(host.run(["ip", "-j", "-details", "link", "show"]).out or "[]")
    pods = {one["ifname"] for one in linked if one.get("linkinfo", {}).get("info_kind") in ("veth", "ifb")}
    pods = {one["ifname"] for one in linked if one["ifname"] in pods and one.get("master", "cni0") == "cni0"}
    for one in linked:
        program = {key: one["xdp"].get("prog", {}).get(key) for key in ("name", "tag")} if "xdp" in one else {}
        if program:
            why = f"a program takes what comes in before any rule; by hand: ip link set {one['ifname']} xdp off"
            yield Stranger(f"device/{one['ifname']}/xdp", why, digest_of(program))
    for one in json.loads(host.run(["tc", "-j", "qdisc", "show"]).out or "[]"):
        device = one.get("dev", "")
        if one.get("kind") in ("ingress", "clsact") and device not in pods:
            ruled = host.run(["tc", "filter", "show", "dev", device, "ingress"]).out
            if ruled.strip():
                by_hand = f"by hand: tc qdisc del dev {device} {one['kind']}"
                why = f"rules of tc take what comes in before any other rule; {by_hand}"
                yield Stranger(f"device/{device}/ingress", why, digest_of(ruled))
