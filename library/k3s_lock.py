#!/usr/bin/python
"""Take, give back or break the lock of a run on this host and, on a server, in its cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_lock
short_description: Let one run at a time change a cluster and its hosts
description:
  - The lock stands in a file on the host and, with O(lease), in a Lease of the cluster. It names its holder, ends by
    itself O(seconds) after it was taken or renewed, and can be broken by the holder's name.
options:
  state:
    description: C(held) takes or renews it, C(free) gives it back, C(broken) ends that of O(name).
    type: str
    required: true
    choices: [held, free, broken]
  holder:
    description: Who this run is. The action plugin of the same name fills it in.
    type: dict
    required: true
  seconds:
    description: How long the lock holds from now on.
    type: int
    default: 900
  lease:
    description: Whether this host is a server with a real API server.
    type: bool
    default: false
  gone:
    description: Runs that are known to be over although they have not given it back.
    type: list
    elements: str
    default: []
  name:
    description: Whose lock to break, with O(state=broken).
    type: str
    default: ""
attributes:
  check_mode: {support: full, description: Changes nothing.}
  idempotent: {support: full, description: Changes nothing when run again.}
author: Casemate maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Lock | Take it
  k3s_lock: {state: held}
"""

RETURN = r"""
refused: {description: Why the lock was not taken. Empty where it was., type: str, returned: always}
record: {description: Whose the lock is that stands in the way., type: dict, returned: when refused}
broken: {description: Where a lock was broken., type: list, elements: str, returned: with broken}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.casemate.core.verdict import Unavailable
from ansible.module_utils.casemate.host.machine import Host
from ansible.module_utils.casemate.host.run_lock import Lock
from ansible.module_utils.casemate.k3s.run_lock import free, hold, places


def main() -> None:
    """Translate between Ansible and the lock."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["held", "free", "broken"]},
            "holder": {"type": "dict", "required": True},
            "seconds": {"type": "int", "default": 900},
            "lease": {"type": "bool", "default": False},
            "gone": {"type": "list", "elements": "str", "default": []},
            "name": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given, host = module.params, Host()
    broken: list[str] = []
    result = {"changed": False, "refused": "", "broken": broken}
    if module.check_mode:
        module.exit_json(**result)
    try:
        if given["state"] == "held":
            result["refused"], result["record"] = hold(
                host, given["holder"], given["seconds"], given["lease"], given["gone"]
            )
        elif given["state"] == "free":
            free(host, given["holder"]["run"], given["lease"])
        else:
            for where, lock in places(host, given["lease"]):
                try:
                    record = lock.break_by(given["name"], given["holder"]["name"])
                except Unavailable:
                    continue
                if record:
                    broken.append(where)
                    result["changed"] = True
    except OSError as failed:
        module.fail_json(msg=f"The lock {Lock().path} cannot be written: {failed}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
