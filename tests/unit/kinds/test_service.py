"""Units: what systemd shows, what activates them, and whether they run with their present files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.kinds import service

UP = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": "no"}
DOWN: Any = {**UP, "ActiveState": "inactive", "UnitFileState": "disabled"}
NONE = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": "", "NeedDaemonReload": "no"}


def host_of(tmp: Path, shown: dict[str, str], **others: dict[str, str]) -> FakeHost:
    units = {"init.scope": {"LoadState": "loaded"}, "a.service": shown, **{f"a.{n}": v for n, v in others.items()}}
    commands: Any = {
        f"systemctl show {unit}": (0, "".join(f"{k}={v}\n" for k, v in p.items()), "") for unit, p in units.items()
    }
    return FakeHost(tmp, commands=commands)


def judge(host: FakeHost, **demands: Any) -> Any:
    setting: Any = {"unit": "a.service", **demands}
    return service.assess(setting, service.observe([setting], host)[0])


@pytest.mark.parametrize(
    ("shown", "setting", "reason"),
    [
        (UP, {"state": "running"}, ""),
        ({**UP, "UnitFileState": "static", "WantedBy": "sysinit.target"}, {"state": "running"}, ""),
        ({**UP, "UnitFileState": "static"}, {"state": "running"}, "UnitFileState is static"),
        (DOWN, {"state": "running"}, "ActiveState is inactive"),
        ({**UP, "UnitFileState": "masked"}, {"state": "running"}, "UnitFileState is masked"),
        ({**UP, "ActiveState": "failed"}, {"state": "running"}, "ActiveState is failed"),
        (NONE, {"state": "running"}, "no such unit"),
        (NONE, {"state": "running", "missing": "pass"}, ""),
        (DOWN, {"state": "stopped"}, ""),
        (NONE, {"state": "stopped"}, ""),
        (UP, {"state": "stopped"}, "a.service active"),
        ({**UP, "UnitFileState": "disabled"}, {"state": "stopped"}, "a.service active"),
        ({**DOWN, "UnitFileState": "enabled"}, {"state": "stopped"}, "started at the next boot"),
        ({**UP, "KillMode": "process"}, {"properties": {"KillMode": "process"}}, ""),
        ({**UP, "Delegate": "yes"}, {"properties": {"Delegate": True}}, ""),
        ({**UP, "LimitNOFILE": "1024"}, {"properties": {"LimitNOFILE": 20000}}, "LimitNOFILE is 1024, not 20000"),
        (UP, {"properties": {"NoSuch": "x"}}, "NoSuch is not set"),
        ({**UP, "NeedDaemonReload": "yes"}, {"state": "running"}, "systemd has not read them"),
    ],
)
def test_state_and_properties(tmp_path: Path, shown: dict[str, str], setting: Any, reason: str) -> None:
    verdict = judge(host_of(tmp_path, shown), **setting)
    assert verdict.ok is (reason == "")
    assert reason in verdict.reason


def test_a_unit_that_nobody_asks_for_is_not_judged(tmp_path: Path) -> None:
    for shown in (UP, DOWN, NONE):
        with pytest.raises(Unavailable, match="no list") as why:
            judge(host_of(tmp_path, shown), state="running", unset="no list")
        assert why.value.code == "unasked"


def test_a_socket_that_would_start_an_unwanted_service_counts(tmp_path: Path) -> None:
    verdict = judge(host_of(tmp_path, {**DOWN, "TriggeredBy": "a.socket"}, socket=UP), state="stopped")
    assert (verdict.ok, verdict.observed) == (False, {"on": ["a.socket"]})


@pytest.mark.parametrize(("age", "stale"), [(3600, ("a.service",)), (-3600, ())])
def test_a_process_older_than_its_unit_files_is_stale(tmp_path: Path, age: int, stale: tuple[str, ...]) -> None:
    shown: Any = {**UP, "DropInPaths": "/etc/a.conf", "ActiveEnterTimestamp": "Mon 2026-11-23 12:00:00.500000 UTC"}
    host = host_of(tmp_path, shown)
    drop_in = tmp_path / "etc/a.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\n")
    os.utime(drop_in, (1795435200 + age, 1795435200 + age))
    verdict = judge(host, state="running")
    assert (verdict.ok, verdict.stale) == (not stale, stale)


def test_before_k3s_is_installed_its_unit_is_not_evaluated(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="k3s"):
        judge(host_of(tmp_path, NONE), state="running", missing="k3s")


def test_a_silent_systemd_is_an_error_and_not_a_stopped_service(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="systemd"):
        judge(FakeHost(tmp_path), state="stopped")


def test_hostile_output_of_a_unit_cannot_add_a_property(tmp_path: Path) -> None:
    shown: Any = {**DOWN, "Description": "x ActiveState=active"}
    assert judge(host_of(tmp_path, shown), state="stopped").ok


def test_a_unit_file_that_fails_its_own_control_is_told_there(tmp_path: Path) -> None:
    """Whoever edits the unit is told once; the restart is due only when the file is as it should be."""
    shown = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=yes\nFragmentPath=/etc/a\n"
    commands: Any = {
        "systemctl show init.scope": (0, "LoadState=loaded\n", ""),
        "systemctl show k3s.service": (0, shown + "ActiveEnterTimestamp=Thu 1970-01-01 00:00:20.000000 UTC\n", ""),
    }
    host = FakeHost(tmp_path, {"/etc/a": ""}, commands)
    setting: Any = {"unit": "k3s.service", "state": "running"}
    assert service.assess(setting, service.observe([setting], host)[0]).stale == ("k3s.service",)
    host.failing_files.add("/etc/a")
    assert service.assess(setting, service.observe([setting], host)[0]).ok


def test_a_drop_in_that_systemd_has_not_read_counts_even_where_it_says_nothing(tmp_path: Path) -> None:
    """NeedDaemonReload stays "no" for a folder of drop-ins that was made after systemd last looked."""
    host = host_of(tmp_path, {**UP, "DropInPaths": "/etc/systemd/system/a.service.d/known.conf"})
    folder = tmp_path / "etc/systemd/system/a.service.d"
    folder.mkdir(parents=True)
    (folder / "known.conf").touch()
    assert judge(host, state="running").ok
    (folder / "new.conf").touch()
    assert "systemd has not read" in judge(host, state="running").reason
    host.failing_files.add("/etc/systemd/system/a.service.d/new.conf")
    assert judge(host, state="running").ok


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("/etc/systemd/system/k3s-agent.service.d/x.conf", True),
        ("/etc/systemd/system/k3s-.service.d/x.conf", True),
        ("/etc/systemd/system/service.d/x.conf", True),
        ("/run/systemd/transient/k3s-agent.service.d/x.conf", True),
        ("/etc/systemd/system.control/k3s-agent.service.d/x.conf", True),
        ("/usr/local/lib/systemd/system/k3s-agent.service.d/x.conf", True),
        ("/etc/systemd/system/k3s-agent.service.d/.x.conf", False),
        ("/etc/systemd/system/k3s-agent.service.d/x.txt", False),
        ("/etc/systemd/system/k3s.service.d/x.conf", False),
        ("/etc/systemd/system/timer.d/x.conf", False),
    ],
)
def test_a_drop_in_counts_where_systemd_looks_for_it(tmp_path: Path, path: str, read: bool) -> None:
    host = FakeHost(tmp_path, {path: ""})
    assert service.unread_dropins("k3s-agent.service", {"LoadState": "loaded"}, host) == ({path} if read else set())
