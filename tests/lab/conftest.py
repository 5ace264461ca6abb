"""What stories share that run on a lab which was applied, as the drift story has one."""

from __future__ import annotations

import pytest
from lab.applied import Lab


@pytest.fixture
def inventory_path(request: pytest.FixtureRequest) -> str:
    path = request.config.getoption("ansible_inventory")
    if not path:
        pytest.skip("inventory: machines of a lab that was applied are needed; the drift story has them")
    return str(path)


@pytest.fixture
def lab(inventory_path: str) -> Lab:
    return Lab(inventory_path)
