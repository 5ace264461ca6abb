"""Kernel modules: what modprobe itself says it would do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost
from unit.test_engine import control

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.engine import run as engine
from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.kinds import kernel_module as kind

TREE = {f"/lib/modules/{os.uname().release}/modules.dep": ""}
LOADS = "insmod /lib/modules/6/dep.ko \ninsmod /lib/modules/6/usb-storage.ko.xz delay=1\n"
GONE = (1, "", "modprobe: FATAL: Module usb-storage not found in directory /lib/modules/6\n")


def host_of(tmp: Path, answer: tuple[int, str, str], modules: str = "", boot: str = "") -> FakeHost:
    files = {**TREE, "/proc/modules": modules, "/etc/modules-load.d/a.conf": boot}
    return FakeHost(tmp, files, {"modprobe --show-depends usb-storage": answer})


def judge(host: FakeHost, state: str) -> Any:
    setting: Any = {"name": "usb-storage", "state": state}
    return kind.assess(setting, kind.observe([setting], host)[0])


@pytest.mark.parametrize(
    ("answer", "modules", "ok", "reason"),
    [
        ((0, "install /bin/false\n", ""), "", True, ""),
        (GONE, "", True, ""),
        ((0, LOADS, ""), "", False, "the next request would load it"),
        ((0, "install /bin/true; insmod /tmp/evil.ko\n", ""), "", False, "would load"),
        ((0, "install /sbin/modprobe --ignore-install usb-storage\n", ""), "", False, "would load"),
        ((0, "install /bin/false\ninsmod /lib/modules/6/uas.ko\n", ""), "", True, ""),
        ((0, "install /bin/false\ninsmod /lib/modules/6/usb_storage.ko\n", ""), "", False, "would load"),
        ((0, "install /bin/false\n", ""), "usb_storage 77 0 - Live\n", False, "it is loaded"),
        ((0, "builtin usb_storage\n", ""), "", False, "part of the kernel"),
    ],
)
def test_blocked(tmp_path: Path, answer: tuple[int, str, str], modules: str, ok: bool, reason: str) -> None:
    verdict = judge(host_of(tmp_path, answer, modules), "blocked")
    assert verdict.ok is ok
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("modules", "boot", "ok", "reason"),
    [
        ("usb_storage 1 0\n", "usb-storage\n", True, ""),
        ("usb_storage 1 0\n", "# usb-storage\n", False, "next boot"),
        ("other 1 0 usb_storage\n", "usb_storage\n", False, "not loaded"),
    ],
)
def test_loaded(tmp_path: Path, modules: str, boot: str, ok: bool, reason: str) -> None:
    verdict = judge(host_of(tmp_path, (0, LOADS, ""), modules, boot), "loaded")
    assert (verdict.ok, reason in verdict.reason) == (ok, True)


def test_a_machine_without_modules_or_tools_is_not_evaluated(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="modules"):
        judge(FakeHost(tmp_path), "blocked")
    with pytest.raises(Unavailable, match="kmod"):
        judge(FakeHost(tmp_path, TREE), "blocked")


def test_a_modprobe_that_cannot_tell_is_an_error_and_not_a_pass(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot tell"):
        judge(host_of(tmp_path, (1, "", "modprobe: FATAL: could not read modules.dep")), "blocked")


@pytest.mark.skipif(os.geteuid() != 0, reason="owned files are root's")
def test_enforcing_writes_the_owned_file_and_unloads(tmp_path: Path) -> None:
    host = host_of(tmp_path, (0, LOADS, ""), "usb_storage 1 0\n")
    host.commands["modprobe -r usb-storage"] = (0, "", "")
    settings: Any = [{"name": "usb-storage", "state": "blocked"}, {"name": "br_netfilter", "state": "loaded"}]
    kind.enforce(settings, {0}, host)
    assert "install usb-storage /bin/false\n" in (host.text(kind.BLOCKED) or "")
    assert (host.text(kind.LOADED) or "").endswith("\nbr_netfilter\n")
    assert host.ran == [["modprobe", "-r", "usb-storage"]]


@pytest.mark.skipif(os.geteuid() != 0, reason="owned files are root's")
def test_a_module_in_use_stays_and_is_named(tmp_path: Path) -> None:
    host = host_of(tmp_path, (0, LOADS, ""), "usb_storage 1 1\n")
    host.commands["modprobe -r usb-storage"] = (1, "", "FATAL: Module usb_storage is in use.")
    with pytest.raises(EnforceError, match="in use"):
        kind.enforce([{"name": "usb-storage", "state": "blocked"}], {0}, host)


def test_dash_and_underscore_are_one_module() -> None:
    assert len({kind.identity({"name": name, "state": "blocked"}) for name in ("usb-storage", "usb_storage")}) == 1


USED: dict[str, tuple[str, dict[str, str], str]] = {
    "a mounted file system": ("vfat", {"/proc/self/mounts": "/dev/sda1 /boot/efi vfat rw 0 0\n"}, "/boot/efi"),
    "one that the next boot mounts": ("vfat", {"/etc/fstab": "# <fs>\nLABEL=E /boot/efi vfat ro 0 1\n"}, "fstab"),
    "one of several": ("udf", {"/etc/fstab": "/dev/sr0 /media/cd udf,iso9660 user,noauto 0 0\n"}, "/media/cd"),
    "snaps": ("squashfs", {"/proc/self/mounts": "/dev/loop0 /snap/core/1 squashfs ro 0 0\n"}, "/snap/core/1"),
    "counted by the kernel": ("sctp", {"/proc/modules": "sctp 40 2 - Live 0x0\n"}, "used 2 times"),
    "used by another": ("usb-storage", {"/proc/modules": "usb_storage 77 1 uas, Live 0x0\n"}, "used by uas"),
    "the driver of a device": (
        "usb-storage",
        {"/proc/modules": "usb_storage 77 0 - Live\n", "/sys/module/usb_storage/drivers/usb:x/1-1:1.0/driver": ""},
        "the driver of 1-1:1.0",
    ),
}  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="owned files are root's")
@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize(("name", "files", "by"), USED.values(), ids=USED)
def test_what_the_machine_uses_is_told_and_never_kept_out(
    tmp_path: Path, name: str, files: Any, by: str, written: bool
) -> None:
    settings: Any = [{"name": name, "state": "blocked"}, {"name": "cramfs", "state": "blocked"}]
    files = {**TREE, "/proc/modules": "", **files}
    own = Path(FakeHost(tmp_path, files).path(kind.BLOCKED))
    own.parent.mkdir(parents=True)
    own.write_text(kind.texts(settings)["blocked"] if written else "")
    controls = [control(f"MODULE-{n}-BLOCKED", {"kind": "kernel_module", **s}) for n, s in enumerate(settings)]
    changes = []
    for check in (True, False, True, False):  # what check foretells is what apply does, and the second apply is quiet
        host = FakeHost(tmp_path, commands={"modprobe --show-depends": (0, f"insmod /lib/{name}.ko\n", "")})
        step = "install /bin/false\n" if "cramfs" in own.read_text() else "insmod /lib/cramfs.ko\n"
        host.commands["modprobe --show-depends cramfs"] = (0, step, "")
        done = engine.run({"role": controls}, host, check)
        used = done.findings[0]
        assert (used["status"], used["action"], done.unsettled) == ("fail", "blocked", [])
        assert "it is in use" in used["reason"] and by in used["reason"]
        assert not [argv for argv in host.ran if argv[:2] == ["modprobe", "-r"]]
        changes.append((bool(done.roles_to_apply), len(host.changes)))
    assert changes == [(True, 0), (False, 1), (False, 0), (False, 0)]
    assert f"blacklist {name}" not in own.read_text() and "blacklist cramfs" in own.read_text()


def test_a_module_that_is_loaded_and_unused_is_unloaded_as_before(tmp_path: Path) -> None:
    host = host_of(tmp_path, (0, LOADS, ""), "usb_storage 77 0 - Live\n")
    verdict = judge(host, "blocked")
    assert (verdict.blocked_by, verdict.still_enforced) == ("", True)
