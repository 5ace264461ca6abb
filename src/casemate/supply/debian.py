"""Debian's security tracker: which faults of source packages are known, and which version fixes each. Pure.

Sources: https://security-tracker.debian.org/tracker/data/json with https://security-team.debian.org/security_tracker.html
(what its fields mean), and deb-version(7) for the order of versions.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

UNIMPORTANT = "unimportant"
"""What the tracker calls a fault that is none for whoever uses the package as Debian ships it."""
SEVERITIES = {"low": "low", "medium": "medium", "high": "high", UNIMPORTANT: UNIMPORTANT}
"""Urgency -> severity; "not yet assigned" and "end-of-life" say nothing of it."""
NEVER = "0"
"""The fixed version of a fault that the release never had."""


@dataclass(frozen=True)
class Fault:
    """A fault of a source package in one release; `fixed` is its version there without it, "" for none yet."""

    id: str
    fixed: str
    severity: str
    summary: str


def is_tracker(raw: Any) -> bool:
    """Whether what was read from JSON has the form of the tracker's data: source package -> id -> releases."""
    if not isinstance(raw, Mapping) or "id" in raw or not raw:
        return False
    first = next(iter(raw.values()))
    return isinstance(first, Mapping) and all(isinstance(one, Mapping) and "releases" in one for one in first.values())


def faults(raw: Mapping[str, Any], release: str) -> Iterator[tuple[str, Fault]]:
    """(source package, fault) for all that a release such as "bookworm" has, or had before a version of it.

    What is not yet looked into ("undetermined") is none. Raises ValueError for data of another shape.
    """
    try:
        for source, known in raw.items():
            for name, about in known.items():
                here = about["releases"].get(release) or {}
                status, fixed = here.get("status"), str(here.get("fixed_version") or "")
                if status not in ("open", "resolved") or (status == "resolved" and fixed in ("", NEVER)):
                    continue
                severity = SEVERITIES.get(str(here.get("urgency") or "").rstrip("*"), "")
                summary = " ".join(str(about.get("description") or "").split())
                yield source, Fault(name, fixed if status == "resolved" else "", severity, summary)
    except (AttributeError, KeyError, TypeError) as odd:
        raise ValueError(f"it is not as Debian's security tracker writes it: {odd!r}") from odd


@functools.cache
def key(version: str) -> tuple[Any, ...]:
    """What puts versions of packages into dpkg's order."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return int(epoch) if epoch.isdigit() else 0, _parts(upstream), _parts(revision)


def _parts(text: str) -> tuple[Any, ...]:
    """The words and numbers that a part of a version is made of, each as its order has it; both may be empty."""
    found = re.findall(r"([^0-9]*)([0-9]*)", text)
    return tuple(((*map(_weight, word), 0), int(number or 0)) for word, number in found)


def _weight(character: str) -> int:
    """A tilde comes before the end of a word, which is 0, then letters come before all else."""
    return -1 if character == "~" else ord(character) + (0 if character.isalpha() else 256)
