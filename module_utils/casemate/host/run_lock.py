"""The lock of a run: one run at a time changes a cluster and its hosts.

The record stands in a file on each host, and in a Lease of the cluster. It names its holder, is renewed as the run goes
on, ends by itself, and can be broken by the holder's name. Times are those of the host that judges it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Dict, Optional

from .files import replacing

PATH = "/var/lib/casemate/lock"
Record = Dict[str, Any]
"""`run` (unique), `name` (user@host:process), `machine`, `process`, `started`, `what`; and when it was taken (`since`)
and `renewed`, in seconds since the epoch, for how many `seconds` it holds from then on, and who has `broken` it."""


def refusal(record: Optional[Mapping[str, Any]], run: str, now: float, gone: Sequence[str] = ()) -> str:
    """Why `run` may not have the lock; nothing where it may take or renew it. `gone` are runs that are over."""
    if record is None:
        return ""
    if record["run"] == run:
        broken = record.get("broken")
        return f"the lock of this run was broken by {broken}, so nothing more is changed" if broken else ""
    # Clocks of servers differ a little; a lock that began long after now was written by a clock that was ahead.
    if record.get("broken") or record["run"] in gone or not 0 <= seconds_left(record, now) <= 2 * record["seconds"]:
        return ""
    return held_by(record, now)


def seconds_left(record: Mapping[str, Any], now: float) -> float:
    """For how many seconds the lock still holds; negative when it has ended."""
    return float(record["renewed"] + record["seconds"] - now)


def held_by(record: Mapping[str, Any], now: float) -> str:
    """Who has the lock, since when, and what to do."""
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record["since"]))
    name, rest = record["name"], max(0, round(seconds_left(record, now)))
    return (
        f"{name} has the lock of this cluster (casemate {record['what']}, since {at}), so this run changes nothing "
        f"from here on. Wait until that run is over. If it was killed, its lock ends by itself in {rest} s; "
        f"`casemate unlock {name}` ends it now"
    )


def taken(record: Optional[Mapping[str, Any]], holder: Mapping[str, Any], seconds: float, now: float) -> Record:
    """The record once `holder` has taken or renewed the lock."""
    same = record is not None and record["run"] == holder["run"]
    since = record["since"] if record is not None and same else now
    return {**holder, "since": since, "renewed": now, "seconds": seconds}


def parsed(text: str) -> Optional[Record]:
    """A record from its JSON; None for what is none, which holds nobody up."""
    try:
        found = json.loads(text)
        whole = {
            **found,
            "renewed": float(found["renewed"]),
            "seconds": float(found["seconds"]),
            "since": float(found["since"]),
        }
    except (ValueError, KeyError, TypeError):
        return None
    return whole if all(isinstance(whole.get(key), str) for key in ("run", "name", "what")) else None


class Lock:
    """The lock's file on this host. `root` lets tests point it at a folder."""

    def __init__(self, root: str = "/") -> None:
        self.path = PATH if root == "/" else os.path.join(root, PATH.lstrip("/"))

    def take(self, holder: Mapping[str, Any], seconds: float, gone: Sequence[str] = ()) -> tuple[str, Optional[Record]]:
        """Take or renew it. Return ("", the record), or why it is refused with whose it is."""
        with self._alone():
            record, now = self.read(), time.time()
            why = refusal(record, holder["run"], now, gone)
            if why:
                return why, record
            record = taken(record, holder, seconds, now)
            self._write(record)
            return "", record

    def free(self, run: str) -> bool:
        """Give back what `run` has; return whether it was its own."""
        with self._alone():
            record = self.read()
            mine = record is not None and record["run"] == run
            if mine:
                os.unlink(self.path)
            return mine

    def break_by(self, name: str, by: str) -> Optional[Record]:
        """End the lock of the holder of that name; return what it was, or None where nobody of that name has it."""
        with self._alone():
            record = self.read()
            if record is None or record["name"] != name or record.get("broken"):
                return None
            self._write({**record, "broken": by})
            return record

    def read(self) -> Optional[Record]:
        """The record as it is."""
        try:
            with open(self.path, encoding="utf-8") as file:
                return parsed(file.read())
        except OSError:
            return None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        handle = os.open(self.path + ".mutex", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _write(self, record: Mapping[str, Any]) -> None:
        with replacing(self.path) as (out, _):
            out.write(json.dumps(record, sort_keys=True).encode())
