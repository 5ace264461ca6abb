"""Files of ours that nothing asks for any more: they go, nobody else's does, and nothing else tells of them."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost
from unit.test_engine import control
from unit.test_exact import SSH, SSH_FILES, SSH_OURS, WAIVER_NOW, Machine, ids, reason, settled

from casemate import ROOT
from casemate.catalogue import declarations
from module_utils.casemate.engine import run as engine
from module_utils.casemate.engine.outcome import Outcome
from module_utils.casemate.formats import sshd_daemon, sshd_files
from module_utils.casemate.host import backup, guard
from module_utils.casemate.host.machine import EnforceError, Result
from module_utils.casemate.k3s import files as k3s_files
from module_utils.casemate.kinds import leftover, sysctl, written
from module_utils.casemate.operations.bootstrap import MADE_BY, rules_file

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owned files are root's")
OURS, OLD = "# Managed by Casemate (roles/k3s_host).\nkernel.panic = 60\n", "/etc/sysctl.d/99-zzz-casemate.conf"
SETTING: Any = {"kind": "leftover", "paths": ["/etc/sysctl.d/*casemate*"], "asked": [sysctl.OWNED]}
PANIC = control("SYSCTL-PANIC-SET", {"kind": "sysctl", "key": "kernel.panic", "value": 10})
CONTROLS = [control("HOST-LEFTOVERS-ABSENT", SETTING), PANIC]
GOOD = {sysctl.OWNED: sysctl.written([PANIC["setting"]]), "/proc/sys/kernel/panic": "10\n"}


def finding(outcome: Outcome, cid: str) -> Any:
    return next(one for one in outcome.findings if one["control"] == cid)


@pytest.mark.parametrize(
    "name",
    [
        "99-zzz-casemate.conf",
        "10-casemate.conf",
        ".casemate.conf",
        "casemate",
        "casemate.conf.dpkg-old",
        "a casemate;b",
    ],
)
def test_what_nothing_asks_for_goes_and_is_told_once(tmp_path: Path, name: str) -> None:
    """Also where it decides another control's value: check judges that one as it is after apply."""
    path = f"/etc/sysctl.d/{name}"
    plan, done = settled(tmp_path, lambda where: FakeHost(where, {**GOOD, path: OURS}), CONTROLS)
    assert [(f["status"], f["action"]) for f in plan.findings] == [("fail", "would_change"), ("pass", "none")]
    assert [(f["status"], f["action"]) for f in done.findings] == [("pass", "changed"), ("pass", "none")]
    assert path in reason(plan, "HOST-LEFTOVERS-ABSENT") and os.path.exists(tmp_path / "check" / path[1:])
    assert not os.path.lexists(tmp_path / "apply" / path[1:]) and os.path.exists(tmp_path / "apply" / sysctl.OWNED[1:])


def test_it_goes_under_the_guard(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {**GOOD, OLD: OURS})
    engine.run({"role": CONTROLS}, host, False)
    assert host.armed == [OLD]


@pytest.mark.parametrize("asked", ["asked for", "temporary", "of another name"])
def test_what_belongs_there_stays(tmp_path: Path, asked: str) -> None:
    path = {"asked for": sysctl.OWNED, "temporary": "/etc/sysctl.d/.casemate-ab12_x9z"}.get(asked, "/etc/sysctl.d/x")
    host = FakeHost(tmp_path, {**GOOD, path: GOOD[sysctl.OWNED]})
    done = engine.run({"role": CONTROLS}, host, False)
    assert finding(done, "HOST-LEFTOVERS-ABSENT")["status"] == "pass"
    assert host.text(path)


