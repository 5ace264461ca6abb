"""What runs for people who may not be in any more: it is found by whose it is and in whose session, and ended."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost
from unit.kinds.test_person import GROUP, PASSWD, SHADOW, one

from module_utils.casemate.core.verdict import Verdict
from module_utils.casemate.host import processes
from module_utils.casemate.host.machine import EnforceError, Host
from module_utils.casemate.kinds import sessions as kind

STATUS = "Name:\tsleep\nState:\t{state} (x)\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"


def made(folder: Path, running: dict[int, tuple[str, int, str]]) -> FakeHost:
    """A machine with processes: number -> (state, uid, control group)."""
    given = {"/etc/passwd": PASSWD, "/etc/shadow": SHADOW, "/etc/group": GROUP}
    for pid, (state, uid, group) in running.items():
        given[f"/proc/{pid}/status"] = STATUS.format(state=state, uid=uid)
        given[f"/proc/{pid}/cgroup"] = f"0::{group}\n"
        given[f"/proc/{pid}/stat"] = f"{pid} (sleep) S 1 " + "0 " * 30
    return FakeHost(folder, given, context={"account": "ops", "today": "2026-11-28"})


def judged(host: FakeHost, *people: Any) -> Verdict:
    setting: Any = {"people": list(people)}
    return kind.assess(setting, kind.observe([setting], host)[0])


CAROL = one("carol", state="revoked")
SESSION = "/user.slice/user-1002.slice/session-4.scope"


@pytest.mark.parametrize(
    ("running", "numbers"),
    [
        ({7: ("S", 1002, "/")}, [7]),
        ({7: ("S", 0, SESSION)}, [7]),  # what sudo made root in a session
        ({7: ("S", 1002, SESSION), 8: ("S", 1001, "/"), 9: ("R", 1002, "/")}, [7, 9]),
        ({7: ("Z", 1002, SESSION)}, []),
        ({8: ("S", 1001, "/user.slice/user-1001.slice/session-1.scope")}, []),
        ({8: ("S", 0, "/user.slice/user-10021.slice/x")}, []),
        # A pod that runs as the same number is none of carol's; what she runs as a container in her session is.
        ({8: ("S", 1002, "/kubepods.slice/kubepods-besteffort.slice/cri-containerd-0a.scope")}, []),
        ({8: ("S", 1002, "/kubepods/burstable/pod0a/0b")}, []),
        ({8: ("S", 1002, "/system.slice/docker-0a.scope"), 9: ("S", 1002, "/docker/0a")}, []),
        ({8: ("S", 1002, "/system.slice/k3s.service/kubepods/besteffort/0a")}, []),
        ({8: ("S", 0, "/kubepods.slice/cri-containerd-0a.scope/user.slice/user-1002.slice/x")}, []),  # systemd in it
        ({7: ("S", 1002, "/user.slice/user-1002.slice/user@1002.service/docker/0a")}, [7]),
        ({7: ("S", 1002, "/system.slice/dockerless.service")}, [7]),
        ({}, []),
    ],
)
def test_processes_of_who_is_revoked_are_told(tmp_path: Path, running: Any, numbers: list[int]) -> None:
    verdict = judged(made(tmp_path, running), CAROL, one())
    assert verdict.ok is (not numbers)
    assert all(f"process {number} " in verdict.reason for number in numbers)
    assert verdict.observed == ({"carol": len(numbers)} if numbers else "nothing")


@pytest.mark.parametrize(
    "own", ["/lxc/node1", "/lxc.payload.node1", "/docker/0a", "/machine.slice/machine-node1.scope"]
)
def test_on_a_system_that_is_a_container_its_own_groups_are_no_container(tmp_path: Path, own: str) -> None:
    """Without a cgroup namespace it sees the groups of its host; what is a container there, is this whole system."""
    running = {
        1: ("S", 0, f"{own}/init.scope"),
        7: ("S", 1002, f"{own}{SESSION}"),
        8: ("S", 1002, f"{own}/kubepods/burstable/pod0a/0b"),
        9: ("S", 1002, own),
    }
    verdict = judged(made(tmp_path, running), CAROL)
    assert verdict.observed == {"carol": 2}
    assert "process 8 " not in verdict.reason


def test_each_hierarchy_has_a_group_of_the_system_s_own(tmp_path: Path) -> None:
    host = made(tmp_path, {7: ("S", 1002, "/")})
    for pid, group in ((1, "init.scope"), (7, f"{SESSION[1:]}")):
        text = f"2:cpu,cpuacct:/lxc/node1\n1:name=systemd:/lxc/node1/{group}\n0::/lxc/node1-other/x\n"
        (tmp_path / f"proc/{pid}").mkdir(exist_ok=True)
        (tmp_path / f"proc/{pid}/cgroup").write_text(text)
    groups = processes.groups(7, host)
    assert groups == f"2:cpu,cpuacct:/\n1:name=systemd:{SESSION}\n0::/\n"
    assert processes.of(7, host).unit == "session-4.scope"
    assert not processes.in_container(7, host)


def test_so_are_those_of_an_account_of_a_directory(tmp_path: Path) -> None:
    host = made(tmp_path, {7: ("S", 70001, "/user.slice/user-70001.slice/session-4.scope")})
    host.commands["getent passwd dora"] = (0, "dora:*:70001:70001:Dora:/home/dora:/bin/bash\n", "")
    verdict = judged(host, one("dora", state="revoked"))
    assert verdict.observed == {"dora": 1} and not verdict.blocked_by
    assert judged(host, one("dora")).ok, "who is there may have what runs"
    host.commands["getent passwd dora"] = (0, "dora:*:1000:1000:as ops:/home/ops:/bin/bash\n", "")
    host = FakeHost(tmp_path, {}, host.commands, host.context)
    assert judged(host, one("dora", state="revoked")).ok, "the automation account by another name"


def test_so_are_those_of_people_whose_last_day_is_over(tmp_path: Path) -> None:
    host = made(tmp_path, {8: ("S", 1001, "/")})
    assert judged(host, one(over=20786)).ok
    assert not judged(host, one(over=20785)).ok


def test_the_automation_account_is_never_among_them(tmp_path: Path) -> None:
    host = made(tmp_path, {8: ("S", 1000, "/")})
    assert judged(host, one("ops", state="revoked")).ok
    twin = FakeHost(tmp_path, {"/etc/passwd": PASSWD + "twin:x:1000:1000::/:/bin/sh\n"}, context=host.context)
    assert judged(twin, one("twin", state="revoked")).ok
    assert judged(twin, one("root", state="revoked")).ok


def test_what_may_be_somebody_elses_is_told_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two accounts of one uid: nobody knows whose a process is, and a service must not die for it."""
    host = made(tmp_path, {7: ("S", 1002, "/system.slice/deploy.service")})
    Path(host.path("/etc/passwd")).write_text(PASSWD + "deploy:x:1002:1002::/:/bin/sh\n")
    monkeypatch.setattr(processes, "kill", lambda running: pytest.fail("killed"))
    verdict = judged(host, CAROL)
    assert not verdict.ok and not verdict.still_enforced
    assert "as has deploy" in verdict.blocked_by
    kind.enforce([{"people": [CAROL]}], {0}, host)
    assert ["loginctl", "terminate-user", "1002"] not in host.ran
    both = judged(host, CAROL, one("deploy", state="revoked"))
    assert not both.ok and not both.blocked_by


