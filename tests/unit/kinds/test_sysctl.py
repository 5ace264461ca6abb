"""Kernel parameters: the live value and the next boot's, read as systemd-sysctl reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.kinds import sysctl

P = "/proc/sys/"
CONF = P + "net/ipv4/conf/"


def judge(host: FakeHost, **demands: Any) -> Any:
    setting: Any = demands
    return sysctl.assess(setting, sysctl.observe([setting], host)[0])


@pytest.mark.parametrize(
    ("files", "boot"),
    [
        ({"/etc/sysctl.d/1.conf": "kernel.panic = 10"}, "10"),
        ({"/etc/sysctl.d/1.conf": "kernel/panic=10\n"}, "10"),
        ({"/etc/sysctl.d/1.conf": "-kernel.panic = 10"}, "10"),
        ({"/etc/sysctl.d/1.conf": "# kernel.panic = 10\n;kernel.panic=9"}, None),
        ({"/etc/sysctl.d/1.conf": "kernel.panic = 10", "/usr/lib/sysctl.d/9.conf": "kernel.panic=1"}, "1"),
        ({"/etc/sysctl.d/9.conf": "kernel.panic = 10", "/usr/lib/sysctl.d/9.conf": "kernel.panic=1"}, "10"),
        ({"/run/sysctl.d/9.conf": "kernel.panic=1", "/usr/lib/sysctl.d/9.conf": "kernel.panic=10"}, "1"),
        ({"/etc/sysctl.d/1.conf": "kernel.panic=5\nkernel.panic=10"}, "10"),
        ({"/etc/sysctl.d/1.conf": "no equals sign\n=\n = 3\n\x00\x01"}, None),
        ({"/etc/sysctl.d/1.bak": "kernel.panic=10"}, None),
    ],
)
def test_the_boot_value_is_found_as_systemd_finds_it(tmp_path: Path, files: dict[str, str], boot: str | None) -> None:
    assert sysctl.boot_value("kernel/panic", sysctl.boot_lines(FakeHost(tmp_path, files)))[0] == boot


@pytest.mark.parametrize(
    ("text", "boot"),
    [
        ("net.ipv4.conf.*.rp_filter = 2", "2"),
        ("net.ipv4.conf.*.rp_filter = 2\nnet.ipv4.conf.eth0.rp_filter = 1", "1"),
        ("net.ipv4.conf.eth0.rp_filter = 1\nnet.ipv4.conf.*.rp_filter = 2", "1"),
        ("net.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.eth0.rp_filter", None),
        ("net.ipv4.*.rp_filter = 2", None),
    ],
)
def test_an_explicit_line_beats_a_glob(tmp_path: Path, text: str, boot: str | None) -> None:
    lines = sysctl.boot_lines(FakeHost(tmp_path, {"/etc/sysctl.d/1.conf": text}))
    assert sysctl.boot_value("net/ipv4/conf/eth0/rp_filter", lines)[0] == boot


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("kernel.panic", "kernel/panic"),
        ("net.ipv4.conf.eth0/7.rp_filter", "net/ipv4/conf/eth0.7/rp_filter"),
        ("net/ipv4/conf/eth0.7/rp_filter", "net/ipv4/conf/eth0.7/rp_filter"),
    ],
)
def test_dots_and_slashes_are_read_as_systemd_reads_them(key: str, name: str) -> None:
    assert sysctl.below_proc(key) == name


@pytest.mark.parametrize(
    ("live", "boot", "setting", "reason"),
    [
        ("10", "10", {"value": 10}, ""),
        ("1\t2", "1 2", {"value": "1 2"}, ""),
        ("2", "1", {"value": 1, "accept": [2]}, ""),
        ("5", "10", {"value": 10}, "the live value differs"),
        ("10", "60", {"value": 10}, "zz.conf:1 decides at the next boot: remove the line there"),
        ("10", None, {"value": 10}, "the next boot would load another value"),
        ("3", "1", {"value": 1, "accept": [2]}, "the live value differs"),
    ],
)
def test_live_and_boot_must_both_be_right(
    tmp_path: Path, live: str, boot: str | None, setting: Any, reason: str
) -> None:
    files = {P + "kernel/panic": live + "\n", **({"/etc/sysctl.d/zz.conf": f"kernel.panic={boot}"} if boot else {})}
    verdict = judge(FakeHost(tmp_path, files), key="kernel.panic", **setting)
    assert verdict.ok is (reason == "")
    assert reason in verdict.reason


def test_every_interface_is_judged(tmp_path: Path) -> None:
    files = {CONF + f"{name}/send_redirects": "0\n" for name in ("all", "default", "lo")}
    files["/etc/sysctl.d/1.conf"] = "net.ipv4.conf.*.send_redirects = 0"
    key = "net.ipv4.conf.*.send_redirects"
    assert judge(FakeHost(tmp_path, files), key=key, value=0).ok
    host = FakeHost(tmp_path, {CONF + "eth0/send_redirects": "1\n"})
    verdict = judge(host, key=key, value=0)
    assert not verdict.ok and "eth0" in verdict.evidence


def test_a_parameter_that_this_kernel_lacks_is_never_a_pass_by_chance(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="kernel"):
        judge(FakeHost(tmp_path), key="kernel.none", value=1)
    assert judge(FakeHost(tmp_path), key="kernel.none", value=1, missing="pass").ok


def test_a_wrong_value_that_cannot_be_written_is_not_evaluated(tmp_path: Path, monkeypatch: Any) -> None:
    host = FakeHost(tmp_path, {P + "kernel/panic": "0\n"})
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(Unavailable, match="read-only"):
        judge(host, key="kernel.panic", value=10)


@pytest.mark.skipif(os.geteuid() != 0, reason="owned files are root's")
def test_enforcing_sets_both_once_and_leaves_foreign_files(tmp_path: Path) -> None:
    blocked_by = "/etc/sysctl.d/10.conf"
    host = FakeHost(tmp_path, {P + "kernel/panic": "0\n", P + "kernel/ok": "2\n", blocked_by: "kernel.panic = 1\n"})
    settings: list[Any] = [
        {"key": "kernel.panic", "value": 10},
        {"key": "kernel.ok", "value": 1, "accept": [2]},
    ]
    sysctl.enforce(settings, {0, 1}, host)
    assert [sysctl.assess(s, o).ok for s, o in zip(settings, sysctl.observe(settings, host), strict=True)] == [True] * 2
    assert (host.read(P + "kernel/ok"), host.read(blocked_by)) == (b"2\n", b"kernel.panic = 1\n")
    changes = len(host.changes)
    sysctl.enforce(settings, {0, 1}, host)
    assert len(host.changes) == changes


@pytest.mark.skipif(os.geteuid() != 0, reason="owned files are root's")
def test_one_refused_parameter_does_not_stop_the_others(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {P + "b/x": "0\n", P + "a/y": "0\n"})
    Path(host.path(P + "a/x")).symlink_to("/dev/full")
    settings: list[Any] = [{"key": "a.x", "value": 1}, {"key": "b.x", "value": 1}]
    with pytest.raises(EnforceError, match="a/x could not be set to 1: No space"):
        sysctl.enforce(settings, {0, 1}, host)
    assert host.read(P + "b/x") == b"1"


@pytest.mark.skipif(os.geteuid() != 0, reason="owned files are root's")
def test_a_line_that_the_kernel_may_lack_fails_no_loader(tmp_path: Path) -> None:
    """`sysctl --system` ends with 1 at a parameter that is not there, unless "-" stands before it (sysctl(8))."""
    host = FakeHost(tmp_path, {P + "kernel/panic": "0\n", P + "kernel/some": "0\n"})
    settings: list[Any] = [
        {"key": "kernel.panic", "value": 10},
        {"key": "kernel.none", "value": 1, "missing": "pass"},
        {"key": "kernel.some", "value": 1, "missing": "pass"},
    ]
    sysctl.enforce(settings, {0, 2}, host)
    lines = (host.text(sysctl.OWNED) or "").splitlines()
    assert lines[1:] == ["-kernel.none = 1", "kernel.panic = 10", "-kernel.some = 1"]
    assert all(sysctl.assess(s, o).ok for s, o in zip(settings, sysctl.observe(settings, host), strict=True))
    assert sysctl.OURS.unasked(settings, host) == ""
    assert sysctl.OURS.unasked(settings[:2], host)


NAMES = st.sampled_from(["kernel.panic", "net.ipv4.conf.*.x", "vm/swappiness", "-a.b", "weird key", ""])


@given(st.lists(st.tuples(NAMES, st.text(max_size=8))), st.text(max_size=40))
def test_the_parser_survives_any_file(tmp_path_factory: Any, pairs: list[tuple[str, str]], noise: str) -> None:
    text = "\n".join([f"{key}={value}" for key, value in pairs] + [noise.replace("\r", "")])
    host = FakeHost(tmp_path_factory.mktemp("s"))
    folder = Path(host.path("/etc/sysctl.d"))
    folder.mkdir(parents=True)
    (folder / "1.conf").write_text(text, encoding="utf-8", errors="surrogateescape")
    lines = sysctl.boot_lines(host)
    assert all(name and value is not None for name, value in lines.items())
