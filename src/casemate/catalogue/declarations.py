"""The controls of every role as they are declared, and as they resolve for one host.

Read here and not by importing the roles into a play: Ansible would remember the place of every string, copy all of
them into the variables of each task, and template nine of ten that are constant, at the price of a whole check.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from casemate import ROOT, kept

ROLES = ("k3s_host", "k3s_access", "k3s_firewall", "k3s_node", "k3s_control_plane", "k3s_cluster")
"""In the order in which they are applied."""
LEVELS = {"baseline": ("baseline",), "strict": ("baseline", "strict")}
Raw = dict[str, Any]


def read(path: Path) -> Any:
    """A YAML file of the project, read by libyaml where there is one: it is ten times as fast."""
    return yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe


def _read_all(what: str, paths: list[Path]) -> list[Any]:
    """These files of the project, parsed in this run or an earlier one: a check spends more on YAML than on a host."""
    found: list[Any] = kept.value(what, [path.read_bytes() for path in paths], lambda: [read(path) for path in paths])
    return found


def controls(root: Path = ROOT) -> dict[str, list[Raw]]:
    """Role -> its controls; values may still be templates. Read once: nobody changes what this returns.

    What a file says in `defaults` holds for each of its controls that does not say it itself.
    """
    return _read_controls(root)


@functools.cache
def _read_controls(root: Path) -> dict[str, list[Raw]]:
    paths = sorted(root.glob("roles/*/controls/*.yml"))
    found: dict[str, list[Raw]] = {}
    for path, declared in zip(paths, _read_all("controls", paths), strict=True):
        shared = declared.get("defaults") or {}
        found.setdefault(path.parts[-3], []).extend({**shared, **control} for control in declared["controls"])
    return found


def control(kind: str, **fields: Any) -> str:
    """The id of the one control whose setting is of `kind` and has these fields: code names what is set, not an id.

    Raises LookupError where none or several have.
    """
    asked = {"kind": kind, **fields}
    declared = [one for of_role in controls().values() for one in of_role]
    found = [one["id"] for one in declared if all(one["setting"].get(name) == asked[name] for name in asked)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} controls have the setting {asked}")
    return str(found[0])


@functools.cache
def variables() -> tuple[Raw, Raw]:
    """(defaults, internals) of all roles. Internals are named `__<role>_x`, so none meet."""
    paths = []
    for folder in (ROOT / "roles" / role for role in ROLES):
        paths += [folder / "defaults/main.yml", *sorted((folder / "vars/main").glob("*.yml"))]
    defaults: Raw = {}
    internals: Raw = {}
    for path, declared in zip(paths, _read_all("variables", paths), strict=True):
        (defaults if path.parent.name == "defaults" else internals).update(declared or {})
    return defaults, internals


def templates(root: Path = ROOT) -> Iterator[str]:
    """The text of every template that the project itself brings: in controls, variables and files."""
    shared = root / "playbooks/group_vars/all.yml"
    for value in (controls(root), *variables(), read(shared) if shared.is_file() else {}):
        yield from _templates_in(value)
    for path in sorted(root.glob("roles/*/templates/**/*.j2")):
        yield path.read_text(encoding="utf-8")


def _templates_in(value: Any) -> Iterator[str]:
    if isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _templates_in(one)
    elif is_template(value):
        yield value


def is_template(value: Any) -> bool:
    """Whether a value is a string that Ansible has to template."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def each(value: Any, change: Callable[[str], Any]) -> Any:
    """The same value with every template in it replaced."""
    if isinstance(value, dict):
        return {key: each(one, change) for key, one in value.items()}
    if isinstance(value, list):
        return [each(one, change) for one in value]
    return change(value) if is_template(value) else value


def scopes(groups: Iterable[str], first_server: bool) -> set[str]:
    """What `applies_to` may say for a host of these inventory groups."""
    groups = set(groups)
    kind = {"server"} if "k3s_server" in groups else {"agent"} if "k3s_agent" in groups else set()
    return {"node", *kind, *(["cluster"] if first_server else [])}


def applies(raw: Mapping[str, Any], scope: set[str], level: str) -> bool:
    """Whether a control is for a host of this scope at this level."""
    return raw.get("level") in LEVELS[level] and bool(scope & set(raw.get("applies_to") or ()))
