"""Changes by hand that a seed draws are named, each by a control of its family, with the place in `where`.

Runs on an applied lab as a part of the drift story; `make drifts` draws more of them, and tells them as a table.
"""

from __future__ import annotations

import pytest
from drifts import sends
from lab import sending

pytestmark = pytest.mark.lab

SEED, COUNT = 7, 40


def test_each_drift_is_named_where_it_is(inventory_path: str) -> None:
    machine = next(one for one in sending.machines(inventory_path) if not one.is_agent)
    said = sends.planted(machine, SEED, COUNT, together=2)
    print(f"{machine.name}, {said['seconds']} s, {len(said['rows'])} drifts")
    assert said["left"] == {}
    assert {row["place"]: row["fault"] for row in said["rows"] if row["fault"]} == {}
    unnamed = [row for row in said["rows"] if not row["named"] and not sends.why_open(row)]
    assert [(row["family"], row["variant"], row["place"]) for row in unnamed] == []
    assert len(said["rows"]) == COUNT
