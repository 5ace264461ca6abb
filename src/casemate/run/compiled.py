"""The project's own templates, compiled once for a run, and variables, rendered once for a host.

Ansible compiles a template anew for each use, and forks a worker for each host and task: that was half of what a check
costs the controller. What is compiled here before it forks, every worker has.
"""

from __future__ import annotations

import functools
from pathlib import Path
from types import CodeType
from typing import Any

import jinja2
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.release import __version__ as ansible_version
from ansible.template import Templar
from jinja2 import nodes

from casemate import kept
from casemate.catalogue import declarations

_CODE: dict[str, CodeType] = {}
_PLUGINS: dict[str, Any] = {}
"""Filters and tests as the first environment has found them: each new one would look through all collections again."""


def remember(templar: Any) -> bool:
    """Have a templar of our own take what is compiled already, and keep what it compiles; whether it can.

    Ansible offers no way to do so: this reaches for the Jinja environment of the templar, which a later Ansible may
    keep elsewhere. It then compiles each time again, which costs time and changes no result.
    """
    environment = getattr(getattr(templar, "_engine", None), "environment", None)
    if environment is None:
        return False
    kind: type = type(environment)
    if not hasattr(kind, "remembers"):
        environment.__class__ = _remembering(kind)
        for name in ("filters", "tests"):
            setattr(environment, name, _PLUGINS.setdefault(name, getattr(environment, name)))
    return True


@functools.cache
def _remembering(kind: Any) -> Any:
    class Remembering(kind):  # type: ignore[misc]
        """Ansible's environment of Jinja, which compiles each text once."""

        remembers = True

        def compile(self, source: Any, *names: Any, **options: Any) -> Any:
            # An overlay has options of its own; and what a backslash means depends on how Ansible came here.
            if self.overlayed or names or options or not isinstance(source, str) or "\\" in source:
                return super().compile(source, *names, **options)
            if source not in _CODE:
                _CODE[str(source)] = super().compile(source)
            return _CODE[source]

    return Remembering


def lasting(templar: Any, variables: dict[str, Any]) -> bool:
    """Have a templar render each variable once, and keep it for all its templates; whether it can.

    Ansible wraps all variables anew for each template, so that what one of them has rendered is lost to the next.
    These are wrapped once, by what Ansible itself wraps them with, which is nobody's interface either: where that is
    gone, the templar takes them as they are.
    """
    try:
        from ansible._internal._templating._engine import TemplateOptions
        from ansible._internal._templating._lazy_containers import _AnsibleLazyTemplateMixin as Lazy
        from ansible._internal._templating._utils import TemplateContext

        with TemplateContext(template_value=None, templar=templar._engine, options=TemplateOptions.DEFAULT):
            wrapped = Lazy._try_create(variables)
    except (ImportError, AttributeError, TypeError):
        wrapped = variables
    templar.available_variables = wrapped
    return wrapped is not variables


def prepare() -> None:
    """Compile every template of the project and load the plugins it names; called where Ansible has not yet forked."""
    templar = Templar(loader=DataLoader())
    if not remember(templar):
        return
    environment = templar._engine.environment
    texts = list(dict.fromkeys(declarations.templates()))  # many stand in several places
    decide = [ansible_version, jinja2.__version__, Path(__file__).read_text(), *texts]
    found = kept.value("templates", [one.encode() for one in decide], lambda: _compiled(environment, texts))
    _CODE.update(found["code"])
    for name in found["filters"]:
        environment.filters.get(name)
    for name in found["tests"]:
        environment.tests.get(name)
    for name in found["lookups"]:
        lookup_loader.get(name, class_only=True)


def _compiled(environment: Any, texts: list[str]) -> dict[str, Any]:
    """The code of these templates, and the names of the plugins that they use."""
    found: dict[str, Any] = {"code": {}, "filters": [], "tests": [], "lookups": []}
    for text in texts:
        code = environment.compile(text)
        if text in _CODE:
            found["code"][text] = code
        tree = environment.parse(text)
        found["filters"] += [used.name for used in tree.find_all(nodes.Filter)]
        found["tests"] += [used.name for used in tree.find_all(nodes.Test)]
        for call in tree.find_all(nodes.Call):
            if getattr(call.node, "name", "") in ("lookup", "query") and isinstance(call.args[0], nodes.Const):
                found["lookups"].append(call.args[0].value)
    return {"code": found["code"], **{name: sorted(set(found[name])) for name in ("filters", "tests", "lookups")}}
