"""Plant what a seed draws on this machine, take it back, and tell which of it one pass of the engine names.

Runs as root on an applied machine of the lab, as the main file of a zip with module_utils and given.json beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import zipfile
from collections.abc import Iterable
from typing import Any

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.engine import run as engine
from module_utils.casemate.host.machine import Host

from .drift import Drift, Family, drawn, groups
from .hosts import Files, other_families
from .k3s import SERVER, k3s_families
from .objects import cluster_families
from .peers import Peers
from .planting import LeftBehindError, Tree

Finding = dict[str, Any]


class Machine:
    """The controls of this machine, what they say when nothing is planted, and what was found of each drift."""

    def __init__(self, controls: list[dict[str, Any]], context: dict[str, Any], families: list[Family]) -> None:
        self.context = context
        self.catalogue: dict[str, list[dict[str, Any]]] = {}
        for control in controls:
            self.catalogue.setdefault(control["role"], []).append(control)
        self.undermines = {family.name: family.undermines for family in families}
        self.base = self.failing()
        self.rows: dict[Drift, dict[str, Any]] = {}

    def failing(self, scan: bool = False) -> dict[str, Finding]:
        findings = engine.run(self.catalogue, Host(context=self.context), check=True, scan=scan).findings
        return {one["control"]: dict(one) for one in findings if one["status"] in ("fail", "error")}

    def named(self, drift: Drift, found: dict[str, Finding]) -> dict[str, list[str]]:
        """Controls of the drift's family that say where it is, and did not before."""
        right = {}
        for control, finding in found.items():
            before = self.base.get(control, {"where": []})["where"]
            where = [str(place) for place in finding["where"] if place not in before]
            if drift.is_named_by(where) and self.undermines[drift.family] & set(finding["mitigations"]):
                right[control] = where
        return right

    def look_at(self, *drifts: Drift, scan: bool = False) -> None:
        """Plant them at once, and keep what a check names of them, or a scan."""
        alone = len(drifts) == 1
        rows = [self.rows.setdefault(drift, row(drift)) for drift in drifts]
        try:
            with contextlib.ExitStack() as stack:
                for drift in in_turn(drifts):
                    stack.enter_context(drift.plant())
                found = self.failing(scan)
        except (OSError, ValueError, LookupError, Unavailable, LeftBehindError) as fault:
            if alone or isinstance(fault, LeftBehindError):
                for one in rows:
                    one["fault"] = f"{type(fault).__name__}: {fault}"
            return
        for drift, one in zip(drifts, rows):  # noqa: B905 (Python 3.9)
            by = self.named(drift, found)
            one["scan"] = one["scan"] or (scan and bool(by))
            one["named"] = one["named"] or by
            if not alone:
                one["together"] = one["together"] or bool(by)
            elif not scan:
                new = {name for name in found if name not in self.base and name not in by}
                one["besides"] = {name: found[name]["reason"][:200] for name in sorted(new)}

    def look_with_peers(self, peers: Peers, *drifts: Drift) -> None:
        """Plant them at once, and keep what a scan and what other tools name of them."""
        with contextlib.ExitStack() as stack:
            there = [drift for drift in in_turn(drifts) if self.is_planted(drift, stack)]
            found, others = self.failing(scan=True), peers.names(there)
        for drift in there:
            self.rows[drift] |= {"named": self.named(drift, found), "peers": others[drift.place]}

    def is_planted(self, drift: Drift, stack: contextlib.ExitStack) -> bool:
        self.rows[drift] = row(drift)
        try:
            stack.enter_context(drift.plant())
        except (OSError, ValueError, LookupError, Unavailable) as fault:
            self.rows[drift]["fault"] = f"{type(fault).__name__}: {fault}"
        return not self.rows[drift]["fault"]

    def unnamed(self) -> list[Drift]:
        return [drift for drift, one in self.rows.items() if not one["named"] and not one["fault"]]


def in_turn(drifts: Iterable[Drift]) -> list[Drift]:
    """Drifts in the order in which they are planted, which is the reverse of that in which they are taken back.

    A namespace goes only while every API service answers, so it goes after a hostile one of those.
    """
    return sorted(drifts, key=lambda drift: drift.family != "namespaces")


def row(drift: Drift) -> dict[str, Any]:
    return {
        "family": drift.family, "variant": drift.variant, "place": drift.place, "named": {}, "scan": False,
        "together": None, "besides": {}, "fault": "",
    }  # fmt: skip


def ended(number: int, frame: object) -> None:
    """What is planted is taken back when the connection goes, too."""
    raise SystemExit(128 + number)


def main() -> None:
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, ended)
    with zipfile.ZipFile(sys.argv[0]) as sent:
        given = json.loads(sent.read("given.json"))
    began, tree = time.monotonic(), Tree()
    server = os.path.isdir(f"{SERVER}/tls")
    of_cluster = cluster_families() if server and "api_semantics" in given["context"]["capabilities"] else []
    declared = [one for one in given["families"] if server or one["name"] not in given["of_servers"]]
    families = [*(Files(**one).family() for one in declared), *other_families(), *k3s_families(server), *of_cluster]
    families = [one for one in families if one.name in (given["only"] or [one.name])]
    drifts = drawn(given["seed"], given["count"], families, tree)
    peers = Peers() if given["peers"] else None  # before anything is judged: they are packages of their own
    machine = Machine(given["controls"], given["context"], families)
    if peers:
        for group in groups(drifts, given["together"] or 50):
            machine.look_with_peers(peers, *group)
        drifts = []
    together = given["together"] or 2
    if not given["together"]:
        for drift in drifts:
            machine.look_at(drift)
        machine.base = machine.failing()
    for group in groups(drifts, together):
        machine.look_at(*group)
    for group in groups(machine.unnamed(), max(together, 12)):
        machine.look_at(*group, scan=True)
    for drift in [one for one in drifts if machine.rows[one]["together"] is None]:  # another one could not be planted
        machine.look_at(drift)
    now = machine.failing()
    left = {name: now[name]["reason"][:300] for name in now if name not in machine.base}
    said = {"rows": list(machine.rows.values()), "left": left, "base": sorted(machine.base)}
    if peers:
        said["peers"] = peers.described()
    json.dump({**said, "seconds": round(time.monotonic() - began)}, sys.stdout)
