"""Controls as far as they are the same for all hosts: rendered once, and kept from one run to the next.

Most templates of controls take nothing but defaults and internals of the roles, so that they come out the same on every
host whose inventory sets none of these. To render them for each host was a sixth of what a check costs the controller.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.release import __version__ as ansible_version
from ansible.template import Templar, trust_as_template
from jinja2 import meta, nodes

from casemate import kept
from casemate.catalogue import declarations
from casemate.catalogue.declarations import Raw
from casemate.run import compiled


class Whole(dict[str, Any]):
    """A control in which no template is left, with its `text` of JSON."""

    def __init__(self, control: Raw) -> None:
        """Take a control as it is."""
        super().__init__(control)
        self.text = json.dumps(control)


class Prepared(NamedTuple):
    """A control as it is declared, and with every template rendered that takes no more than the roles' own variables.

    `takes` are the names of all variables that went into it.
    """

    declared: Raw
    rendered: Raw
    takes: frozenset[str]

    def of(self, given: Collection[str]) -> Raw:
        """The control of a host that sets these of the roles' variables itself."""
        return self.rendered if self.takes.isdisjoint(given) else self.declared


def prepare(
    controls: Mapping[str, list[Raw]], defaults: Mapping[str, Any], internals: Mapping[str, Any]
) -> dict[str, list[Prepared]]:
    """Role -> its controls, prepared, in the same order; called where Ansible has not yet forked."""
    variables = {**defaults, **internals}
    decide = [ansible_version, jinja2.__version__, Path(__file__).read_text(), json.dumps([controls, variables])]
    made = kept.value("rendered", [one.encode() for one in decide], lambda: _rendered(controls, variables))
    return {
        role: [
            Prepared(control, rendered if _templates(rendered) else Whole(rendered), frozenset(takes))
            for control, (rendered, takes) in zip(declared, made[role], strict=True)
        ]
        for role, declared in controls.items()
    }


def as_text(controls: Mapping[str, list[Raw]]) -> str:
    """Role -> its resolved controls, as one text of JSON: Ansible walks through every value of a structure."""
    texts = {
        role: ", ".join(one.text if isinstance(one, Whole) else json.dumps(one) for one in resolved)
        for role, resolved in controls.items()
    }
    return "{" + ", ".join(f"{json.dumps(role)}: [{text}]" for role, text in texts.items()) + "}"


def _rendered(
    controls: Mapping[str, list[Raw]], variables: Mapping[str, Any]
) -> dict[str, list[tuple[Raw, list[str]]]]:
    """Role -> each control with what can be rendered, and the names of what that took."""
    templar = Templar(loader=DataLoader(), variables=declarations.each(dict(variables), trust_as_template))
    if not compiled.remember(templar):
        return {role: [(control, []) for control in declared] for role, declared in controls.items()}
    environment = templar._engine.environment

    @functools.cache
    def named_in(text: str) -> frozenset[str]:
        """The names that a template takes itself; what is no variable, such as `lookup`, may look anywhere."""
        tree = environment.parse(text)
        called = {name.name for name in tree.find_all(nodes.Name) if name.name in environment.globals}
        return frozenset(called | meta.find_undeclared_variables(tree))

    @functools.cache
    def taken_by(text: str) -> frozenset[str]:
        """The names of all variables that a template takes, directly or through others."""
        found: set[str] = set()
        new = set(named_in(text))
        while new:
            found |= new
            new = {name for one in new for inner in _templates(variables.get(one)) for name in named_in(inner)} - found
        return frozenset(found)

    @functools.cache
    def value_of(text: str) -> tuple[Any, bool]:
        """What a template comes to, and whether it does for all hosts; else its text."""
        if taken_by(text) <= variables.keys():
            try:
                value = templar.template(trust_as_template(text))
                plain = json.loads(json.dumps(value))
            except (AnsibleError, TypeError, ValueError):
                return text, False
            if plain == value and not _templates(plain):
                return plain, True
        return text, False

    def prepared(control: Raw) -> tuple[Raw, list[str]]:
        texts = [text for text in _templates(control) if value_of(text)[1]]
        rendered = declarations.each(control, lambda text: value_of(text)[0])
        return rendered, sorted({name for text in texts for name in taken_by(text)})

    return {role: [prepared(control) for control in declared] for role, declared in controls.items()}


def _templates(value: Any) -> list[str]:
    """Every template in a value."""
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    declarations.each(value, note)
    return found
