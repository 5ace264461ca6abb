"""K3s' configuration: merged as K3s merges it, compared with what runs, written only when K3s knows every key."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.formats.yaml_subset import YamlError, parse, render
from module_utils.casemate.host import machine
from module_utils.casemate.host.files import IMMUTABLE
from module_utils.casemate.k3s import files as k3s_files
from module_utils.casemate.k3s.files import lint
from module_utils.casemate.kinds import k3s_config

CANARY = "K10canary::server:canary"
MAIN = "/etc/rancher/k3s/config.yaml"
OURS = "/etc/rancher/k3s/config.yaml.d/casemate-k3s_node.yaml"
THEIRS = "/etc/rancher/k3s/config.yaml.d/zz-theirs.yaml"
PROTECT: Any = {"file": "casemate-k3s_node.yaml", "key": "protect-kernel-defaults", "value": True}
PIDS: Any = {"file": "casemate-k3s_node.yaml", "key": "kubelet-arg", "value": "pod-max-pids=4096"}
SECCOMP: Any = {"file": "casemate-k3s_node.yaml", "key": "kubelet-arg", "value": "seccomp-default=true"}


def running(started_ago: float, flags: str = "") -> dict[str, tuple[int, str, str]]:
    """Commands of a K3s that was started so many seconds ago, with these flags of the kubelet in its journal."""
    began = datetime.fromtimestamp(time.time() - started_ago, UTC)
    shown = f"ActiveState=active\nExecMainStartTimestamp={began:%a %Y-%m-%d %H:%M:%S.%f UTC}\nInvocationID=abc\n"
    line = f'msg="Running kubelet {flags}"\n' if flags else ""
    return {"systemctl show k3s.service": (0, shown, ""), "journalctl": (0, line, "")}


def judge(host: FakeHost, *settings: Any, waived: Collection[int] = ()) -> list[Any]:
    seen = k3s_config.observe(list(settings), host, waived)
    return [k3s_config.assess(setting, one) for setting, one in zip(settings, seen, strict=True)]


@pytest.mark.parametrize(
    ("files", "ok"),
    [
        ({MAIN: "protect-kernel-defaults: true\n"}, True),
        ({OURS: "protect-kernel-defaults: true\n"}, True),
        ({MAIN: "protect-kernel-defaults: false\n", OURS: "protect-kernel-defaults: true\n"}, True),
        ({OURS: "protect-kernel-defaults: true\n", THEIRS: "protect-kernel-defaults: false\n"}, False),
        ({OURS: "protect-kernel-defaults: true\n", THEIRS: "protect-kernel-default: false\n"}, True),
        ({OURS: "protect-kernel-defaults: 'yes'\n"}, False),
        ({OURS: "protect-kernel-defaults: yes\n"}, True),  # YAML 1.1, as K3s reads it
        ({}, False),
    ],
)
def test_the_last_file_decides(tmp_path: Path, files: dict[str, str], ok: bool) -> None:
    assert judge(FakeHost(tmp_path, files), PROTECT)[0].ok is ok


D = "/etc/rancher/k3s/config.yaml.d/"
NO_PPROF: Any = {"absent_key": "enable-pprof"}
CURRENT: Any = {"current": True}
LINT: Any = {"lint": True}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        (".x.yaml", True),
        (".YML", True),
        ("zz.YaMl", True),
        ("é.yaml", True),
        (".yaml.swp", False),
        ("x.yaml~", False),
        ("x.json", False),
        ("sub/x.yaml", False),
    ],
)
def test_a_file_counts_where_k3s_reads_it(tmp_path: Path, name: str, read: bool) -> None:
    """What K3s lists (os.ReadDir, the ending in any case), hidden or not; and it is not restarted into a wrong key."""
    host = FakeHost(tmp_path, {OURS: "protect-kernel-defaults: true\n", D + name: "enable-pprof: true\n"}, running(100))
    past = time.time() - 200
    os.utime(host.path(OURS), (past, past))
    if not read:
        os.utime(host.path(D), (past, past))
    protect, pprof, current = judge(host, PROTECT, NO_PPROF, CURRENT)
    assert protect.ok
    assert pprof.ok is not read
    assert not read or D + name in pprof.reason
    assert not current.stale


def test_files_are_merged_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    names = ["Z.yaml", ".a.yaml", "a.yaml", "é.yaml", "B.yml"]
    host = FakeHost(tmp_path, {MAIN: "", **{D + name: f"node-name: {name}\n" for name in names}})
    assert [one.path for one in k3s_files.sources(host)] == [
        MAIN, *(D + name for name in (".a.yaml", "B.yml", "Z.yaml", "a.yaml", "é.yaml"))
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["folder", "dangling link", "pipe"])
def test_what_k3s_cannot_read_is_told(tmp_path: Path, what: str) -> None:
    host = FakeHost(tmp_path, {OURS: "protect-kernel-defaults: true\n"})
    path = Path(host.path(D + ".x.yaml"))
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("none")
    (linted,) = judge(host, LINT)
    assert linted.ok is (what == "folder")  # which K3s passes over
    assert linted.ok or f"{D}.x.yaml" in linted.reason


@pytest.mark.parametrize(
    ("path", "kernels", "blocked_by"), [(OURS, 0, False), (THEIRS, 0, False), (OURS, 1e8, False), (THEIRS, 1e8, True)]
)
def test_a_file_dated_in_the_future_is_told_as_such_and_can_be_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kernels: float, blocked_by: bool
) -> None:
    host = FakeHost(tmp_path, {OURS: "protect-kernel-defaults: true\n", THEIRS: "node-name: a\n"}, running(100))
    dates = {path: (time.time() + 1e8, time.time() + (kernels or -50))}
    real, old = host.stat, (time.time() - 200, time.time() - 200)

    def stat(asked: str) -> Any:
        seen = real(asked)
        mtime, ctime = dates.get(asked, old)
        return seen and SimpleNamespace(st_mtime=mtime, st_ctime=ctime, st_mode=seen.st_mode)

    def touch(asked: str) -> None:
        dates[asked] = (time.time() - 1, time.time() - 1)

    monkeypatch.setattr(host, "stat", stat)
    monkeypatch.setattr(host, "touch", touch)
    _, current = judge(host, PROTECT, CURRENT)
    assert not current.ok and f"{path} (dated " in current.reason and "in the future" in current.reason
    assert (current.blocked_by, current.stale) == ((path, ()) if blocked_by else ("", ("k3s.service",)))
    assert (f"touch {path}" in current.reason) is blocked_by
    if not blocked_by:
        k3s_config.enforce([PROTECT, CURRENT], {1}, host)
        host.commands.update(running(0))  # the restart that is due
        host._cache.clear()
        assert judge(host, PROTECT, CURRENT)[1].ok


@pytest.mark.parametrize(
    ("theirs", "ok"),
    [
        ("kubelet-arg+: [v=2]\n", True),
        ("kubelet-arg+:\n- pod-max-pids=9\n", False),
        ("kubelet-arg: [v=2]\n", False),
        ("kubelet-arg+: pod-max-pids=9\n", False),
    ],
)
def test_a_repeated_list_replaces_and_a_plus_appends(tmp_path: Path, theirs: str, ok: bool) -> None:
    host = FakeHost(tmp_path, {OURS: "kubelet-arg:\n- pod-max-pids=4096\n", THEIRS: theirs})
    assert judge(host, PIDS)[0].ok is ok


@pytest.mark.parametrize(
    ("flags", "ok", "stale"),
    [
        ("--pod-max-pids=4096 --v=0", True, ()),
        ("--pod-max-pids=-1 --v=0", False, ("k3s.service",)),
        ("--v=0", False, ("k3s.service",)),
    ],
)
def test_a_component_that_runs_with_other_flags_is_stale(tmp_path: Path, flags: str, ok: bool, stale: Any) -> None:
    host = FakeHost(tmp_path, {OURS: "kubelet-arg: [pod-max-pids=4096]\n"}, running(60, flags))
    verdict = judge(host, PIDS)[0]
    assert (verdict.ok, verdict.stale) == (ok, stale)


def aged(host: FakeHost, **ages: float) -> FakeHost:
    """Set how many seconds ago the drop-ins (ours, theirs) and their folder changed."""
    for name, age in {"folder": 120.0, **ages}.items():
        path: Any = {"folder": os.path.dirname(OURS), "ours": OURS, "theirs": THEIRS}[name]
        os.utime(host.path(path), (time.time() - age,) * 2)
    return host


@pytest.mark.parametrize(("age", "ok"), [(120, True), (10, False)])
def test_a_file_newer_than_the_process_is_stale(tmp_path: Path, age: float, ok: bool) -> None:
    host = aged(FakeHost(tmp_path, {OURS: "protect-kernel-defaults: true\n"}, running(60)), ours=age)
    value, current = judge(host, PROTECT, CURRENT)
    assert (value.ok, value.stale) == (True, ())
    assert (current.ok, current.stale) == (ok, () if ok else ("k3s.service",))


def test_a_file_that_is_gone_since_the_start_is_stale(tmp_path: Path) -> None:
    host = aged(FakeHost(tmp_path, {OURS: "protect-kernel-defaults: true\n"}, running(60)), ours=120, folder=10)
    assert judge(host, PROTECT, CURRENT)[1].stale == ("k3s.service",)


@pytest.mark.parametrize(
    "files",
    [
        {OURS: "protect-kernel-defaults: false\n"},
        {OURS: "{}\n"},
        {OURS: "protect-kernel-defaults: true\n", THEIRS: "protect-kernel-defaults: false\n"},
    ],
)
def test_a_file_that_was_not_read_counts_against_the_wrong_value_in_it(tmp_path: Path, files: dict[str, str]) -> None:
    host = FakeHost(tmp_path, files, running(60))
    if THEIRS in files:
        aged(host, ours=120)
    value, current = judge(host, PROTECT, CURRENT)
    assert (value.ok, value.stale) == (False, ())
    assert current.ok


def test_a_waived_value_explains_nothing(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {OURS: "protect-kernel-defaults: false\n"}, running(60))
    assert not judge(host, PROTECT, CURRENT, waived={0})[1].ok


def test_an_unread_file_is_not_brought_into_force_with_a_wrong_value_of_another(tmp_path: Path) -> None:
    files = {OURS: "protect-kernel-defaults: true\n", THEIRS: "kubelet-arg: [pod-max-pids=-1]\n"}
    host = aged(FakeHost(tmp_path, files, running(60)), ours=10, theirs=120)
    current = judge(host, PROTECT, PIDS, CURRENT)[2]
    assert (current.ok, current.stale) == (False, ())


def test_a_waiver_never_takes_the_keys_that_read_what_is_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    text = "secrets-encryption: true\nsecrets-encryption-provider: aescbc\nprotect-kernel-defaults: false\n"
    host = FakeHost(tmp_path, {OURS: text}, context={"version": "v1.36.3+k3s1"})
    k3s_config.enforce([PROTECT], {0}, host)  # the engine leaves waived settings out
    assert dict(parse(host.text(OURS) or "")) == {
        "protect-kernel-defaults": "true",
        "secrets-encryption": "true",
        "secrets-encryption-provider": "aescbc",
    }


@pytest.mark.parametrize(("pid", "late"), [("77", True), ("0", None)])
def test_a_start_that_does_not_end_may_run_with_older_settings(tmp_path: Path, pid: str, late: bool | None) -> None:
    commands = running(60)
    shown = commands["systemctl show k3s.service"][1].replace("=active", "=activating") + f"MainPID={pid}\n"
    host = FakeHost(tmp_path, {OURS: "debug: true\n"}, {**commands, "systemctl show k3s.service": (0, shown, "")})
    if late:
        assert judge(host, CURRENT)[0].stale == ("k3s.service",)
    else:
        with pytest.raises(Unavailable):
            judge(host, CURRENT)


def test_without_k3s_nothing_runs_with_older_settings(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="k3s"):
        judge(FakeHost(tmp_path, {OURS: "{}\n"}), CURRENT)


def test_a_wrong_value_is_not_brought_into_force_by_a_restart(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {THEIRS: "protect-kernel-defaults: false\nkubelet-arg: [pod-max-pids=-1]\n"}, running(60))
    for verdict in judge(host, PROTECT, PIDS):
        assert (verdict.ok, verdict.stale) == (False, ())


def test_what_is_written_passes_and_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    settings = [PROTECT, PIDS, SECCOMP]
    host = FakeHost(tmp_path, context={"version": "v1.36.3+k3s1"})
    k3s_config.enforce(settings, {0}, host)
    assert [v.ok for v in judge(host, *settings)] == [True] * 3
    assert os.stat(host.path(OURS)).st_mode & 0o777 == 0o600
    assert len(host.changes) == 1
    k3s_config.enforce(settings, {1}, host)
    assert len(host.changes) == 1


def test_what_nothing_declares_any_more_is_named(tmp_path: Path) -> None:
    host = FakeHost(
        tmp_path, {OURS: "protect-kernel-defaults: true\ndebug: true\nkubelet-arg: [pod-max-pids=4096, v=9]\n"}
    )
    verdicts = judge(host, PROTECT, PIDS)
    assert verdicts[0].reason == "casemate-k3s_node.yaml still holds debug, kubelet-arg: v"
    assert verdicts[1].ok


def test_another_value_of_a_declared_flag_is_its_own_control_s_fault_alone(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {OURS: "protect-kernel-defaults: true\nkubelet-arg: [pod-max-pids=7]\n"})
    assert [verdict.ok for verdict in judge(host, PROTECT, PIDS)] == [True, False]


@pytest.mark.parametrize(
    ("node", "options", "says"),
    [
        ("server", {"protect-kernel-default": True}, "did you mean protect-kernel-defaults"),
        ("agent", {"cluster-init": True}, "cluster-init is no key of K3s agents"),
        ("agent", {"nonsense": 1}, "nonsense is no key of K3s agents"),
        ("server", {"disable-apiserver-lb": True}, "no key of K3s servers"),
        ("server", {"profile": "cis"}, "profile is no key"),
    ],
)
def test_a_key_that_k3s_does_not_know_is_never_written(tmp_path: Path, node: str, options: Any, says: str) -> None:
    host = FakeHost(tmp_path, {OURS: "debug: false\n"}, context={"version": "v1.36.3+k3s1"})
    setting: Any = {"file": "casemate-k3s_node.yaml", "node": node, "options": options}
    with pytest.raises(ValueError, match=says):  # in the plan already, not only when it would be written
        k3s_config.observe([setting], host)
    with pytest.raises(ValueError, match=says):
        k3s_config.enforce([setting], {0}, host)
    assert host.text(OURS) == "debug: false\n"


def test_an_unknown_version_is_refused_rather_than_guessed(tmp_path: Path) -> None:
    assert lint({"token-file": "", "write-kubeconfig-name": ""}, "server", "v1.36.9+k3s1") == []
    assert lint({"t": ""}, "agent", "v1.36.9+k3s1") == ["t is short for token; write token"]
    assert "not known to this release" in lint({}, "server", "v1.99.0+k3s1")[0]


@pytest.mark.parametrize("node", ["server", "agent"])
def test_lint_finds_what_k3s_would_skip_or_die_of(tmp_path: Path, node: str) -> None:
    host = FakeHost(tmp_path, {THEIRS: "secrets-encryptoin: true\nt: short\n"}, context={"version": "v1.36.3+k3s1"})
    verdict = judge(host, {"lint": True, "node": node})[0]
    assert not verdict.ok
    assert "secrets-encryptoin is no key" in verdict.reason
    assert f"t is short for token; write token ({THEIRS})" in verdict.reason


def test_lint_finds_settings_beside_the_files(tmp_path: Path) -> None:
    shown = (
        "ExecStart={ path=/usr/local/bin/k3s ; argv[]=/usr/local/bin/k3s server --token=x ; ignore_errors=no }\n"
        "Environment=HTTP_PROXY=p K3S_TOKEN=canary\nEnvironmentFiles=/etc/default/k3s (ignore_errors=yes)\n"
    )
    host = FakeHost(tmp_path, commands={"systemctl show k3s.service": (0, shown, "")})
    reason = judge(host, {"lint": True})[0].reason
    assert "command line sets --token" in reason
    assert "environment sets K3S_TOKEN" in reason
    assert "reads /etc/default/k3s" in reason
    assert "canary" not in reason


@pytest.mark.parametrize(
    ("start", "given", "says"),
    [
        ("path=/usr/local/bin/k3s ; argv[]=/usr/local/bin/k3s server ;", "LANG=C\0", ""),
        ("path=/opt/k3s ; argv[]=/usr/local/bin/k3s server ;", "", "the unit starts /opt/k3s, not /usr/local/bin/k3s"),
        ("path=/usr/local/bin/k3s ; argv[]=/opt/k3s server ;", "", "the unit starts /opt/k3s, not /usr/local/bin/k3s"),
        ("path=/usr/local/bin/k3s ; argv[]=/usr/local/bin/k3s --debug server ;", "", "command line sets --debug"),
        ("", "LANG=C\0K3S_CONFIG_FILE=/canary\0", "the running k3s was given K3S_CONFIG_FILE; restart it"),
        ("", "K3S_TOKEN=canary\0", "the running k3s was given K3S_TOKEN; restart it"),
        ("", "CATTLE_X=canary\0", "the running k3s was given CATTLE_X; restart it"),
        ("", "MY_K3S_TOKEN=x\0LANG=K3S_TOKEN=x\0", ""),
    ],
)
def test_lint_finds_another_program_and_what_the_process_was_given(
    tmp_path: Path, start: str, given: str, says: str
) -> None:
    shown = f"ExecStart={{ {start} ignore_errors=no }}\nActiveState=active\nMainPID=7\n"
    host = FakeHost(tmp_path, {"/proc/7/environ": given}, {"systemctl show k3s.service": (0, shown, "")})
    verdict = judge(host, {"lint": True})[0]
    assert (verdict.ok, verdict.reason) == (not says, verdict.blocked_by)
    assert says in verdict.reason
    assert "canary" not in verdict.reason


def test_lint_finds_what_systemd_gives_every_unit(tmp_path: Path) -> None:
    shown, general = "ActiveState=active\nMainPID=7\n", "LANG=C\nK3S_CONFIG_FILE=/opt/canary\n"
    commands = {"systemctl show k3s.service": (0, shown, ""), "systemctl show-environment": (0, general, "")}
    host = FakeHost(tmp_path, {"/proc/7/environ": "K3S_CONFIG_FILE=/opt/canary\0"}, commands)
    reason = judge(host, {"lint": True})[0].reason
    assert reason == "systemd's environment sets K3S_CONFIG_FILE (systemctl show-environment)"


def test_a_process_that_ends_meanwhile_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: str) -> None:
        if path.startswith("/proc/"):
            raise ProcessLookupError(path)

    commands = {"systemctl show k3s.service": (0, "ActiveState=active\nMainPID=7\n", "")}
    host = FakeHost(tmp_path, commands=commands)
    monkeypatch.setattr(host, "text", gone)
    assert judge(host, {"lint": True})[0].ok


def test_a_key_that_must_not_be_set_is_told_with_its_file(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {THEIRS: "disable-network-policy: true\n"})
    verdict = judge(host, {"absent_key": "disable-network-policy"})[0]
    assert verdict.reason == f"disable-network-policy is set in {THEIRS}; remove it there"
    assert judge(FakeHost(tmp_path / "clean"), {"absent_key": "disable-network-policy"})[0].reason == ""


def test_a_short_key_is_the_long_one_as_k3s_takes_it(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {THEIRS: "t: canary\ni: 192.0.2.9\n"})
    token, address = judge(
        host, {"absent_key": "token"}, {"file": OURS.rpartition("/")[2], "key": "node-ip", "value": "192.0.2.1"}
    )
    assert (token.ok, token.evidence) == (False, THEIRS)
    assert (address.ok, address.blocked_by) == (False, THEIRS)


def test_a_secret_is_neither_written_nor_shown(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {MAIN: f"token: {CANARY}\n"})
    absent = judge(host, {"absent_key": "token"})[0]
    assert not absent.ok
    assert CANARY not in repr(absent)
    assert CANARY not in repr(k3s_config.observe([{"absent_key": "token"}], host))
    with pytest.raises(ValueError, match="token is a secret") as refused:
        k3s_config.enforce([{"file": "casemate-k3s_node.yaml", "options": {"token": CANARY}}], {0}, host)
    assert CANARY not in str(refused.value)


def test_two_declarations_of_a_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="protect-kernel-defaults is declared twice"):
        judge(FakeHost(tmp_path), PROTECT, {**PROTECT, "value": False})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\n# comment\na: 1 # one\n\n'b': 'it''s'\n", [("a", "1"), ("b", "it's")]),
        ('a: "x # y"\nb: [1, "2, 3", x]\n', [("a", "x # y"), ("b", ["1", "2, 3", "x"])]),
        ("a:\n- x\n- 'y'\nb:\n  - z # last\n", [("a", ["x", "y"]), ("b", ["z"])]),
        ("a:\nb: []\nc: ~\n", [("a", ""), ("b", []), ("c", "")]),
        ("mode: 0600\nplain: 600\nquoted: '0600'\n", [("mode", "384"), ("plain", "600"), ("quoted", "0600")]),
        ("a: http://x:1/y\nb: on\nc: No\n", [("a", "http://x:1/y"), ("b", "true"), ("c", "false")]),
        ("", []),
    ],
)
def test_yaml_is_read_as_k3s_reads_it(text: str, found: Any) -> None:
    assert parse(text) == found


STRANGE = [
    *("a: {b: c}", "a:\n  b: c", "a: |\n  text", "a: >-\n  text", "a: &x 1", "a: *x", "a: !!str 1", "- a", "a"),
    *("a: [1, [2]]", "a: [1", "a: 'open", 'a: "\\x41"', "a: 1\na: 2", "\ta: 1", "a: 1e3", "a: 0x10", "a: 1_000"),
    *("a: 1:30", "--- x", "a: 1\n---\nb: 2", "? a\n: b", "a:\n- - b", "a:\n- x\n - y", "a: %b", "a: `b", "<<: *x"),
    *("a: 2026-01-01", "a: b: c", "a: 1.5"),
]


@pytest.mark.parametrize("text", STRANGE)
def test_what_is_not_plain_yaml_is_named_and_never_a_pass(tmp_path: Path, text: str) -> None:
    with pytest.raises(YamlError, match="line "):
        parse(text)
    host = FakeHost(tmp_path, {OURS: "protect-kernel-defaults: true\n", THEIRS: f"{text}\n# protect-kernel-defaults"})
    protect, linted = judge(host, PROTECT, {"lint": True})
    assert (protect.ok, protect.blocked_by) == (False, THEIRS)
    assert re.search(r"zz-theirs\.yaml: line", linted.reason)


@pytest.mark.parametrize(
    "value", ["", "yes", "0600", "a: b", "# c", "- d", "ü\n\t\"'\\", "1.0", "~", ["x", "y: z", ""], []]
)
def test_what_is_rendered_is_read_back(value: Any) -> None:
    assert parse(render({"key": value})) == [("key", value)]


IDENTITY: Any = {
    "file": "casemate-k3s_node.yaml",
    "options": {"node-ip": "192.0.2.1", "node-label": ["a=CANARY-1"], "node-external-dns": "CANARY-2", "debug": True},
    "sensitive": ["node-label", "node-external-dns", "kubelet-arg", "debug"],
}
SECRET_FLAG: Any = {"file": "casemate-k3s_node.yaml", "key": "kubelet-arg", "value": "x=CANARY-3"}


@pytest.mark.parametrize(
    "files",
    [
        {},
        {OURS: "node-ip: 192.0.2.9\nnode-label: [a=CANARY-4]\nnode-external-dns: CANARY-5\nkubelet-arg: x=CANARY\n"},
        {MAIN: "node-label: [a=CANARY-4, b=CANARY-5]\n", THEIRS: "node-label+: CANARY-6\nkubelet-arg: [x=CANARY-7]\n"},
        {THEIRS: "node-label: 1.5  # CANARY-8 as a number\nnode-external-dns: 12_CANARY_0\ndebug: CANARY-9: 1\n"},
        {OURS: "left-over: CANARY-4\nkubelet-arg: [left-over=CANARY-5]\n"},
    ],
)
def test_a_value_that_is_never_shown_is_in_no_verdict_but_its_key_and_file_are(
    tmp_path: Path, files: dict[str, str]
) -> None:
    host = FakeHost(tmp_path, files, running(60, "--x=CANARY-8"))
    identity, flag = judge(host, IDENTITY, SECRET_FLAG)
    assert not identity.ok and not flag.ok
    assert "CANARY" not in repr([identity, flag])
    assert all(key in identity.reason for key in ("node-ip", "node-label", "node-external-dns"))
    assert all(os.path.basename(path) in identity.reason for path in files)
    assert identity.expected["node-ip"] == "192.0.2.1"  # what is no secret says what differs


@pytest.mark.skipif(os.geteuid() != 0, reason="owned files are root's")
def test_a_diff_of_a_file_with_such_a_value_shows_no_content(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {OURS: "node-label: [a=CANARY-4]\n"})
    k3s_config.enforce([IDENTITY, PROTECT], {0, 1}, host)
    assert "CANARY-1" in (host.text(OURS) or "")
    assert "CANARY" not in repr(host.changes) and host.changes[0]["path"] == OURS
    assert all(verdict.ok for verdict in judge(host, IDENTITY, PROTECT))


def test_a_drop_in_that_nothing_can_replace_is_blocked_with_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost(tmp_path, {OURS: "protect-kernel-defaults: false\n"})
    monkeypatch.setattr(machine, "flags_of", lambda real: IMMUTABLE if real == host.path(OURS) else 0)
    (protect,) = judge(host, PROTECT)
    assert (protect.blocked_by, protect.still_enforced) == (f"{OURS} is immutable: chattr -i {OURS}", False)
    assert protect.blocked_by in protect.reason


def test_a_list_is_told_as_yaml(tmp_path: Path) -> None:
    setting: Any = {"file": "casemate-k3s_node.yaml", "key": "disable", "value": ["traefik"]}
    host = FakeHost(tmp_path, {MAIN: "disable: [traefik, coredns]\n"})
    assert judge(host, setting)[0].reason.startswith(f'disable is ["traefik", "coredns"] by {MAIN}')


def test_characters_that_json_writes_as_two_stand_there_as_they_are() -> None:
    """YAML's \\u names one character, and half of a pair is none: K3s would not start with it."""
    assert render({"key": "ca\U0001f511"}) == 'key: "ca\U0001f511"\n'
    assert render({"key": "\x85"}) == 'key: "\\u0085"\n'
