"""Check says exactly what apply does: the same controls would change and are changed, the same ones are blocked.

Every case is judged on one host and applied to its twin. What a file of somebody else decides is blocked in both.
"""

from __future__ import annotations

import datetime
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost
from unit.kinds.test_nft import ACCEPT, DROP, ETCD, GOOD, REST, SHUT, accept_to, listing, match
from unit.test_engine import WAIVER, control

from module_utils.casemate.engine import run as engine
from module_utils.casemate.engine.outcome import Outcome
from module_utils.casemate.formats import sshd_daemon, sshd_files
from module_utils.casemate.host import machine
from module_utils.casemate.host.files import IMMUTABLE
from module_utils.casemate.host.machine import Result
from module_utils.casemate.k3s import files as k3s_files
from module_utils.casemate.kinds import kernel_module, nft, sshd_dropin, sysctl

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owned files are root's")

Make = Callable[[Path], FakeHost]
Controls = list[dict[str, Any]]


def ids(outcome: Outcome, action: str) -> set[str]:
    return {f["control"] for f in outcome.findings if f["action"] == action}


def settled(
    tmp: Path, make: Make, controls: Controls, waivers: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Outcome, Outcome]:
    """Check one host and apply to its twin, twice; the plan and what was done agree in everything."""
    law = {"role": controls}
    plan = engine.run(law, make(tmp / "check"), True, waivers)
    host = make(tmp / "apply")
    done = engine.run(law, host, False, waivers)
    assert ids(plan, "would_change") == ids(done, "changed")
    assert ids(plan, "blocked") == ids(done, "blocked")
    assert plan.roles_to_apply == (["role"] if done.changed else [])
    host.changes.clear()
    again = engine.run(law, host, False, waivers)
    assert (again.changed, ids(again, "changed"), ids(again, "blocked")) == (False, set(), ids(plan, "blocked"))
    assert engine.run(law, host, True, waivers).roles_to_apply == []
    return plan, done


def reason(outcome: Outcome, cid: str) -> str:
    return str(next(f["reason"] for f in outcome.findings if f["control"] == cid))


PANIC, REDIRECTS = "/proc/sys/kernel/panic", "/proc/sys/net/ipv4/conf/{}/send_redirects"
LIVE = {PANIC: "10\n", REDIRECTS.format("all"): "0\n", REDIRECTS.format("eth0"): "0\n"}
KERNEL: Controls = [
    control("SYSCTL-PANIC-SET", {"kind": "sysctl", "key": "kernel.panic", "value": 10}),
    control("SYSCTL-REDIRECTS-OFF", {"kind": "sysctl", "key": "net.ipv4.conf.*.send_redirects", "value": 0}),
]
OURS = {sysctl.OWNED: sysctl.written([c["setting"] for c in KERNEL])}


@pytest.mark.parametrize(
    ("files", "changed", "blocked"),
    [
        ({}, "PR", {}),
        ({PANIC: "0\n"}, "PR", {}),
        ({"/etc/sysctl.d/10.conf": "kernel.panic=60\n"}, "PR", {}),
        (OURS, "", {}),
        ({"/etc/sysctl.d/zz.conf": "# x\nkernel.panic=60\n"}, "R", {"P": "/etc/sysctl.d/zz.conf:2"}),
        ({**OURS, "/etc/sysctl.d/zz.conf": "kernel.panic=60\n"}, "", {"P": "/etc/sysctl.d/zz.conf:1"}),
        ({**OURS, "/run/sysctl.d/zz.conf": "kernel/panic = 60\n", PANIC: "60\n"}, "", {"P": "/run/sysctl.d/zz.conf:1"}),
        ({**OURS, "/etc/sysctl.d/zz.conf": "-kernel.panic\n"}, "", {"P": "zz.conf:1"}),
        ({**OURS, "/etc/sysctl.d/zz.conf": "kernel.panic=10\n"}, "", {}),
        ({**OURS, "/etc/sysctl.d/10.conf": "net.ipv4.conf.eth0.send_redirects=1\n"}, "", {"R": "10.conf:1"}),
        ({"/etc/sysctl.d/10.conf": "net.ipv4.conf.eth0.send_redirects=1\n"}, "P", {"R": "10.conf:1"}),
        (
            {**OURS, PANIC: "0\n", "/etc/sysctl.d/10.conf": "net.ipv4.conf.all.send_redirects=1\n"},
            "P",
            {"R": "10.conf"},
        ),
    ],
)
def test_kernel_parameters(tmp_path: Path, files: dict[str, str], changed: str, blocked: dict[str, str]) -> None:
    names = {"P": "SYSCTL-PANIC-SET", "R": "SYSCTL-REDIRECTS-OFF"}
    plan, done = settled(tmp_path, lambda where: FakeHost(where, {**LIVE, **files}), KERNEL)
    assert ids(plan, "would_change") == {names[one] for one in changed}
    assert ids(plan, "blocked") == {names[one] for one in blocked}
    for one, where in blocked.items():
        for outcome in (plan, done):
            assert where in reason(outcome, names[one]) and "remove the line there" in reason(outcome, names[one])
    assert FakeHost(tmp_path / "apply").text(PANIC) in ("10\n", "10")


