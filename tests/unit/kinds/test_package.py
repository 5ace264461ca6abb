"""Packages: dpkg's own status, and its order of versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.formats.dpkg_status import STATUS
from module_utils.casemate.kinds import package


def stanza(name: str, status: str = "install ok installed", version: str = "1.0-1") -> str:
    return f"Package: {name}\nStatus: {status}\nPriority: optional\nVersion: {version}\nDescription: x\n Version: 9\n\n"


@pytest.mark.parametrize(
    ("text", "setting", "ok", "observed"),
    [
        (stanza("sudo"), {"name": "sudo"}, True, "sudo 1.0-1"),
        (stanza("sudo-ldap"), {"name": "sudo"}, False, "absent"),
        (stanza("sudo", "deinstall ok config-files"), {"name": "sudo"}, False, "absent"),
        (stanza("sudo", "install ok half-configured"), {"name": "sudo"}, False, "absent"),
        (stanza("sudo", "purge ok not-installed"), {"name": "sudo"}, False, "absent"),
        (stanza("sudo", "install reinstreq installed"), {"name": "sudo"}, False, "absent"),
        (stanza("sudo", "hold ok installed"), {"name": "sudo"}, True, "sudo 1.0-1"),
        (stanza("runc", version="1.1.5"), {"name": "runc", "version": "1.1.12"}, False, "runc 1.1.5"),
        (stanza("runc", version="1:1.1.5"), {"name": "runc", "version": "1.1.12"}, True, "runc 1:1.1.5"),
        (stanza("x"), {"name": "telnet*", "state": "absent"}, True, []),
        (stanza("telnetd") + stanza("telnet"), {"name": "telnet*", "state": "absent"}, False, ["telnet", "telnetd"]),
        (stanza("telnet", "deinstall ok config-files"), {"name": "telnet", "state": "absent"}, True, []),
        ("Package: cut\nStatus: install ok inst", {"name": "cut"}, False, "absent"),
        ("\x00\n\nStatus: install ok installed\n", {"name": "x", "state": "absent"}, True, []),
    ],
)
def test_status(tmp_path: Path, text: str, setting: Any, ok: bool, observed: Any) -> None:
    host = FakeHost(tmp_path, {STATUS: text})
    verdict = package.assess(setting, package.observe([setting], host)[0])
    assert (verdict.ok, verdict.observed) == (ok, observed)


@pytest.mark.parametrize(
    ("said", "obstacle"),
    [
        ((0, "Remv telnet [1]\nRemv telnetd [1]\n", ""), ""),
        ((0, "Remv telnet:i386 [1] []\n", ""), ""),
        ((0, "Remv sudo [1] [x]\nRemv telnet [1]\nInst x\n", ""), "with it would go sudo, so nothing is removed"),
        ((100, "", "E: broken packages"), "apt-get cannot remove it: E: broken packages"),
        ((127, "", "not found"), ""),
    ],
)
def test_nothing_goes_but_what_is_named(tmp_path: Path, said: tuple[int, str, str], obstacle: str) -> None:
    host = FakeHost(tmp_path, {STATUS: stanza("telnet") + stanza("telnetd")}, {"apt-get -s": said})
    wanted: Any = [{"name": "telnet", "state": "absent"}, {"name": "telnetd", "state": "absent"}]
    verdict = package.assess(wanted[0], package.observe(wanted, host)[0])
    assert not verdict.ok
    assert obstacle in verdict.reason
    assert obstacle in verdict.blocked_by
    assert bool(verdict.blocked_by) is bool(obstacle)
    assert verdict.observed == ["telnet"]


def test_what_a_waiver_keeps_is_nobodys_to_remove(tmp_path: Path) -> None:
    said = (0, "Remv telnet [1]\nRemv telnetd [1]\n", "")
    host = FakeHost(tmp_path, {STATUS: stanza("telnet") + stanza("telnetd")}, {"apt-get -s": said})
    wanted: list[Any] = [
        {"name": "telnet", "state": "absent"},
        {"name": "telnetd", "state": "absent"},
    ]
    assert "telnetd" in package.assess(wanted[0], package.observe(wanted, host, {1})[0]).blocked_by


def test_no_dpkg_is_an_error_and_never_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        package.observe([{"name": "telnet", "state": "absent"}], FakeHost(tmp_path))


@pytest.mark.parametrize(("name", "ok"), [("systemd-timesyncd", True), ("chrony", True), ("ntpdate", False)])
def test_another_package_that_does_the_same_is_enough(tmp_path: Path, name: str, ok: bool) -> None:
    setting: Any = {"name": "systemd-timesyncd", "state": "present", "instead": ["chrony"]}
    status = f"Package: {name}\nStatus: install ok installed\nVersion: 1\n"
    host = FakeHost(tmp_path, {STATUS: status})
    assert package.assess(setting, package.observe([setting], host)[0]).ok is ok
