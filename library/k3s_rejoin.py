#!/usr/bin/python
"""Find out whether K3s would refuse a host that lost its data."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_rejoin
short_description: Find out whether a cluster still knows a host that has no data any more
description:
  - Without O(host) it tells whether this host has what a cluster knows it by, and how its node is called.
  - With O(host) it is run on a server that has data, and tells why that other host could not join. It changes nothing.
options:
  server:
    description: Whether the host is a server.
    type: bool
    required: true
  supervisor:
    description: URL of the first server, for a server that has data, which may be another cluster's.
    type: str
  node:
    description: The node's name. Default is the host's own in lower case, as K3s takes it.
    type: str
  host:
    description: What the host without data is called in the inventory.
    type: str
  there:
    description: What this server is called in the inventory.
    type: str
  addresses:
    description: Addresses of the host without data in the cluster.
    type: list
    elements: str
    default: []
  first:
    description: Whether the host without data is the first server of the inventory.
    type: bool
    default: false
  api:
    description: Whether the installed release has a real API server to ask.
    type: bool
    default: true
attributes:
  check_mode: {support: full, description: Tells what would change and changes nothing.}
  idempotent: {support: full, description: Changes nothing when run again.}
author: Casemate maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Rejoin | Look for what K3s left on this host
  k3s_rejoin: {server: true}
"""

RETURN = r"""
holds: {description: Whether the host has what its cluster knows it by., type: bool, returned: without host}
node: {description: The node's name., type: str, returned: without host}
elsewhere: {description: "Why its data is another cluster's, and what to do.", type: str, returned: without host}
refusals: {description: "Why the host could not join, and what to do.", type: list, elements: str, returned: with host}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.casemate.core.verdict import Unavailable
from ansible.module_utils.casemate.host.machine import Host
from ansible.module_utils.casemate.k3s import rejoin
from ansible.module_utils.casemate.kinds.cluster_nodes import cluster_of


def main() -> None:
    """Translate between Ansible and what is known on both sides."""
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "bool", "required": True},
            "supervisor": {"type": "str"},
            "node": {"type": "str"},
            "host": {"type": "str"},
            "there": {"type": "str"},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "first": {"type": "bool", "default": False},
            "api": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    given, host = module.params, Host()
    if given["host"] is None:
        name = given["node"] or os.uname().nodename.lower()
        holds = rejoin.holds(host, given["server"])
        elsewhere = rejoin.elsewhere(host, given["supervisor"]) if holds and given["supervisor"] else ""
        module.exit_json(changed=False, node=name, holds=holds, elsewhere=elsewhere)
    found: dict[str, str] = {}
    members: rejoin.Known = {}
    if given["api"]:
        try:
            nodes, members = cluster_of(host)
            found = rejoin.obstacles(given["node"], given["addresses"], given["server"], nodes, members)
        except Unavailable as silent:
            module.warn(f"Whether the cluster still knows {given['host']} could not be asked here: {silent.why}")
    refusals = rejoin.refusals(given["host"], found, members, given["there"], given["first"])
    module.exit_json(changed=False, refusals=refusals)


if __name__ == "__main__":
    main()