def test_the_live_value_is_set_although_the_next_boot_is_somebody_elses(tmp_path: Path) -> None:
    """The role has to be applied, once; afterwards it is blocked and no role has to."""
    files = {**LIVE, **OURS, PANIC: "0\n", "/etc/sysctl.d/zz.conf": "kernel.panic=60\n"}
    plan, _ = settled(tmp_path, lambda where: FakeHost(where, files), KERNEL)
    assert (plan.roles_to_apply, ids(plan, "blocked")) == (["role"], {"SYSCTL-PANIC-SET"})
    assert FakeHost(tmp_path / "apply").text(PANIC) == "10"


def test_a_waived_parameter_is_not_foretold_as_if_it_were_written(tmp_path: Path) -> None:
    """Its explicit line would beat the foreign glob; without it the glob decides."""
    glob = control("SYSCTL-GLOB-SET", {"kind": "sysctl", "key": "net.ipv4.conf.a*.send_redirects", "value": 0})
    line = control("SYSCTL-ALL-SET", {"kind": "sysctl", "key": "net.ipv4.conf.all.send_redirects", "value": 0})
    files = {**LIVE, "/etc/sysctl.d/zz.conf": "net.ipv4.conf.*.send_redirects = 1\n"}
    for waivers, blocked in ((None, set()), ({"SYSCTL-ALL-SET": WAIVER_NOW}, {"SYSCTL-GLOB-SET"})):
        where = tmp_path / str(len(blocked))
        plan, _ = settled(where, lambda path: FakeHost(path, files), [glob, line], waivers)
        assert ids(plan, "blocked") == blocked


WAIVER_NOW = {**WAIVER, "expires": (datetime.date.today() + datetime.timedelta(days=9)).isoformat()}  # noqa: DTZ011
D, MAIN = "/etc/rancher/k3s/config.yaml.d/", "/etc/rancher/k3s/config.yaml"
K3S = {"kind": "k3s_config", "file": "casemate-k3s_node.yaml"}
CONFIG: Controls = [
    control("NODE-KERNEL-SET", {**K3S, "key": "protect-kernel-defaults", "value": True}),
    control("NODE-PIDS-SET", {**K3S, "key": "kubelet-arg", "value": "pod-max-pids=4096"}),
    control("NODE-SECCOMP-SET", {**K3S, "key": "kubelet-arg", "value": "seccomp-default=true"}),
    control("NODE-CONFIG-LINTED", {"kind": "k3s_config", "lint": True, "enforced": False}),
]
OWN, Y, Z = D + "casemate-k3s_node.yaml", D + "yy.yaml", D + "zz.yaml"
GOOD_CONFIG = "protect-kernel-defaults: true\nkubelet-arg: [pod-max-pids=4096, seccomp-default=true]\n"
WRITTEN = {OWN: GOOD_CONFIG}
BROKEN = "debug: {a: b}\n"


