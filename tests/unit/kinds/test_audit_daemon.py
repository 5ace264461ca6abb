"""How auditd keeps its log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.kinds import audit_daemon as kind

SETTING: Any = {"values": {"disk_full_action": ["suspend", "rotate"]}, "at_least": {"num_logs": 5}}
GOOD = "# disk_full_action = HALT\nnum_logs = 5\ndisk_full_action = SUSPEND\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD, ""),
        (GOOD.replace("5", "99"), ""),
        (GOOD + "disk_full_action = halt\n", ":4: disk_full_action is halt"),
        (GOOD.replace("5", "4"), ":2: num_logs is 4"),
        (GOOD.replace("5", "many"), ":2: num_logs is many"),
        ("num_logs = 5\n", "disk_full_action is not set"),
        ("", "disk_full_action is not set"),
    ],
)
def test_the_last_line_counts(tmp_path: Path, text: str, said: str) -> None:
    verdict = kind.assess(SETTING, kind.observe([SETTING], FakeHost(tmp_path, {kind.FILE: text}))[0])
    assert verdict.ok is (not said) and said in verdict.reason
    assert not said or "systemctl reload auditd" in verdict.reason
