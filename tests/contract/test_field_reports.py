"""What strangers ran into stays mended: each row of the table names tests, and they are there."""

from __future__ import annotations

import ast
import re

from casemate import ROOT

TABLE = ROOT / "docs/field-reports.md"
ITEMS = 24


def named(cell: str) -> list[tuple[str, str]]:
    """(file, test or nothing) for each name in a cell; one without a file is of the file before it."""
    found: list[tuple[str, str]] = []
    for name in re.findall(r"`([^`]+)`", cell):
        path, _, test = name.partition("::")
        found.append((path or found[-1][0], test))
    return found


def defined_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_fault_that_was_reported_is_held_by_tests_that_exist() -> None:
    rows = [line.strip("| ").split(" | ") for line in TABLE.read_text(encoding="utf-8").splitlines()]
    held = {int(row[0]): named(row[2]) for row in rows if row[0].isdigit()}
    assert sorted(held) == list(range(1, ITEMS + 1))
    for item, names in held.items():
        assert names, item
        for path, test in names:
            known = defined_in(path)
            assert known, f"{path} holds no test"
            assert not test or test in known, f"{path} has no {test}"