@pytest.mark.parametrize(
    ("files", "changed", "blocked", "lint"),
    [
        ({}, "KPS", {}, ""),
        (WRITTEN, "", {}, ""),
        ({MAIN: "protect-kernel-defaults: false\n"}, "KPS", {}, ""),
        ({Z: "protect-kernel-defaults: false\n"}, "PS", {"K": Z}, ""),
        ({**WRITTEN, Z: "protect-kernel-defaults: false\n"}, "", {"K": Z}, ""),
        ({**WRITTEN, Z: "kubelet-arg: [v=2]\n"}, "", {"P": Z, "S": Z}, ""),
        ({Y: "kubelet-arg+: [pod-max-pids=9]\n", Z: "kubelet-arg+: [v=2]\n"}, "KS", {"P": Y}, ""),
        ({**WRITTEN, Z: "kubelet-arg+: [pod-max-pids=4096]\n"}, "", {}, ""),
        ({Z: "kubelet-arg+: [pod-max-pids=4096]\n"}, "KS", {}, ""),
        ({**WRITTEN, Z: "protect-kernel-default: false\n"}, "", {}, "protect-kernel-default is no key"),
        ({**WRITTEN, Z: BROKEN}, "", {}, "zz.yaml: line 1"),
        ({Z: BROKEN}, "KPS", {}, "zz.yaml: line 1"),
        ({**WRITTEN, Z: BROKEN + "kubelet-arg: []"}, "", {"P": Z, "S": Z}, "zz.yaml: line 1"),
        ({**WRITTEN, Z: BROKEN + "kubelet-arguments: []"}, "", {}, "zz.yaml: line 1"),
        ({**WRITTEN, Z: '"protect\\u002dx": {}'}, "", {"K": Z, "P": Z, "S": Z}, "zz.yaml"),
        ({**WRITTEN, MAIN: BROKEN + "kubelet-arg: []"}, "", {}, "config.yaml: line 1"),
        ({OWN: "protect-kernel-defaults: {}"}, "KPS", {}, "casemate-k3s_node.yaml: line 1"),
        ({OWN: BROKEN, MAIN: GOOD_CONFIG}, "K", {}, "casemate-k3s_node.yaml"),
        ({OWN: GOOD_CONFIG + "debug: true\n"}, "K", {}, ""),
    ],
)  # fmt: skip
def test_k3s_configuration(
    tmp_path: Path, files: dict[str, str], changed: str, blocked: dict[str, str], lint: str
) -> None:
    names = {"K": "NODE-KERNEL-SET", "P": "NODE-PIDS-SET", "S": "NODE-SECCOMP-SET"}
    plan, done = settled(tmp_path, lambda where: FakeHost(where, files, context={"version": "v1.36.4+k3s1"}), CONFIG)
    assert ids(plan, "would_change") == {names[one] for one in changed}
    assert ids(plan, "blocked") == {names[one] for one in blocked}
    assert all(f["status"] != "error" for f in plan.findings)
    for one, where in blocked.items():
        for outcome in (plan, done):
            assert reason(outcome, names[one]).endswith(f"; remove it from {where}")
    linted = plan.findings[-1]
    assert (linted["status"], linted["action"]) == ("fail" if lint else "pass", "none")
    assert lint in linted["reason"]


def test_a_drop_in_is_written_although_another_file_decides_one_of_its_keys(tmp_path: Path) -> None:
    both = control("NODE-BOTH-SET", {**K3S, "options": {"debug": False, "protect-kernel-defaults": True}})
    plan, _ = settled(tmp_path, lambda where: FakeHost(where, {Z: "debug: true\n"}), [both])
    assert (plan.roles_to_apply, ids(plan, "blocked")) == (["role"], {"NODE-BOTH-SET"})
    assert "protect-kernel-defaults: true" in (FakeHost(tmp_path / "apply").text(OWN) or "")


def test_with_a_broken_file_k3s_is_not_restarted(tmp_path: Path) -> None:
    shown = "ActiveState=active\nExecMainStartTimestamp=Mon 2016-11-21 20:00:00.000000 UTC\nInvocationID=a\n"
    for broken, stale in (({}, ["k3s.service"]), ({Z: BROKEN}, [])):
        host = FakeHost(
            tmp_path / str(len(broken)), {**WRITTEN, **broken}, {"systemctl show k3s.service": (0, shown, "")}
        )
        current = control("NODE-CONFIG-RUNNING", {"kind": "k3s_config", "current": True})
        plan = engine.run({"role": [*CONFIG, current]}, host, True)
        assert plan.stale == stale
        assert ids(plan, "blocked") == (set() if stale else {"NODE-CONFIG-RUNNING"})


DEFAULTS = {"permitrootlogin": "without-password", "maxauthtries": "6", "x11forwarding": "no", "allowusers": ""}
INCLUDE = "Include /etc/ssh/sshd_config.d/*.conf\n"
SSH_FILES = {"/etc/ssh/sshd_config": INCLUDE + "X11Forwarding yes\n", "/etc/ssh/sshd_config.d/.keep": ""}


