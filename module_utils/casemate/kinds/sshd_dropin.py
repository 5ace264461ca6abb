"""The drop-in of sshd's configuration that Casemate owns: what settings make of it, and what of it nothing asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.verdict import Left
from ..formats.sshd_files import OWNED, normal
from ..host.machine import Host
from .kind import Pass
from .owned_entries import beyond, entries, in_file

if TYPE_CHECKING:
    from .sshd import Setting


NO_KEYWORDS = ("daemon", "listener")
"""What `key` may be beside a keyword of sshd_config(5); nothing is written for these."""


def wanted(setting: Setting) -> str:
    """The value as `effective` would show it."""
    return normal(setting["key"], [str(setting["value"])])


def written(settings: Sequence[Setting]) -> str:
    """The owned drop-in that holds these settings."""
    ours = [s for s in settings if s.get("enforced") is not False and s["key"] not in NO_KEYWORDS]
    return "# Managed by Casemate (roles/k3s_access). Read first, so that it decides.\n" + "".join(
        f"{s['key']} {s['value']}\n" for s in sorted(ours, key=lambda setting: str(setting["key"]))
    )


def _keywords(host: Host) -> list[str]:
    """The keywords of the owned drop-in."""
    return [line.split(None, 1)[0].lower() for line in entries(OWNED, host)]


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """A keyword in the owned drop-in."""
    return in_file(OWNED, f"{OWNED} sets {setting['key']}" if setting["key"] in _keywords(host) else "", host)


def unasked(settings: Sequence[Setting], host: Host) -> str:
    """Keywords in the owned drop-in that no control has."""
    return beyond(OWNED, _keywords(host), [setting["key"] for setting in settings])
