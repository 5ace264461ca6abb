"""Sentences are for people and ids are the catalogue's: no code, task or plugin decides by either."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from casemate import ROOT, catalogue
from module_utils.casemate.kinds import KINDS

FOLDERS = ("module_utils", "library", "src/casemate", "playbooks", "roles")
EXAMPLES = {"src/casemate/cli/init.py": {"SSH-CIPHERS-MODERN"}}
"""Ids that stand in text for people: a waiver as an example, commented out."""


def sources(*suffixes: str) -> list[Path]:
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in suffixes]
    catalogue_itself = [ROOT / "src/casemate/catalogue/attack.yml"]
    found = [path for path in found if path not in catalogue_itself]
    return [path for path in found if "controls" not in path.parts and "__pycache__" not in path.parts]


def ids_in(text: str) -> set[str]:
    """Every control id in a text; comments of YAML, which are for people, are left out."""
    code = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))
    return set(re.findall(r"\b[A-Z][A-Z0-9]*(?:-[A-Z0-9]+)+\b", code)) & set(catalogue.load())


def test_no_control_id_stands_outside_the_catalogue() -> None:
    """Who needs a control finds it by what it sets, so that an id is renamed or split in one place."""
    found = {}
    for path in sources(".py", ".yml", ".j2"):
        name = str(path.relative_to(ROOT))
        if ids := ids_in(path.read_text(encoding="utf-8")) - EXAMPLES.get(name, set()):
            found[name] = sorted(ids)
    assert found == {}


def named_kinds(source: str) -> set[str]:
    """Kinds of setting that a module names: as a text, or by importing their file or what is in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.ImportFrom):
            found |= {name.name for name in node.names} | {(node.module or "").rpartition(".")[2]}
    return found & set(KINDS)


def test_the_engine_knows_no_kind_by_name() -> None:
    """What it needs from a kind is part of the kind's interface, so that a kind is added in a file of its own."""
    found = {
        path.name: sorted(names)
        for path in sorted((ROOT / "module_utils/casemate/engine").glob("*.py"))
        if (names := named_kinds(path.read_text()))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ('FILE = KINDS["file"]', {"file"}),
        ("from ..kinds import KINDS, nft", {"nft"}),
        ("from ..kinds.sshd import OWNED", {"sshd"}),
        ("from ..kinds.kind import Kind", set()),
    ],
)
def test_each_way_to_name_a_kind_is_seen(source: str, seen: set[str]) -> None:
    assert named_kinds(source) == seen


PROSE = ("reason", "message", "msg", "why", "said", "evidence")
"""Fields that hold sentences."""


def decided_by_prose(source: str) -> Iterator[str]:
    """Comparisons and searches of a fixed text in a field that holds sentences, such as `"x" in made["reason"]`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("startswith", "endswith")
        ):
            sides = [node.func.value, *node.args]
        else:
            continue
        literal = any(isinstance(side, ast.Constant) and isinstance(side.value, str) and side.value for side in sides)
        field = any(
            isinstance(side, ast.Subscript) and isinstance(side.slice, ast.Constant) and side.slice.value in PROSE
            for side in sides
        )
        if literal and field:
            yield ast.unparse(node)


def test_no_python_decides_by_a_sentence() -> None:
    found = {str(path.relative_to(ROOT)): list(decided_by_prose(path.read_text())) for path in sources(".py")}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_no_task_decides_by_a_sentence() -> None:
    searched = re.compile(
        rf"\.({'|'.join(PROSE)})\b[^}}\n]*(?:\bin\b|==|search|match)|['\"][^'\"]+['\"] in \w+\.({'|'.join(PROSE)})\b"
    )
    found = {}
    for path in sources(".yml"):
        lines = [line.strip() for line in path.read_text().split("\n") if not line.lstrip().startswith("#")]
        if wrong := [line for line in lines if searched.search(line)]:
            found[str(path.relative_to(ROOT))] = wrong
    assert found == {}


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ('if "was not written" in made["reason"]: pass', True),
        ('made["message"].startswith("The K3s in use")', True),
        ('finding["reason"] == "api_semantics: x"', True),
        ('made["code"] == "api_semantics"', False),
        ('made["reason"] == ""', False),
        ('"x" in made["observed"]', False),
    ],
)
def test_each_way_to_decide_by_a_sentence_is_seen(source: str, seen: bool) -> None:
    assert bool(list(decided_by_prose(source))) == seen