class Machine(FakeHost):
    """A host whose sshd reads its files as sshd_config(5) says, whose units reload, and whose nft lists a table."""

    def __init__(self, *args: Any, options: str = "", live: str = "", declared: str = "", **more: Any) -> None:
        super().__init__(*args, **more)
        self.options, self.live, self.declared = options, live, declared
        self.loaded = time.time() + 0.01

    def run(self, argv: Sequence[str], stdin: str | None = None, timeout: float = 30) -> Result:
        argv = list(argv)
        if argv[0] == sshd_files.SSHD:
            self.ran.append(argv)
            return self.sshd(argv[1:], stdin)
        if tuple(argv) == sshd_daemon.RELOAD:
            time.sleep(0.02)
            self.loaded = time.time()
            return Result(0, "", "")
        if tuple(argv) == nft.RELOAD:
            self.live = self.declared
        if argv[:2] == ["nft", "delete"]:
            self.live = ""
        return super().run(argv, stdin, timeout)

    def _answer(self, line: str) -> Result:
        if line == "systemctl show ssh.service":
            when = datetime.datetime.fromtimestamp(self.loaded, datetime.UTC).strftime("%a %Y-%m-%d %H:%M:%S.%f UTC")
            start = f"{{ path=/usr/sbin/sshd ; argv[]=/usr/sbin/sshd -D {self.options} ; ignore_errors=no }}"
            return Result(
                0,
                f"ActiveState=active\nActiveEnterTimestamp={when}\nStateChangeTimestamp={when}\nMainPID=77\nExecStart={start}\n",
                "",
            )
        answers = {
            "nft -j list": self.live, "nft list": "table inet casemate {\n}\n" if self.live else "",
            "nft delete": "", "unshare --net": self.declared,
            "nft -c": "", " ".join(nft.RELOAD): "",
        }  # fmt: skip
        for start, out in answers.items():
            if line.startswith(start):
                return (
                    Result(0, out, "")
                    if out or start not in ("nft -j list", "nft list")
                    else Result(1, "", "no such table")
                )
        return super()._answer(line)

    def sshd(self, argv: list[str], stdin: str | None) -> Result:
        text = stdin if "/dev/stdin" in argv else self.text("/etc/ssh/sshd_config") or ""
        spec = dict(pair.split("=") for pair in argv[argv.index("-C") + 1].split(",")) if "-C" in argv else {}
        plain = {k.lower(): v for k, v in (argv[i + 1].split("=") for i, a in enumerate(argv) if a == "-o")}
        inside: dict[str, str] = {}
        try:
            self.read_config(text or "", True, spec, plain, inside)
        except ValueError as bad:
            return Result(255, "", f"Bad configuration option: {bad}")
        return Result(0, "".join(f"{k} {v}\n" for k, v in {**DEFAULTS, **plain, **inside}.items()), "")

    def read_config(
        self, text: str, on: bool, spec: dict[str, str], plain: dict[str, str], inside: dict[str, str]
    ) -> None:
        into = plain
        for line in text.splitlines():
            key, _, value = line.strip().partition(" ")
            key = key.lower()
            if not key or key.startswith("#"):
                continue
            if key == "include":
                for path in self.glob(value.strip('"')):
                    self.read_config(self.text(path) or "", on, spec, plain, inside)
            elif key == "match":
                into, on = inside, value == f"User {spec.get('user')}"
            elif key not in DEFAULTS:
                raise ValueError(key)
            elif on and key == "allowusers":
                into[key] = f"{into.get(key, '')} {value}".strip()
            elif on:
                into.setdefault(key, value)


SSH: Controls = [
    control("SSH-ROOT-REFUSED", {"kind": "sshd", "key": "permitrootlogin", "value": "no"}),
    control("SSH-TRIES-FEW", {"kind": "sshd", "key": "maxauthtries", "value": 4}),
    control("SSH-DAEMON-CURRENT", {"kind": "sshd", "key": "daemon", "value": "current"}),
    control("SSH-LISTENER-PLAIN", {"kind": "sshd", "key": "listener", "value": "plain"}),
]
SSHD_D = "/etc/ssh/sshd_config.d/"
SSH_OURS = {sshd_files.OWNED: sshd_dropin.written([c["setting"] for c in SSH])}
MATCH = "Match User root\n PermitRootLogin yes\n"
SSH_NAMES = {"R": "SSH-ROOT-REFUSED", "T": "SSH-TRIES-FEW", "D": "SSH-DAEMON-CURRENT", "L": "SSH-LISTENER-PLAIN"}


