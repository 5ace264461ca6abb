"""The on-host guard against locking people out (filled in by the access role's author)."""

from __future__ import annotations

from typing import Sequence

from .base import EnforceError


class Guard:
    """Placeholder until the guard lands: refuses, so that nothing unguarded is ever changed."""

    def arm(self, paths: Sequence[str]) -> None:
        """Refuse."""
        raise EnforceError("the guard is not there yet")
