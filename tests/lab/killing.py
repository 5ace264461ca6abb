"""A plugin of pytest that kills the attacks in the middle: as soon as something is planted, or while a unit runs.

`pytest -p lab.killing` takes from the environment when that is, and for how long the machine keeps what is planted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from behaviour import planted
from testinfra.backend.base import CommandResult

WHEN, KEPT = "KILLED_AFTER", "KEPT_FOR"
"""Variables with seconds from the moment when something is planted."""


def killed() -> None:
    """End this process and all that it has started, at once: nothing is taken back."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


def pytest_configure(config: pytest.Config) -> None:
    """Have the attacks, which are imported later, call what kills them."""
    when, kept = int(os.environ[WHEN]), int(os.environ[KEPT])
    really_planted, really_confined = planted.planted, planted.confined

    @contextlib.contextmanager
    def in_the_middle(host: Any, made: str, gone: str, seconds: int | None = None) -> Iterator[None]:
        with really_planted(host, made, gone, min(kept, seconds or kept)):
            threading.Timer(when, killed).start()  # so that what is planted inside is there, too
            yield
            threading.Event().wait()  # for the end: an attack may be quicker

    def while_it_runs(host: Any, script: str, *arguments: str, seconds: int = 120) -> CommandResult:
        threading.Timer(when, killed).start()
        return really_confined(host, f"{script}\nsleep 60", *arguments, seconds=min(kept, seconds))

    planted.planted, planted.confined = in_the_middle, while_it_runs
