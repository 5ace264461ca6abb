"""Units as systemd itself sees them, drop-ins included: on or off, properties, and staleness.

A unit whose files changed after its process started still runs with the old ones, whatever `systemctl show`
says: that is drift, and the unit is named as stale. Units are switched by a task of the role. Sources:
systemd(1), org.freedesktop.systemd1(5) for the properties.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Unasked, Unavailable, Verdict
from ..host.clock import after, content_time, start_of
from ..host.machine import Host
from .kind import Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    unit: Annotated[str, Key("the unit", pattern=r"[A-Za-z0-9:_.@\\-]+\.(service|socket|timer|target|mount|path)")]


class Setting(Needed, total=False):
    """What a control of this kind may demand."""

    state: Annotated[Literal["running", "stopped"], Key("running now and at boot; or neither, nor activated")]
    properties: Annotated[dict[str, Any], Key("property of the loaded unit -> exact value, such as KillMode: process")]
    missing: Annotated[Literal["fail", "pass", "k3s"], Key("what it means that there is no such unit")]
    enforced: Annotated[bool, Key("false: observe only (properties are never enforced by a task)")]
    unset: Annotated[str, Key("why nobody asks for it, so that nothing is judged; empty for none")]


FOLDERS = (
    *("/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient"),
    *(f"{above}/systemd/system" for above in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")),
)
AT_BOOT = ("enabled", "enabled-runtime", "linked", "linked-runtime")
WANTED_BY = ("WantedBy", "RequiredBy", "UpheldBy", "BoundBy", "TriggeredBy")
"""What starts a unit that cannot be enabled; with none of them the next boot leaves it down."""
MANAGER = "init.scope"
"""systemd itself, which is loaded wherever it answers."""
UP = ("active", "reloading", "activating")


def identity(setting: Setting) -> str:
    """A unit's state is one setting; each set of properties is another."""
    names = ",".join(sorted(setting.get("properties") or {}))
    return f"{setting['unit']}:{names or 'state'}"


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """Properties of each unit, of what activates it, when its process started and its files last changed.

    A file that is not as its own control demands counts there and not here. Raises OSError where systemd does not
    answer.
    """
    host.ask_units([MANAGER, *(setting["unit"] for setting in settings)])
    if host.systemctl(MANAGER).get("LoadState") != "loaded":
        raise OSError("systemd does not answer on this machine")
    host.ask_units(name for s in settings for name in host.systemctl(s["unit"]).get("TriggeredBy", "").split())
    seen: list[Observation] = []
    for setting in settings:
        shown = host.systemctl(setting["unit"])
        wanted = (
            "LoadState",
            "ActiveState",
            "UnitFileState",
            "NeedDaemonReload",
            *(setting.get("properties") or ()),
        )
        files = {shown.get("FragmentPath", ""), *shown.get("DropInPaths", "").split()} - {""}
        unread = unread_dropins(setting["unit"], shown, host) - host.failing_files
        failing = files & host.failing_files
        triggers = [(name, host.systemctl(name)) for name in shown.get("TriggeredBy", "").split()]
        seen.append(
            {
                "shown": {name: shown.get(name, "") for name in wanted},
                "on": [n for n, s in [*triggers, (setting["unit"], shown)] if _on(s)],
                "changed": changed_since_start(files - failing, shown, host),
                "wanted": shown.get("UnitFileState") == "static" and any(shown.get(name) for name in WANTED_BY),
            }
        )
        if failing or unread:  # of a failing file, that systemd has not read it yet is a consequence
            seen[-1]["shown"]["NeedDaemonReload"] = "yes" if unread else "no"
    return seen


def changed_since_start(files: set[str], shown: dict[str, str], host: Host) -> list[str]:
    """Unit files whose content changed after the process started, with a date that lies in the future."""
    start = start_of(shown, ["ActiveEnterTimestamp"])
    stats = {path: host.stat(path) for path in files} if start else {}
    return [
        host.dated(path) for path, seen in sorted(stats.items()) if seen and start and after(content_time(seen), start)
    ]


def dropins_of(unit: str) -> list[str]:
    """Folders whose *.conf reach a unit (systemd.unit(5)): its own, those of what its name begins with, of its type."""
    name, _, sort = unit.rpartition(".")
    starts = [name[: at + 1] for at, letter in enumerate(name) if letter == "-" and at + 1 < len(name)]
    return [f"{unit}.d", *(f"{start}.{sort}.d" for start in starts), f"{sort}.d"]


def unread_dropins(unit: str, shown: dict[str, str], host: Host) -> set[str]:
    """Drop-ins that systemd has not read: NeedDaemonReload is silent about a folder that it has not seen before."""
    if shown.get("LoadState") != "loaded":
        return set()
    there = [path for folder in FOLDERS for name in dropins_of(unit) for path in host.glob(f"{folder}/{name}/*.conf")]
    names = {os.path.basename(path) for path in shown.get("DropInPaths", "").split()}
    return {path for path in there if os.path.basename(path) not in names}


def _on(shown: dict[str, str]) -> bool:
    return shown.get("ActiveState") in UP or shown.get("UnitFileState") in AT_BOOT


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Compare state and properties; a unit that needs a reload or a restart fails, whatever it shows.

    `observed.on` of an unwanted unit lists all that must be switched off (its sockets and timers too).
    """
    if setting.get("unset"):
        raise Unasked(setting["unset"])
    unit, state, shown = setting["unit"], setting.get("state"), seen["shown"]
    evidence = f"systemctl show {unit}: " + " ".join(f"{k}={v}" for k, v in sorted(shown.items()))
    if state == "stopped":
        reason = f"{', '.join(seen['on'])} active, or started at the next boot" if seen["on"] else ""
        return Verdict(
            ok=not seen["on"], expected={"on": []}, observed={"on": seen["on"]}, reason=reason, evidence=evidence
        )
    expected = {name: _text(value) for name, value in (setting.get("properties") or {}).items()}
    if state == "running":
        expected.update(ActiveState="active", UnitFileState="enabled")
    if shown["LoadState"] in ("not-found", ""):
        missing = setting.get("missing", "fail")
        if missing == "k3s":
            raise Unavailable("k3s", f"there is no {unit}: K3s is not installed here")
        return Verdict(
            ok=missing == "pass",
            expected=expected,
            observed="no such unit",
            reason="" if missing == "pass" else "no such unit",
        )
    observed = {name: shown[name] for name in expected}
    reasons = [f"{n} is {observed[n] or 'not set'}, not {v}" for n, v in expected.items() if observed[n] != v]
    if shown["UnitFileState"] in ("generated", "alias", "indirect", "enabled-runtime") or seen["wanted"]:
        reasons = [r for r in reasons if not r.startswith("UnitFileState")]  # something else starts it at boot
    stale = shown["ActiveState"] in UP and bool(seen["changed"])
    if shown["NeedDaemonReload"] == "yes":
        reasons.append("its files changed on disk and systemd has not read them")
    if stale:
        reasons.append(f"its process runs with what was there before {', '.join(seen['changed'])} changed")
    return Verdict(
        ok=not reasons,
        expected=expected,
        observed=observed,
        reason="; ".join(reasons),
        evidence=evidence,
        stale=(unit,) if stale else (),
    )


def _text(value: object) -> str:
    """As `systemctl show` prints it: booleans are yes and no."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, enforced_by="task", units=lambda setting: (MANAGER, setting["unit"])
)