def test_what_outlives_logins_goes_too(tmp_path: Path) -> None:
    host = made(tmp_path, {})
    linger = Path(host.path(f"{kind.LINGER}/carol"))
    linger.parent.mkdir(parents=True)
    linger.touch()
    assert f"{kind.LINGER}/carol" in judged(host, CAROL).reason
    kind.enforce([{"people": [CAROL]}], {0}, host)
    assert not linger.exists() and judged(host, CAROL).ok
    assert ["loginctl", "terminate-user", "1002"] in host.ran


def test_processes_are_ended_for_sure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = made(tmp_path, {})
    with subprocess.Popen(["sleep", "99"]) as child:
        alive = processes.Process(child.pid, 1, "/bin/sleep", False, "", 0)
        monkeypatch.setattr(
            processes, "of_users", lambda uids, _: {1002: [alive]} if child.poll() is None and 1002 in uids else {}
        )
        kind.enforce([{"people": [CAROL]}], {0}, host)
        assert child.wait() == -9
    assert host.changes[-1]["path"] == "sessions of carol"


def test_one_that_stays_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = processes.Process(2**22 + 7, 1, "/bin/sleep", False, "", 0)
    monkeypatch.setattr(processes, "of_users", lambda uids, _: {1002: [stuck]})
    monkeypatch.setattr(kind, "PATIENCE", 0.0)
    with pytest.raises(EnforceError, match="cannot be ended"):
        kind.enforce([{"people": [CAROL]}], {0}, made(tmp_path, {}))


def test_processes_of_this_machine_are_found_by_their_owner() -> None:
    mine = processes.of_users({os.getuid()}, Host())
    assert os.getpid() in [one.pid for one in mine[os.getuid()]]
