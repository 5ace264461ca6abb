"""Templates compiled once: nothing comes out otherwise than Ansible by itself would have it."""

from __future__ import annotations

import sys
from typing import Any

import jinja2
import pytest
from ansible.errors import AnsibleUndefinedVariable
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.lookup import env as lookup_env
from ansible.template import Templar, trust_as_template

from casemate.catalogue import declarations
from casemate.run import compiled


def templar(**variables: Any) -> Any:
    return Templar(loader=DataLoader(), variables=declarations.each(variables, trust_as_template))


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that Jinja compiles, with nothing compiled before."""
    seen: list[str] = []
    real = jinja2.Environment.compile

    def compile_it(self: Any, source: Any, *names: Any, **options: Any) -> Any:
        seen.append(source)
        return real(self, source, *names, **options)

    monkeypatch.setattr(jinja2.Environment, "compile", compile_it)
    monkeypatch.setattr(compiled, "_CODE", {})
    return seen


def test_a_text_is_compiled_once_for_all_templars_and_hosts(compilations: list[str]) -> None:
    for host in ("one", "two"):
        one = templar(name=host, greeting="hello {{ name }}")
        assert compiled.remember(one)  # or this Ansible keeps its environment elsewhere: see compiled.py
        assert one.template(trust_as_template("{{ greeting }}, {{ greeting }}")) == f"hello {host}, hello {host}"
    assert sorted(compilations) == ["hello {{ name }}", "{{ greeting }}, {{ greeting }}"]


def test_all_texts_of_the_project_are_compiled_before_ansible_forks(compilations: list[str]) -> None:
    compiled.prepare()
    project = set(declarations.templates())
    assert len(project) > 100
    assert {text for text in project if "\\" not in text} <= compiled._CODE.keys()


@pytest.mark.parametrize(
    "text",
    [
        r"{{ 'a\tb' }}",
        r"{{ 'a.b' | regex_replace('\\.', '-') }}",
        "#jinja2: trim_blocks: False\n{% if true %}\nx{% endif %}\n",
        "#jinja2: variable_start_string: '[[', variable_end_string: ']]'\n[[ name ]] {{ name }}",
        "{% if true %}\nx{% endif %}\n",
        "{{ [1, name] }}",
        "{{ missing | default(name) }}",
        "{{ omit }} {{ name }}",
    ],
)
def test_what_comes_out_is_the_same(text: str) -> None:
    def outcome(remembers: bool) -> Any:
        one = templar(name="n", omit="o")
        if remembers:
            compiled.remember(one)
            compiled.lasting(one, one.available_variables)
        return [one.template(trust_as_template(text)) for _ in range(2)]

    header, _, body = text.partition("\n")
    if header.startswith("#jinja2"):  # the same body without its options has been compiled before
        one = templar(name="n")
        compiled.remember(one)
        one.template(trust_as_template(body))
    assert outcome(True) == outcome(False)


def test_another_ansible_only_compiles_each_time_again() -> None:
    assert not compiled.remember(object())


def test_a_variable_is_rendered_once_for_all_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[int] = []

    def home(*_: Any, **__: Any) -> list[str]:
        rendered.append(1)
        return ["/home"]

    one = templar(place="{{ lookup('env', 'HOME') }}", folder="{{ place }}/x", both=["{{ folder }}", "{{ place }}"])
    monkeypatch.setattr(lookup_env.LookupModule, "run", home)
    assert compiled.lasting(one, one.available_variables)  # or this Ansible keeps it elsewhere: see compiled.py
    for text, comes in (("{{ folder }}", "/home/x"), ("{{ both }}", ["/home/x", "/home"]), ("{{ place }}", "/home")):
        assert one.template(trust_as_template(text)) == comes
    assert rendered == [1]


def test_what_is_set_later_is_taken_as_it_is_and_what_fails_fails_where_it_is_used() -> None:
    one = templar(fails="{{ missing }}", uses="{{ given }}")
    compiled.lasting(one, one.available_variables)
    one.available_variables["given"] = "{{ not a template }}"
    assert one.template(trust_as_template("{{ uses }}")) == "{{ not a template }}"
    assert one.template(trust_as_template("{{ fails | default('else') }}")) == "else"
    with pytest.raises(AnsibleUndefinedVariable, match="missing"):
        one.template(trust_as_template("{{ fails }}"))
    with pytest.raises(AnsibleUndefinedVariable, match="missing"):
        one.template(one.available_variables["fails"])


@pytest.mark.parametrize("module", ["_lazy_containers", "_engine"])
def test_an_ansible_that_keeps_it_elsewhere_renders_each_time(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, f"ansible._internal._templating.{module}", None)
    one = templar(name="n", greeting="hello {{ name }}")
    variables = one.available_variables
    assert not compiled.lasting(one, variables)
    assert one.available_variables is variables
    assert one.template(trust_as_template("{{ greeting }}")) == "hello n"
