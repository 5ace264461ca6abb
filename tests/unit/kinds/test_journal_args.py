"""Arguments of K3s' components: taken from the running invocation's journal lines, and from nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.kinds import journal_args

CALL = "0123456789abcdef0123456789abcdef"
UP = f"ActiveState=active\nExecMainStartTimestamp=Thu 2026-01-01 00:00:00.000000 UTC\nInvocationID={CALL}\n"
JOURNAL = f"journalctl --no-pager --quiet --output=cat --grep=Running kube _SYSTEMD_INVOCATION_ID={CALL}"
LINE = (
    'time="2026-01-01T00:00:00Z" level=info msg="Running kube-apiserver --anonymous-auth=false '
    "--authorization-mode=Node,RBAC --etcd-cafile=/var/lib/rancher/k3s/server/tls/etcd/server-ca.crt "
    '--feature-gates=A=true --feature-gates=B=true --note=\\"two words\\" --profiling=false"\n'
)


def host(folder: Path, journal: str = LINE, unit: str = "k3s") -> FakeHost:
    shown = {f"systemctl show {unit}.service": (0, UP, "")}
    return FakeHost(folder, commands={**shown, JOURNAL: (0, journal, "")})


def judge(given: Any, machine: FakeHost) -> Any:
    setting: Any = {"component": "kube-apiserver", **given}
    return journal_args.assess(setting, journal_args.observe([setting], machine)[0])


@pytest.mark.parametrize(
    ("setting", "ok"),
    [
        ({"flag": "anonymous-auth", "value": "false"}, True),
        ({"flag": "anonymous-auth", "value": "true"}, False),
        ({"flag": "authorization-mode", "value": "Node,RBAC"}, True),
        ({"flag": "etcd-cafile", "contains": "/etcd/server-ca.crt"}, True),
        ({"flag": "etcd-cafile", "contains": "/etcd/other.crt"}, False),
        ({"flag": "profiling", "value": "false"}, True),  # the last flag, before the closing quote
        ({"flag": "note", "value": '"two words"'}, True),
        ({"flag": "token-auth-file", "absent": True}, True),
        ({"flag": "anonymous-auth", "absent": True}, False),
        ({"flag": "audit-log-path", "value": "/var/log/k3s/audit.log"}, False),
        ({"flag": "feature-gates", "value": "B=true"}, False),  # given twice: whether both count depends on the flag
    ],
)
def test_flags_are_judged_as_they_run(tmp_path: Path, setting: Any, ok: bool) -> None:
    verdict = judge(setting, host(tmp_path))
    assert verdict.ok is ok
    assert bool(verdict.reason) is not ok


def test_the_last_line_counts(tmp_path: Path) -> None:
    again = LINE + LINE.replace("anonymous-auth=false", "anonymous-auth=true")
    assert not judge({"flag": "anonymous-auth", "value": "false"}, host(tmp_path, again)).ok


def test_agents_have_a_unit_of_their_own(tmp_path: Path) -> None:
    line = 'level=info msg="Running kubelet --read-only-port=0"\n'
    setting: Any = {"component": "kubelet", "flag": "read-only-port", "value": "0"}
    assert judge(setting, host(tmp_path, line, "k3s-agent")).ok


def test_one_journal_call_serves_all_settings(tmp_path: Path) -> None:
    machine = host(tmp_path)
    settings: Any = [{"component": "kube-apiserver", "flag": f} for f in ("profiling", "anonymous-auth", "note")]
    journal_args.observe(settings, machine)
    assert [argv[0] for argv in machine.ran].count("journalctl") == 1


@pytest.mark.parametrize(
    "journal",
    [
        "",
        "-- No entries --\n",
        "Running kube-apiserver\n",
        'msg="said: Running kube-apiserver --anonymous-auth=false"\n',
    ],
    ids=["vacuumed", "empty", "without flags", "quoted by somebody else"],
)
def test_without_the_line_nothing_passes(tmp_path: Path, journal: str) -> None:
    with pytest.raises(Unavailable, match="no line about kube-apiserver"):
        judge({"flag": "anonymous-auth", "value": "false"}, host(tmp_path, journal))


def test_without_k3s_nothing_passes(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="K3s does not run here"):
        judge({"flag": "anonymous-auth", "absent": True}, FakeHost(tmp_path))
