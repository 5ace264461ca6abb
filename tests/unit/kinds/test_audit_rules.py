"""Rules of audit: on disk, silenced by others, and in the kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Left, Unavailable, Verdict
from module_utils.casemate.host import audit
from module_utils.casemate.host.audit import Status
from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.kinds import audit_rules as kind
from module_utils.casemate.kinds.kind import Pass

SUDOERS: Any = {"of": "written", "rules": ["-w /etc/sudoers -p wa -k scope", "-w /etc/sudoers.d -p wa -k scope"]}
MOUNTS: Any = {"of": "written", "rules": ["-a always,exit -F arch=b64 -S mount -F auid>=1000 -F auid!=unset -k mounts"]}
LOCKED: Any = {"of": "written", "rules": ["-e 2"]}
SILENCERS: Any = {"of": "silencers"}
RUNNING: Any = {"of": "running"}
DEFAULT = "## First rule - delete all\n-D\n\n-b 8192\n--backlog_wait_time 60000\n-f 1\n"
PACKAGE = f"{kind.FOLDER}/audit.rules"


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, Status(lacks="a container"))
    monkeypatch.setattr(os, "uname", lambda: type("Uname", (), {"machine": "x86_64"}))


def answers(monkeypatch: pytest.MonkeyPatch, status: Status) -> None:
    monkeypatch.setattr(audit, "status", lambda: status)


def host_of(folder: Path, settings: list[Any], others: dict[str, str] | None = None, **commands: Any) -> FakeHost:
    files = {PACKAGE: DEFAULT, kind.OWNED: kind.written(settings)}
    files.update({f"{kind.FOLDER}/{name}": text for name, text in (others or {}).items()})
    return FakeHost(folder, files, {"auditctl -l": (0, commands.get("loaded", "No rules\n"), "")})


def judged(setting: Any, host: FakeHost) -> Verdict:
    return kind.assess(setting, kind.observe([setting], host)[0])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-w /etc/sudoers.d/ -p wa -k scope", "-w /etc/sudoers.d -p aw -k scope  # theirs"),
        ("-w /etc/shadow -k x", "-w /etc/shadow -p rwxa -k x"),
        ("-a always,exit -F path=/etc/shadow -F perm=wa -F key=x", "-w /etc/shadow -p wa -k x"),
        ("-a exit,always -S mount -F arch=b64 -F auid!=-1 -k m",
         "-a always,exit -F arch=b64 -S mount -F auid!=unset -F key=m"),
        ("-a always,exit -F arch=b32 -C euid!=uid -S execve -k u",
         "-a always,exit -F arch=i386 -S execve -C uid!=euid -F key=u"),
        ("-a always,exit -F arch=b64 -S open -F exit=-EACCES -k a",
         "-a always,exit -F arch=x86_64 -S open -F exit=-13 -F key=a"),
        ("-a always,exit -F arch=b64 -S open -F exit=-EPERM -k a",
         "-a always,exit -F arch=b64 -S open -F exit=-1 -F key=a"),
        ("-a always,exit -F auid!=4294967295 -S b,a -k m", "-a always,exit -S a -S b -F auid!=unset -k m"),
        ("-a always,exit -S all -F path=/bin/x -F perm=x -F auid>=1000 -k m",
         "-a always,exit -F path=/bin/x -F perm=x -F auid>=1000 -F key=m"),
    ],
)  # fmt: skip
def test_a_rule_is_what_it_means(one: str, other: str) -> None:
    assert kind.normal(one) == kind.normal(other) != ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-w /etc/sudoers -p wa -k scope", "-w /etc/sudoers -p r -k scope"),
        ("-w /etc/sudoers -p wa -k scope", "-w /etc/sudoers -p wa -k other"),
        ("-a always,exit -S mount -k m", "-a never,exit -S mount -k m"),
        ("-a always,exit -S mount -k m", "-A always,exit -S mount -k m"),
        ("-a always,exit -S mount -k m", "-a always,exit -S mount -F auid=0 -k m"),
        ("-a always,exit -F arch=b64 -S mount -k m", "-a always,exit -F arch=b32 -S mount -k m"),
    ],
)
def test_another_rule_is_another_one(one: str, other: str) -> None:
    assert kind.normal(one) != kind.normal(other)


@given(st.text())
def test_no_line_is_too_odd(line: str) -> None:
    kind.normal(line)


def test_other_machines_have_no_old_system_calls() -> None:
    rules = ["-a always,exit -F arch=b64 -S open,openat -k x", "-a always,exit -F arch=b64 -S chmod -k x"]
    rules += ["-a always,exit -F arch=b32 -S open -k x", "-w /etc/open -p wa -k x"]
    assert kind.for_machine(rules, "x86_64") == rules
    assert kind.for_machine(rules, "aarch64") == ["-a always,exit -F arch=b64 -S openat -k x", *rules[2:]]


def test_what_is_missing_is_named_written_and_then_holds(tmp_path: Path) -> None:
    host = host_of(tmp_path, [SUDOERS])
    assert judged(SUDOERS, host).ok
    verdict = judged(MOUNTS, host)
    assert not verdict.ok and MOUNTS["rules"][0] in verdict.reason and not verdict.blocked_by
    kind.enforce([SUDOERS, MOUNTS], {1}, host)
    assert judged(SUDOERS, host).ok and judged(MOUNTS, host).ok
    assert ["augenrules", "--load"] not in host.ran, "a container's kernel takes no rules"
    before = host.text(kind.OWNED)
    kind.enforce([SUDOERS, MOUNTS], set(), host)
    assert host.text(kind.OWNED) == before


def test_what_is_written_is_loaded_unless_audit_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = host_of(tmp_path, [])
    host.commands["augenrules --load"] = (0, "", "")
    answers(monkeypatch, Status(enabled=2))
    kind.enforce([MOUNTS], {0}, host)
    assert ["augenrules", "--load"] not in host.ran
    answers(monkeypatch, Status(enabled=1))
    kind.enforce([MOUNTS], {0}, host)
    assert ["augenrules", "--load"] in host.ran
    assert ["auditctl", "-D"] not in host.ran, "the package's file says so"
    host.remove(PACKAGE)
    host.commands["auditctl -D"] = (0, "No rules\n", "")
    kind.enforce([MOUNTS], {0}, host)
    assert host.ran[-2:] == [["auditctl", "-D"], ["augenrules", "--load"]]
    host.commands["augenrules --load"] = (1, "", "no")
    with pytest.raises(EnforceError):
        kind.enforce([MOUNTS], {0}, host)


def test_of_the_lock_the_last_line_counts_and_blocks(tmp_path: Path) -> None:
    assert judged(LOCKED, host_of(tmp_path, [LOCKED], {"00-first.rules": "-e 1\n"})).ok
    verdict = judged(LOCKED, host_of(tmp_path, [LOCKED], {"zz.rules": "\n-e 1\n"}))
    assert not verdict.ok and verdict.blocked_by == f"{kind.FOLDER}/zz.rules:2"
    assert judged(LOCKED, host_of(tmp_path / "2", [])).blocked_by == ""


def test_files_are_sorted_as_augenrules_does(tmp_path: Path) -> None:
    host = host_of(tmp_path, [SUDOERS], {"9-before.rules": "-c\n", "100.rules": "-i\n"})
    assert [line.where.split("/")[-1] for line in kind.merged(host)][:4] == [
        "9-before.rules:1", "10-casemate.rules:2", "10-casemate.rules:3", "100.rules:1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("00.rules", "-a never,exit -F auid=0", True),
        ("zz.rules", "-a never,exit -F auid=0", False),  # ours come first
        ("zz.rules", "-A exit,never -F auid=0", True),
        ("zz.rules", "-a always,exclude -F msgtype=SYSCALL", True),
        ("zz.rules", "-W /etc/sudoers -p wa -k scope", True),
        ("zz.rules", "-d always,exit -S mount", True),
        ("zz.rules", "-D -k scope", True),
        ("zz.rules", "-D", False),  # augenrules puts it before all others
        ("zz.rules", "-r 10", True),
        ("zz.rules", "-r 0", False),
        ("zz.rules", "-w /srv -p wa -k theirs", False),
        ("zz.rules.disabled", "-A exit,never -F auid=0", False),
    ],
)
def test_whoever_silences_others_is_named(tmp_path: Path, name: str, line: str, told: bool) -> None:
    verdict = judged(SILENCERS, host_of(tmp_path, [SUDOERS], {name: f"{line}\n"}))
    assert verdict.ok is not told
    assert (verdict.blocked_by == f"{kind.FOLDER}/{name}:1") is told


def test_the_kernel_has_what_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = "-w /etc/sudoers -p wa -k scope\n-w /etc/sudoers.d -p wa -k scope\n"
    host = host_of(tmp_path, [SUDOERS], loaded=loaded)
    with pytest.raises(Unavailable, match="container"):
        judged(RUNNING, host)
    answers(monkeypatch, Status(enabled=1))
    assert judged(RUNNING, host).ok
    answers(monkeypatch, Status(enabled=0))
    assert judged(RUNNING, host).reason == "audit is off"
    host = host_of(tmp_path, [SUDOERS, MOUNTS], loaded=loaded)
    assert not judged(RUNNING, host).ok and not judged(RUNNING, host).blocked_by
    answers(monkeypatch, Status(enabled=2))
    verdict = judged(RUNNING, host)
    assert "-S mount" in verdict.reason and "pending reboot" in verdict.reason and verdict.blocked_by == kind.WAITS


@pytest.mark.parametrize("enabled", [1, 2])
def test_the_kernel_has_no_rule_that_no_file_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: int) -> None:
    """A line that hides the others may be loaded by hand; one that left the disk stays in a locked kernel."""
    theirs = "-a never,exit -S all -F auid=0"
    answers(monkeypatch, Status(enabled=enabled))
    loaded = f"{theirs}\n-w /etc/sudoers -p wa -k scope\n-w /etc/sudoers.d -p wa -k scope\n"
    verdict = judged(RUNNING, host_of(tmp_path, [SUDOERS], loaded=loaded))
    assert not verdict.ok and theirs in verdict.reason
    assert ("pending reboot" in verdict.reason, bool(verdict.blocked_by)) == (enabled == 2, enabled == 2)


def test_a_kernel_is_locked_where_the_rules_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = host_of(tmp_path, [LOCKED])
    answers(monkeypatch, Status(enabled=2))
    assert judged(RUNNING, host).ok
    answers(monkeypatch, Status(enabled=1))
    verdict = judged(RUNNING, host)
    assert "not locked" in verdict.reason and not verdict.blocked_by
    assert judged(RUNNING, host_of(tmp_path / "2", [LOCKED], {"zz.rules": "-e 1\n"})).ok, "AUDIT-RULES-LOCKED tells it"


def test_a_waiver_takes_its_lines_back(tmp_path: Path) -> None:
    host = host_of(tmp_path, [SUDOERS, MOUNTS])
    run = Pass([], check=False)
    assert kind.left(MOUNTS, run, host).where and kind.left(SILENCERS, run, host) == Left()
    kind.take_back([MOUNTS], [SUDOERS], host)
    assert kind.left(MOUNTS, run, host) == Left() and kind.left(SUDOERS, run, host).where
    assert "-S mount" in kind.unasked([SUDOERS], host_of(tmp_path, [SUDOERS, MOUNTS]))
    kind.take_back([SUDOERS], [SILENCERS], host)
    assert host.text(kind.OWNED) is None
