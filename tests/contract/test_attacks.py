"""What attacks plant is taken back by the machine itself: a run may be killed at any moment."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from casemate import ROOT

BOUND = {"planted.py", "listeners.py"}
"""Where what is made is bound to a unit of the machine, which ends by itself in time."""
OTHERS = [path for path in sorted((ROOT / "tests/behaviour").glob("*.py")) if path.name not in BOUND]


@pytest.mark.parametrize("path", OTHERS, ids=[path.name for path in OTHERS])
def test_no_attack_relies_on_living_to_its_end(path: Path) -> None:
    """tests/lab/test_killed_lab.py kills them, and looks at the machine."""
    text = path.read_text(encoding="utf-8")
    lines = [node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Try) and node.finalbody]
    assert lines == [], "nobody takes back what stands in `finally` once the run is killed: use planted.planted"
    assert not re.search(r"\btrap\b.*\bEXIT\b", text), "nor what a shell traps: use planted.confined"
