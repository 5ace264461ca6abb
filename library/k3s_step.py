#!/usr/bin/python
"""Look at the members of a cluster from one of its servers, and decide the next step of the rollout."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_step
short_description: Decide on which members K3s is settled next
description:
  - Renews the lock of the run, looks at the cluster from this server, and decides. Where a step is blocked by what may
    pass, it waits for that here, O(patience) seconds at most. It changes nothing of K3s.
options:
  members:
    description: What the controller knows of each host of the inventory; the action plugin of the same name tells.
    type: list
    elements: dict
    required: true
  batches:
    description: How many agents restart together, one number or share after the other.
    type: list
    elements: raw
    default: [1]
  api:
    description: Whether the installed release has a real API server to ask.
    type: bool
    default: true
  holder:
    description: Who this run is.
    type: dict
    required: true
  seconds:
    description: How long the lock holds from now on.
    type: int
    default: 900
  patience:
    description: Seconds to wait for what may pass.
    type: int
    default: 60
  foresee:
    description: Return all steps to the end instead, and take no lock.
    type: bool
    default: false
  gone:
    description: Runs that are known to be over although they have not given the lock back.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full, description: Changes nothing.}
  idempotent: {support: full, description: Changes nothing when run again.}
author: Casemate maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: K3s | Decide the next step
  k3s_step: {}
"""

RETURN = r"""
step:
  description:
    - C(hosts) to settle now and C(restarts), or C(blocked) hosts and the C(reason); with none of both nothing is left.
      C(sentence) says it to people.
  type: dict
  returned: always
steps: {description: What each step to the end would be., type: list, elements: str, returned: with foresee}
refused: {description: Why this run has the lock no more. Empty where it has., type: str, returned: always}
record: {description: Whose the lock is then., type: dict, returned: when refused}
decided: {description: Whether no other server has to be asked., type: bool, returned: always}
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.casemate.core.verdict import Unavailable
from ansible.module_utils.casemate.host.machine import Host
from ansible.module_utils.casemate.k3s import members as cluster
from ansible.module_utils.casemate.k3s.run_lock import hold
from ansible.module_utils.casemate.operations import rollout

PAUSE = 1.0
"""Seconds between two looks."""
BLIND = 20.0
"""Seconds for which a server that does not see its cluster is asked at most."""


def main() -> None:
    """Translate between Ansible and the decision."""
    module = AnsibleModule(
        argument_spec={
            "members": {"type": "list", "elements": "dict", "required": True},
            "batches": {"type": "list", "elements": "raw", "default": [1]},
            "api": {"type": "bool", "default": True},
            "holder": {"type": "dict", "required": True},
            "seconds": {"type": "int", "default": 900},
            "patience": {"type": "int", "default": 60},
            "foresee": {"type": "bool", "default": False},
            "gone": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given, host = module.params, Host()
    lost, record = "", None
    if not (given["foresee"] or module.check_mode):
        try:
            lost, record = hold(host, given["holder"], given["seconds"], given["api"], given["gone"])
        except OSError as failed:
            lost = f"the lock cannot be renewed here ({failed}), so nothing more is changed"
    began = time.monotonic()
    while True:
        seen = look(host, given["members"], given["batches"], given["api"], lost)
        step = rollout.next_step(seen)
        waited = time.monotonic() - began
        passing = isinstance(step, rollout.Blocked) and step.passing and not given["foresee"]
        if not passing or waited >= (given["patience"] if seen.etcd is not None else min(given["patience"], BLIND)):
            break
        time.sleep(PAUSE)
    decided = bool(lost) or seen.etcd is not None or not isinstance(step, rollout.Blocked)
    foreseen = rollout.foresee(seen) if given["foresee"] else []
    steps = [rollout.sentence(one) for one in foreseen if not isinstance(one, rollout.Done)]
    shown = rollout.shown(step, waited)
    module.exit_json(changed=False, step=shown, steps=steps, decided=decided, refused=lost, record=record)


def look(host: Host, members: list, batches: list, api: bool, lost: str) -> rollout.Observed:  # type: ignore[type-arg]
    """All that is seen now; of the cluster what this server tells."""
    etcd: list[cluster.EtcdMember] | None = []
    ready: dict[str, bool] = {}
    if api:
        try:
            etcd, ready = cluster.etcd_members(host), cluster.ready_nodes(host)
        except Unavailable:
            etcd = None
    return rollout.observed(members, etcd, batches, lost, ready)


if __name__ == "__main__":
    main()
