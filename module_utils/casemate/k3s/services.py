"""The unit that runs K3s on a host: one for a server, one for an agent."""

from __future__ import annotations

from typing import Tuple

from ..host.clock import NEVER, Start, start_of
from ..host.machine import Host

NAMES = ("k3s", "k3s-agent")
UNITS = tuple(f"{name}.service" for name in NAMES)


def running_unit(host: Host) -> Tuple[str, Start]:
    """The K3s unit that is up here, and when its process was started; ("", NEVER) when none is.

    One that is still starting counts too, or a start that can never end would not be known for older settings.
    """
    for name in NAMES:
        shown = host.systemctl(f"{name}.service")
        state, pid = shown.get("ActiveState"), shown.get("MainPID")
        if state in ("active", "reloading") or (state == "activating" and pid not in (None, "", "0")):
            return name, start_of(shown, ["ExecMainStartTimestamp"]) or NEVER
    return "", NEVER
