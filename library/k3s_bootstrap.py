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
  state:
    description:
      - V(made) makes account, key and rule. In check mode it tells what V(closed) would do, too.
      - V(closed) closes the first login, once the account has come in. A key of root's tells people to come as that
        account then, and another user becomes root without a password no longer.
    choices: [made, closed]
    default: made
    type: str
  account:
    description: Name of the account.
    type: str
    required: true
  key:
    description: The line of its public key.
    type: str
    required: true
  first:
    description: Who logged in first; nothing where that login stays open.
    type: str
    default: ""
  first_keys:
    description: The lines of the public keys by which root may have logged in.
    type: list
    elements: str
    default: []
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
pending: {description: Whether a change waits for its confirmation., type: bool, returned: always}
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
            "state": {"type": "str", "choices": ["made", "closed"], "default": "made"},
            "account": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": False},
            "first": {"type": "str", "default": ""},
            "first_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    given = module.params
    guard = Guard(given["seconds"])

    def arm(names: Sequence[str], sort: str) -> None:
        guard.arm(names, sort)
        guard.final()  # from the first moment on: whoever confirms what a killed run has left does not know of it

    host, words = Host(guard=arm), []
    facts = {}
    try:
        closings = bootstrap.closings(given["account"], given["first"], given["first_keys"], host)
        if given["state"] == "made":
            seen = bootstrap.look(given["account"], host)
            planned = bootstrap.plan(given["account"], given["key"], seen)
            words += planned.words
            if planned.words and not module.check_mode:
                bootstrap.enact(given["account"], seen, planned, host)
        if not module.check_mode:
            facts["logins"] = logins.facts(given["account"], "")
        if given["state"] == "closed" or (module.check_mode and words):
            words += [one.words for one in closings]
        if given["state"] == "closed" and not module.check_mode:
            bootstrap.close(closings, host)
    except (EnforceError, OSError) as failed:
        module.fail_json(msg=str(failed), pending=guard.status()["pending"])
    diff = [
        {"before_header": c["path"], "after_header": c["path"], "before": c["before"], "after": c["after"]}
        for c in host.changes
    ]
    pending = guard.status()["pending"]
    module.exit_json(changed=bool(words), words=words, pending=pending, diff=diff, **facts)


if __name__ == "__main__":
    main()
