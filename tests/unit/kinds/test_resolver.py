"""Resolvers: what pods are given is read where the kubelet reads it, and each one has to be in their reach."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.k3s import resolvers
from module_utils.casemate.kinds import k3s_config, resolver

ETC, STUBLESS, NO_STUB = (
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
)
FILES = [ETC, STUBLESS, NO_STUB]
STUB = "# by systemd-resolved\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch example.org\n"
GOOD = "nameserver 192.0.2.53\nnameserver 2001:db8::53\n"
DEFAULTS, LATER, HIDDEN = (f"{resolver.KUBELET}/{name}" for name in ("00-k3s-defaults.conf", "99-x.conf", ".x.conf"))
SETTING: Any = {"files": FILES}
OURS = "/etc/rancher/k3s/config.yaml.d/casemate-k3s_node.yaml"
DECLARED: Any = {"file": "casemate-k3s_node.yaml", "key": "resolv-conf", "resolvers": FILES}


def running(flags: str = "--v=2") -> dict[str, tuple[int, str, str]]:
    began = datetime.fromtimestamp(time.time() + 60, UTC)
    shown = f"ActiveState=active\nExecMainStartTimestamp={began:%a %Y-%m-%d %H:%M:%S.%f UTC}\nInvocationID=abc\n"
    return {
        "systemctl show k3s.service": (0, shown, ""),
        "journalctl": (0, f'msg="Running kubelet {flags}"\n', ""),
    }


def judge(host: FakeHost, setting: Any = SETTING) -> Any:
    return resolver.assess(setting, resolver.observe([setting], host)[0])


@pytest.mark.parametrize(
    ("address", "usable"),
    [
        ("192.0.2.53", True), ("10.0.0.2", True), ("100.100.2.136", True), ("2001:db8::53", True), ("fd00::53", True),
        ("169.254.169.254", True), ("8.8.8.8", True), ("::ffff:192.0.2.53", True),
        ("127.0.0.53", False), ("127.0.1.1", False), ("::1", False), ("::ffff:127.0.0.1", False),
        ("0.0.0.0", False), ("::", False), ("169.254.169.253", False), ("fe80::1", False), ("fe80::1%eth0", False),
        ("224.0.0.251", False), ("ff02::fb", False), ("255.255.255.255", False), ("localhost", False), ("", False),
        ("127.1", False), ("192.0.2.53:53", False),
    ],
)  # fmt: skip
def test_pods_reach_unicast_addresses_beyond_the_node_only(address: str, usable: bool) -> None:
    assert (resolvers.unusable(address) == "") is usable


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (GOOD, []),
        ("\t nameserver   192.0.2.53 # comment\r\n", []),
        (None, [f"{ETC} is missing"]),
        ("", [f"{ETC} names no resolver"]),
        ("search example.org\n#nameserver 192.0.2.53\n;nameserver 192.0.2.53\nnameservers 192.0.2.53\n",
         [f"{ETC} names no resolver"]),
        (STUB, [f"{ETC}:2: nameserver 127.0.0.53 is on loopback, where each pod meets itself"]),
        ("nameserver 192.0.2.53\n\nnameserver ::1\nnameserver fe80::1\n",
         [f"{ETC}:3: nameserver ::1 is on loopback, where each pod meets itself",
          f"{ETC}:4: nameserver fe80::1 is on a link of the node, which pods are not on"]),
        ("nameserver\n", [f"{ETC}:1: nameserver  is no address that a pod can use"]),
    ],
)  # fmt: skip
def test_a_file_is_judged_line_by_line(text: str | None, faults: list[str]) -> None:
    assert resolvers.faults(ETC, text) == faults


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ({ETC: GOOD, STUBLESS: GOOD}, ETC),
        ({ETC: STUB, STUBLESS: GOOD, NO_STUB: GOOD}, STUBLESS),
        ({ETC: "nameserver 127.0.0.1\n", NO_STUB: GOOD}, NO_STUB),
        ({ETC: GOOD + STUB, STUBLESS: GOOD}, STUBLESS),
        ({STUBLESS: GOOD}, STUBLESS),
        ({ETC: STUB, STUBLESS: "# none known yet\n"}, ETC),
        ({}, ETC),
    ],
)
def test_k3s_is_given_the_first_file_that_pods_can_use(tmp_path: Path, files: dict[str, str], chosen: str) -> None:
    host = FakeHost(tmp_path, files)
    assert k3s_config.observe([DECLARED], host)[0]["value"] == chosen
    k3s_config.enforce([DECLARED], {0}, host)
    assert f"resolv-conf: {chosen}\n" in (host.text(OURS) or "").replace('"', "")
    again = k3s_config.observe([DECLARED], host)[0]
    assert k3s_config.assess(DECLARED, again).ok  # a second apply has nothing to do


def test_another_state_of_the_host_later_is_drift(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {ETC: GOOD, STUBLESS: GOOD})
    k3s_config.enforce([DECLARED], {0}, host)
    (tmp_path / ETC.lstrip("/")).write_text(STUB)
    verdict = k3s_config.assess(DECLARED, k3s_config.observe([DECLARED], host)[0])
    assert (verdict.ok, verdict.expected, verdict.blocked_by) == (False, {"resolv-conf": STUBLESS}, "")
    assert f"resolv-conf is {ETC}" in verdict.reason


def test_where_no_file_is_of_use_the_one_that_is_used_stays(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {ETC: STUB, STUBLESS: GOOD})
    k3s_config.enforce([DECLARED], {0}, host)
    (tmp_path / STUBLESS.lstrip("/")).write_text(GOOD + "nameserver ::1\n")
    assert k3s_config.assess(DECLARED, k3s_config.observe([DECLARED], host)[0]).ok  # another control tells


@pytest.mark.parametrize(
    ("flags", "dropins", "config", "used"),
    [
        ("--v=2", {DEFAULTS: f"kind: KubeletConfiguration\nresolvConf: {STUBLESS}\n"}, "", STUBLESS),
        ("--v=2", {DEFAULTS: f'"resolvConf": "{STUBLESS}" # by K3s\n'}, "", STUBLESS),
        ("--v=2", {DEFAULTS: f"resolvConf: {STUBLESS}\n", LATER: f"resolvConf: {ETC}\n"}, "", ETC),
        ("--v=2", {DEFAULTS: f"resolvConf: {STUBLESS}\n", HIDDEN: f"resolvConf: {ETC}\n"}, "", STUBLESS),
        (f"--resolv-conf={ETC}", {DEFAULTS: f"resolvConf: {STUBLESS}\n"}, "", ETC),
        ("--v=2", {}, f"resolv-conf: {NO_STUB}\n", NO_STUB),
        ("--v=2", {DEFAULTS: "kind: KubeletConfiguration\n"}, "", ETC),
    ],
)  # fmt: skip
def test_the_file_that_the_running_kubelet_uses_is_judged(
    tmp_path: Path, flags: str, dropins: dict[str, str], config: str, used: str
) -> None:
    host = FakeHost(tmp_path, {ETC: GOOD, **dropins, **({OURS: config} if config else {})}, running(flags))
    assert resolver.observe([SETTING], host)[0]["file"] == used


def test_what_the_kubelet_uses_fails_though_another_file_would_do(tmp_path: Path) -> None:
    files = {ETC: STUB, STUBLESS: GOOD, DEFAULTS: f"resolvConf: {ETC}\n", OURS: f"resolv-conf: {STUBLESS}\n"}
    verdict = judge(FakeHost(tmp_path, files, running()))
    assert (verdict.ok, verdict.evidence) == (False, ETC)
    assert f"{ETC}:2: nameserver 127.0.0.53 is on loopback" in verdict.reason
    assert "k3s_node_resolv_conf" in verdict.reason


@pytest.mark.parametrize(("files", "ok"), [({ETC: STUB, STUBLESS: GOOD}, True), ({ETC: STUB}, False), ({}, False)])
def test_before_k3s_runs_what_it_will_be_given_is_judged(tmp_path: Path, files: dict[str, str], ok: bool) -> None:
    verdict = judge(FakeHost(tmp_path, files))
    assert verdict.ok is ok
    assert ok or verdict.reason.startswith("once K3s runs, the kubelet will hand pods")


def test_a_named_file_is_given_whatever_it_holds_and_judged_so(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {ETC: GOOD, "/srv/resolv.conf": STUB})
    named = ["/srv/resolv.conf"]
    declared: Any = {**DECLARED, "resolvers": named}
    assert k3s_config.observe([declared], host)[0]["value"] == named[0]
    assert "/srv/resolv.conf:2: nameserver 127.0.0.53" in judge(host, {"files": named}).reason
