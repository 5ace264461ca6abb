"""How several kinds tell what of theirs still stands in a file of our own, one entry on each line."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.verdict import Left
from ..host.machine import Host
from ..host.text import split_lines


def entries(path: str, host: Host) -> list[str]:
    """The lines of a file that say something."""
    lines = (line.strip() for line in split_lines(host.text(path) or ""))
    return [line for line in lines if line and not line.startswith("#")]


def in_file(path: str, said: str, host: Host) -> Left:
    """Something of ours in a file, which stays where even root may not change that."""
    return Left(said, host.barred(path) if said else "")


def beyond(path: str, have: Sequence[str], asked: Sequence[str]) -> str:
    """Which entries of a file no setting asks for, in words."""
    extra = [name for name in dict.fromkeys(have) if name not in asked]
    return f"{path} holds {', '.join(extra)}, which no control asks for" if extra else ""
