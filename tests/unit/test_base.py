"""The host's I/O: a write happens whole, with its mode and owner, or not at all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.base import EnforceError, Host, moment

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
    assert FakeHost(tmp_path, commands={"systemctl": (0, shown, "")}).started("a.service") == 20
    stopped = {"systemctl": (0, shown.replace("active", "failed"), "")}
    assert FakeHost(tmp_path, commands=stopped).started("a.service") is None


def test_without_a_guard_a_guarded_change_is_refused(host: Host) -> None:
    with pytest.raises(EnforceError, match="guard"):
        host.arm(["/a"])