@pytest.mark.parametrize(
    ("files", "options", "changed", "blocked"),
    [
        ({}, "", "RT", {}),
        (SSH_OURS, "", "", {}),
        ({"/etc/ssh/sshd_config": "PermitRootLogin yes\n"}, "", "RT", {}),
        ({"/etc/ssh/sshd_config": f"PermitRootLogin yes\n{INCLUDE}", **SSH_OURS}, "", "R", {}),
        ({SSHD_D + "50-x.conf": "PermitRootLogin yes\n"}, "", "RT", {}),
        ({SSHD_D + "00-aaa.conf": "# x\nPermitRootLogin yes\n"}, "", "T", {"R": "00-aaa.conf:2"}),
        ({**SSH_OURS, SSHD_D + "00-aaa.conf": "PermitRootLogin yes\n"}, "", "", {"R": "00-aaa.conf:1"}),
        ({**SSH_OURS, SSHD_D + "00-aaa.conf": "PermitRootLogin no\n"}, "", "", {}),
        ({**SSH_OURS, "/etc/ssh/sshd_config": INCLUDE + MATCH}, "", "", {"R": "sshd_config:3"}),
        ({"/etc/ssh/sshd_config": MATCH}, "", "T", {"R": "/etc/ssh/sshd_config:"}),
        ({SSHD_D + "50-x.conf": "Match User bob\nMaxAuthTries 9\n"}, "", "R", {"T": "50-x.conf:2"}),
        (SSH_OURS, "-o PermitRootLogin=yes", "", {"R": "command line of the next start (-o PermitRootLogin=yes)"}),
        ({}, "-o PermitRootLogin=yes", "T", {"R": "command line"}),
        (SSH_OURS, "-o PermitRootLogin=no", "", {"L": "-o PermitRootLogin=no on the command line of the next start"}),
        (SSH_OURS, "-f /x -o Port=1", "", {"L": "-f /x on the command line of the next start; -o Port=1 on the"}),
        ({}, "-f /x", "RT", {"L": "-f /x"}),
        ({sshd_files.OWNED: "permitrootlogin yes\nmaxauthtries 4\n"}, "", "R", {}),
    ],
)  # fmt: skip
def test_ssh(tmp_path: Path, files: dict[str, str], options: str, changed: str, blocked: dict[str, str]) -> None:
    plan, done = settled(tmp_path, lambda where: Machine(where, {**SSH_FILES, **files}, options=options), SSH)
    assert ids(plan, "would_change") == {SSH_NAMES[one] for one in changed}
    assert ids(plan, "blocked") == {SSH_NAMES[one] for one in blocked}
    for one, where in blocked.items():
        for outcome in (plan, done):
            assert where in reason(outcome, SSH_NAMES[one])
            assert "remove it there" in reason(outcome, SSH_NAMES[one])


@pytest.mark.parametrize(
    ("files", "action"),
    [
        ({SSHD_D + "50-x.conf": "Bogus yes\n"}, "blocked"),
        ({**SSH_OURS, SSHD_D + "50-x.conf": "Bogus yes\n"}, "blocked"),
        ({sshd_files.OWNED: "Bogus yes\n"}, "would_change"),
    ],
)
def test_what_sshd_cannot_read_is_told_once(tmp_path: Path, files: dict[str, str], action: str) -> None:
    plan, done = settled(tmp_path, lambda where: Machine(where, {**SSH_FILES, **files}), SSH)
    reported = {f["control"]: (f["status"], f["action"]) for f in plan.findings}
    assert reported == {
        "SSH-ROOT-REFUSED": ("not_evaluated", "none"), "SSH-TRIES-FEW": ("not_evaluated", "none"),
        "SSH-DAEMON-CURRENT": ("fail", action), "SSH-LISTENER-PLAIN": ("pass", "none"),
    }  # fmt: skip
    assert "Bad configuration option: bogus" in reason(plan, "SSH-DAEMON-CURRENT")
    assert {f["status"] for f in done.findings} == (
        {"pass"} if action == "would_change" else {"not_evaluated", "fail", "pass"}
    )


def test_where_nothing_tells_it_what_sshd_cannot_read_is_an_error_of_all(tmp_path: Path) -> None:
    waiver = {"SSH-DAEMON-CURRENT": {"reason": "r", "owner": "o", "expires": "2099-01-01"}}
    host = Machine(tmp_path, {**SSH_FILES, SSHD_D + "50-x.conf": "Bogus yes\n"})
    assert {f["status"] for f in engine.run({"role": SSH}, host, True, waiver).findings} == {"error"}


