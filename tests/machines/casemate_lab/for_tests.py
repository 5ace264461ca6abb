"""Machines for tests: skipped where no lab can run, failed where one was tried and did not come up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from casemate_lab import lab
from casemate_lab.image import LabError, missing_tools


@contextlib.contextmanager
def machines(
    name: str,
    *,
    impossible: Callable[[], str] = missing_tools,
    up: Callable[..., Path] = lab.up,
    down: Callable[[str], Any] = lab.down,
    **asked: Any,
) -> Iterator[Path]:
    """A lab for as long as the block runs, and its inventory; `asked` is what `lab.up` takes.

    Only what is known before anything is tried makes a test skip: a lab that breaks must not look like one that is
    impossible.
    """
    if reason := impossible():
        pytest.skip(f"lab: {reason}")
    try:
        inventory = up(name, **asked)
    except LabError as broken:
        pytest.fail(f"lab {name} did not come up: {broken}", pytrace=False)
    try:
        yield inventory
    finally:
        down(name)
