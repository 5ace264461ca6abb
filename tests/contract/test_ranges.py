"""What the comment over a default says of its range is what preflight takes and what its control demands.

A comment names the range that is accepted ("1 to 10", "5 or more", "3 or less"); where the control's bound is narrower,
a sentence with "control demands" names that as well. The descriptions of argument_specs do not contradict it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casemate import ROOT
from casemate.catalogue import declarations
from casemate.preflight import inputs

KNOWN = inputs.known_inputs()
DEFAULTS = sorted(ROOT.glob("roles/*/defaults/main.yml"))
RANGE = re.compile(r"(\d+)s? to (\d+)|(\d+)s? or more|(\d+)s? or less")
VAGUE = re.compile(r"at (most|least) \d+|up to \d+|no more than \d+|[<>]=? ?\d+|\d+ ?(-|\.\.) ?\d+(?! )")
Bounds = tuple[int | None, int | None]


def comments(path: Path) -> Iterator[tuple[str, str]]:
    """Each variable of a file of defaults, and the comment right above it."""
    said: list[str] = []
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            said.append(line.lstrip("# "))
        else:
            name = re.match(r"(k3s_\w+):", line)
            if name:
                yield name[1], " ".join(said)
            said = []


def ranges(text: str) -> set[Bounds]:
    """Every range that a text names."""
    return {
        (int(low or least), None if least else int(high)) if low or least else (None, int(most))
        for low, high, least, most in RANGE.findall(text)
    }


def accepted(spec: dict[str, Any]) -> Bounds:
    """What preflight takes."""
    return spec.get("min"), spec.get("max")


def demanded(name: str) -> list[Bounds]:
    """What controls demand of a knob."""
    bounds = [c["bound"] for controls in declarations.controls().values() for c in controls if "bound" in c]
    return [(b.get("min"), b.get("max")) for b in bounds if re.search(rf"\b{name}\b", str(b["of"]))]


def narrower(bound: Bounds, limit: Bounds) -> Bounds:
    """The ends of a control's bound that are tighter than what preflight takes."""
    low, high = bound
    return (
        low if low is not None and (limit[0] is None or low > limit[0]) else None,
        high if high is not None and (limit[1] is None or high < limit[1]) else None,
    )


CASES = [(name, text) for path in DEFAULTS for name, text in comments(path)]


def test_every_default_is_looked_at() -> None:
    assert {name for name, _ in CASES} == {n for path in DEFAULTS for n in declarations.read(path) or {}}
    assert len(CASES) > 35


@pytest.mark.parametrize(("name", "text"), CASES, ids=[name for name, _ in CASES])
def test_the_comment_names_the_accepted_range_and_a_narrower_one_that_is_demanded(name: str, text: str) -> None:
    before, _, after = text.partition("control demands")
    limit = accepted(dict(KNOWN[name]))
    if limit != (None, None):
        assert ranges(before) == {limit}
    assert not VAGUE.search(re.sub(r"\([^)]*\)", "", text)), "name a range as `1 to 10`, `5 or more` or `3 or less`"
    tighter = {narrower(bound, limit) for bound in demanded(name)} - {(None, None)}
    assert ranges(after) == tighter


@pytest.mark.parametrize(("name", "text"), CASES, ids=[name for name, _ in CASES])
def test_the_ends_of_the_range_are_taken_and_what_lies_beyond_is_not(name: str, text: str) -> None:
    spec = KNOWN[name]
    for low, high in ranges(text.partition("control demands")[0]):
        inside = [end for end in (low, high) if end is not None]
        beyond = ([low - 1] if low is not None else []) + ([high + 1] if high is not None else [])
        for number in inside + beyond:
            assert (made(spec, number, text) == []) is (number in inside), f"{name} with {number}"


def made(spec: Any, number: int, text: str) -> list[str]:
    """What preflight says of a value of that size."""
    if spec.get("type") == "list":
        sized: Any = ["a"] * number
    elif "characters" in text and spec["type"] == "str":
        sized = "x" * number
    else:
        sized = f"{number}s" if spec["type"] == "str" else number
    return inputs.value_problems("x", sized, spec)


@pytest.mark.parametrize("path", sorted(ROOT.glob("roles/*/meta/argument_specs.yml")), ids=lambda p: p.parts[-3])
def test_descriptions_contradict_no_range(path: Path) -> None:
    for name, spec in declarations.read(path)["argument_specs"]["main"]["options"].items():
        said = str(spec["description"])
        if name in KNOWN and accepted(dict(KNOWN[name])) != (None, None):
            assert ranges(said) <= {accepted(dict(KNOWN[name]))}, name
        assert not VAGUE.search(said), name
