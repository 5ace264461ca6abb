#!/usr/bin/python
"""Make the account by which Casemate comes in from now on, with its key and its rule of sudo."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_bootstrap
short_description: Make the account by which Casemate comes in, with its key and its rule of sudo
description:
  - Makes the account where it is not there, adds the key where sshd looks for its keys, and lets it use sudo without a
    password. Nothing else of an account that is there is changed.
  - It is guarded, so the host takes it back by itself unless a login of that account confirms it by M(k3s_guard).
options:
  account:
    description: Name of the account.
    type: str
    required: true
  key:
    description: The line of its public key.
    type: str
    required: true
  seconds:
    description: How long the change may stay unconfirmed; 60 to 900.
    type: int
    default: 120
attributes:
  check_mode: {support: full, description: Tells what would be done and changes nothing.}
  diff_mode: {support: full, description: Tells what differs.}
  idempotent: {support: full, description: Changes nothing when run again.}
author: Casemate maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: First login | Make the account
  k3s_bootstrap:
    account: ops
    key: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
"""

RETURN = r"""
words: {description: "What was done, or would be, in words.", type: list, elements: str, returned: always}
begun: {description: Whether a change waits for its confirmation., type: bool, returned: always}
logins: {description: What decides whether the account gets in., type: dict, returned: unless in check mode}
"""

from collections.abc import Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.casemate.host import logins
from ansible.module_utils.casemate.host.guard import Guard
from ansible.module_utils.casemate.host.machine import EnforceError, Host
from ansible.module_utils.casemate.operations import bootstrap


def main() -> None:
    """Translate between Ansible and the operation."""
    module = AnsibleModule(
        argument_spec={
            "account": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": False},
            "seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    given = module.params
    guard = Guard(given["seconds"])

    def arm(names: Sequence[str], sort: str) -> None:
        guard.arm(names, sort)
        guard.final()  # from the first moment on: whoever confirms what a killed run has left does not know of it

    host = Host(guard=arm)
    try:
        seen = bootstrap.look(given["account"], host)
        planned = bootstrap.plan(given["account"], given["key"], seen)
        if planned.words and not module.check_mode:
            bootstrap.enact(given["account"], seen, planned, host)
    except (EnforceError, OSError) as failed:
        module.fail_json(msg=str(failed), begun=host.guarded)
    diff = [
        {"before_header": c["path"], "after_header": c["path"], "before": c["before"], "after": c["after"]}
        for c in host.changes
    ]
    facts = {} if module.check_mode else {"logins": logins.facts(given["account"], "")}
    module.exit_json(changed=bool(planned.words), words=list(planned.words), begun=host.guarded, diff=diff, **facts)


if __name__ == "__main__":
    main()
