#!/usr/bin/python
"""Arm the guard on this host, and confirm, revert or show the change that it holds pending."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_guard
short_description: Arm the guard, and confirm, revert or show a guarded change
description:
  - A change that could lock people out is guarded by M(k3s_controls) and undone by the host itself unless it is
    confirmed in time. Confirm it over a new login, for only that proves that logins still work.
  - What tasks change is guarded by V(armed), before they do.
options:
  state:
    description:
      - V(armed) keeps how things are and starts the time in which the change must be confirmed, V(confirmed) keeps the
        pending change, V(reverted) undoes it now, V(status) only looks.
      - V(taken_back) puts back, under the guard, what the last run that changed this host has changed.
    choices: [armed, confirmed, reverted, taken_back, status]
    default: status
    type: str
  seconds:
    description: With V(armed) and V(taken_back) how long the change may stay unconfirmed; 60 to 900.
    type: int
    default: 120
  files:
    description: With V(armed) files that packages will change; patterns are allowed.
    type: list
    elements: str
    default: []
  accounts:
    description: With V(armed) accounts whose shell or password will change.
    type: list
    elements: str
    default: []
  people:
    description: With V(armed) accounts of people that will be made, or whose groups, last day or password will change.
    type: list
    elements: str
    default: []
  until_confirmed:
    description:
      - With V(armed) files that will change and hold secrets. They come back where nobody confirms, and nothing of them
        is kept once somebody does.
    type: list
    elements: str
    default: []
  units:
    description: With V(armed) units that will be switched on or off.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full, description: Tells what would change and changes nothing.}
  idempotent:
    description: Changes nothing when run again.
    support: partial
    details: V(confirmed) fails when nothing is pending, since then the host has already undone the change.
author: Casemate maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Guard | Prepare to undo what the next tasks do
  k3s_guard:
    state: armed
    accounts: [daemon]

- name: Guard | Keep the change
  k3s_guard:
    state: confirmed
"""

RETURN = r"""
pending: {description: Whether a change is still unconfirmed., type: bool, returned: always}
paths: {description: Files that would be restored., type: list, elements: str, returned: always}
back: {description: What is put back., type: list, elements: str, returned: with taken_back}
stay: {description: "What is not put back, and why.", type: dict, returned: with taken_back}
reverted_at: {description: When a change was last undone (seconds since the epoch)., type: float, returned: always}
"""

import glob

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.casemate.host import way_in
from ansible.module_utils.casemate.host.backup import IN_CASE
from ansible.module_utils.casemate.host.guard import AFTER, Guard
from ansible.module_utils.casemate.host.last_change import OF_PACKAGES, LastChange
from ansible.module_utils.casemate.host.machine import EnforceError, Host
from ansible.module_utils.casemate.operations import revert


def main() -> None:
    """Translate between Ansible and the guard."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["armed", "confirmed", "reverted", "taken_back", "status"], "default": "status"},
            "seconds": {"type": "int", "default": 120},
            **{
                name: {"type": "list", "elements": "str", "default": []}
                for name in ("files", "accounts", "people", "until_confirmed", "units")
            },
        },
        supports_check_mode=True,
    )
    given, state = module.params, module.params["state"]
    guard = Guard(given["seconds"], account=way_in.account())
    if state == "armed":
        try:
            if not module.check_mode:
                guard.arm([path for pattern in given["files"] for path in sorted(glob.glob(pattern))], note=OF_PACKAGES)
                guard.arm(given["accounts"], "account")
                guard.arm(given["people"], "person")
                guard.arm(given["until_confirmed"], note=IN_CASE)
                guard.arm(given["units"], "unit")
        except EnforceError as refused:
            module.fail_json(msg=str(refused))
        module.exit_json(changed=False, **guard.status())
    if state == "taken_back":
        take_back(module, guard)
    seen = guard.status()
    changed = state != "status" and seen["pending"]
    if module.check_mode or state == "status":
        module.exit_json(changed=changed, **seen)
    try:
        settled = guard.confirm() if state == "confirmed" else guard.revert()
    except (EnforceError, OSError) as failed:
        module.fail_json(msg=f"The guarded change could not be {state}: {failed}", **guard.status())
    if state == "confirmed" and not settled:
        module.fail_json(
            msg="Nothing is pending: the host has already undone the change because nobody confirmed it in time. "
            "Raise k3s_access_guard_seconds, or find out what held up the run, and apply again.",
            **guard.status(),
        )
    module.exit_json(changed=settled, **guard.status())


def take_back(module: AnsibleModule, guard: Guard) -> None:
    """Put back what the last run has changed, as far as it may go back."""
    last = LastChange(AFTER)
    if guard.status()["pending"]:
        module.fail_json(msg="A change waits for its confirmation; the host undoes it soon. Then revert again.")
    planned = revert.look(Host(), last)
    try:
        if planned.back and not module.check_mode:
            revert.take_back(guard, last, planned)
    except (EnforceError, OSError) as failed:
        module.fail_json(msg=f"What the last run changed could not be taken back: {failed}")
    back = [one.name for one in planned.back]
    module.exit_json(changed=bool(back), back=back, stay=planned.stay, **guard.status())


if __name__ == "__main__":
    main()
