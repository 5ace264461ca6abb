"""What the system refused to a task is a finding that is blocked, with the reason, and nothing of the tool's."""

from __future__ import annotations

from typing import Any

import pytest

from casemate import ROOT
from casemate.catalogue import declarations
from casemate.run import refusals


@pytest.mark.parametrize(
    ("setting", "observed"),
    [
        ({"kind": "service", "unit": "x"}, {"on": ["x", "x.socket"]}),
        ({"kind": "service", "unit": "x"}, {"ActiveState": "inactive"}),
        ({"kind": "package", "name": "a|b"}, ["x"]),
        ({"kind": "account"}, ["y", "x"]),
    ],
)
def test_the_finding_says_what_was_refused(setting: dict[str, Any], observed: Any) -> None:
    fail = {"control": "A-B", "status": "fail", "action": "would_change", "observed": observed, "reason": "it is on"}
    other = {**fail, "control": "C-D", "observed": ["z"]}
    passing = {**fail, "status": "pass", "action": "none"}
    found = [dict(fail), dict(other), dict(passing)]
    refusals.tell(found, {"A-B": setting}, {"x": "Unable to stop service x:\n  Operation refused"})
    reason = "it is on; refused: x: Unable to stop service x: Operation refused"
    assert found[0] == {**fail, "action": "blocked", "code": "refused", "reason": reason}
    assert found[1:] == [other, passing]


def test_no_refusal_of_one_thing_stops_what_comes_after_it() -> None:
    tasks = declarations.read(ROOT / "roles/k3s_host/tasks/main.yml")
    for module in ("ansible.builtin.user", "ansible.builtin.systemd_service"):
        (task,) = [task for task in tasks if module in task]
        assert task["failed_when"] is False and task["register"]
    removing = [task for task in tasks if (task.get("ansible.builtin.apt") or {}).get("state") == "absent"]
    assert [task["failed_when"] for task in removing] == [False]
    noted = [place for place, task in enumerate(tasks) if "__k3s_host_refused" in str(task)]
    (last,) = [place for place, task in enumerate(tasks) if task.get("k3s_controls") == {"roles": ["k3s_host"]}]
    assert noted and noted[0] < last
