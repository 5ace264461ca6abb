"""Who keeps the clock, and whether it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Verdict
from module_utils.casemate.kinds import time_sync as kind

UP = (0, "ActiveState=active\nMainPID=7\n", "")
DAEMON: Any = {"of": "daemon"}
CLOCK: Any = {"of": "clock"}


def judged(folder: Path, setting: Any, *units: str, uid: int = 105) -> Verdict:
    files = {"/proc/7/status": f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"}
    host = FakeHost(folder, files, {f"systemctl show {unit}": UP for unit in units})
    return kind.assess(setting, kind.observe([setting], host)[0])


@pytest.mark.parametrize("unit", kind.DAEMONS)
def test_one_daemon_is_right_whichever_it_is(tmp_path: Path, unit: str) -> None:
    assert judged(tmp_path, DAEMON, unit).ok
    assert "runs as root" in judged(tmp_path, DAEMON, unit, uid=0).reason


def test_none_and_two_are_told(tmp_path: Path) -> None:
    assert "no daemon" in judged(tmp_path, DAEMON).reason
    two = judged(tmp_path, DAEMON, "chrony.service", "systemd-timesyncd.service")
    assert "pull at one clock" in two.reason and two.observed == ["systemd-timesyncd.service", "chrony.service"]


@pytest.mark.parametrize(("error", "ok"), [(0.01, True), (15.9, True), (16.0, False), (1e6, False)])
def test_the_kernel_says_whether_the_clock_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: float, ok: bool
) -> None:
    monkeypatch.setattr(kind, "error_of_clock", lambda: error)
    assert judged(tmp_path, CLOCK, "chrony.service").ok is ok


def test_the_kernel_can_be_asked_for_the_error() -> None:
    assert kind.error_of_clock() >= 0
