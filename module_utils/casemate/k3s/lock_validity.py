"""Whether an artifact lock still holds: its dates, and its serial beside the one that a host accepted last.

A signature says who vouched for a lock, and nothing about when: an older lock stays rightly signed, with a K3s whose
faults are known by now. Source: The Update Framework, specification 5.3, on rollback and freeze attacks.
"""

from __future__ import annotations

import datetime
import json

ACCEPTED = "/var/lib/casemate/accepted_lock.json"
"""Where a host keeps the serial of the lock by which it was applied last: {"serial": 7}."""
RENEW = "Review it, give it a new last day by `casemate lock renew`, and have it signed again"
ABOVE = "Where going back is meant, give that lock a serial above {accepted} and have it signed again"


class RecordError(Exception):
    """What a host keeps is no record of a lock; the message says what to do."""


def over(issued: str, expires: str, today: datetime.date) -> str:
    """Why a lock does not hold on this day in UTC, and what to do; or nothing. Dates are YYYY-MM-DD, or empty."""
    if expires and datetime.date.fromisoformat(expires) < today:
        return f"the lock ended on {expires}, and today is {today} in UTC. {RENEW}"
    if issued and today < datetime.date.fromisoformat(issued):
        return f"the lock was issued on {issued}, and the clock of this controller says {today}. Set that clock"
    return ""


def accepted(record: str) -> int:
    """The serial of a host's record; 0 where there is none, as before the first lock with a serial.

    Raises RecordError for anything else: whoever writes there may want an older lock to be accepted.
    """
    if not record.strip():
        return 0
    try:
        said = json.loads(record)
        serial = said["serial"]
    except (KeyError, TypeError, ValueError):
        serial = None
    if not isinstance(serial, int) or isinstance(serial, bool) or serial < 1:
        raise RecordError(f"{ACCEPTED} is no record of a lock: find out who wrote it, and remove it")
    return serial


def record(serial: int) -> bytes:
    """What a host keeps of a lock that it accepted."""
    return json.dumps({"serial": serial}).encode() + b"\n"


def older(serial: int, accepted: int) -> str:
    """Why a lock with this serial (0 for none) is refused where another was accepted last, or nothing."""
    if serial >= accepted:
        return ""
    has = f"has the serial {serial}" if serial else "has no serial"
    return f"the lock {has}, and this host accepted one with {accepted}. {ABOVE.format(accepted=accepted)}"
