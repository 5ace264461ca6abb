"""The people of a host as controls take them: what `casemate_people` declares, with what it leaves out filled in. Pure.

Dates count in UTC, as those of waivers do: who ends on a day is in until it is over. shadow(5) has the first day on
which an account is over, in days since 1970.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from casemate.preflight import totp
from casemate.preflight.people import PRESENT, SECOND_FACTOR, asks_for_codes, is_break_glass
from module_utils.casemate.formats.authorized_keys import rendered
from module_utils.casemate.host.accounts import days
from module_utils.casemate.kinds import totp_secrets

NAME = "__casemate_people"
"""The internal variable by which templates know them."""
NEVER, LONG_AGO = -1, 1
"""Days on which an account is over: never; or the day after the epoch, since programs differ about 0."""
HEADER = "# Managed by Casemate (roles/k3s_access), from casemate_people."


def resolved(given: Iterable[Mapping[str, Any]], automation: str) -> list[dict[str, Any]]:
    """Each person once, whole, without what is the automation account's: no control acts on that.

    `authorized` is the file of keys for sshd, with none for who is revoked; `secret_digest` is by what the secret of
    codes is known, which itself is left out, and empty for who needs none; `over` is the first day that is too late.
    """
    return [_resolved(person) for person in given if person["name"] != automation]


def _resolved(person: Mapping[str, Any]) -> dict[str, Any]:
    state, factor = person.get("state", PRESENT), person.get("second_factor", "none")
    kept = state == PRESENT
    keys = [rendered(str(line), factor == SECOND_FACTOR) for line in person.get("keys", ())] if kept else []
    return {
        "name": str(person["name"]),
        "state": state,
        "uid": int(person.get("uid", 0)),
        "groups": sorted(str(group) for group in person.get("groups", ())) if kept else [],
        "sudo": person.get("sudo", "none") if kept else "none",
        "second_factor": factor,
        "break_glass": is_break_glass(person),
        "secret_digest": totp_secrets.digest(totp.secret_of(person)) if asks_for_codes(person) else "",
        "over": over(person.get("expires")) if kept else LONG_AGO,
        "authorized": "\n".join([HEADER, *keys, ""]),
    }


def over(expires: Any) -> int:
    """The first day on which an account is over that ends with a date, in days since 1970; NEVER without one."""
    return NEVER if expires is None else days(datetime.date.fromisoformat(str(expires))) + 1
