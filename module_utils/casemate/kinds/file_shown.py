"""How a file is shown, and how it differs from what is demanded of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.diff import Pair, of_texts, of_values
from ..core.legible import veiled
from ..host.machine import Host
from ..host.text import show

if TYPE_CHECKING:
    from .file import Setting


PLAIN = ("state", "mode", "mode_max", "owner", "group", "acl")
"""What is shown of a sensitive file, too."""


def shown(setting: Setting, value: Any) -> Any:
    """What a sensitive file holds or should hold, as `veiled`; by key, so that a reader sees which one differs."""
    if setting.get("sensitive") is not True:
        return value
    if isinstance(value, dict):
        return {key: one if key in PLAIN else veiled(one) for key, one in value.items()}
    return veiled(value)


def difference(setting: Setting, have: Any, want: Any, host: Host) -> list[Pair]:
    """The content as a text, unless it is sensitive, and what else differs; a sensitive file is not even read."""
    if "content" not in setting or setting.get("sensitive"):
        return [of_values(have, want)]
    rest = [
        {key: one for key, one in value.items() if key != "content"} if isinstance(value, dict) else value
        for value in (have, want)
    ]
    return [of_texts(show(host.read(setting["path"])), setting["content"]), of_values(*rest)]
