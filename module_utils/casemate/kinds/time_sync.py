"""The clock: one daemon keeps it, and it is kept. Observe-only: which one it is, and whom it asks, is the operator's.

Sources: systemd-timesyncd.service(8), chronyd(8), adjtimex(2) (maxerror, by which timedatectl tells the same).
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from typing import Annotated, List, Literal, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host.machine import Host
from ..host.text import split_lines
from .kind import Kind


class Setting(TypedDict):
    """What a control of this kind demands."""

    of: Annotated[Literal["daemon", "clock"], Key("one daemon runs; or the clock is kept now")]


DAEMONS = ("systemd-timesyncd.service", "chrony.service", "ntpsec.service", "openntpd.service")
UP = ("active", "reloading", "activating")
MOST_SECONDS = 16.0
"""The error at which the kernel takes its clock for one that nobody keeps."""
TIMEX, MAXERROR = 208, 3
"""The size of the kernel's struct timex in bytes, and which of its longs is the largest error, in microseconds."""


def error_of_clock() -> float:
    """By how many seconds the clock may be wrong, as the kernel knows from whoever keeps it."""
    timex = (ctypes.c_long * (TIMEX // ctypes.sizeof(ctypes.c_long)))()
    if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
        raise OSError(ctypes.get_errno(), "the kernel does not say how good its clock is")
    return float(timex[MAXERROR]) / 1e6


def identity(setting: Setting) -> str:
    """One control for the daemon, one for the clock."""
    return setting["of"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """The daemons that run, who runs them as root that should not, and the error of the clock."""
    up = [unit for unit in DAEMONS if host.systemctl(unit).get("ActiveState") in UP]
    rooted = []
    for unit in up:
        status = host.text(f"/proc/{host.systemctl(unit).get('MainPID')}/status") or ""
        uids = [line.split() for line in split_lines(status) if line.startswith("Uid:")]
        rooted += [unit for one in uids if len(one) > 2 and one[2] == "0"]
    return [{"up": up, "rooted": rooted, "error": error_of_clock() if s["of"] == "clock" else 0.0} for s in settings]


def assess(setting: Setting, seen: Observation) -> Verdict:
    """One daemon that is not root; or an error below the kernel's own bound."""
    if setting["of"] == "clock":
        ok = seen["error"] < MOST_SECONDS
        reason = (
            ""
            if ok
            else "nobody keeps the clock: no server of time has answered; timedatectl timesync-status says more"
        )
        return Verdict(
            ok=ok, expected="kept", observed="kept" if ok else "not kept", reason=reason, evidence="adjtimex"
        )
    up, reason = seen["up"], ""
    if not up:
        reason = "no daemon keeps the clock; by hand: apt-get install systemd-timesyncd; timedatectl set-ntp true"
    elif len(up) > 1:
        reason = f"{' and '.join(up)} pull at one clock; by hand: systemctl disable --now {up[0]}"
    elif seen["rooted"]:
        reason = f"{up[0]} runs as root, which it gives up by default; take that out of its configuration"
    return Verdict(ok=not reason, expected="one", observed=up, reason=reason, evidence="systemctl show")


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    units=lambda setting: DAEMONS,
    places=lambda setting: ["/etc/systemd/timesyncd.conf"],
)
