"""Sockets that wait for somebody, and who vouches for the programs that have them.

Where others reach one, its program is a package's, and so is the unit that runs it; or both are K3s'. On the loopback a
package's program is enough. What a pod has in the host's network is judged with its workload. Of sockets that systemd
itself holds the units are judged. A socket of the kernel's own has no program; K3s' overlay has such.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Set

from ..core.vouched_for import Stranger
from ..formats import dpkg
from ..host import processes, sockets
from ..host.processes import Process
from ..host.sockets import Socket
from ..k3s.listed import digest_of
from ..k3s.services import UNITS
from .vouchers import Known, content

K3S = re.compile(r"/var/lib/rancher/k3s/data/[0-9a-f]+/bin/[^/]+")
"""A program of the tree that K3s unpacks, which is verified as a whole."""
SHIM = re.compile(rf"{K3S.pattern[:-6]}/containerd-shim[^/]*")
OVERLAY = {"udp/8472": "vxlan", "udp/51820": "wireguard", "udp/51821": "wireguard"}
"""Flannel's sockets, by the kind of interface that the kernel has them for."""


def strangers(setting: Mapping[str, Any], known: Known) -> Iterator[Stranger]:
    """Ports for which nobody vouches, each with the addresses, programs and units."""
    host = known.host
    found = list(sockets.waiting(host))
    having = processes.having({one.inode for one in found if one.inode}, host)
    of = {pid: processes.of(pid, host) for pids in having.values() for pid in pids}
    of = {pid: process for pid, process in of.items() if process.program}
    programs = {process.program for process in of.values()}
    units = {process.unit for process in of.values() if process.unit.endswith(".service")}
    host.ask_units(units)
    fragments = {unit: host.systemctl(unit, "FragmentPath")["FragmentPath"] for unit in units}
    known.ask({*programs, *(path for path in fragments.values() if path)}, set())
    judge = Judge(setting, known, fragments)
    wrong: Dict[str, Dict[str, str]] = {}
    there = {*sockets.waiting(host)} if {one.inode for one in found} - set(having) else {*found}
    for socket in found:
        holders = [of[pid] for pid in having.get(socket.inode, ()) if pid in of]
        if not holders and socket not in there:
            continue  # it was closed meanwhile
        why = judge.fault(socket, holders)
        if why:
            place = f"{socket.address} {told(holders)}"
            wrong.setdefault(socket.name, {})[place] = why
    for name, places in wrong.items():
        why = "; ".join(f"{place}: {fault}" for place, fault in sorted(places.items()))
        pids = {pid for one in found if one.name == name for pid in having.get(one.inode, ()) if pid in of}
        files = sorted({content(of[pid].program, host) for pid in pids if judge.program(of[pid])})
        yield Stranger(name, f"{why}; by hand: {by_hand(of[pid] for pid in pids)}", digest_of([sorted(places), files]))


def by_hand(holders: Iterable[Process]) -> str:
    """How to find what has to end. No command that ends it: it may be a child of sshd, or sshd itself."""
    pids = sorted(one.pid for one in holders)
    if not pids:
        return "ip -details link show names the devices for which the kernel waits"
    return f"systemctl status {' '.join(map(str, pids))} says what started it, which is to be stopped"


def told(holders: List[Process]) -> str:
    """Programs and units, as a person looks for them."""
    said = {f"{one.program}{' (removed)' if one.gone else ''} of {one.unit or 'no unit'}" for one in holders}
    return ", ".join(sorted(said)) or "the kernel"


class Judge:
    """What is known of programs and units."""

    def __init__(self, setting: Mapping[str, Any], known: Known, fragments: Mapping[str, str]) -> None:
        self.known, self.host, self.fragments = known, known.host, fragments
        self.setting = {**setting, "names_only": True}
        self.freely = set(setting.get("known", ()))
        packages = {known.owners.get(path, "") for path in {*known.owners}}
        self.sources = dpkg.sources(packages, known.host)

    def fault(self, socket: Socket, holders: List[Process]) -> str:
        """Why nobody vouches for a socket; nothing where somebody does."""
        if not holders:
            kind = OVERLAY.get(socket.name)
            return "" if kind and self._is_overlay(kind) else "no program has it"
        if all(self.is_pods(one) for one in holders):
            return ""
        wrong = next(filter(None, map(self.program, holders)), "")
        if wrong or not socket.is_reachable or any(self._is_run(one) for one in holders):
            return wrong
        return "no unit of its package runs it"

    def program(self, process: Process) -> str:
        """Why nobody vouches for a program."""
        if K3S.fullmatch(process.program) and not process.gone:
            return ""  # the tree is verified as a whole
        package = self.known.owners.get(process.program, "")
        if process.gone and not (package and self._came_since(package, process.began)):
            return "its file was removed"
        if not package and self.host.stat(process.program) is None:
            return "its file is not on this host"
        return self.known.fault(process.program, self.setting)

    def is_pods(self, process: Process) -> bool:
        """Whether a process runs below containerd's shim of K3s."""
        return any(SHIM.fullmatch(one.program) and one.unit in UNITS for one in processes.above(process, self.host))

    def _is_run(self, process: Process) -> bool:
        """Whether a unit runs it that came with it: as its main process, or as a child of that.

        What K3s' unit runs is compared with the verified release by a control of its own.
        """
        if process.pid == 1 or process.program in self.freely:
            return True
        if process.unit in UNITS and K3S.fullmatch(process.program):
            return True
        main = self.host.systemctl(process.unit).get("MainPID", "0") if process.unit in self.fragments else "0"
        ours = {self._source(process.program), self._source(self.fragments.get(process.unit, ""))}
        came_with_it = process.unit in UNITS or (len(ours) == 1 and "" not in ours)
        return main in (str(process.pid), str(process.parent)) and came_with_it

    def _source(self, path: str) -> str:
        package = self.known.owners.get(path, "")
        return self.sources.get(package, package)

    def _came_since(self, package: str, began: float) -> bool:
        """An upgrade replaced the program while it ran."""
        listed = self.host.stat(f"{dpkg.INFO}/{package}.list")
        return listed is not None and listed.st_ctime > began

    def _is_overlay(self, kind: str) -> bool:
        """Whether there is an interface of flannel's of that kind, and a K3s that makes it, running or not."""
        names: Set[str] = {"flannel.1", "flannel-v6.1"} if kind == "vxlan" else {"flannel-wg", "flannel-wg-v6"}
        there = any(self.host.stat(f"/sys/class/net/{name}") is not None for name in names)
        return there and any(self.host.systemctl(unit).get("LoadState") == "loaded" for unit in UNITS)
