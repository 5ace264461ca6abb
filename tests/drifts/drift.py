"""A drift, a family of drifts, and which of them a seed draws."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

from .planting import Tree

WORDS = (
    "agent", "audit", "backup", "cache", "collect", "compat", "export", "health", "helper", "inventory", "local",
    "metrics", "monitor", "network", "node", "notify", "probe", "relay", "rotate", "runtime", "site", "sync", "update",
    "vendor", "watch",
)  # fmt: skip


class Drift(NamedTuple):
    """One change by hand."""

    family: str
    variant: str
    places: tuple[str, ...]
    """What it is called; a finding has to say one of them in `where`."""
    plant: Callable[[], AbstractContextManager[None]]

    @property
    def place(self) -> str:
        return self.places[0]

    def is_named_by(self, where: list[str]) -> bool:
        """Whether one of the places of a finding is this one, or a line of it."""
        return any(said == place or said.startswith(f"{place}:") for said in where for place in self.places)


class Family(NamedTuple):
    """Drifts of one sort."""

    name: str
    undermines: frozenset[str]
    """Mitigations of the threat model that such a drift takes away; what names one has to serve one of them."""
    every: Callable[[random.Random, Tree], Iterator[Drift]]


def a_name(rng: random.Random) -> str:
    """As somebody would call what is meant to be overlooked."""
    return f"{rng.choice(WORDS)}-{rng.choice(WORDS)}{rng.randrange(2, 99)}"


def drawn(seed: int, count: int, families: list[Family], tree: Tree) -> list[Drift]:
    """So many drifts, as even as can be between the families; the same for a seed on the same tree."""
    rng = random.Random(seed)
    heaps = []
    for family in families:
        heap = list(family.every(random.Random(f"{seed}/{family.name}"), tree))
        rng.shuffle(heap)
        heaps.append(heap)
    chosen: list[Drift] = []
    while len(chosen) < count and any(heaps):
        rng.shuffle(heaps)
        chosen += [heap.pop() for heap in heaps if heap][: count - len(chosen)]
    return chosen


def groups(drifts: list[Drift], size: int) -> list[list[Drift]]:
    """So many at a time that follow each other; one at a place of another one of its group comes with others later."""
    made: list[list[Drift]] = []
    later: list[Drift] = []
    for begin in range(0, len(drifts), size):
        group: list[Drift] = []
        for drift in drifts[begin : begin + size]:
            taken = {place for one in group for place in one.places}
            if taken & set(drift.places):
                later.append(drift)
            else:
                group.append(drift)
        made.append(group)
    return made + (groups(later, size) if later else [])
