"""The host's I/O: a write happens whole, with its mode and owner, or not at all."""

from __future__ import annotations

import locale
import multiprocessing
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.host import machine
from module_utils.casemate.host.clock import Start, moment
from module_utils.casemate.host.machine import EnforceError, Host, Result
from module_utils.casemate.kinds import sysctl

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".casemate-")]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o640)
    return Host(root=str(tmp_path))


@root
def test_mode_owner_and_security_attributes_are_kept(host: Host, tmp_path: Path) -> None:
    os.chown(tmp_path / "a", 1, 2)
    try:
        os.setxattr(tmp_path / "a", "security.casemate", b"label")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    os.setxattr(tmp_path / "a", "user.note", b"x")
    assert host.write("/a", b"new")
    found = (tmp_path / "a").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 1, 2)
    assert os.getxattr(tmp_path / "a", "security.casemate") == b"label"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_new_file_is_private_unless_told_otherwise(host: Host, tmp_path: Path) -> None:
    host.write("/new/b", b"x")
    host.write("/c", b"x", mode=0o644)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new/b", "c")] == [0o600, 0o644]


def test_bytes_are_never_there_with_a_wider_mode(host: Host, tmp_path: Path, monkeypatch: Any) -> None:
    modes: list[int] = []
    real = os.fsync

    def spy(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
        real(handle)

    monkeypatch.setattr(os, "fsync", spy)
    host.write("/secret", b"x", mode=0o600)
    assert modes == [0o600]


def test_the_same_bytes_and_mode_change_nothing(host: Host, tmp_path: Path) -> None:
    before = (tmp_path / "a").stat()
    assert not host.write("/a", b"old", mode=0o640)
    assert ((tmp_path / "a").stat().st_ino, host.changes) == (before.st_ino, [])


def test_a_failed_validation_leaves_the_old_bytes(host: Host, tmp_path: Path) -> None:
    with pytest.raises(EnforceError, match="refused it"):
        host.write("/a", b"new", validate=["grep", "-q", "old", "%s"])
    assert ((tmp_path / "a").read_bytes(), leftovers(tmp_path), host.changes) == (b"old", [], [])
    assert host.write("/a", b"older", validate=["grep", "-q", "old", "%s"])


def test_a_missing_validator_is_a_refusal(host: Host, tmp_path: Path) -> None:
    with pytest.raises(EnforceError, match="not found"):
        host.write("/a", b"new", validate=["casemate-no-such-program", "%s"])
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("hostile", ["link", "dangling", "folder", "pipe"])
def test_what_is_no_plain_file_is_refused(host: Host, tmp_path: Path, hostile: str) -> None:
    path = tmp_path / "x"
    if hostile == "folder":
        path.mkdir()
    elif hostile == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / ("a" if hostile == "link" else "none"))
    with pytest.raises(EnforceError, match="not a regular file"):
        host.write("/x", b"new")
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "none").exists()) == (b"old", False)


OTHERS_MODES = [0o700, 0o777, 0o1777]
"""Of folders that are another's, and of root's own in which everybody writes, /tmp above all."""


@pytest.fixture
def trap(host: Host, tmp_path: Path) -> Path:
    """/home/eve, which is hers, and /safe with two files that are none of hers."""
    home = tmp_path / "home/eve"
    (home / ".ssh").mkdir(parents=True)
    (tmp_path / "safe").mkdir()
    for name in ("safe/authorized_keys", "safe/other"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o644)
    for path in (home, home / ".ssh"):
        os.chown(path, 12345, 12345)
    return home


def untouched(tmp: Path) -> bool:
    files = [tmp / "safe/authorized_keys", tmp / "safe/other"]
    kept = all((stat.S_IMODE(p.stat().st_mode), p.stat().st_uid, p.read_text()) == (0o644, 0, "x") for p in files)
    return kept and sorted(os.listdir(tmp / "safe")) == ["authorized_keys", "other"]


KEYS = "/home/eve/.ssh/authorized_keys"
CHANGES: dict[str, Callable[[Host], object]] = {
    "restrict": lambda host: host.restrict(KEYS, 0o600, (7, 7)),
    "write": lambda host: host.write(KEYS, b"new"),
    "remove": lambda host: host.remove(KEYS),
}


