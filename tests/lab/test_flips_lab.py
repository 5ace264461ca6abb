"""After any declared setting is flipped by hand, a check names exactly its control.

Runs on the machines of an inventory that was applied (--ansible-inventory), as a part of the drift story. A control
without a flip fails it: see flips.py, which does the work on each machine.
"""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from casemate import ROOT
from casemate.run import runner

pytestmark = pytest.mark.lab
RUN = """sudo sh -c 'cat >/root/flips.zip; python3 /root/flips.zip; code=$?; rm -f /root/flips.zip; exit $code'"""

ELSEWHERE = {"CLUSTER-KUBELETS-GUARDED", "CLUSTER-HOSTS-JOINED"}
"""Judge the kubelets of all machines, and on the others flips go on as well."""
OF_THE_SERVER = {"NODE-CLUSTER-JOINED", "NODE-TOKENS-CURRENT"}
"""On an agent these ask the first server, whose K3s is restarted meanwhile."""


def sent(controls: list[dict[str, Any]], context: dict[str, Any]) -> bytes:
    """The program, what it needs of Casemate, and what it is to flip, as one zip that Python runs."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(ROOT / "tests/lab/flips.py", "__main__.py")
        archive.writestr("module_utils/__init__.py", "")
        for path in (ROOT / "module_utils").rglob("*.py"):
            archive.write(path, str(path.relative_to(ROOT)))
        archive.writestr("given.json", json.dumps({"controls": controls, "context": context}))
    return made.getvalue()


def resolved(inventory: str) -> dict[str, list[dict[str, Any]]]:
    """Host -> its controls with their role, and with the values that are never shown."""
    run = runner.play("explain.yml", (inventory,), variables={"__casemate_openly": True})
    assert run.results, run.errors
    return {
        name: [{**control, "role": role} for role, controls in result["controls"].items() for control in controls]
        for name, result in run.results.items()
    }


def flipped(
    every: list[dict[str, Any]], name: str, address: str, known: dict[str, Any], left_out: set[str]
) -> dict[str, Any]:
    """What flips.py says of one machine, of whose controls some are left out."""
    controls = [c for c in every if c.get("vantage", "self") == "self" and c["id"] not in left_out]
    version = known["casemate_k3s_version"]
    lock = json.loads(Path(known["casemate_artifact_lock"]).read_text())
    context = {
        "version": version,
        "address": address,
        "account": known["ansible_user"],
        "capabilities": lock["releases"][version]["provides"],
    }
    argv = ["ssh", *known["ansible_ssh_common_args"].split(), "-o", "BatchMode=yes", "-o", "ControlPath=none"]
    argv += ["-i", known["ansible_ssh_private_key_file"], f"{known['ansible_user']}@{address}", RUN]
    done = subprocess.run(argv, input=sent(controls, context), capture_output=True, timeout=1500, check=False)
    assert done.returncode == 0, f"{name}: {done.stderr.decode()}"
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_each_flip_names_its_control_and_no_other(request: pytest.FixtureRequest) -> None:
    inventory = request.config.getoption("ansible_inventory")
    if not inventory:
        pytest.skip("inventory: machines of a lab that was applied are needed; the drift story has them")
    given = yaml.safe_load(Path(inventory).read_text())["all"]
    hosts = {name: facts for group in given["children"].values() for name, facts in group["hosts"].items()}
    controls = resolved(inventory)
    with ThreadPoolExecutor(len(hosts)) as pool:
        said = {
            name: pool.submit(
                flipped,
                controls[name],
                name,
                facts["ansible_host"],
                given["vars"],
                ELSEWHERE | (OF_THE_SERVER if name in given["children"]["k3s_agent"]["hosts"] else set()),
            )
            for name, facts in hosts.items()
        }
    wrong = []
    for name, result in said.items():
        if fault := result.exception():
            wrong.append(f"{name}: {fault}")
        else:
            found = result.result()
            print(f"{name}, {found['seconds']} s, kind: [controls, flips]: {found['flips']}")
            wrong += [f"{name}: {one}" for one in found["wrong"]]
    assert not wrong, "\n" + "\n".join(wrong)
