"""Private folders for the time of a run, and what runs that were killed left of theirs.

A folder's name says whose it is: `casemate-<process>-<when that process started>-<random>`, and its run holds a lock
on it, which ends with the process however that ends. So a folder is left over when its process is gone, and, since
another container may count processes anew, nobody holds its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

NAME = re.compile(r"casemate-(\d+)-(\d+)-\w+")
UNNAMED = re.compile(r"casemate-\w{8}")
"""How releases before this one called them: left over when nobody has touched them for a day."""
DAY = 24 * 3600
OPENING = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def started(process: int) -> str:
    """When a process started, in clock ticks since boot; empty when there is none, or it is a zombie.

    Source: proc(5), field 22.
    """
    fields = _fields(process)
    return fields[22 - 3] if fields and fields[0] != "Z" else ""


def is_zombie(process: int) -> bool:
    """Whether a process has ended, and its parent has not asked for its end yet. Source: proc(5), field 3."""
    return _fields(process)[:1] == ["Z"]


def _fields(process: int) -> list[str]:
    """The fields of a process from the third on, for the second, a name in brackets, may hold anything."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def sweep(parent: str) -> None:
    """Remove from `parent`, usually /tmp, the folders of this account's runs that were killed.

    Anybody may put names into /tmp: only a real folder of this account with mode 0700 is touched, and no link is
    followed on the way down. Where /proc does not tell who lives, everything stays.
    """
    if not started(os.getpid()):
        return
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        named = NAME.fullmatch(name)
        if not (named or UNNAMED.fullmatch(name)) or (named and started(int(named[1])) == named[2]):
            continue
        with contextlib.suppress(OSError):  # somebody else's, a link, no folder, or somebody is in it
            handle = os.open(path, OPENING)
            try:
                seen = os.fstat(handle)
                private = seen.st_uid == os.geteuid() and stat.S_IMODE(seen.st_mode) == 0o700
                if private and (named or time.time() - seen.st_mtime > DAY):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
            finally:
                os.close(handle)


@contextlib.contextmanager
def folder() -> Iterator[str]:
    """A folder of mode 0700 that is gone afterwards, also when the run is ended by SIGTERM or a lost terminal."""
    sweep(tempfile.gettempdir())
    prefix = f"casemate-{os.getpid()}-{started(os.getpid()) or 0}-"
    with _ended_by_signals(), tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as made:
        handle = os.open(made, OPENING)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield made
        finally:
            os.close(handle)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end what runs as an interruption does, so that it cleans up; ansible-runner takes SIGTERM."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def hang_up(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)  # whoever ends a run for that one now

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if kept[signal.SIGTERM] == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)
    if kept[signal.SIGHUP] == signal.SIG_DFL:  # not so under nohup
        signal.signal(signal.SIGHUP, hang_up)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
