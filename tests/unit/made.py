"""Findings as a run makes them, and the run itself as it stands in a lock, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from module_utils.casemate.core import finding as core

HOLDER: dict[str, Any] = {
    "run": "m 7 1",
    "name": "ann@here:7",
    "machine": "m",
    "process": 7,
    "started": "1",
    "what": "apply",
}
"""Who holds the lock of a cluster."""


def finding(status: str = "pass", control: str = "A-B", **rest: Any) -> core.Finding:
    """A finding in the published shape. One that was not evaluated has the code that its reason begins with."""
    about = {"id": control, "setting": {"kind": "file"}, "title": "Title of it", "role": "k3s_host", "severity": "high",
             "level": "baseline", "mitigations": ["T1.4"]}  # fmt: skip
    code = {"not_evaluated": str(rest.get("reason", "")).partition(":")[0], "fail": "differs", "error": "crash"}
    made = core.finding(about, status, rest.pop("code", code.get(status, "")))
    return {**made, **rest}