def test_lists_of_ssh_add_up_wherever_they_stand(tmp_path: Path) -> None:
    allowed = control("SSH-USERS-LISTED", {"kind": "sshd", "key": "allowusers", "value": "ops"})
    files = {**SSH_FILES, SSHD_D + "00-aaa.conf": "AllowUsers eve\n", SSHD_D + "50-x.conf": "AllowUsers mallory\n"}
    plan, _ = settled(tmp_path, lambda where: Machine(where, files), [*SSH, allowed])
    assert ids(plan, "blocked") == {"SSH-USERS-LISTED"}
    assert "00-aaa.conf:1" in reason(plan, "SSH-USERS-LISTED") and "50-x.conf:1" in reason(plan, "SSH-USERS-LISTED")


@pytest.mark.parametrize(
    ("planted", "guilty"),
    [
        ({SSHD_D + "00-aaa.conf": "PermitRootLogin yes\n"}, SSHD_D + "00-aaa.conf:1"),
        ({SSHD_D + "50-y.conf": MATCH}, SSHD_D + "50-y.conf:2"),
    ],
)
def test_only_the_line_that_decides_is_named(tmp_path: Path, planted: dict[str, str], guilty: str) -> None:
    innocent = {SSHD_D + "50-x.conf": "PermitRootLogin yes\n"}
    host = Machine(tmp_path, {**SSH_FILES, **SSH_OURS, **innocent, **planted})
    assert f"decided by {guilty}: remove" in reason(engine.run({"role": SSH}, host, True), "SSH-ROOT-REFUSED")


def test_the_others_are_refused_although_a_match_block_admits_one(tmp_path: Path) -> None:
    files = {**SSH_FILES, SSHD_D + "50-x.conf": MATCH}
    plan, _ = settled(tmp_path, lambda where: Machine(where, files), SSH[:1])
    assert (plan.roles_to_apply, ids(plan, "blocked")) == (["role"], {"SSH-ROOT-REFUSED"})
    assert FakeHost(tmp_path / "apply").text(sshd_files.OWNED)


def test_what_sshd_would_refuse_is_blocked_before_it_is_tried(tmp_path: Path) -> None:
    """A stale daemon too: nothing is reloaded with a configuration that is refused."""
    bad = control("SSH-NONSENSE-SET", {"kind": "sshd", "key": "nonsense", "value": "no"})

    def make(where: Path) -> Machine:
        host = Machine(where, SSH_FILES)
        host.loaded -= 100
        return host

    plan, done = settled(tmp_path, make, [*SSH, bad])
    assert ids(plan, "blocked") == {c["id"] for c in [*SSH, bad]} - {"SSH-LISTENER-PLAIN"}
    assert "nonsense" in reason(plan, "SSH-ROOT-REFUSED") and "nonsense" in reason(done, "SSH-ROOT-REFUSED")


def test_nothing_more_is_asked_while_everything_is_right(tmp_path: Path) -> None:
    host = Machine(tmp_path, {**SSH_FILES, **SSH_OURS})
    engine.run({"role": SSH}, host, True)
    assert [argv for argv in host.ran if argv[0] == sshd_files.SSHD] == [[sshd_files.SSHD, "-T"]]


@pytest.mark.parametrize(
    ("late", "failing"),
    [
        ({sshd_files.OWNED: "permitrootlogin yes\nmaxauthtries 4\n"}, "R"),
        ({sshd_files.OWNED: "maxauthtries 4\n"}, "R"),
        ({sshd_files.OWNED: None}, "RT"),
        ({SSHD_D + "00-aaa.conf": "PermitRootLogin yes\n"}, "R"),
        ({SSHD_D + "00-aaa.conf": "Match User root\nPermitRootLogin yes\n"}, "R"),
        ({SSHD_D + "00-aaa.conf": "X11Forwarding yes\n"}, "D"),
        ({sshd_files.OWNED: SSH_OURS[sshd_files.OWNED]}, "D"),  # changed and changed back
        ({sshd_files.OWNED: SSH_OURS[sshd_files.OWNED], SSHD_D + "00-aaa.conf": "PermitRootLogin yes\n"}, "RD"),
        ({SSHD_D + "00-aaa.conf": "PermitRootLogin yes\n", SSHD_D + "50-x.conf": "X11Forwarding yes\n"}, "RD"),
    ],
)
def test_a_flip_without_a_reload_names_exactly_its_keyword(
    tmp_path: Path, late: dict[str, str | None], failing: str
) -> None:
    def make(where: Path) -> Machine:
        host = Machine(where, {**SSH_FILES, **SSH_OURS})
        time.sleep(0.02)
        host.loaded = time.time()
        time.sleep(0.02)
        for path, text in late.items():
            if text is None:
                Path(host.path(path)).unlink()
            else:
                Path(host.path(path)).write_text(text)
        return host

    plan, _ = settled(tmp_path, make, SSH)
    assert {f["control"] for f in plan.findings if f["status"] == "fail"} == {SSH_NAMES[one] for one in failing}


