"""The order of versions of Debian packages. Source: deb-version(7)."""

from __future__ import annotations

import functools
import re
from typing import Any, Tuple


def older(version: str, other: str) -> bool:
    """Whether a version sorts before another."""
    return key(version) < key(other)


@functools.cache
def key(version: str) -> Tuple[Any, ...]:
    """What puts versions into dpkg's order."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return int(epoch) if epoch.isdigit() else 0, _parts(upstream), _parts(revision)


def _parts(text: str) -> Tuple[Any, ...]:
    """The words and numbers that a part of a version is made of, each as its order has it; both may be empty."""
    found = re.findall(r"([^0-9]*)([0-9]*)", text)
    return tuple(((*map(_weight, word), 0), int(number or 0)) for word, number in found)


def _weight(character: str) -> int:
    """A tilde comes before the end of a word, which is 0, then letters come before all else."""
    return -1 if character == "~" else ord(character) + (0 if character.isalpha() else 256)
