#!/usr/bin/python
"""Say what this host is made of: K3s' programs with their modules, packages, kernel, images that run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_components
short_description: Say what a node is made of
description:
  - Reads the Go modules of all programs of K3s, hashes its files, and lists installed packages, the kernel and the
    images that run. It starts none of the programs that it reads, and changes nothing.
options: {}
attributes:
  check_mode: {support: full, description: Changes nothing.}
  idempotent: {support: full, description: Changes nothing when run again.}
author: Casemate maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Components | Ask what the host is made of
  k3s_components:
"""

RETURN = r"""
gathered:
  description: A text of JSON, as the function gathered of k3s/components.py says it.
  type: str
  returned: always
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.casemate.host.machine import Host
from ansible.module_utils.casemate.k3s.components import gathered


def main() -> None:
    """Translate between Ansible and the reading."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False, gathered=json.dumps([gathered(Host())]))


if __name__ == "__main__":
    main()
