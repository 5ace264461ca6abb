"""Updates: whether they come, which wait, what is kept from them, and what runs as it was before them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fake_host import FakeHost
from unit.microcode_files import intel

from module_utils.casemate.core.verdict import Unavailable, Verdict
from module_utils.casemate.formats import dpkg_status
from module_utils.casemate.kinds import patch as kind
from module_utils.casemate.kinds.patch_running import CPUS

STATUS, INDEX = "/var/lib/dpkg/status", "/var/lib/apt/lists/deb.example_Packages"
OPENSSL = "Package: libssl3\nStatus: install ok installed\nSource: openssl (3.0.1)\nVersion: 3.0.15-1\n"
SECURITY = "Inst libssl3 [3.0.15-1] (3.0.16-1 Debian:12.11/stable, Debian-Security:12/stable-security [amd64])\n"
SIMULATED = "apt-get -s"
ORIGIN = "origin=Debian,codename=${distro_codename},label=Debian-Security"


def judged(host: FakeHost, **setting: Any) -> Verdict:
    (seen,) = kind.observe([setting], host)  # type: ignore[list-item]
    if isinstance(seen, Exception):
        raise seen
    return kind.assess(setting, seen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "pending"),
    [
        ("", []),
        (SECURITY, ["libssl3"]),
        (SECURITY.replace("Debian-Security", "Debian"), ["libssl3"]),  # its archive is called stable-security
        ("Inst tzdata [2024a] (2025b Debian:12.11/stable [all])\n", []),
        ("Inst new-one (1 Debian-Security:12/stable-security [all])\n", []),
        ("Conf libssl3 (3.0.16-1 Debian-Security:12/stable-security [amd64])\n", []),
    ],
)
def test_security_updates_that_wait_are_named(tmp_path: Path, said: str, pending: list[str]) -> None:
    host = FakeHost(tmp_path, {STATUS: OPENSSL, INDEX: ""}, {SIMULATED: (0, said, "")})
    verdict = judged(host, of="pending")
    assert verdict.observed == (pending or "nothing")
    assert verdict.ok is (not pending) and ("3.0.16-1" in verdict.reason) is bool(pending)


def test_without_an_index_nobody_knows_and_an_old_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost(tmp_path, {STATUS: OPENSSL, "/var/lib/apt/lists/lock": ""}, {SIMULATED: (0, "", "")})
    with pytest.raises(Unavailable) as lacking:
        judged(host, of="pending")
    assert lacking.value.code == "package_index"
    host = FakeHost(tmp_path, {INDEX: ""}, {SIMULATED: (0, "", "")})
    assert judged(host, of="pending").ok
    days, now = 9 * 86400, time.time
    monkeypatch.setattr(time, "time", lambda: now() + days)
    assert "9 days old" in judged(host, of="pending").reason


def test_apt_that_cannot_say_is_an_error_and_no_pass(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {STATUS: OPENSSL, INDEX: ""}, {SIMULATED: (100, "", "E: Unmet dependencies")})
    with pytest.raises(OSError, match="Unmet dependencies"):
        judged(host, of="pending")


@pytest.mark.parametrize(
    ("fixed", "names"),
    [("3.0.16-1", True), ("3.0.15-2", True), ("3.0.15-1", False), ("3.0.17-1", False), ("0", False), (None, False)],
)
def test_holes_that_an_update_closes_are_named_where_debian_does(
    tmp_path: Path, fixed: str | None, names: bool
) -> None:
    release = {"bookworm": {"status": "resolved", **({"fixed_version": fixed} if fixed else {})}}
    data = {"openssl": {"CVE-2026-1": {"releases": release}, "CVE-2026-2": {"releases": {"trixie": {}}}}}
    files = {STATUS: OPENSSL, INDEX: "", "/etc/os-release": "VERSION_CODENAME=bookworm\n", "/t.json": json.dumps(data)}
    host = FakeHost(tmp_path, files, {SIMULATED: (0, SECURITY, "")})
    reason = judged(host, of="pending", tracker="/t.json").reason
    assert ("which closes CVE-2026-1" in reason) is names
    assert "CVE-2026-2" not in reason
    assert "CVE" not in judged(host, of="pending", tracker="/none.json").reason


@pytest.mark.parametrize("text", ["{", "[]", '{"openssl": 1}', '{"openssl": {"CVE-2026-1": []}}'])
def test_data_that_is_not_the_trackers_is_told(tmp_path: Path, text: str) -> None:
    host = FakeHost(tmp_path, {STATUS: OPENSSL, INDEX: "", "/t.json": text}, {SIMULATED: (0, SECURITY, "")})
    with pytest.raises(OSError, match="not the data of Debian's security tracker"):
        judged(host, of="pending", tracker="/t.json")


@pytest.mark.parametrize(
    ("status", "held", "broken"),
    [
        ("install ok installed", False, False),
        ("hold ok installed", True, False),
        ("hold ok not-installed", False, False),
        ("deinstall ok config-files", False, False),
        ("install ok half-installed", False, True),
        ("install ok unpacked", False, True),
        ("install ok half-configured", False, True),
        ("install ok triggers-pending", False, False),
        ("install reinstreq installed", False, True),
    ],
)
def test_packages_on_hold_and_left_half_way_are_named(tmp_path: Path, status: str, held: bool, broken: bool) -> None:
    host = FakeHost(tmp_path, {STATUS: f"{OPENSSL}\nPackage: x\nStatus: {status}\nVersion: 1\n"})
    assert judged(host, of="held").observed == (["x"] if held else "nothing")
    assert judged(host, of="broken").observed == (["x"] if broken else "nothing")


@pytest.mark.parametrize("of", ["held", "broken", "kernel"])
def test_without_dpkg_nothing_passes(tmp_path: Path, of: str) -> None:
    with pytest.raises(FileNotFoundError):
        judged(FakeHost(tmp_path), of=of)


SET = f'''APT::Periodic "";
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
Unattended-Upgrade::Origins-Pattern "";
Unattended-Upgrade::Origins-Pattern:: "{ORIGIN}";
Unattended-Upgrade::Automatic-Reboot "false";
'''


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("", ""),
        ('Unattended-Upgrade::Package-Blacklist "";\n', ""),
        ('APT::Periodic::Unattended-Upgrade "0";\n', "APT::Periodic::Unattended-Upgrade"),
        ('APT::Periodic::Update-Package-Lists "0";\n', "APT::Periodic::Update-Package-Lists"),
        ('APT::Periodic::Enable "0";\n', "APT::Periodic::Enable"),
        ('APT::Periodic::Unattended-Upgrade "30";\n', "APT::Periodic::Unattended-Upgrade"),
        ('APT::Periodic::Update-Package-Lists "2d";\n', "APT::Periodic::Update-Package-Lists"),
        ('APT::Periodic::Update-Package-Lists "12h";\n', ""),
        ('APT::Periodic::Update-Package-Lists "always";\n', ""),
        ('Unattended-Upgrade::Download-Only "True";\n', "Unattended-Upgrade::Download-Only"),
        ('Unattended-Upgrade::InstallOnShutdown "true";\n', "Unattended-Upgrade::InstallOnShutdown"),
        ('Unattended-Upgrade::InstallOnShutdown "false";\n', ""),
        ('Unattended-Upgrade::Update-Days:: "Sun";\n', "Unattended-Upgrade::Update-Days"),
        ('Unattended-Upgrade::Package-Blacklist:: "openssl";\n', "openssl"),
        ('Unattended-Upgrade::Package-Whitelist "";\n', ""),
        ('Unattended-Upgrade::Package-Whitelist:: "bash";\n', "Unattended-Upgrade::Package-Whitelist"),
        ('Unattended-Upgrade::Automatic-Reboot "true";\n', "Unattended-Upgrade::Automatic-Reboot"),
    ],
)
def test_what_keeps_updates_away_is_named(tmp_path: Path, more: str, fault: str) -> None:
    host = FakeHost(tmp_path, {}, {"apt-config dump": (0, SET + more, "")})
    verdict = judged(host, of="automatic", origins=[ORIGIN])
    assert verdict.observed == ([fault] if fault else "nothing")


def test_what_follows_from_a_file_of_ours_is_told_by_that_file_alone(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {}, {"apt-config dump": (0, "", "")})
    setting = {"of": "automatic", "origins": [ORIGIN], "file": "/etc/apt/apt.conf.d/99zz-casemate"}
    assert not judged(host, **setting).ok
    host.failing_files.add("/etc/apt/apt.conf.d/99zz-casemate")
    assert judged(host, **setting).ok


def test_an_origin_that_is_left_out_is_named(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {}, {"apt-config dump": (0, SET, "")})
    assert judged(host, of="automatic", origins=[ORIGIN, "origin=Docker"]).observed == ["origin=Docker"]


LIBRARY = "7f00-7f01 r-xp 00028000 fe:01 131 /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)\n"
SERVICE, POD = "0::/system.slice/ssh.service\n", "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope\n"


def running(folder: Path, maps: str, group: str = SERVICE, space: str = "pid:[1]") -> FakeHost:
    host = FakeHost(folder, {"/proc/7/maps": maps, "/proc/7/cgroup": group})
    for pid, inside in (("7", space), ("self", "pid:[1]")):
        (folder / f"proc/{pid}/ns").mkdir(parents=True)
        os.symlink(inside, folder / f"proc/{pid}/ns/pid")
    os.symlink("/usr/sbin/sshd", folder / "proc/7/exe")
    return host


@pytest.mark.parametrize(
    ("maps", "named"),
    [
        (LIBRARY, True),
        (LIBRARY.replace("/usr/lib/x86_64-linux-gnu/libssl.so.3", "/usr/sbin/sshd"), True),
        (LIBRARY.replace(" (deleted)", ""), False),
        (LIBRARY.replace("r-xp", "r--p"), False),
        (LIBRARY.replace("/usr/lib/x86_64-linux-gnu/libssl.so.3", "/memfd:doublemapper"), False),
        (LIBRARY.replace("/usr/lib/x86_64-linux-gnu/libssl.so.3", "/dev/zero"), False),
        (LIBRARY.replace("/usr/lib/x86_64-linux-gnu/libssl.so.3", "/tmp/x.so"), False),
        (LIBRARY.replace("/usr/lib/x86_64-linux-gnu/libssl.so.3", "/usr/local/bin/k3s"), False),
        ("", False),
    ],
)
def test_code_that_was_replaced_is_named_with_its_unit(tmp_path: Path, maps: str, named: bool) -> None:
    verdict = judged(running(tmp_path, maps), of="libraries")
    assert verdict.observed == (["ssh.service"] if named else "nothing")
    assert ("systemctl restart ssh.service" in verdict.reason) is named


@pytest.mark.parametrize(("group", "space"), [(POD, "pid:[1]"), (SERVICE, "pid:[2]")])
def test_what_containers_run_is_their_images(tmp_path: Path, group: str, space: str) -> None:
    assert judged(running(tmp_path, LIBRARY, group, space), of="libraries").ok


def test_a_system_that_is_a_container_itself_is_looked_at(tmp_path: Path) -> None:
    """A K3s node may be one of another cluster's pods, whose groups it sees."""
    host = running(tmp_path, LIBRARY, "0::/kubepods/burstable/pod1/2/system.slice/ssh.service\n")
    assert judged(host, of="libraries").ok
    (tmp_path / "proc/1").mkdir()
    (tmp_path / "proc/1/cgroup").write_text("0::/kubepods/burstable/pod1/2/init.scope\n")
    host._cache.clear()
    assert judged(host, of="libraries").observed == ["ssh.service"]


