"""Firewalls beside ours: those that close now what ours opens, and those that would at their next start or reload.

A packet has to be admitted by every firewall, so one that knows nothing of K3s keeps nodes from joining and pods from
each other. Which one is switched off is the operator's decision; where they have decided so, it is stopped, no longer
started at boot, and its rules leave the kernel, all under the guard. Only what is its own goes: no table is flushed, as
kube-proxy's rules and flannel's may stand in it by now.

Sources: ufw(8), firewalld(1) and CleanupOnExit in firewalld.conf(5), netfilter-persistent(8), iptables-save(8).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from typing import Annotated, Dict, List, Literal, Tuple, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host import conflicts
from ..host.machine import EnforceError, Host
from ..host.text import split_lines
from .kind import Enforceable, Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    choice: Annotated[Literal["keep", "stop"], Key("whether apply switches off what it knows how to")]


class Setting(Needed, Enforceable):
    """What a control of this kind demands."""


UFW = "/etc/ufw/ufw.conf"
SAVED = {"iptables": "/etc/iptables/rules.v4", "ip6tables": "/etc/iptables/rules.v6"}
"""Program -> the file of rules that netfilter-persistent loads with it at boot."""
OF_CONTAINERS = re.compile(r"(^|\s)(KUBE-|CNI-|FLANNEL-|DOCKER)")
"""Chains that were there when somebody saved all rules, and whose owners are others."""
BY_NAME = {
    "ufw": "whose rules come back at every boot and whenever somebody reloads it",
    "firewalld": "which drops what its zone does not name, and whose reload takes the rules of others with it",
    "netfilter-persistent": "which loads at every boot what was saved once, outdated rules of pods among it",
}
OTHERWISE = "which decides about packets, too, and loads its rules at every boot"
"""What another firewall does to a node, in words."""
STOPPED = tuple(BY_NAME)
"""Those that apply knows how to switch off."""


def identity(setting: Setting) -> str:
    """A host has one set of other firewalls."""
    return "others"


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """The firewalls that are on, now or at the next boot, and the chains that drop what they do not admit."""
    denying = conflicts.denying(host.root.rstrip("/"), lambda command: host.run(command).out)
    seen = {"on": list(active(host)), "denying": denying}
    return [seen for _ in settings]


def active(host: Host) -> Iterator[str]:
    """Names of firewalls that are on; what is installed and has nothing to load is none.

    Debian starts ufw's unit whether or not somebody has enabled ufw, and netfilter-persistent's without any rules.
    Debian's own unit of nftables is off by a control of its own.
    """
    states = conflicts.states(lambda command: host.run(command).out)
    for name in conflicts.FIREWALLS:
        on = f"{name}.service" in states and name != "nftables"
        if name == "ufw":
            on = conflicts.ufw(host.root.rstrip("/"))
        elif name == "netfilter-persistent":
            on = on and any(changes(host.text(path) or "") for path in SAVED.values())
        if on:
            yield name


def changes(saved: str) -> bool:
    """Whether rules as iptables-save writes them change anything."""
    return bool(re.search(r"(?m)^-A |^:\S+ (?!ACCEPT|-)", saved))


def assess(setting: Setting, seen: Observation) -> Verdict:
    """None is on, and no chain drops what it does not admit."""
    on, denying = seen["on"], seen["denying"]
    reasons = [f"{name} is on, {BY_NAME.get(name, OTHERWISE)}" for name in on]
    if denying:
        reasons.append(
            f"rules that are not Casemate's drop whatever they do not admit, joins and pods too: {'; '.join(denying)}"
        )
    known = [name for name in on if name in STOPPED]
    blocked = ""
    if reasons and setting["choice"] == "keep":
        blocked = "casemate_other_firewalls: stop has apply switch it off; one that admits all that K3s needs is waived"
    elif reasons and not known:
        blocked = "apply does not know how to switch off what loads it: do that on this host"
    return Verdict(
        ok=not reasons,
        expected="none",
        observed=", ".join([*on, *denying]) or "none",
        reason="; ".join([*reasons, *([blocked] if blocked else [])]),
        evidence="systemctl show, nft list chains",
        blocked_by=blocked,
        todo=known,
    )


def enforce(settings: List[Setting], failing: set[int], host: Host) -> None:
    """Switch off what is known, under the guard: now, at boot, and its rules. Raises EnforceError."""
    for name in [one for one in active(host) if one in STOPPED]:
        unit = f"{name}.service"
        host.arm([unit], "unit")
        if name == "ufw":
            host.arm([UFW])  # put back before its unit, which reads it when it starts
            host.must_run(["ufw", "--force", "disable"])
        host.must_run(["systemctl", "disable", "--now", unit])
        if name == "netfilter-persistent":  # which leaves its rules behind
            for program, path in SAVED.items():
                _unload(program, host.text(path) or "", host)
        host.changed(unit, "on\n", "off\n")


def _unload(program: str, saved: str, host: Host) -> None:
    """Take rules out of the kernel that were saved, one by one: what has come since, or is a container's, stays."""
    for table, policies, rules, chains in tables(saved):
        for chain in policies:
            host.must_run([program, "-w", "-t", table, "-P", chain, "ACCEPT"])
        for rule in rules:
            host.run([program, "-w", "-t", table, "-D", *rule])  # it may be gone, or written otherwise
        for chain in chains:
            host.run([program, "-w", "-t", table, "-F", chain])
            host.run([program, "-w", "-t", table, "-X", chain])


def tables(saved: str) -> Iterator[Tuple[str, List[str], List[List[str]], List[str]]]:
    """Of what iptables-save has written, for each table: closed built-in chains, rules, and other chains."""
    found: Dict[str, Tuple[List[str], List[List[str]], List[str]]] = {}
    table = ""
    for line in split_lines(saved):
        if line.startswith("*"):
            table = line[1:].strip()
            found.setdefault(table, ([], [], []))
        elif not table or OF_CONTAINERS.search(line.lstrip(":")):
            continue
        elif line.startswith(":"):
            chain, policy = line[1:].split()[:2]
            if policy == "-":
                found[table][2].append(chain)
            elif policy != "ACCEPT":
                found[table][0].append(chain)
        elif line.startswith("-A "):
            try:
                found[table][1].append(shlex.split(line)[1:])
            except ValueError as broken:
                raise EnforceError(f"a saved rule cannot be read: {line}") from broken
    for name, (policies, rules, chains) in found.items():
        yield name, policies, rules, chains


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    places=lambda setting: ["nft list chains"],
)
