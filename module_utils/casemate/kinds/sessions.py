"""What still runs for people who are revoked, or whose last day is over. Apply ends it.

A login that was let in before stays in whatever account and keys say, and a shell that sudo gave to it is root's: so
what counts is whose a process is, and whose slice of logind it runs in. Sources: proc(5), logind's user-UID.slice
(systemd.special(7)), loginctl(1).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Annotated, Any, Dict, List, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host import processes
from ..host.machine import EnforceError, Host
from . import person
from .kind import Enforceable, Kind

LINGER = "/var/lib/systemd/linger"
PATIENCE = 10.0
"""Seconds in which everything has to be gone."""


class Needed(TypedDict):
    """What every setting of this kind says."""

    people: Annotated[List[Any], Key("everybody who is declared; those count who are revoked, or whose end is past")]


class Setting(Needed, Enforceable):
    """What a control of this kind demands."""


def identity(_setting: Setting) -> str:
    """There is one."""
    return "sessions"


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """Name -> what runs, by its number and program; who has a session that outlives logins; whom apply leaves alone."""
    lists = person.read(host, (one for setting in settings for one in setting["people"]))
    return [{"running": _running(setting, lists, host), "barred": _barred(setting, lists)} for setting in settings]


def _gone(setting: Setting, lists: person.Lists) -> Dict[str, int]:
    """Name -> uid of each account that may run nothing."""
    names = [str(one["name"]) for one in setting["people"] if person.has_ended(one, lists.today)]
    accounts = {**lists.elsewhere, **lists.accounts}
    return {name: accounts[name].uid for name in names if name in accounts and not person.spared(name, lists)}


def _barred(setting: Setting, lists: person.Lists) -> Dict[str, str]:
    """Name -> why nothing of it is ended: whoever has the same uid, and may be here, has the same processes."""
    gone = _gone(setting, lists)
    found = {}
    for name, uid in gone.items():
        others = [one.name for one in lists.accounts.values() if one.uid == uid and one.name not in gone]
        if others:
            found[name] = f"{name} has the uid {uid}, as has {', '.join(others)}: end what is {name}'s by hand"
    return found


def _running(setting: Setting, lists: person.Lists, host: Host) -> Dict[str, List[str]]:
    found: Dict[str, List[str]] = {}
    gone = _gone(setting, lists)
    owned = processes.of_users(set(gone.values()), host) if gone else {}
    for name, uid in sorted(gone.items()):
        words = [f"process {one.pid} ({one.program or 'unknown'})" for one in owned.get(uid, ())]
        words += [f"{LINGER}/{name}"] if host.stat(f"{LINGER}/{name}") else []
        if words:
            found[name] = words
    return found


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that nothing runs."""
    running: Dict[str, List[str]] = seen["running"]
    words = [f"{name}, who may not be in any more, still has {several(what)}" for name, what in running.items()]
    barred = [why for name, why in seen["barred"].items() if name in running]
    return Verdict(
        ok=not running,
        expected="nothing",
        observed={name: len(what) for name, what in running.items()} or "nothing",
        reason="; ".join([*words, *barred]),
        evidence="/proc",
        blocked_by="; ".join(barred),
        still_enforced=len(barred) < len(running),
    )


def enforce(settings: List[Setting], failing: set[int], host: Host) -> None:
    """End what runs. Raises EnforceError where something does not go."""
    for setting in (settings[i] for i in sorted(failing)):
        lists = person.read(host, setting["people"])
        barred = _barred(setting, lists)
        for name, uid in sorted(_gone(setting, lists).items()):
            if name in barred:
                continue
            host.remove(f"{LINGER}/{name}")
            host.run(["loginctl", "terminate-user", str(uid)])  # what it leaves is ended next
            _end(name, uid, host)


def _end(name: str, uid: int, host: Host) -> None:
    before, until = len(processes.of_users({uid}, host).get(uid, ())), time.monotonic() + PATIENCE
    while running := processes.of_users({uid}, host).get(uid):
        processes.kill(running)
        if time.monotonic() > until:
            raise EnforceError(f"{several([f'process {one.pid} of {name}' for one in running])} cannot be ended")
        time.sleep(0.05)
    host.changed(f"sessions of {name}", f"{before} running\n", "")


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, enforced_by="engine", enforce=enforce, places=lambda setting: ["/proc"]
)
