"""After any declared setting is flipped by hand, a check names exactly its control.

Runs on the machines of an inventory that was applied (--ansible-inventory), as a part of the drift story. A control
without a flip fails it: see flips.py, which does the work on each machine.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from lab import sending

from casemate import ROOT

pytestmark = pytest.mark.lab

ELSEWHERE = {"CLUSTER-KUBELETS-GUARDED", "CLUSTER-HOSTS-JOINED"}
"""Judge the kubelets of all machines, and on the others flips go on as well."""
OF_THE_SERVER = {"NODE-CLUSTER-JOINED", "NODE-TOKENS-CURRENT"}
"""On an agent these ask the first server, whose K3s is restarted meanwhile."""
OF_ANY_HOST = {"k3s_host", "k3s_access"}
"""Roles whose controls have nothing to do with what a machine is in its cluster: flipped on servers alone, for their
number, and judged everywhere."""


def flipped(machine: sending.Machine) -> dict[str, Any]:
    """What flips.py says of one machine, of whose controls some are left out."""
    left_out = ELSEWHERE | (OF_THE_SERVER if machine.is_agent else set())
    controls = [c for c in machine.controls if c.get("vantage", "self") == "self" and c["id"] not in left_out]
    judged_only = sorted(OF_ANY_HOST) if machine.is_agent else []
    given = {"controls": controls, "judged_only": judged_only, "context": machine.context}
    return machine.ran({"__main__.py": ROOT / "tests/lab/flips.py"}, given)


def test_each_flip_names_its_control_and_no_other(inventory_path: str) -> None:
    machines = sending.machines(inventory_path)
    with ThreadPoolExecutor(len(machines)) as pool:
        said = {machine.name: pool.submit(flipped, machine) for machine in machines}
    wrong = []
    for name, result in said.items():
        if fault := result.exception():
            wrong.append(f"{name}: {fault}")
        else:
            found = result.result()
            print(f"{name}, {found['seconds']} s, kind: [controls, flips]: {found['flips']}")
            wrong += [f"{name}: {one}" for one in found["wrong"]]
    assert not wrong, "\n" + "\n".join(wrong)
