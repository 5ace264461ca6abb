"""The waivers of a host: those of all its groups, its own, and what a play or the command line sets add up.

So does what the operator vouches for, which has the same form. Ansible gives a play only the value of the most specific
place, so that a group's waivers would take back those of `all`. They are collected here from every place that Ansible
reads, in its own order. What a waiver is, and that a later one wins for a control, is known to
module_utils/casemate/core/waiver.py alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ansible import constants
from ansible.inventory.helpers import sort_groups
from ansible.vars.plugins import get_vars_from_inventory_sources, get_vars_from_path

NAME, VOUCHED, ADVISORIES = "casemate_waivers", "casemate_vouched", "casemate_advisory_waivers"
EVERY = (NAME, VOUCHED, ADVISORIES)
"""The inputs of this form."""
Place = tuple[str, Any]
"""Where waivers stand, in words, and what stands there."""


def places(variables: Mapping[str, Any], name: str = NAME) -> list[Place]:
    """Every place that sets a variable for a host, from the most general to the most specific; not yet templated.

    `variables` are those of a task of the host. The last one is what Ansible itself arrives at.
    """
    hostvars, folder = variables["hostvars"], variables["playbook_dir"]
    inventory, loader = hostvars._inventory, hostvars._loader
    host = inventory.get_host(variables["inventory_hostname"])
    everybody = [inventory.groups["all"]]
    groups = sort_groups([group for group in host.get_groups() if group.name != "all"])

    def own(entities: Iterable[Any]) -> Iterator[Place]:
        for entity in entities:
            yield _words(entity), entity.get_vars()

    def beside_inventory(entities: Iterable[Any]) -> Iterator[Place]:
        for entity in entities:
            for source in inventory._sources:
                yield _words(entity), get_vars_from_inventory_sources(loader, [source], [entity], "task")

    def beside_playbook(entities: Iterable[Any]) -> Iterator[Place]:
        for entity in entities:
            yield _words(entity), get_vars_from_path(loader, folder, [entity], "task")

    readers: dict[str, Callable[[], Iterator[Place]]] = {
        "all_inventory": lambda: own(everybody),
        "groups_inventory": lambda: own(groups),
        "all_plugins_inventory": lambda: beside_inventory(everybody),
        "all_plugins_play": lambda: beside_playbook(everybody),
        "groups_plugins_inventory": lambda: beside_inventory(groups),
        "groups_plugins_play": lambda: beside_playbook(groups),
    }
    found = [place for entry in constants.VARIABLE_PRECEDENCE if entry in readers for place in readers[entry]()]
    found += [*own([host]), *beside_inventory([host]), *beside_playbook([host])]
    found = [(words, values[name]) for words, values in found if name in values]
    return [*found, *([("the play", variables[name])] if name in variables else [])]


def _words(entity: Any) -> str:
    return f"{'host' if hasattr(entity, 'address') else 'group'} {entity.name}"
