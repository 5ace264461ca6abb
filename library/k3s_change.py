#!/usr/bin/python
"""Keep what K3s runs with before it changes, and take the change back or settle it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_change
short_description: Make a change of K3s' configuration one that comes whole or not at all
description:
  - Before K3s on this host is changed, what it runs with is kept in C(/var/lib/casemate/k3s). The change is settled
    once K3s was seen to run with it, and taken back when it does not come up.
  - A change that a killed run left pending is neither lost nor settled; the next run goes on from it.
options:
  state:
    description:
      - C(seen) only looks. C(begun) finishes what a killed run left half taken back, and begins to keep where K3s is
        installed.
      - C(kept) keeps O(paths) as well. C(settled) forgets what is kept. C(back) puts it back and starts K3s anew where
        the change had reached it.
    type: str
    required: true
    choices: [seen, begun, kept, settled, back]
  unit:
    description: K3s' unit, such as C(k3s-agent.service).
    type: str
    required: true
  server:
    description: Whether this node holds the cluster's data, so that its binary goes back within a minor release only.
    type: bool
    default: false
  joins:
    description: Refuse a node whose configuration names no server to join; it would start a cluster of its own.
    type: bool
    default: false
  paths:
    description: Files to keep, with O(state=kept).
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full, description: Tells what would change and changes nothing.}
  idempotent: {support: full, description: Changes nothing when run again.}
author: Casemate maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Change | Keep what K3s runs with
  k3s_change: {state: begun, unit: k3s.service}
"""

RETURN = r"""
installed: {description: Whether there is such a unit., type: bool, returned: always}
runs: {description: Whether K3s runs or is being started., type: bool, returned: always}
up: {description: Whether it is up by systemd's account., type: bool, returned: always}
left: {description: Whether a run before this one left a change pending., type: bool, returned: always}
paths: {description: What was put back., type: list, elements: str, returned: with back}
binary: {description: "Why the binary was not put back, or nothing.", type: str, returned: with back}
started: {description: Whether K3s was started anew., type: bool, returned: with back}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.casemate.host.machine import EnforceError, Host
from ansible.module_utils.casemate.k3s.change import Change, go_back, joined_server, state_of


def main() -> None:
    """Translate between Ansible and the change."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["seen", "begun", "kept", "settled", "back"]},
            "unit": {"type": "str", "required": True},
            "server": {"type": "bool", "default": False},
            "joins": {"type": "bool", "default": False},
            "paths": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given, host, change = module.params, Host(), Change()
    result = {"changed": False, "left": change.is_pending(), **state_of(host, given["unit"])}
    if given["joins"] and not joined_server(host):
        module.fail_json(
            msg=f"{given['unit']} was not started: no file of its configuration names a server to join (server:), so "
            "it would start a cluster of its own. Apply without a waiver for it, or set it in config.yaml",
            **result,
        )
    try:
        if module.check_mode:
            pass
        elif given["state"] == "begun" and result["installed"]:
            change.begin()
        elif given["state"] == "kept" and change.is_pending():
            change.keep(given["paths"])
        elif given["state"] == "settled":
            change.drop()
        elif given["state"] == "back" and change.is_pending():
            paths, binary, started = go_back(change, host, given["unit"], given["server"])
            result.update(paths=paths, binary=binary, started=started, changed=bool(paths or started))
    except (EnforceError, OSError) as failed:
        module.fail_json(msg=f"What K3s runs with could not be kept or put back: {failed}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
