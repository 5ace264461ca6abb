"""The catalogue: every control of every role as it is declared, and the threats that they answer."""

from __future__ import annotations

import ast
import difflib
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from casemate import ROOT
from casemate.catalogue import declarations
from casemate.catalogue.declarations import read


@functools.cache
def load(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Every declared control by id, with its `role` added; values may still be templates.

    Raises ValueError when two controls have one id.
    """
    found: dict[str, dict[str, Any]] = {}
    for role, controls in declarations.controls(root).items():
        for control in controls:
            if control["id"] in found:
                raise ValueError(f"{control['id']} is declared in {found[control['id']]['role']} and in {role}")
            found[control["id"]] = {**control, "role": role}
    return found


@functools.cache
def threats() -> list[dict[str, Any]]:
    """Threats T1 to T7 with their mitigations, as the threat model names them."""
    made: list[dict[str, Any]] = read(Path(__file__).with_name("threats.yml"))
    return made


def mitigations() -> dict[str, str]:
    """Every mitigation id with its title."""
    return {m["id"]: m["title"] for threat in threats() for m in threat["mitigations"]}


def open_mitigations(root: Path = ROOT) -> dict[str, str]:
    """Mitigations that nothing enforces or attacks yet, with the reason."""
    path = root / "docs" / "open-mitigations.yml"
    return (read(path) or {}) if path.exists() else {}


@functools.cache
def techniques() -> list[dict[str, Any]]:
    """Techniques of MITRE ATT&CK: id, title, tactics, the `controls` that answer each, and `why` where they do not."""
    made: dict[str, list[dict[str, Any]]] = read(Path(__file__).with_name("attack.yml"))
    return sorted(made["techniques"], key=lambda one: str(one["id"]))


@functools.cache
def cis_debian() -> dict[str, Any]:
    """The benchmark for Debian 12: `recommendations`, those of `debian13_only`, and the `reasons` that they name.

    Its file says what each holds. The controls that answer them name them in `refs`.
    """
    made: dict[str, Any] = read(Path(__file__).with_name("cis_debian12.yml"))
    return made


def answering(controls: Mapping[str, Mapping[str, Any]], benchmark: str) -> dict[str, list[str]]:
    """Section of a benchmark -> the controls whose `refs` name it."""
    found: dict[str, list[str]] = {}
    for cid, control in controls.items():
        for section in (control.get("refs") or {}).get(benchmark, ()):
            found.setdefault(section, []).append(cid)
    return found


@functools.cache
def attacks(root: Path = ROOT) -> dict[str, list[str]]:
    """Control -> the attacks that name it, as file:line, read without importing them.

    Raises ValueError where an attack names its controls by anything but their ids.
    """
    found: dict[str, list[str]] = {}
    for path in sorted((root / "tests" / "behaviour").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.control":
                for argument in node.args:
                    if not isinstance(argument, ast.Constant):
                        raise ValueError(f"{path.name}:{node.lineno}: ids must be literal")
                    found.setdefault(str(argument.value), []).append(f"{path.name}:{node.lineno}")
    return found


def nearest(wanted: str, known: Iterable[str]) -> str:
    """The id or name that looks most like `wanted`, or an empty string."""
    same_case = {name.upper(): name for name in known}
    close = difflib.get_close_matches(wanted.upper(), list(same_case), n=1, cutoff=0.4)
    return same_case[close[0]] if close else ""


@functools.cache
def benchmarks() -> dict[str, dict[str, str]]:
    """What `refs` may name: key -> its `title` and `version`."""
    made: dict[str, dict[str, str]] = read(Path(__file__).with_name("benchmarks.yml"))
    return made


def references(refs: Mapping[str, Iterable[str]]) -> list[str]:
    """The `refs` of a control for people: each benchmark with its version and the sections of it."""
    known = benchmarks()
    names = {key: f"{known[key]['title']} {known[key]['version']}:" if key in known else key for key in refs}
    return [f"{names[key]} {', '.join(sections)}" for key, sections in refs.items()]
