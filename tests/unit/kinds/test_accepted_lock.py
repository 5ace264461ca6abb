"""The lock that a host accepted last: it is noted, rises, and is never forgotten for an older one."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Verdict
from module_utils.casemate.k3s.lock_validity import ACCEPTED
from module_utils.casemate.kinds import accepted_lock
from module_utils.casemate.kinds.accepted_lock import Setting


def judge(host: FakeHost, serial: int) -> Verdict:
    setting: Setting = {"serial": serial}
    (seen,) = accepted_lock.observe([setting], host)
    return accepted_lock.assess(setting, seen)


def kept(folder: Path, record: str | None) -> FakeHost:
    return FakeHost(folder, {} if record is None else {ACCEPTED: record})


@pytest.mark.parametrize(
    ("record", "serial", "ok", "blocked"),
    [
        (None, 0, True, False),  # before there were serials
        (None, 3, False, False),
        ('{"serial": 3}\n', 3, True, False),
        ('{"serial": 3}\n', 4, False, False),
        ('{"serial": 3}\n', 2, False, True),
        ('{"serial": 3}\n', 0, False, True),
        ('{"serial": 0}\n', 3, False, True),
        ('{"serial": true}\n', 3, False, True),
        ('{"serial": "3"}\n', 3, False, True),
        ('{"serial": -1}\n', 3, False, True),
        ("[]", 3, False, True),
        ("{", 3, False, True),
    ],
)
def test_only_a_newer_lock_is_accepted(
    tmp_path: Path, record: str | None, serial: int, ok: bool, blocked: bool
) -> None:
    verdict = judge(kept(tmp_path, record), serial)
    assert (verdict.ok, bool(verdict.blocked_by)) == (ok, blocked)
    assert bool(verdict.reason) is not ok


def test_what_to_do_about_an_older_lock_is_said(tmp_path: Path) -> None:
    verdict = judge(kept(tmp_path, '{"serial": 7}'), 6)
    assert "has the serial 6, and this host accepted one with 7" in verdict.reason
    assert "give that lock a serial above 7 and have it signed again" in verdict.reason


def test_the_serial_is_noted_for_root_alone_and_no_guard_takes_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fchown", lambda *_: None)
    host = kept(tmp_path, None)
    accepted_lock.enforce([{"serial": 5}], {0}, host)
    assert host.text(ACCEPTED) == '{"serial": 5}\n'
    assert stat.S_IMODE(Path(host.path(ACCEPTED)).stat().st_mode) == 0o600
    assert host.armed == []
    assert judge(host, 5).ok
