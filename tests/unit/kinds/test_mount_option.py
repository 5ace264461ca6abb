"""Mount options: those that apply now, and those of the next boot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Left
from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.kinds import mount_option as kind
from module_utils.casemate.kinds.kind import Pass

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


NOEXEC: Any = {"path": "/dev/shm", "options": ["noexec"]}
ROOT_LINE = "UUID=1 / ext4 errors=remount-ro 0 1"
OLD = "tmpfs /dev/shm tmpfs size=1G 0 0"
NEW = "tmpfs /dev/shm tmpfs {}nodev,noexec,nosuid 0 0"


@pytest.mark.parametrize(
    ("table", "after"),
    [
        (None, f"{kind.MARK}/dev/shm\n{NEW.format('defaults,')}\n"),
        (ROOT_LINE, f"{ROOT_LINE}\n{kind.MARK}/dev/shm\n{NEW.format('defaults,')}\n"),
        (f"{OLD}\n{ROOT_LINE}\n", f"{kind.MARK}{OLD}\n{NEW.format('size=1G,')}\n{ROOT_LINE}\n"),
        (f"# {OLD}\n", f"# {OLD}\n{kind.MARK}/dev/shm\n{NEW.format('defaults,')}\n"),
    ],
)
def test_what_systemd_mounts_gets_its_line_and_a_waiver_takes_it_back(
    tmp_path: Path, table: str | None, after: str
) -> None:
    files = {"/proc/self/mountinfo": ROOT + SHM, **({} if table is None else {kind.TABLE: table})}
    host = FakeHost(tmp_path, files, {"mount -o remount,": (0, "", "")})
    run = Pass([], check=False)
    assert kind.left(NOEXEC, run, host) == Left()
    kind.enforce([WANT, NOEXEC], {1}, host)
    assert (host.text(kind.TABLE), host.armed) == (after, [kind.TABLE])
    assert ["mount", "-o", "remount,nodev,noexec,nosuid", "/dev/shm"] in host.ran
    assert "now" in kind.assess(NOEXEC, kind.observe([NOEXEC], host)[0]).reason, "the mount is not the test's"
    assert kind.left(NOEXEC, run, host) == Left(kind.TABLE)
    kind.enforce([NOEXEC], {0}, host)
    assert host.text(kind.TABLE) == after
    host.write(kind.TABLE, after.replace("noexec", "exec").encode())
    kind.enforce([NOEXEC], {0}, host)
    assert str(host.text(kind.TABLE)).count("/dev/shm") == after.count("/dev/shm")
    host.write(kind.TABLE, after.encode())
    kind.take_back([NOEXEC], [], host)
    assert (host.text(kind.TABLE) or "").strip() == (table or "").strip()


def test_the_lines_of_other_mounts_are_the_operator_s(tmp_path: Path) -> None:
    for path, there in (("/home", HOME), ("/dev/shm", "")):
        host = FakeHost(tmp_path, {"/proc/self/mountinfo": ROOT + there})
        with pytest.raises(EnforceError, match="the operator's"):
            kind.enforce([{"path": path, "options": ["noexec"]}], {0}, host)
        assert host.text(kind.TABLE) is None


HOME = "5 1 8:3 / /home rw,nodev,relatime - ext4 /dev/sdb1 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "table", "path", "options", "line"),
    [
        (ROOT, "", "/home", ["nodev"], "PARTITION /home ext4 defaults,nodev 0 2"),
        (ROOT, "", "/tmp", ["nosuid", "nodev"], "tmpfs /tmp tmpfs defaults,nodev,nosuid 0 0"),
        (ROOT + HOME, "", "/home", ["nosuid"], "/dev/sdb1 /home ext4 defaults,nodev,nosuid 0 2"),
        (ROOT + HOME, "LABEL=h /home xfs rw,suid,discard 0 2\n", "/home", ["nosuid"],
         "LABEL=h /home xfs rw,discard,nodev,nosuid 0 2"),
        (ROOT + SHM, "", "/dev/shm", ["noexec"], "tmpfs /dev/shm tmpfs defaults,nodev,noexec,nosuid 0 0"),
    ],
)  # fmt: skip
def test_the_line_to_write_is_told_and_is_right(
    tmp_path: Path, mountinfo: str, table: str, path: str, options: list[str], line: str
) -> None:
    setting: Any = {"path": path, "options": options}
    host = FakeHost(tmp_path, {"/proc/self/mountinfo": mountinfo, "/etc/fstab": table})
    verdict = kind.assess(setting, kind.observe([setting], host)[0])
    assert not verdict.ok and line in verdict.reason
    mounted = f"6 1 0:9 / {path} rw,{line.split()[3]} - x y rw\n"
    host = FakeHost(tmp_path, {"/proc/self/mountinfo": ROOT + mounted, "/etc/fstab": f"{line}\n"})
    assert kind.assess(setting, kind.observe([setting], host)[0]).ok


def test_the_line_takes_away_what_may_not_be(tmp_path: Path) -> None:
    table = "/dev/sda1 / ext4 errors=remount-ro,noexec 0 1\n"
    host = FakeHost(tmp_path, {"/proc/self/mountinfo": ROOT, "/etc/fstab": table})
    assert "/dev/sda1 / ext4 errors=remount-ro 0 1" in kind.assess(NODE, kind.observe([NODE], host)[0]).reason
