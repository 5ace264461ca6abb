"""Internal variables of the roles and playbooks, resolved for one host of an inventory as Ansible resolves them."""

from __future__ import annotations

from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from casemate import ROOT
from casemate.catalogue import declarations


def resolved(name: str, host: str = "one", given: dict[str, Any] | None = None, **inventory: str) -> Any:
    """An expression of a host whose inventory is host -> its k3s_node_ip; `given` are further inputs of all hosts."""
    return rendered("{{ " + name + " }}", host, given, **inventory)


def rendered(text: str, host: str = "one", given: dict[str, Any] | None = None, **inventory: str) -> Any:
    """A template, as `resolved`."""
    shared = declarations.read(ROOT / "playbooks/group_vars/all.yml")
    defaults, internals = declarations.variables()
    variables = declarations.each({**defaults, **internals, **shared}, trust_as_template)
    hosts = {n: {"inventory_hostname": n, "ansible_host": n, "k3s_node_ip": ip} for n, ip in inventory.items()}
    variables.update(hosts[host], hostvars=hosts, casemate_admin_sources=["192.0.2.0/24"])
    variables.update(groups={"k3s_server": ["one"], "k3s_agent": [n for n in hosts if n != "one"]})
    variables.update(__casemate_lock={"default": "v1.36.3+k3s1", "releases": {}}, **(given or {}))
    return Templar(loader=DataLoader(), variables=variables).template(trust_as_template(text))
