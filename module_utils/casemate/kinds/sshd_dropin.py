"""The drop-in of sshd's configuration that Casemate owns: what settings make of it, and what of it nothing asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Dict, List

from ..core.verdict import Left
from ..formats.sshd_files import OWNED, normal
from ..host.machine import Host
from .kind import Pass
from .owned_entries import beyond, entries, in_file

if TYPE_CHECKING:
    from .sshd import Setting


NO_KEYWORDS = ("daemon", "listener")
"""What `key` may be beside a keyword of sshd_config(5); nothing is written for these."""


def wanted(setting: Setting, user: str = "") -> str:
    """The value as `effective` would show it for logins of a user."""
    value = setting["users_value"] if user and user in setting.get("users", ()) else setting["value"]
    return normal(setting["key"], [str(value)])


def concerns(setting: Setting, user: str) -> bool:
    """Whether a setting demands something of logins of a user."""
    return not setting.get("users_only") or user in setting.get("users", ())


def blocks(settings: Sequence[Setting]) -> Dict[str, List[Setting]]:
    """What stands after Match -> the settings that have another value for these users."""
    found: Dict[str, List[Setting]] = {}
    for setting in settings:
        if setting.get("users"):
            found.setdefault(f"User {','.join(setting['users'])}", []).append(setting)
    return found


def written(settings: Sequence[Setting]) -> str:
    """The owned drop-in that holds these settings."""
    ours = [s for s in settings if s.get("enforced") is not False and s["key"] not in NO_KEYWORDS]
    ours.sort(key=lambda setting: str(setting["key"]))
    lines = ["# Managed by Casemate (roles/k3s_access). Read first, so that it decides."]
    lines += [f"{s['key']} {s['value']}" for s in ours if not s.get("users_only")]
    for block, special in sorted(blocks(ours).items()):  # a block goes on to the end of the file
        lines += [f"Match {block}", *(f"    {s['key']} {s['users_value']}" for s in special)]
    return "\n".join(lines) + "\n"


def _keywords(host: Host) -> list[str]:
    """The keywords of the owned drop-in, those for some users too."""
    found = [line.split(None, 1)[0].lower() for line in entries(OWNED, host)]
    return [keyword for keyword in found if keyword != "match"]


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """A keyword in the owned drop-in."""
    return in_file(OWNED, f"{OWNED} sets {setting['key']}" if setting["key"] in _keywords(host) else "", host)


def unasked(settings: Sequence[Setting], host: Host) -> str:
    """Keywords in the owned drop-in that no control has."""
    return beyond(OWNED, _keywords(host), [setting["key"] for setting in settings])
