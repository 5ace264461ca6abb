"""Private folders of runs, and what killed runs left of them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from casemate.run import runner, scratch

GONE = 2**22 + 1
"""A process id beyond those that Linux gives (proc(5), pid_max)."""


def left(folder: Path, name: str, mode: int = 0o700, age: float = 0.0) -> Path:
    made = folder / name
    made.mkdir()
    (made / "command").write_text("AWS_SECRET_ACCESS_KEY=canary")
    made.chmod(mode)
    os.utime(made, (time.time() - age,) * 2)
    return made


def test_what_a_killed_run_left_goes_with_the_next_run(tmp_path: Path) -> None:
    killed = left(tmp_path, f"casemate-{GONE}-123-abcdefgh")
    reused = left(tmp_path, f"casemate-{os.getpid()}-1-abcdefgh")  # the id is another process's now
    older = left(tmp_path, "casemate-abcd_123", age=2 * scratch.DAY)
    scratch.sweep(str(tmp_path))
    assert not [path for path in (killed, reused, older) if path.exists()]


def test_nothing_else_is_touched(tmp_path: Path) -> None:
    own = f"casemate-{os.getpid()}-{scratch.started(os.getpid())}-abcdefgh"
    kept = [
        left(tmp_path, own),
        left(tmp_path, "casemate-abcd_123"),  # of a release before, and perhaps in use
        left(tmp_path, f"casemate-{GONE}-1-readable", mode=0o755),
        left(tmp_path, f"other-{GONE}-1-abcdefgh"),
        left(tmp_path, "casemate-merge.lock"),
    ]
    target = left(tmp_path, "precious")
    link = tmp_path / f"casemate-{GONE}-1-linklink"
    link.symlink_to(target)
    file = tmp_path / f"casemate-{GONE}-1-afileaaa"
    file.write_text("")
    inside = left(tmp_path, f"casemate-{GONE}-1-withlink")
    (inside / "way out").symlink_to(target)
    scratch.sweep(str(tmp_path))
    assert all(path.exists() for path in [*kept, link, file])
    assert not inside.exists() and (target / "command").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
def test_another_account_s_folder_is_its_own(tmp_path: Path) -> None:
    theirs = left(tmp_path, f"casemate-{GONE}-1-abcdefgh")
    os.chown(theirs, 12345, 12345)
    scratch.sweep(str(tmp_path))
    assert theirs.exists()


def test_a_run_in_another_container_keeps_its_folder_by_its_lock(tmp_path: Path) -> None:
    living = left(tmp_path, f"casemate-{GONE}-1-abcdefgh")
    handle = os.open(living, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    scratch.sweep(str(tmp_path))
    assert living.exists()
    os.close(handle)
    scratch.sweep(str(tmp_path))
    assert not living.exists()


def test_a_run_names_locks_and_removes_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch.folder() as made:
        assert Path(made).name.startswith(f"casemate-{os.getpid()}-{scratch.started(os.getpid())}-")
        assert os.stat(made).st_mode & 0o777 == 0o700
        scratch.sweep(str(tmp_path))
        assert Path(made).exists()
    assert list(tmp_path.iterdir()) == []


RUN = "import sys; from casemate.run import scratch\nwith scratch.folder():\n print('up', flush=True); sys.stdin.read()"


def heed_signals() -> None:
    """A run that was started in the background may have been told to ignore them, and hands that on."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing_that_its_successor_does_not_remove(tmp_path: Path, number: int) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", RUN], env={**os.environ, "TMPDIR": str(tmp_path)}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=heed_signals,
    )  # fmt: skip
    assert run.stdout is not None and run.stdin is not None
    assert run.stdout.readline() == "up\n"
    scratch.sweep(str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1  # it lives
    run.send_signal(number)
    assert run.wait(60) != 0
    assert len(list(tmp_path.iterdir())) == (1 if number == signal.SIGKILL else 0)
    scratch.sweep(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
def test_what_ansible_runner_notes_of_the_environment_never_reaches_the_disk(tmp_path: Path, size: int) -> None:
    path = tmp_path / "artifacts" / "run" / "command"
    with runner._swallowed(path):
        if size:
            path.write_text("x" * size)
            path.chmod(0o600)
        assert path.is_fifo()
    assert not [thread for thread in threading.enumerate() if "swallow" in thread.name]


def test_no_environment_of_the_operator_is_on_disk_while_ansible_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-the-environment")
    monkeypatch.setenv("ANSIBLE_HOME", str(tmp_path / "home"))
    held: list[str] = []

    def look(_: runner.Run) -> None:
        for path in [*temporary.rglob("*"), *(tmp_path / "home").rglob("*")]:
            if path.is_file():
                held.append(path.name)
                assert b"canary-of-the-environment" not in path.read_bytes(), path

    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all: {children: {k3s_server: {hosts: {n1: {ansible_connection: local}}}}}\n")
    run = runner.play("check.yml", (str(inventory),), watch=look)
    assert "envvars" in held and run.hosts["n1"].status == "error"  # its input is incomplete
    assert list(temporary.iterdir()) == []
