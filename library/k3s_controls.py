#!/usr/bin/python
"""Judge, and unless in check mode enforce, controls on this host: one process for any number of them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_controls
short_description: Observe, compare and enforce security controls in one pass
description:
  - Observes the effective value of every control, compares it with what is declared, and, unless in check mode,
    enforces what differs by atomic, validated changes of files and settings that Casemate owns.
  - Controls that are malformed, of an unknown kind, or that share a setting are refused by name before
    anything is observed or touched.
  - It never restarts K3s; it returns which units run with older settings.
  - In check mode C(--diff) shows what would change; what a setting marks as sensitive shows as a digest only.
options:
  controls:
    description: Role name to list of controls. They hold what an operator may not want to be seen, so none is logged.
    type: dict
    required: true
  waivers:
    description: Control id to waiver with C(reason), C(owner) and C(expires) (ISO date).
    type: dict
    default: {}
  context:
    description: Facts of the run, such as C(capabilities) of the release, C(version), C(address).
    type: dict
    default: {}
  scan:
    description: Include controls declared with C(cost=scan).
    type: bool
    default: false
  keep:
    description: Keep what files were before they change, as M(k3s_change) has begun to.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Tells what would change and changes nothing.}
  diff_mode: {support: full, description: Tells what differs.}
  idempotent: {support: full, description: Changes nothing when run again.}
author: Casemate maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Controls | Settle the settings of this role
  k3s_controls:
    controls: {k3s_host: "{{ __k3s_host_controls }}"}
"""

RETURN = r"""
findings:
  description: One finding for each control, as a text of JSON, since Ansible walks through each structure.
  type: str
  returned: always
roles_to_apply: {description: Roles with something to change., type: list, elements: str, returned: always}
todo: {description: In check mode what apply would act on by control., type: dict, returned: always}
unsettled: {description: "What could not be written or judged, and why.", type: list, elements: str, returned: always}
barred: {description: What is wrong and keeps K3s from being started., type: list, elements: str, returned: always}
stale: {description: Units that run with older settings., type: list, elements: str, returned: always}
left_out: {description: Controls that a quick pass does not judge (C(cost=scan))., type: list, returned: always}
runs_k3s: {description: Whether systemd runs K3s or tries to., type: bool, returned: always}
change: {description: Whether a change of K3s was neither settled nor taken back., type: bool, returned: always}
guard: {description: Whether a change waits for its confirmation., type: bool, returned: always}
host_keys:
  description: The public keys by which sshd proves the host from now on, where a change waits for its confirmation.
  type: list
  elements: str
  returned: always
components: {description: "What the host is made of, JSON, where the context asks for it.", type: str, returned: always}
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.casemate.core.legible import legible
from ansible.module_utils.casemate.core.schema import ControlError
from ansible.module_utils.casemate.engine.run import foreseen, run
from ansible.module_utils.casemate.formats.sshd_presented import presented
from ansible.module_utils.casemate.host import way_in
from ansible.module_utils.casemate.host.guard import Guard
from ansible.module_utils.casemate.host.machine import Host
from ansible.module_utils.casemate.k3s.change import Change
from ansible.module_utils.casemate.k3s.components import versions

UNGUARDED = {"k3s_node", "k3s_control_plane", "k3s_cluster"}
"""Roles that change nothing but what K3s reads; whatever else is changed could keep people from coming back as root."""


def main() -> None:
    """Translate between Ansible and the engine."""
    module = AnsibleModule(
        argument_spec={
            "controls": {"type": "dict", "required": True, "no_log": True},  # else the host's journal gets all of it
            "waivers": {"type": "dict", "default": {}},
            "context": {"type": "dict", "default": {}},
            "scan": {"type": "bool", "default": False},
            "keep": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    controls = given.pop("controls")  # Ansible returns, and with -vvv prints, what stays in here
    guard = Guard(given["context"].get("guard_seconds", 120), account=way_in.account())
    change = Change()
    arm = None if set(controls) <= UNGUARDED else guard.arm
    host = Host(context=given["context"], guard=change.keep_file if given["keep"] else arm)
    try:
        outcome = run(controls, host, module.check_mode, given["waivers"], given["scan"])
    except ControlError as refused:
        module.fail_json(msg=f"The controls are malformed; nothing was touched. {refused}")
    if host.guarded and not given["keep"]:
        guard.begin_anew()
    diff = [
        {"before_header": c["path"], "after_header": c["path"], "before": c["before"], "after": c["after"]}
        for c in host.changes
    ]
    if module.check_mode and module._diff:  # every run plans in check mode, but only --diff shows it
        diff = foreseen(controls, outcome.findings, host)
    # also that of a run that was killed before it confirmed
    pending = (host.guarded and not given["keep"]) or guard.status()["pending"]
    module.exit_json(
        changed=outcome.changed or (module.check_mode and bool(outcome.roles_to_apply)),
        findings=json.dumps(outcome.findings),
        roles_to_apply=outcome.roles_to_apply,
        todo=outcome.todo,
        stale=outcome.stale,
        unsettled=outcome.unsettled,
        barred=outcome.barred,
        change=change.is_pending(),
        left_out=outcome.left_out,
        runs_k3s=outcome.runs_k3s,
        guard=pending,
        host_keys=presented(host) if pending and not module.check_mode else [],
        components=json.dumps(versions(host)) if given["context"].get("tells_components") else "",
        diff=legible(diff),
    )


if __name__ == "__main__":
    main()