@root
@pytest.mark.parametrize("link", ["folder", "relative", "above"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_planted_link_is_not_followed(host: Host, tmp_path: Path, trap: Path, link: str, change: str) -> None:
    if link == "above":  # a folder of hers is reached by a link of root's, and hers comes after it
        trap.rename(tmp_path / "moved")
        (tmp_path / "home/eve").symlink_to("../moved")
        trap = tmp_path / "moved"
    (trap / ".ssh").rmdir()
    (trap / ".ssh").symlink_to("../../safe" if link == "relative" else tmp_path / "safe")
    with pytest.raises((EnforceError, FileNotFoundError)):
        CHANGES[change](host)
    assert untouched(tmp_path)
    assert not host.changes


@root
@pytest.mark.parametrize("mode", OTHERS_MODES)
def test_a_link_in_a_folder_that_all_may_write_is_not_followed(host: Host, tmp_path: Path, mode: int) -> None:
    (tmp_path / "safe").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(mode)
    if mode == 0o700:
        os.chown(tmp_path / "shared", 12345, -1)
    (tmp_path / "shared/x").symlink_to(tmp_path / "safe")
    with pytest.raises(EnforceError, match="others may change"):
        host.write("/shared/x/new", b"new")
    assert os.listdir(tmp_path / "safe") == []


@root
def test_links_that_root_alone_can_put_are_followed(host: Host, tmp_path: Path) -> None:
    """/var/lib/rancher on another disk, /var/run, a home elsewhere."""
    (tmp_path / "disk/inner").mkdir(parents=True)
    (tmp_path / "var").mkdir()
    (tmp_path / "var/lib").symlink_to("../disk/./inner")
    (tmp_path / "var/loop").symlink_to("loop")
    host.write("/var/lib/k3s/a", b"x", mode=0o644)
    host.restrict("/var/lib/k3s/a", 0o600)
    assert stat.S_IMODE((tmp_path / "disk/inner/k3s/a").stat().st_mode) == 0o600
    with pytest.raises(EnforceError, match="loop"):
        host.write("/var/loop/a", b"x")


@root
@pytest.mark.parametrize("what", ["link", "second name"])
def test_a_planted_file_is_not_changed(host: Host, tmp_path: Path, trap: Path, what: str) -> None:
    if what == "link":
        (trap / ".ssh/authorized_keys").symlink_to(tmp_path / "safe/other")
    else:
        os.link(tmp_path / "safe/other", trap / ".ssh/authorized_keys")
    with pytest.raises(EnforceError, match="not touched"):
        host.restrict(KEYS, 0o600, (7, 7))
    assert untouched(tmp_path)


@root
@pytest.mark.parametrize("late", ["the file", "its folder"])
def test_what_is_swapped_after_it_was_looked_at_is_not_changed(
    host: Host, tmp_path: Path, trap: Path, monkeypatch: Any, late: str
) -> None:
    """Eve acts between the look and the change: the change meets what was looked at."""
    keys = trap / ".ssh/authorized_keys"
    keys.write_text("hers")
    real = os.fstat

    def swap(handle: int) -> os.stat_result:
        seen = real(handle)
        if stat.S_ISREG(seen.st_mode) and not (trap / "old").exists():
            if late == "the file":
                keys.rename(trap / "old")
                keys.symlink_to(tmp_path / "safe/other")
            else:
                (trap / ".ssh").rename(trap / "old")
                (trap / ".ssh").symlink_to(tmp_path / "safe")
        return seen

    monkeypatch.setattr(os, "fstat", swap)
    host.restrict(KEYS, 0o600, (7, 7))
    monkeypatch.undo()
    assert untouched(tmp_path)
    changed = trap / ("old" if late == "the file" else "old/authorized_keys")
    assert (stat.S_IMODE(changed.stat().st_mode), changed.stat().st_uid) == (0o600, 7)


def _swap_forever(home: str, safe: str) -> None:
    while True:
        os.rename(f"{home}/.ssh", f"{home}/kept")
        os.symlink(safe, f"{home}/.ssh")
        os.unlink(f"{home}/.ssh")
        os.rename(f"{home}/kept", f"{home}/.ssh")


@root
def test_a_race_is_not_won(host: Host, tmp_path: Path, trap: Path) -> None:
    (trap / ".ssh/authorized_keys").write_text("hers")
    eve = multiprocessing.get_context("fork").Process(target=_swap_forever, args=(str(trap), str(tmp_path / "safe")))
    eve.start()
    try:
        for turn in range(400):
            for change in CHANGES.values():
                try:
                    change(host)
                except (EnforceError, OSError):
                    continue
            assert untouched(tmp_path), turn
    finally:
        eve.kill()
        eve.join()


def _stuck_write(folder: str, ready: Any) -> None:
    def stop(*_: object) -> None:
        ready.set()
        time.sleep(60)

    os.replace = stop  # type: ignore[assignment]
    Host(root=folder).write("/a", b"new")


def test_killed_in_the_middle_leaves_the_old_file(host: Host, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=_stuck_write, args=(str(tmp_path), ready))
    child.start()
    assert ready.wait(20)
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert ((tmp_path / "a").read_bytes(), len(leftovers(tmp_path))) == (b"old", 1)
    assert stat.S_IMODE((tmp_path / leftovers(tmp_path)[0]).stat().st_mode) == 0o640


def test_a_full_disk_leaves_the_old_file(host: Host, tmp_path: Path, monkeypatch: Any) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        host.write("/a", b"new")
    assert ((tmp_path / "a").read_bytes(), leftovers(tmp_path)) == (b"old", [])


def test_a_sensitive_write_shows_no_bytes(host: Host) -> None:
    host.write("/a", b"canary-7", sensitive=True)
    assert "canary" not in str(host.changes)
    assert "old" not in str(host.changes)


def test_removing(host: Host, tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to(tmp_path / "a")
    (tmp_path / "d").mkdir()
    assert host.remove("/l") and (tmp_path / "a").exists()
    assert host.remove("/a") and not host.remove("/a")
    with pytest.raises(EnforceError, match="directory"):
        host.remove("/d")


def test_a_pipe_or_folder_reads_as_nothing_and_at_once(host: Host, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    assert (host.read("/p"), host.read("/"), host.read("/none"), host.read("/a/b")) == (None, None, None, None)


def test_a_write_forgets_what_was_observed(host: Host) -> None:
    assert host.cached("x", lambda: 1) == host.cached("x", lambda: 2) == 1
    host.write("/a", b"new")
    assert host.cached("x", lambda: 2) == 2


@pytest.mark.parametrize(("argv", "rc"), [(["casemate-no-such"], 127), (["sleep", "5"], 124), (["false"], 1)])
def test_commands_never_raise(host: Host, argv: list[str], rc: int) -> None:
    assert host.run(argv, timeout=0.2).rc == rc


def test_commands_answer_in_the_c_locale(host: Host, monkeypatch: Any) -> None:
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    assert host.run(["sh", "-c", "echo $LANG$LC_ALL"]).out == "C\n"


def test_commands_speak_utf8_whatever_this_process_does(host: Host, monkeypatch: Any) -> None:
    monkeypatch.setattr(locale, "getpreferredencoding", lambda *_: "latin-1")
    monkeypatch.setattr(locale, "getencoding", lambda: "latin-1", raising=False)
    assert host.run(["cat"], stdin="\u00e9\udcff\r\n") == Result(0, "\u00e9\ufffd\r\n", "")
    assert host.run(["od", "-An", "-tx1"], stdin="\u00e9\udcff").out == " c3 a9 ff\n"


def test_commands_know_no_place_and_no_language(host: Host, monkeypatch: Any) -> None:
    for name in ("LANG", "LANGUAGE", "LC_TIME", "LC_NUMERIC", "LC_ALL"):
        monkeypatch.setenv(name, "de_DE.UTF-8")
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    assert host.run(["sh", "-c", "env | grep -E '^(LC_|LANG|TZ)' | sort"]).out == "LC_ALL=C\nTZ=UTC0\n"


TREE = [
    "a.conf",
    ".a.conf",
    "B.conf",
    "b.txt",
    "s/c.conf",
    "s/.h/d.conf",
    ".h/e.conf",
    "s.conf/f",
    "\u00e9.conf",
    "~.conf",
]


@pytest.mark.parametrize(
    ("pattern", "hidden", "found"),
    [
        ("/d/*.conf", False, ["B.conf", "a.conf", "s.conf", "~.conf", "\u00e9.conf"]),
        ("/d/*.conf", True, [".a.conf", "B.conf", "a.conf", "s.conf", "~.conf", "\u00e9.conf"]),
        ("/d/.*.conf", False, [".a.conf"]),
        ("/d/[^a]*.conf", False, ["B.conf", "s.conf", "~.conf", "\u00e9.conf"]),
        ("/d/[!a].conf", False, ["B.conf", "s.conf", "~.conf", "\u00e9.conf"]),
        ("/d/*/*", False, ["s.conf/f", "s/c.conf"]),
        ("/d/*/*.conf", True, [".h/e.conf", "s/c.conf"]),
        (
            "/d/**/*.conf",
            True,
            [
                ".a.conf", ".h/e.conf", "B.conf", "a.conf", "s.conf", "s/.h/d.conf", "s/c.conf", "~.conf",
                "\u00e9.conf",
            ],
        ),
        ("/d/a.conf", False, ["a.conf"]),
        ("/d/none", True, []),
        ("/none/*", True, []),
        ("/d/a.conf/*", True, []),
    ],
)  # fmt: skip
def test_names_are_found_as_daemons_find_them(tmp_path: Path, pattern: str, hidden: bool, found: list[str]) -> None:
    """glob(3), Go's filepath.Glob and filepath.WalkDir; the order is that of bytes, whatever the language."""
    place = tmp_path / "[x]*"  # what stands above the pattern is no pattern
    host = Host(root=str(place))
    for name in TREE:
        (place / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "d" / name).touch()
    (place / "d/loop").symlink_to(place / "d")  # no link is followed by **
    assert [path[3:] for path in host.glob(pattern, hidden) if "/loop" not in path] == found


@pytest.mark.parametrize(
    ("place", "flags", "content", "barred"),
    [
        ("/d/f", 0x10, True, "/d/f is immutable: chattr -i /d/f"),
        ("/d/f", 0x10, False, "/d/f is immutable: chattr -i /d/f"),
        ("/d/f", 0x20, True, "/d/f is append-only: chattr -a /d/f"),
        ("/d/f", 0x30, True, "/d/f is immutable: chattr -i /d/f"),
        ("/d/f", 0x80000, True, ""),  # extents: what every file of ext4 has
        ("/d", 0x10, True, "/d is immutable: chattr -i /d"),
        ("/d", 0x20, True, "/d is append-only: chattr -a /d"),
        ("/d", 0x10, False, ""),  # mode and owner of what lies in it can change
    ],
)
def test_flags_that_bind_root_are_named(
    tmp_path: Path, monkeypatch: Any, place: str, flags: int, content: bool, barred: str
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    host = Host(root=str(tmp_path))
    monkeypatch.setattr(machine, "flags_of", lambda real: flags if real == host.path(place) else 0)
    assert host.barred("/d/f", content) == barred


@pytest.mark.parametrize(("flags", "barred"), [(0x10, "/d is immutable: chattr -i /d"), (0x20, "")])
def test_a_file_to_be_made_needs_the_folder_that_is_there(
    tmp_path: Path, monkeypatch: Any, flags: int, barred: str
) -> None:
    (tmp_path / "d").mkdir()
    host = Host(root=str(tmp_path))
    monkeypatch.setattr(machine, "flags_of", lambda real: flags if real == host.path("/d") else 0)
    assert host.barred("/d/new/folder/file") == barred


@pytest.mark.parametrize(
    ("points", "readonly", "content", "barred"),
    [
        (["/", "/d/my f"], False, True, "/d/my f is a mount of its own and cannot be replaced: umount '/d/my f'"),
        (["/", "/d/my f"], False, False, ""),
        (["/", "/d"], True, True, "/d/my f lies on a read-only mount: mount -o remount,rw "),
        (["/", "/d"], True, False, "/d/my f lies on a read-only mount: mount -o remount,rw "),
        (["/", "/d/my"], False, True, ""),
    ],
)
def test_mounts_that_bar_a_change_are_named(
    tmp_path: Path, monkeypatch: Any, points: list[str], readonly: bool, content: bool, barred: str
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/my f").touch()
    (tmp_path / "proc/self").mkdir(parents=True)
    lines = [f"1 0 8:1 / {tmp_path}{one} rw - ext4 /dev/x rw\n".replace("my f", "my\\040f") for one in points]
    (tmp_path / "proc/self/mountinfo").write_text("".join(lines))
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY if readonly else 0))
    said = Host(root=str(tmp_path)).barred("/d/my f", content)
    assert said.startswith(barred) and bool(said) is bool(barred)


@root
@pytest.mark.parametrize("flag", ["i", "a"])
def test_the_flag_itself_is_seen(tmp_path: Path, flag: str) -> None:
    (tmp_path / "f").touch()
    if subprocess.run(["chattr", f"+{flag}", tmp_path / "f"], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no such flags")
    try:
        assert f"chattr -{flag} /f" in Host(root=str(tmp_path)).barred("/f")
        with pytest.raises(PermissionError):
            Host(root=str(tmp_path)).write("/f", b"new")
    finally:
        subprocess.run(["chattr", f"-{flag}", tmp_path / "f"], check=True)


def test_a_date_is_brought_back(host: Host, tmp_path: Path) -> None:
    os.utime(tmp_path / "a", (9e9, 9e9))
    assert host.dated("/a") == "/a (dated 2255-03-14 16:00:00 UTC, in the future)"
    host.touch("/a")
    assert (host.dated("/a"), (tmp_path / "a").read_bytes(), len(host.changes)) == ("/a", b"old", 1)


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [("Thu 1970-01-01 00:00:10.500000 UTC", 10.5), ("", None), ("n/a", None), ("0", None)],
)
def test_moments_have_microseconds(stamp: str, seconds: float | None) -> None:
    assert moment(stamp) == seconds


def test_a_reload_counts_as_a_start(tmp_path: Path) -> None:
    shown = "ActiveState=active\nActiveEnterTimestamp={}\nStateChangeTimestamp={}\n".format(
        "Thu 1970-01-01 00:00:10.000000 UTC", "Thu 1970-01-01 00:00:20.000000 UTC"
    )
    assert FakeHost(tmp_path, commands={"systemctl": (0, shown, "")}).started("a.service") == Start(20, 20)
    stopped: Any = {"systemctl": (0, shown.replace("active", "failed"), "")}
    assert FakeHost(tmp_path, commands=stopped).started("a.service") is None


def test_without_a_guard_a_guarded_change_is_refused(host: Host) -> None:
    with pytest.raises(EnforceError, match="guard"):
        host.arm(["/a"])


GUARDED: dict[str, tuple[Callable[[Host], object], tuple[str, str]]] = {
    "written": (lambda host: host.write("/etc/kept", b"new"), ("file", "/etc/kept")),
    "made": (lambda host: host.write("/etc/made", b"new"), ("file", "/etc/made")),
    "removed": (lambda host: host.remove("/etc/kept"), ("file", "/etc/kept")),
    "restricted": (lambda host: host.restrict("/etc/kept", 0o400), ("mode", "/etc/kept")),
    "live": (
        lambda host: sysctl.enforce([{"key": "kernel.panic", "value": 10}], {0}, host),
        ("value", "/proc/sys/kernel/panic"),
    ),
}


@root
@pytest.mark.parametrize("change", GUARDED)
def test_whatever_is_changed_is_guarded_before(tmp_path: Path, change: str) -> None:
    """The guard refuses, and everything is as it was; nothing that is as it should be is guarded."""
    do, expected = GUARDED[change]
    asked: list[tuple[str, str]] = []

    def refuse(names: Sequence[str], sort: str) -> None:
        asked.extend((sort, name) for name in names)
        if (sort, *names) == (expected[0], expected[1]):
            raise EnforceError("no room for a backup")

    host = Host(str(tmp_path), guard=refuse)
    for path, text in (("/etc/kept", "old"), ("/proc/sys/kernel/panic", "0\n")):
        (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path[1:]).write_text(text)
        (tmp_path / path[1:]).chmod(0o600)
    with pytest.raises(EnforceError, match="no room"):
        do(host)
    assert asked[-1] == expected
    assert (host.text("/etc/kept"), host.text("/proc/sys/kernel/panic"), host.stat("/etc/made")) == ("old", "0\n", None)
    assert (tmp_path / "etc/kept").stat().st_mode & 0o777 == 0o600


@root
def test_what_is_as_it_should_be_arms_nothing(tmp_path: Path) -> None:
    asked: list[str] = []
    host = Host(str(tmp_path), guard=lambda names, sort: asked.extend(names))
    (tmp_path / "kept").write_text("old")
    (tmp_path / "kept").chmod(0o600)
    host.write("/kept", b"old", 0o600)
    host.restrict("/kept", 0o600)
    host.remove("/absent")
    assert asked == []