def test_a_waived_keyword_does_not_hide_a_lost_reload(tmp_path: Path) -> None:
    host = Machine(tmp_path, {**SSH_FILES, **SSH_OURS})
    time.sleep(0.02)
    host.loaded = time.time()
    time.sleep(0.02)
    Path(host.path(SSHD_D + "00-aaa.conf")).write_text("PermitRootLogin yes\n")
    for waivers, failing in ((None, {"SSH-ROOT-REFUSED"}), ({"SSH-ROOT-REFUSED": WAIVER_NOW}, {"SSH-DAEMON-CURRENT"})):
        plan = engine.run({"role": SSH}, host, True, waivers)
        assert {f["control"] for f in plan.findings if f["status"] == "fail"} == failing


FIREWALL: Controls = [
    control("FW-RULES-LOADED", {"kind": "nft", "ruleset": "rules\n"}),
    control("FW-INPUT-CLOSED", {"kind": "nft", "chain": "input", "policy": "drop"}),
    control("FW-ETCD-SERVERS", {"kind": "nft", **ETCD}),
    control("FW-SSH-SHUT", {"kind": "nft", "chain": "input", "proto": "tcp", "ports": [22], "sources": []}),
    control("FW-REST-CLOSED", {"kind": "nft", **REST}),
    control("FW-RESTUDP-CLOSED", {"kind": "nft", **REST, "proto": "udp"}),
]
REST_IDS = ["FW-REST-CLOSED", "FW-RESTUDP-CLOSED"]


@pytest.mark.parametrize(
    ("live", "declared", "waived", "changed", "blocked"),
    [
        (GOOD, GOOD, "", [], []),
        ([accept_to(2379), *GOOD], GOOD, "", ["FW-ETCD-SERVERS"], []),
        ([r for r in GOOD if r is not SHUT], GOOD, "", ["FW-ETCD-SERVERS", "FW-SSH-SHUT"], []),
        ([accept_to(2379), *GOOD], GOOD, "FW-RULES-LOADED", ["FW-RULES-LOADED"], [c["id"] for c in FIREWALL[1:]]),
        ([accept_to(22), *GOOD], [accept_to(22), *GOOD], "", [], ["FW-SSH-SHUT"]),
        (GOOD, [accept_to(22), *GOOD], "", ["FW-RULES-LOADED"], ["FW-SSH-SHUT"]),
        ([accept_to(22), [DROP], *GOOD], [accept_to(22), *GOOD], "", ["FW-ETCD-SERVERS", *REST_IDS], ["FW-SSH-SHUT"]),
    ],
)  # fmt: skip
def test_firewall(
    tmp_path: Path, live: Any, declared: Any, waived: str, changed: list[str], blocked: list[str]
) -> None:
    def make(where: Path) -> Machine:
        return Machine(where, {nft.FILE: "rules\n"}, live=listing(live), declared=listing(declared))

    plan, _ = settled(tmp_path, make, FIREWALL, {waived: WAIVER_NOW} if waived else None)
    assert ids(plan, "would_change") == set(changed)
    assert ids(plan, "blocked") == set(blocked)


def test_a_rule_that_only_a_blocked_control_tells_is_removed_all_the_same(tmp_path: Path) -> None:
    declared, added = [accept_to(22), *GOOD], [accept_to(22)[0], match({"meta": {"key": "mark"}}, 7), ACCEPT]
    made: list[Machine] = []

    def make(where: Path) -> Machine:
        made.append(Machine(where, {nft.FILE: "rules\n"}, live=listing([added, *declared]), declared=listing(declared)))
        return made[-1]

    plan, _ = settled(tmp_path, make, FIREWALL)
    assert (plan.roles_to_apply, ids(plan, "would_change"), ids(plan, "blocked")) == (["role"], set(), {"FW-SSH-SHUT"})
    assert made[-1].live == listing(declared)


