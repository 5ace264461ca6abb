"""Batches as Ansible's own `serial` makes them."""

from __future__ import annotations

from typing import Any

import pytest

from casemate.ansible.lookup.turns import LookupModule


@pytest.mark.parametrize(
    ("at_once", "hosts", "of", "sizes"),
    [
        ([1, "25%"], 9, 9, [1, 2, 2, 2, 2]),
        ([1, "25%"], 3, 100, [1, 2]),
        ("25%", 3, 3, [1, 1, 1]),
        (2, 5, 5, [2, 2, 1]),
        ([1, 2], 4, 4, [1, 2, 1]),
        ("100%", 7, 7, [7]),
        ([1, 50], 7, 7, [1, 6]),
        ([1, "25%"], 0, 4, []),
    ],
)
def test_hosts_have_their_turn_in_batches(at_once: Any, hosts: int, of: int, sizes: list[int]) -> None:
    names = [f"a{number}" for number in range(hosts)]
    turns = LookupModule().run([at_once], hosts=names, of=of)
    assert [len(turn) for turn in turns] == sizes
    assert [name for turn in turns for name in turn] == names