@pytest.mark.parametrize(
    ("group", "remedy"),
    [
        ("0::/init.scope\n", "systemctl daemon-reexec"),
        ("0::/system.slice/k3s.service\n", "one node after the other"),
        ("0::/user.slice/user-0.slice/session-3.scope\n", "when process 7 does"),
        ("0::/system.slice/dbus.service\n", "with a reboot"),
        ("0::/\n", "when process 7 does"),
    ],
)
def test_each_finding_says_what_ends_it(tmp_path: Path, group: str, remedy: str) -> None:
    assert remedy in judged(running(tmp_path, LIBRARY, group), of="libraries").reason


def kernels(folder: Path, running: str, *installed: tuple[str, str]) -> FakeHost:
    stanzas = [f"Package: linux-image-{n}\nStatus: install ok installed\nVersion: {v}\n" for n, v in installed]
    files = {STATUS: "\n".join([OPENSSL, *stanzas]), "/proc/version": f"Linux version x (gcc) #1 SMP {running}\n"}
    return FakeHost(folder, {**files, **{f"/boot/vmlinuz-{name}": "" for name, _ in installed}})


@pytest.mark.parametrize(
    ("running", "installed", "waits"),
    [
        ("Debian 6.1.10-1 (2026)", [("6.1.0-9", "6.1.10-1")], ""),
        ("Debian 6.1.10-1 (2026)", [("6.1.0-9", "6.1.12-1")], "6.1.0-9 6.1.12-1"),  # the same name, built anew
        ("Debian 6.1.10-1 (2026)", [("6.1.0-9", "6.1.10-1"), ("6.1.0-10", "6.1.20-1")], "6.1.0-10"),
        ("Debian 6.1.20-1 (2026)", [("6.1.0-9", "6.1.20-1"), ("6.1.0-8", "6.1.9-1")], ""),
        ("Debian 6.1.10-1 (2026)", [("6.1.0-10", "6.1.20-1")], "6.1.0-10"),  # what runs was removed meanwhile
        ("Ubuntu", [("6.1.0-9", "6.1.10-1"), ("6.1.0-10", "6.1.20-1")], "6.1.0-10"),
        ("Ubuntu", [("6.1.0-9", "6.1.10-1")], ""),
    ],
)
def test_a_newer_kernel_waits_for_a_reboot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: str, installed: list[tuple[str, str]], waits: str
) -> None:
    real = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*real[:2], "6.1.0-9", *real[3:])))
    verdict = judged(kernels(tmp_path, running, *installed), of="kernel")
    assert verdict.ok is (not waits) and waits in verdict.reason