def test_the_reason_of_a_block_says_what_to_do(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {**LIVE, **OURS, "/etc/sysctl.d/zz.conf": "kernel.panic=60\n"})
    said = reason(engine.run({"role": KERNEL}, host, True), "SYSCTL-PANIC-SET")
    assert re.search(r"zz\.conf:1 decides at the next boot: remove the line there", said)


BARRED: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "sysctl": (
        {"kind": "sysctl", "key": "net.a", "value": 1},
        {"/proc/sys/net/a": "1", sysctl.OWNED: "net.a = 0\n"},
        sysctl.OWNED,
    ),
    "kernel_module": (
        {"kind": "kernel_module", "name": "cramfs", "state": "blocked"},
        {"/proc/modules": "", kernel_module.BLOCKED: "# older\n", f"/lib/modules/{os.uname().release}/x": ""},
        kernel_module.BLOCKED,
    ),
    "file": ({"kind": "file", "path": "/etc/a", "content": "new", "mode": "0600"}, {"/etc/a": "old"}, "/etc/a"),
    "k3s_config": (
        {"kind": "k3s_config", "file": "casemate-a.yaml", "key": "protect-kernel-defaults", "value": True},
        {f"{k3s_files.FOLDER}/casemate-a.yaml": "protect-kernel-defaults: false\n"},
        f"{k3s_files.FOLDER}/casemate-a.yaml",
    ),
    "sshd": (SSH[0]["setting"], {sshd_files.MAIN: sshd_files.INCLUDE, sshd_files.OWNED: ""}, sshd_files.OWNED),
    "nft": (
        {"kind": "nft", "ruleset": "table inet casemate {}\n"},
        {nft.FILE: "# older\n"},
        nft.FILE,
    ),
}


@pytest.mark.parametrize("bar", ["file", "folder"])
@pytest.mark.parametrize("kind", BARRED)
def test_what_a_flag_bars_is_said_by_check_and_tried_by_no_apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, bar: str
) -> None:
    setting, files, owned = BARRED[kind]
    place = owned if bar == "file" else owned.rpartition("/")[0]

    def make(root: Path) -> FakeHost:
        host = Machine(root, files, live=listing([]), declared=listing([]), context={"version": "v1.36.4+k3s1"})
        host.commands["modprobe --show-depends"] = 0, "insmod /lib/modules/x/cramfs.ko\n", ""
        return host

    monkeypatch.setattr(machine, "flags_of", lambda real: IMMUTABLE if real.endswith(place) else 0)
    controls = [control("THE-ONE", setting)]
    for root, check in ((tmp_path / "check", True), (tmp_path / "apply", False)):
        host = make(root)
        outcome = engine.run({"role": controls}, host, check)
        (found,) = outcome.findings
        assert (found["status"], found["action"]) == ("fail", "blocked")
        assert f"{place} is immutable: chattr -i {place}" in found["reason"]
        assert (outcome.roles_to_apply, host.changes) == ([], [])
        needed = kind in ("file", "k3s_config")  # by what would be started with it
        assert outcome.unsettled == ([f"{place} is immutable: chattr -i {place}"] if needed and not check else [])


@pytest.mark.parametrize("kind", BARRED)
def test_what_is_right_and_can_be_changed_by_nobody_any_more_fails_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    setting, files, owned = BARRED[kind]
    files = {**files, "/proc/sys/net/b": "1"}
    host = Machine(tmp_path, files, live=listing([]), declared=listing([]), context={"version": "v1.36.4+k3s1"})
    host.commands["modprobe --show-depends"] = 0, "insmod /lib/modules/x/cramfs.ko\n", ""
    other = [control("THE-OTHER", {**setting, "key": "net.b"})] if kind == "sysctl" else []  # a line of the same file
    controls = [control("THE-ONE", setting), *other]
    engine.run({"role": controls}, host, check=False)
    host.commands["modprobe --show-depends"] = 0, "install /bin/false\n", ""
    again = engine.run({"role": controls}, host, check=True)
    assert {one["status"] for one in again.findings} == {"pass"}, again.findings
    monkeypatch.setattr(machine, "flags_of", lambda real: IMMUTABLE if real.endswith(owned) else 0)
    for check in (True, False):
        found = engine.run({"role": controls}, host, check)
        (told,) = [one for one in found.findings if one["status"] != "pass"]
        assert (told["status"], told["action"], told["where"]) == ("fail", "blocked", [owned])
        assert f"chattr -i {owned}" in told["reason"]
        assert found.roles_to_apply == []
