"""Mount options: those that apply now, and those of the next boot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fake_host import FakeHost

from module_utils.casemate.kinds import mount_option as kind

ROOT = "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
SHM = "2 1 0:2 / /dev/shm rw,nosuid,nodev shared:2 - tmpfs tmpfs rw\n"
WANT: Any = {"path": "/dev/shm", "options": ["nodev", "nosuid"]}
UNIT = {"systemctl show tmp.mount": (0, "FragmentPath=/etc/tmp.mount\nDropInPaths=/etc/d.conf", "")}
NODE: Any = {"path": "/var/lib/rancher", "without": ["noexec"]}


@pytest.mark.parametrize(
    ("mountinfo", "files", "setting", "reason"),
    [
        (ROOT + SHM, {}, WANT, ""),
        (ROOT + SHM, {}, {**WANT, "path": "/dev/shm/"}, ""),
        (ROOT + SHM.replace(",nodev", ""), {}, WANT, "nodev missing now"),
        (ROOT + SHM, {"/etc/fstab": "tmpfs /dev/shm tmpfs nosuid 0 0"}, WANT, "nodev missing at the next boot"),
        (ROOT + SHM, {"/etc/fstab": "#tmpfs /dev/shm tmpfs nosuid 0 0"}, WANT, ""),
        (ROOT + SHM + SHM.replace("nosuid,", ""), {}, WANT, "nosuid missing now"),
        (ROOT, {}, WANT, "it lies on /"),
        ("", {}, WANT, "it lies on ?"),
        (ROOT, {}, NODE, ""),
        (ROOT + "3 1 8:2 / /var rw,noexec - ext4 /dev/sdb rw\n", {}, NODE, "noexec set now"),
        (ROOT + "3 1 8:2 / /var/lib/ran rw,noexec - ext4 /dev/sdb rw\n", {}, NODE, ""),
        (ROOT, {"/etc/fstab": "/dev/sda1 / ext4 noexec 0 1\n"}, NODE, "noexec set at the next boot"),
    ],
)
def test_now_and_next_boot(tmp_path: Path, mountinfo: str, files: dict[str, str], setting: Any, reason: str) -> None:
    host = FakeHost(tmp_path, {"/proc/self/mountinfo": mountinfo, **files})
    verdict = kind.assess(setting, kind.observe([setting], host)[0])
    assert verdict.ok is (reason == "")
    assert reason in verdict.reason


def test_a_drop_in_of_a_mount_unit_decides(tmp_path: Path) -> None:
    tmp = "4 1 0:9 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw\n"
    files = {"/proc/self/mountinfo": ROOT + tmp, "/etc/tmp.mount": "[Mount]\nOptions=nosuid,nodev\n"}
    setting: Any = {"path": "/tmp", "options": ["nodev", "nosuid"]}
    for drop_in, ok in (("", True), ("[Mount]\nOptions=mode=1777\n", False)):
        host = FakeHost(tmp_path, {**files, "/etc/d.conf": drop_in}, UNIT)
        assert kind.assess(setting, kind.observe([setting], host)[0]).ok is ok


def test_two_demands_on_one_folder_are_two_settings() -> None:
    demands: Any = (WANT, {**WANT, "options": ["noexec"]}, {**WANT, "without": ["x"]})
    assert len({kind.identity(one) for one in demands}) == 3


def test_escaped_names_are_read() -> None:
    assert list(kind.mounts("1 0 8:1 / /mnt/a\\040b rw - ext4 x rw")) == ["/mnt/a b"]


@given(st.text())
def test_any_table_is_survived(text: str) -> None:
    kind.mounts(text), kind.fstab(text)
