"""What is said or done in one place only; and where a format demands a copy, that the copies are equal."""

from __future__ import annotations

import ast
import ipaddress
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from casemate import ROOT
from casemate.catalogue import declarations
from casemate.preflight import inputs
from module_utils.casemate.core import finding, waiver
from module_utils.casemate.engine import control
from module_utils.casemate.k3s import lock_validity

PYTHON = [path for folder in ("module_utils", "library", "src") for path in sorted((ROOT / folder).rglob("*.py"))]
YAML = [path for folder in ("playbooks", "roles", "src") for path in sorted((ROOT / folder).rglob("*.yml"))]
SCHEMA = json.loads((ROOT / "src/casemate/report/report.schema.json").read_text())["$defs"]["finding"]
REPLACING = {"os.replace", "tempfile.mkstemp", "tempfile.NamedTemporaryFile"}


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def called(source: str) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}


def test_a_file_is_replaced_in_one_way() -> None:
    """host/files.py knows how: whole, durable, never half, and without a trace where it fails."""
    found = {short(path) for path in PYTHON if called(path.read_text()) & REPLACING}
    assert found == {"module_utils/casemate/host/files.py"}


def test_the_shape_of_a_finding_is_that_of_the_schema() -> None:
    made = finding.finding({"id": "A-B", "setting": {"kind": "x"}}, "pass")
    assert tuple(made) == finding.KEYS
    assert SCHEMA["required"] == list(finding.KEYS)
    assert set(SCHEMA["properties"]) == set(finding.KEYS)
    allowed = {name: SCHEMA["properties"][name]["enum"] for name in ("status", "action", "severity", "level")}
    assert set(allowed["status"]) == set(finding.STATUSES)
    assert set(allowed["action"]) == set(finding.ACTIONS)
    assert allowed["severity"] == ["", *control.SEVERITIES]
    assert allowed["level"] == ["", *control.LEVELS]
    assert set(declarations.LEVELS) == set(control.LEVELS)


def test_the_record_of_the_accepted_lock_is_asked_for_where_it_lies() -> None:
    """A playbook cannot import the name of a file."""
    (play, *_) = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())
    (asked,) = (task["ansible.builtin.slurp"]["src"] for task in play["tasks"] if "ansible.builtin.slurp" in task)
    assert asked == lock_validity.ACCEPTED


def test_a_waiver_has_the_same_fields_everywhere() -> None:
    (shown,) = (one for one in SCHEMA["properties"]["waiver"]["oneOf"] if one["type"] == "object")
    given = inputs.known_inputs()["casemate_waivers"]["values"]["options"]
    assert shown["required"] == list(shown["properties"]) == list(given) == list(waiver.FIELDS)
    assert all(spec["required"] for spec in given.values())


def scalars(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from scalars(key)
            yield from scalars(one)
    elif isinstance(value, list):
        for one in value:
            yield from scalars(one)
    elif isinstance(value, str):
        yield from (value, *re.findall(r"'([^']*)'", value)) if "{{" in value else (value,)


def texts(path: Path) -> Iterator[str]:
    """Every text of a file that is a value; in a template also each text that it quotes."""
    if path.suffix == ".py":
        nodes = ast.walk(ast.parse(path.read_text()))
        yield from (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    else:
        for document in yaml.safe_load_all(path.read_text()):
            yield from scalars(document)


def test_the_networks_of_pods_and_services_stand_in_one_place() -> None:
    usual = declarations.read(ROOT / "playbooks/group_vars/all.yml")["__casemate_usual_networks"]
    networks = {net for family in usual.values() for net in family.values()}
    assert {ipaddress.ip_network(net).version for net in networks} == {4, 6} and len(networks) == 4
    assert {short(path) for path in [*PYTHON, *YAML] if networks & set(texts(path))} == {"playbooks/group_vars/all.yml"}


KNOWN = inputs.known_inputs()
DEFAULTS = {
    **{name: spec["default"] for name, spec in KNOWN.items() if "default" in spec},
    **declarations.variables()[0],
}
FALLBACKS = (
    re.compile(r"\b((?:casemate|k3s)_[a-z0-9_]+)\s*\|\s*default\(('[^']*'|\d+|\[[^\]()]*\]|\{\})[,)]"),
    re.compile(r"""get\(["']((?:casemate|k3s)_[a-z0-9_]+)["'], ("[^"]*"|\d+|\[[^\]()]*\]|\{\})\)"""),
    re.compile(r"""get\(["']((?:casemate|k3s)_[a-z0-9_]+)["']\) or ("[^"]*"|\d+|\[[^\]()]*\]|\{\})"""),
)


def fallbacks(text: str) -> Iterator[tuple[str, Any]]:
    """(input, what it is taken for where it is not set) of each place that says so by a literal."""
    for pattern in FALLBACKS:
        for name, literal in pattern.findall(text):
            if name in KNOWN:
                yield name, ast.literal_eval(literal)


def test_what_an_input_is_taken_for_where_it_is_not_set_is_its_default() -> None:
    """One without a default, or with an empty one, is taken for something empty."""
    wrong = [
        f"{short(path)}: {name} is taken for {taken!r}"
        for path in [*PYTHON, *YAML, *sorted((ROOT / "roles").rglob("*.j2"))]
        for name, taken in fallbacks(path.read_text())
        if taken != DEFAULTS.get(name) and (taken or DEFAULTS.get(name))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("{{ casemate_level | default('strict') }}", ("casemate_level", "strict")),
        ("{{ k3s_access_guard_seconds | default(60) }}", ("k3s_access_guard_seconds", 60)),
        ('values.get("k3s_node_resolv_conf", "none")', ("k3s_node_resolv_conf", "none")),
        ('values.get("casemate_waivers") or {}', ("casemate_waivers", {})),
    ],
)
def test_each_way_to_take_an_input_for_something_is_seen(text: str, seen: tuple[str, Any]) -> None:
    assert list(fallbacks(text)) == [seen]


def test_a_limit_says_nothing_that_the_specification_says() -> None:
    """argument_specs.yml holds types and choices, constraints.yml all that Ansible has no word for."""
    twice = {}
    for path in sorted(ROOT.glob("roles/*/vars/main/constraints.yml")):
        role = path.parents[2]
        constraints = declarations.read(path)[f"__{role.name}_constraints"] or {}
        specs = declarations.read(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
        for name, constraint in constraints.items():
            if both := (set(constraint) & set(specs[name])) - {"options"}:
                twice[name] = sorted(both)
    assert twice == {}


def test_what_the_guard_waits_without_being_told_is_the_default() -> None:
    module = ast.parse((ROOT / "library/k3s_controls.py").read_text())
    taken = [
        ast.literal_eval(node.args[1])
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and len(node.args) == 2 and ast.unparse(node.args[0]) == "'guard_seconds'"
    ]
    assert taken == [DEFAULTS["k3s_access_guard_seconds"]]
