"""The finding: what a run says about one control on one host. This is the only place that knows its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Finding = dict[str, Any]

KEYS = (
    "control", "title", "role", "kind", "severity", "level", "status", "code", "action", "expected", "observed",
    "before", "after", "reason", "where", "evidence", "mitigations", "refs", "waiver",
)  # fmt: skip
"""In the order in which reports have them."""
ABOUT = ("title", "role", "severity", "level", "mitigations", "refs")
"""What a finding says of its control, so that a report explains itself without the catalogue of its day."""


def finding(control: Mapping[str, Any], status: str, code: str = "", action: str = "none", **rest: Any) -> Finding:
    """A finding about a control as it is declared, with its `role`; every key is always there.

    `code` is one word for programs: why it was not evaluated, or what sort of fault it is; "" for what passes.
    """
    given = {name: control[name] for name in ABOUT if control.get(name) is not None}
    made: Finding = {
        "control": control["id"], "title": "", "role": "", "kind": control["setting"]["kind"], "severity": "",
        "level": "", "status": status, "code": code, "action": action, "expected": None, "observed": None,
        "before": None, "after": None, "reason": "", "where": [], "evidence": "", "mitigations": [], "refs": {},
        "waiver": None,
    }  # fmt: skip
    made.update(given)
    made.update(rest)
    return made
