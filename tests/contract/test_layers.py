"""The direction of imports: each package knows those before it in its list, and none that comes after it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from casemate import ROOT

ON_HOSTS = ("core", "host", "formats", "k3s", "kinds", "engine", "operations")
ON_THE_CONTROLLER = ("catalogue", "supply", "preflight", "report", "run", "prove", "cli")
"""`ansible` is not listed: Ansible loads its plugins by file, and each may know all the others."""


def imported(source: str, package: str) -> Iterator[str]:
    """The full name of everything that a module of `package` imports, relative imports resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{name.name}" for name in node.names)


def backwards(source: str, package: str, order: tuple[str, ...]) -> list[str]:
    """What a module imports of packages that come after its own. `package`: its dotted name, casemate.NAME first."""
    own = order.index(package.split(".")[1])
    names = [name.removeprefix("ansible.").removeprefix("module_utils.") for name in imported(source, package)]
    parts = [name.split(".") for name in names if name.startswith("casemate.")]
    return [".".join(part) for part in parts if part[1] in order[own + 1 :]]


def modules(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.py") if path.parent != root)


@pytest.mark.parametrize(
    ("root", "order"),
    [(ROOT / "module_utils/casemate", ON_HOSTS), (ROOT / "src/casemate", ON_THE_CONTROLLER)],
    ids=["on hosts", "on the controller"],
)
def test_no_package_imports_one_that_comes_after_it(root: Path, order: tuple[str, ...]) -> None:
    found = {}
    for path in modules(root):
        package = ".".join(["casemate", *path.relative_to(root).parent.parts])
        if path.relative_to(root).parts[0] != "ansible" and (wrong := backwards(path.read_text(), package, order)):
            found[str(path.relative_to(ROOT))] = wrong
    assert found == {}


def test_every_package_has_its_place_and_says_what_it_is() -> None:
    for root, order in ((ROOT / "module_utils/casemate", ON_HOSTS), (ROOT / "src/casemate", ON_THE_CONTROLLER)):
        packages = {path.name for path in root.iterdir() if (path / "__init__.py").is_file()}
        assert packages <= {*order, "ansible"}
        for name in packages:
            assert ast.get_docstring(ast.parse((root / name / "__init__.py").read_text())), name


@pytest.mark.parametrize(
    ("line", "package", "found"),
    [
        ("from ..kinds import sshd", "casemate.host", ["casemate.kinds.sshd"]),
        ("from ..kinds.sshd import OWNED", "casemate.k3s", ["casemate.kinds.sshd.OWNED"]),
        ("from .. import engine", "casemate.kinds", ["casemate.engine"]),
        ("import casemate.cli.app", "casemate.report", ["casemate.cli.app"]),
        (
            "def f():\n    from ansible.module_utils.casemate.engine import run",
            "casemate.core",
            ["casemate.engine.run"],
        ),
        ("from ..host.machine import Host", "casemate.kinds", []),
        ("from .text import show", "casemate.host", []),
    ],
)
def test_each_way_to_import_is_seen(line: str, package: str, found: list[str]) -> None:
    order = ON_HOSTS if package.split(".")[1] in ON_HOSTS else ON_THE_CONTROLLER
    assert backwards(line, package, order) == found
