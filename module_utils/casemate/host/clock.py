"""Whether a file changed after a unit came up, on machines whose clock was set meanwhile, in any language.

A file's date is by the clock as it went when the file changed. systemd notes when a unit came up twice: by that clock,
and by one that nobody sets (CLOCK_MONOTONIC), which says when it was by the clock as it goes now. The two differ where
the clock was set since, as at every boot of a machine without one. Sources: systemctl(1), org.freedesktop.systemd1(5)
(ActiveEnterTimestampMonotonic and others), inode(7).
"""

from __future__ import annotations

import datetime
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

STAMP = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))? UTC$")
SET = 1.0
"""Seconds by which the two moments of a start differ where the clock was set; less is how long looking takes."""
AHEAD = 5.0
"""Seconds that a file may be ahead of the clock: file servers have clocks of their own."""


class Start(NamedTuple):
    """When a unit came up, in seconds since the epoch: by the clock of then, and by the clock of now."""

    then: float
    now: float


NEVER = Start(0.0, 0.0)


def moment(stamp: str) -> float | None:
    """Seconds since the epoch of `systemctl show --timestamp=us+utc`, or None for "never".

    The day of the week is left out: it is in the language of whoever reads it (strptime's %a), or of whoever wrote it.
    """
    parts = STAMP.search(stamp)
    if parts is None:
        return None
    day = datetime.datetime.fromisoformat(f"{parts[1]}T{parts[2]}+00:00")
    return day.timestamp() + int((parts[3] or "0").ljust(6, "0")) / 1e6


def start_of(shown: Mapping[str, str], names: Sequence[str]) -> Start | None:
    """The latest of some time stamps of a unit (ActiveEnterTimestamp and others); None where all are "never"."""
    found: list[Start] = []
    for name in names:
        then, ticks = moment(shown.get(name, "")), shown.get(name + "Monotonic", "")
        if ticks.isdigit() and int(ticks):
            now = time.time() - time.monotonic() + int(ticks) / 1e6
            set_since = then is None or abs(now - then) > SET
            found.append(Start(now if then is None else then, now if set_since or then is None else then))
        elif then is not None:
            found.append(Start(then, then))
    return max(found, key=lambda start: start.now, default=None)


def after(changed: float, start: Start) -> bool:
    """Whether a change with this date came after a start.

    By the clock of now; or, where that was set since, by the clock of the start: a date that it has reached by now
    may be of the time before it was set. Dates beyond are from before a boot with a clock that was behind.
    """
    reached = start.then + time.time() - start.now
    return changed > start.now or start.then < changed <= reached


def content_time(seen: os.stat_result) -> float:
    """When a file's content changed: its date, or where that lies ahead the kernel's own (which nobody can give)."""
    return seen.st_ctime if _is_ahead(seen.st_mtime) else seen.st_mtime


def change_time(seen: os.stat_result) -> float:
    """When a file's content, owner, mode or name changed."""
    return max(content_time(seen), seen.st_ctime)


def ahead(seen: os.stat_result | None) -> str:
    """The date of a file that lies in the future, for people; empty where none does."""
    latest = max(seen.st_mtime, seen.st_ctime) if seen else 0.0
    if not _is_ahead(latest):
        return ""
    try:
        day = datetime.datetime.fromtimestamp(latest, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        day = f"{latest:.0f} s after 1970"
    return f"dated {day}, in the future"


def stays_ahead(seen: os.stat_result | None) -> bool:
    """Whether the kernel's own date of a file lies ahead: until then it is later than any start. `touch` clears it."""
    return seen is not None and _is_ahead(seen.st_ctime)


def _is_ahead(stamp: float) -> bool:
    return stamp > time.time() + AHEAD