@pytest.mark.parametrize(
    "hostile", ["folder", "link", "link to ours", "pipe", "foreign", "quoted", "empty", "immutable"]
)
def test_what_is_not_ours_or_cannot_go_is_named_and_left(
    tmp_path: Path, hostile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(where: Path) -> FakeHost:
        text: Any = {"foreign": "kernel.sysrq=1\n", "quoted": "# Not # Managed by Casemate\n", "immutable": OURS}
        laid = {OLD: text.get(hostile, "")} if hostile in (*text, "empty") else {}
        host = FakeHost(where, {**GOOD, "/root/ours": OURS, **laid})
        real = Path(host.path(OLD))
        if hostile == "folder":
            (real / "within").mkdir(parents=True)
        elif hostile.startswith("link"):
            real.symlink_to(host.path("/root/ours") if hostile == "link to ours" else "/dev/null")
        elif hostile == "pipe":
            os.mkfifo(real)
        elif hostile == "immutable":
            usual = host.barred
            monkeypatch.setattr(host, "barred", lambda p, c=True: f"{p} is immutable" if p == OLD else usual(p, c))
        return host

    plan, done = settled(tmp_path, make, CONTROLS[:1])
    for outcome in (plan, done):
        assert (ids(outcome, "blocked"), OLD in reason(outcome, "HOST-LEFTOVERS-ABSENT")) == (
            {"HOST-LEFTOVERS-ABSENT"},
            True,
        )
    assert os.path.lexists(tmp_path / "apply" / OLD[1:]) and (tmp_path / "apply/root/ours").read_text() == OURS


def test_what_can_go_goes_beside_what_cannot(tmp_path: Path) -> None:
    theirs = "/etc/sysctl.d/98-casemate.conf"
    plan, done = settled(tmp_path, lambda where: FakeHost(where, {**GOOD, OLD: OURS, theirs: "x\n"}), CONTROLS[:1])
    assert plan.roles_to_apply == ["role"]
    assert [theirs in reason(done, "HOST-LEFTOVERS-ABSENT"), OLD in reason(done, "HOST-LEFTOVERS-ABSENT")] == [
        True,
        False,
    ]
    assert (os.path.exists(tmp_path / "apply" / OLD[1:]), os.path.exists(tmp_path / "apply" / theirs[1:])) == (
        False,
        True,
    )


def test_a_waiver_leaves_it_and_hides_nothing(tmp_path: Path) -> None:
    plan, _ = settled(
        tmp_path, lambda where: FakeHost(where, {**GOOD, OLD: OURS}), CONTROLS, {"HOST-LEFTOVERS-ABSENT": WAIVER_NOW}
    )
    assert finding(plan, "HOST-LEFTOVERS-ABSENT")["status"] == "waived"
    assert ids(plan, "blocked") == {"SYSCTL-PANIC-SET"}
    assert os.path.exists(tmp_path / "apply" / OLD[1:])


K3S = "/etc/rancher/k3s/config.yaml.d/casemate-k3s_control_plane.yaml"
RUNS = "ActiveState=active\nActiveEnterTimestamp=Thu 2020-01-02 00:00:00.000000 UTC\n"


def test_k3s_restarts_without_it_and_one_control_tells(tmp_path: Path) -> None:
    """A server that became an agent: its drop-in would stop the agent. It came after K3s was started, too."""
    setting: Any = {**SETTING, "paths": ["/etc/rancher/k3s/config.yaml.d/*casemate*"], "unit": "k3s-agent.service"}
    controls = [
        control("NODE-LEFTOVERS-ABSENT", setting),
        control("NODE-CONFIG-LINTED", {"kind": "k3s_config", "node": "agent", "lint": True, "enforced": False}),
        control("NODE-CONFIG-RUNNING", {"kind": "k3s_config", "current": True, "enforced": False}),
        control(
            "NODE-CONFIG-PRIVATE", {"kind": "file", "path": f"{k3s_files.FOLDER}/*", "mode": "0600", "missing": "pass"}
        ),
    ]

    def host(where: Path) -> FakeHost:
        shown = {f"systemctl show k3s-agent{end}": (0, RUNS, "") for end in ("", ".service")}
        made = FakeHost(where, {K3S: "# Managed by Casemate. x\netcd-arg: [a=b]\n"}, shown)
        made.context = {"version": "v1.36.4+k3s1"}
        return made

    plan = engine.run({"role": controls}, host(tmp_path / "check"), True)
    assert [f["control"] for f in plan.findings if f["status"] == "fail"] == ["NODE-LEFTOVERS-ABSENT"]
    assert plan.stale == ["k3s-agent.service"]
    done = engine.run({"role": controls}, host(tmp_path / "apply"), False)
    assert finding(done, "NODE-LEFTOVERS-ABSENT")["action"] == "changed"
    assert done.stale == ["k3s-agent.service"]
    alone = engine.run({"role": controls[:1]}, host(tmp_path / "alone"), False)
    assert alone.stale == ["k3s-agent.service"], "also where nothing else sees that the folder changed"


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("/etc/systemd/journald.conf.d", ["systemctl", "restart", "systemd-journald.service"]),
        ("/etc/systemd/system", ["systemctl", "daemon-reload"]),
        ("/etc/ssh/sshd_config.d", list(sshd_daemon.RELOAD)),
        ("/etc/sudoers.d", None),
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_what_reads_the_folder_reads_it_again(
    tmp_path: Path, folder: str, command: list[str] | None, fails: bool
) -> None:
    path = f"{folder}/old-casemate"
    shown = {"systemctl show ssh.service": (0, RUNS, ""), "systemctl": (int(fails), "", "refused")}
    host = FakeHost(tmp_path, {path: OURS}, shown)
    setting: Any = {**SETTING, "paths": [f"{folder}/*casemate*"]}
    engine.run({"role": [control("HOST-LEFTOVERS-ABSENT", setting)]}, host, True)
    assert [ran for ran in host.ran if ran[1] != "show"] == []
    host.gone.clear()
    if fails and command:
        with pytest.raises(EnforceError, match=f"{' '.join(command)} failed: refused"):
            leftover.enforce([setting], {0}, host)
    else:
        leftover.enforce([setting], {0}, host)
    assert [ran for ran in host.ran if ran[1] != "show"] == ([command] if command else [])
    assert not host.stat(path)


PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - k3s_controls: {explain: true, roles: [k3s_node]}
      register: shown
    - ansible.builtin.copy:
        content: "{{ shown.controls.k3s_node | selectattr('setting.kind', 'equalto', 'leftover') | list | to_json }}"
        dest: "{{ playbook_dir }}/{{ inventory_hostname }}.json"
"""


def test_what_other_roles_of_a_host_ask_for_is_not_left_over(tmp_path: Path) -> None:
    """Whichever role is applied: else applying one role would remove what another one has written."""
    local: Any = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    given: Any = {"casemate_admin_sources": ["192.0.2.0/24"], "k3s_access_allow_users": ["ops"], **local}
    hosts = {group: {"hosts": {f"{group}1": {"k3s_node_ip": "192.0.2.1"}}} for group in ("k3s_server", "k3s_agent")}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": given, "children": hosts}}))
    playbooks = tmp_path / "playbooks"
    playbooks.mkdir()
    (playbooks / "play.yml").write_text(PLAY)
    (playbooks / "group_vars").symlink_to(ROOT / "playbooks/group_vars")
    (tmp_path / "roles").symlink_to(ROOT / "roles")
    program = str(Path(sys.executable).parent / "ansible-playbook")
    done = subprocess.run(
        [program, "-i", str(tmp_path / "hosts.json"), str(playbooks / "play.yml")],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    asked = {}
    for group in hosts:
        (declared,) = json.loads((playbooks / f"{group}1.json").read_text())
        asked[group] = declared["setting"]["asked"]
    both = {sysctl.OWNED, sshd_files.OWNED, *guard.OWNED, f"{k3s_files.FOLDER}/casemate-k3s_node.yaml"}
    assert both <= set(asked["k3s_server"]) and both <= set(asked["k3s_agent"])
    assert (K3S in asked["k3s_server"], K3S in asked["k3s_agent"]) == (True, False)
    assert "/etc/systemd/system/k3s-agent.service" in asked["k3s_agent"], "paths are templated"


def every() -> list[Any]:
    return [control for controls in declarations.controls().values() for control in controls]


def test_every_file_that_we_write_into_a_shared_folder_is_looked_for_there_and_known_as_ours() -> None:
    """Of all levels and roles: so a new one is left over nowhere. Profiles of PAM are found by their own kind."""
    patterns = [p for one in every() if one["setting"]["kind"] == "leftover" for p in one["setting"]["paths"]]
    alone = [one["setting"] for one in every() if one["setting"]["kind"] != "pam_line"]
    files = {written(setting) for setting in alone} | {*guard.OWNED}
    named = {path for path in files if "casemate" in os.path.basename(path)}
    assert len(named) > 15
    assert [path for path in named if not any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)] == []
    contents = [one["setting"].get("content", "") for one in every() if written(one["setting"]) in named]
    plain = [text for text in contents if text and not text.startswith("{{")]
    assert len(plain) >= 9 and all(leftover.HEADER.match(text.encode()) for text in plain)


def test_the_guards_units_are_those_that_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup.Backup, "_run", lambda *_: None)
    one = guard.Guard(root=str(tmp_path))
    (tmp_path / guard.UNITS[1:]).mkdir(parents=True)
    monkeypatch.setattr(one, "home", str(tmp_path / "home"))
    one._install()
    assert {f"{guard.UNITS}/{name}" for name in os.listdir(tmp_path / guard.UNITS[1:])} == {*guard.OWNED}


class RealSshd(Machine):
    """sshd itself reads what is there, whatever a check foretells of it."""

    def sshd(self, argv: list[str], stdin: str | None) -> Result:
        gone, self.gone = self.gone, set()
        try:
            return super().sshd(argv, stdin)
        finally:
            self.gone = gone


@pytest.mark.parametrize("name", ["00-aaa-casemate.conf", "0-casemate.conf", "zz-casemate.conf"])
@pytest.mark.parametrize("line", ["PermitRootLogin yes", "Match User root\n PermitRootLogin yes", "NoSuchOption yes"])
def test_an_old_drop_in_of_ours_for_sshd_is_told_once_wherever_it_sorts(tmp_path: Path, name: str, line: str) -> None:
    path = f"/etc/ssh/sshd_config.d/{name}"
    left: Any = {"kind": "leftover", "paths": ["/etc/ssh/sshd_config.d/*casemate*"], "asked": [sshd_files.OWNED]}
    controls = [*SSH, control("ACCESS-LEFTOVERS-ABSENT", left)]
    old = f"# Managed by Casemate (roles/k3s_access).\n{line}\n"
    files: Any = {**SSH_FILES, **SSH_OURS, path: old}
    plan, done = settled(tmp_path, lambda where: RealSshd(where, files), controls)
    assert [f["control"] for f in plan.findings if f["status"] != "pass"] == ["ACCESS-LEFTOVERS-ABSENT"]
    assert [(f["control"], f["action"]) for f in done.findings if f["action"] != "none"] == [
        ("ACCESS-LEFTOVERS-ABSENT", "changed")
    ]
    assert all(f["status"] == "pass" for f in done.findings)


@pytest.mark.parametrize("name", ["casemate", "x-casemate", "0-casemate", "casemate.ci"])
def test_the_rule_of_the_account_that_casemate_comes_as_is_never_a_leftover(tmp_path: Path, name: str) -> None:
    """Else each apply would take sudo from it, and the guard undo the whole of it."""
    path, rule = rules_file(name), f"{MADE_BY}\n{name} ALL=(ALL:ALL) NOPASSWD: ALL\n"
    (declared,) = [
        one["setting"] for one in declarations.controls()["k3s_access"] if one["setting"]["kind"] == "leftover"
    ]
    host = FakeHost(tmp_path, {path: rule, "/etc/sudoers.d/20-casemate-old": "# Managed by Casemate\n"})
    setting: Any = {**declared, "asked": []}
    (seen,) = leftover.observe([setting], host)
    assert seen["ours"] == ["/etc/sudoers.d/20-casemate-old"]
