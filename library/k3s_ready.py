#!/usr/bin/python
"""Wait until K3s on this host is up."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_ready
short_description: Wait until a node of K3s is up
description:
  - Waits on the host itself until systemd has started the unit and, with O(api), until the API server of a server is
    ready and the node has the wanted conditions. It changes nothing.
options:
  unit:
    description: K3s' unit, such as C(k3s-agent.service).
    type: str
    required: true
  api:
    description: Whether the installed release has a real API server to ask.
    type: bool
    default: true
  server:
    description: Whether this node runs an API server.
    type: bool
    required: true
  node:
    description: The node's name. Default is the host's own in lower case, as K3s takes it.
    type: str
  conditions:
    description: Node conditions to wait for, such as C(EtcdIsVoter). With none, the node is not waited for.
    type: list
    elements: str
    default: [Ready]
  stay:
    description:
      - Seconds for which K3s has to stay up, one process and as well as before, until it counts as up. Some of its
        parts end it late.
    type: int
    default: 10
  tries:
    description: Give up when systemd has started it anew this often; 0 is never.
    type: int
    default: 0
  timeout:
    description: Seconds to wait for all of it.
    type: int
    default: 600
attributes:
  check_mode: {support: full, description: Tells what would change and changes nothing.}
  idempotent: {support: full, description: Changes nothing when run again.}
author: Casemate maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Ready | Wait until this server is up and votes
  k3s_ready:
    unit: k3s.service
    server: true
    conditions: [Ready, EtcdIsVoter]
"""

RETURN = r"""
seconds: {description: How long it took., type: float, returned: always}
"""

import functools
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.casemate.host.machine import Host
from ansible.module_utils.casemate.k3s import readiness
from ansible.module_utils.casemate.k3s.refused import Refusal

STARTED = 10
"""Seconds before the waiting in which K3s was started, by a task of its own."""


def main() -> None:
    """Translate between Ansible and the waiting."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "api": {"type": "bool", "default": True},
            "server": {"type": "bool", "required": True},
            "node": {"type": "str"},
            "conditions": {"type": "list", "elements": "str", "default": ["Ready"]},
            "stay": {"type": "int", "default": 10},
            "tries": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    given, host, start = module.params, Host(), time.monotonic()
    node = given["node"] or os.uname().nodename.lower()
    conditions = given["conditions"] if given["api"] else []
    asked = (given["unit"], given["server"] and given["api"], node, conditions, given["stay"], given["tries"])
    step = functools.partial(readiness.is_up, host, *asked)
    missing = readiness.wait(step, given["timeout"], refusal=Refusal(host, given["unit"], node))
    seconds = round(time.monotonic() - start, 1)
    if missing:
        said = readiness.last_words(host, given["unit"], time.time() - seconds - STARTED)
        module.fail_json(msg=f"K3s is not up: {missing}. {given['unit']} last said: {said}", seconds=seconds)
    module.exit_json(changed=False, seconds=seconds)


if __name__ == "__main__":
    main()
