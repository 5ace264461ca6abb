"""What one pass over the controls found and did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..core.finding import Finding


@dataclass
class Outcome:
    """What one pass found and did.

    `roles_to_apply` are those for which apply would change something. `todo` holds, for each control that apply would
    act on, what it acts on: what is observed, or a part of it. `stale` names units to restart.

    `unsettled` says what could not be written, or not even be judged, and why: nothing that needs it may start.

    `barred` says what is wrong by those controls before whose pass nothing may be started (`gate`).

    `left_out` names the controls that a quick pass does not judge; they have no finding, so nothing claims them.
    `runs_k3s` is whether systemd runs K3s, or tries to.
    """

    findings: list[Finding] = field(default_factory=list)
    roles_to_apply: list[str] = field(default_factory=list)
    todo: dict[str, Any] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    barred: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    changed: bool = False
    runs_k3s: bool = False
