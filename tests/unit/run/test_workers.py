"""What is told to Python before Ansible forks."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from casemate.run import workers


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_is_there_is_left_alone_and_what_comes_is_collected_in_large_batches() -> None:
    gc.unfreeze()
    workers.spare()
    assert gc.get_freeze_count() > 1000
    assert gc.isenabled()
    assert gc.get_threshold()[0] == workers.BATCH
