"""Controls that are rendered once for all hosts: they come out as they would for each host by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from casemate.catalogue import declarations
from casemate.run import for_all_hosts

DEFAULTS, INTERNALS = declarations.variables()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is kept from other runs, nor for them."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def prepared() -> list[for_all_hosts.Prepared]:
    """The controls of the project."""
    made = for_all_hosts.prepare(declarations.controls(), DEFAULTS, INTERNALS)
    assert {role: [one.declared for one in controls] for role, controls in made.items()} == declarations.controls()
    return [one for controls in made.values() for one in controls]


def rendered(control: declarations.Raw, **host: Any) -> Any:
    """A control as it comes out on a host with these variables; what can't be rendered without others, as it is."""
    known = {**DEFAULTS, **INTERNALS, **host}
    templar = Templar(loader=DataLoader(), variables=declarations.each(known, trust_as_template))

    def value_of(text: str) -> Any:
        try:
            return templar.template(trust_as_template(text))
        except AnsibleError:
            return text

    return declarations.each(control, value_of)


def with_templates(controls: list[for_all_hosts.Prepared]) -> list[for_all_hosts.Prepared]:
    return [one for one in controls if one.rendered != one.declared]


def test_most_templates_are_rendered_before_any_host(prepared: list[for_all_hosts.Prepared]) -> None:
    assert len(with_templates(prepared)) > 60
    assert sum(isinstance(one.rendered, for_all_hosts.Whole) for one in prepared) > len(prepared) * 0.7


def test_they_come_out_as_on_a_host_that_sets_nothing(prepared: list[for_all_hosts.Prepared]) -> None:
    for one in with_templates(prepared):
        assert rendered(one.of(())) == rendered(one.declared), one.declared["id"]


def test_whatever_a_host_sets_itself_counts(prepared: list[for_all_hosts.Prepared]) -> None:
    """A host that sets all that a control is said not to take; and one that sets any of what it takes."""
    for one in with_templates(prepared):
        others = {name: changed(value) for name, value in {**DEFAULTS, **INTERNALS}.items() if name not in one.takes}
        assert one.of(others) is one.rendered
        assert rendered(one.rendered, **others) == rendered(one.declared, **others), one.declared["id"]
        assert all(one.of({name}) is one.declared for name in one.takes)


def changed(value: Any) -> Any:
    """Another value of the same type."""
    return value + 1 if type(value) is int else [*value, "other"] if isinstance(value, list) else "other"


def test_hosts_are_sent_the_same_whether_it_was_rendered_before(prepared: list[for_all_hosts.Prepared]) -> None:
    controls = {
        "k3s_host": [one.rendered for one in prepared],
        "k3s_node": [{"id": "A-B", "why": "\u202e"}],
        "none": [],
    }
    assert json.loads(for_all_hosts.as_text(controls)) == controls


@pytest.mark.parametrize(
    ("text", "comes_to"),
    [
        ("{{ own }}", "x"),
        ("a {{ through }}", "a x y"),
        ("{{ many }}", ["x", 1]),
        ("{{ {'a': own} }}", {"a": "x"}),
        ("{{ own | upper }}", "X"),
        ("{{ [1, 2] | first if own is defined else 0 }}", 1),
        ("{{ inventory_hostname }}", None),
        ("{{ own ~ casemate_level }}", None),
        ("{{ hostvars }}", None),
        ("{{ lookup('env', 'HOME') }}", None),
        ("{{ through_host }}", None),
        ("{{ own.missing }}", None),
        ("{{ braces }}", None),
        ("{{ {1: own} }}", None),
    ],
)
def test_what_takes_anything_of_a_host_is_left_to_the_host(text: str, comes_to: Any) -> None:
    internals = {"through": "{{ own }} y", "many": ["{{ own }}", 1], "through_host": "{{ groups }}"}
    internals["braces"] = "{% raw %}{{ own }}{% endraw %}"  # to render what comes out would render it twice
    control = {"id": "A-B", "setting": {"kind": "file", "content": text}}
    (made,) = for_all_hosts.prepare({"k3s_host": [control]}, {"own": "x"}, internals)["k3s_host"]
    assert made.rendered["setting"]["content"] == (text if comes_to is None else comes_to)
    assert isinstance(made.rendered, for_all_hosts.Whole) is (comes_to is not None)


def test_what_another_run_rendered_is_taken_while_nothing_changes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    controls = {"k3s_host": [{"id": "A-B", "setting": {"content": "{{ own }}"}}]}

    def content(own: str) -> Any:
        (made,) = for_all_hosts.prepare(controls, {"own": own}, {})["k3s_host"]
        return made.of(())["setting"]["content"]

    assert content("x") == "x"
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["value"]
    monkeypatch.setattr(for_all_hosts, "_rendered", None)
    assert content("x") == "x"
    with pytest.raises(TypeError):
        content("y")