def test_a_container_has_no_kernel_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="its host's"):
        judged(kernels(tmp_path, "Debian 6.1.10-1"), of="kernel")


CPUINFO = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\nmodel name\t: X\nstepping\t: 2\n\n"
)
ITS_FILE, ITS_SIGNATURE = "intel-ucode/06-cf-02", 0xC06F2


def processors(folder: Path, *running: int, installed: dict[str, bytes]) -> FakeHost:
    """A machine whose processors run with these revisions, with files of firmware."""
    host = kernels(folder, "Debian 6.1.10-1", ("6.1.0-9", "6.1.10-1"))
    files = {f"{CPUS}/cpu{n}/microcode/version": f"{revision:#x}\n".encode() for n, revision in enumerate(running)}
    files |= {f"{CPUS}/cpu0/microcode/processor_flags": b"0x80\n"} if running else {}
    files |= {f"/lib/firmware/{name}": data for name, data in installed.items()}
    for path, data in {**files, "/proc/cpuinfo": CPUINFO.encode() * 2}.items():
        real = Path(host.path(path))
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(data)
    return host


@pytest.mark.parametrize(
    ("running", "revisions", "waits"),
    [
        ([0x10], {ITS_FILE: 0x11}, "processor 0x10: microcode 0x11"),
        ([0x10], {f"updates/{ITS_FILE}": 0x11}, "processor 0x10: microcode 0x11"),
        ([0x11, 0x10], {ITS_FILE: 0x11}, "processor 0x10: microcode 0x11"),  # one was left out
        ([0x10], {ITS_FILE: 0x10}, ""),
        ([0x10], {ITS_FILE: 0xF}, ""),  # the firmware of the machine has newer
        ([0x10], {f"updates/{ITS_FILE}": 0x10, ITS_FILE: 0x11}, ""),
        ([0x10], {"intel-ucode/06-cf-03": 0x11}, ""),  # another stepping
        ([0x10], {}, ""),
        ([], {ITS_FILE: 0x11}, ""),  # the kernel of a virtual machine tells none, and would load none
    ],
)
def test_newer_microcode_waits_for_a_reboot(
    tmp_path: Path, running: list[int], revisions: dict[str, int], waits: str
) -> None:
    installed = {name: intel(revision, ITS_SIGNATURE) for name, revision in revisions.items()}
    verdict = judged(processors(tmp_path, *running, installed=installed), of="microcode")
    assert verdict.ok is (not waits) and waits in verdict.reason


def test_what_is_no_microcode_is_an_error_and_no_pass(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"{ITS_FILE} tells no revision"):
        judged(processors(tmp_path, 0x10, installed={ITS_FILE: b"#!/bin/sh\n" * 20}), of="microcode")


@given(st.text())
def test_any_status_and_any_answer_is_survived(text: str) -> None:
    list(dpkg_status.packages(text)), dpkg_status.updates(text)
