"""The finding: what a run says about one control on one host. This is the only place that knows its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Finding = dict[str, Any]

ABOUT = ("title", "role", "severity", "level", "mitigations", "refs")
"""What a finding says of its control, so that a report explains itself without the catalogue of its day."""


def _empty() -> Finding:
    return {
        "control": "", "title": "", "role": "", "kind": "", "severity": "", "level": "", "status": "", "code": "",
        "action": "none", "expected": None, "observed": None, "before": None, "after": None, "reason": "", "where": [],
        "evidence": "", "mitigations": [], "refs": {}, "waiver": None,
    }  # fmt: skip


KEYS = tuple(_empty())
"""In the order in which reports have them."""
STATUSES = ("pass", "waived", "not_evaluated", "fail", "error")
"""From best to worst."""
ACTIONS = ("none", "would_change", "changed", "blocked")


def finding(control: Mapping[str, Any], status: str, code: str = "", action: str = "none", **rest: Any) -> Finding:
    """A finding about a control as it is declared, with its `role`; every key is always there.

    `code` is one word for programs: why it was not evaluated, or what sort of fault it is; "" for what passes.
    """
    about = {name: control[name] for name in ABOUT if control.get(name) is not None}
    what = {"control": control["id"], "kind": control["setting"]["kind"]}
    return {**_empty(), **what, **about, "status": status, "code": code, "action": action, **rest}
