"""A run that is killed between its steps is simply started again, and of two runs one is told who is at work.

Runs on an applied lab with servers and an agent, as a part of the drift story, with the double and with a real K3s.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab.applied import Lab, messages

pytestmark = pytest.mark.lab

KNOB = "k3s_node_pod_max_pids"
LOCK = "/var/lib/casemate/lock"
OTHER: dict[str, Any] = {
    "run": "another 7 1",
    "name": "bob@elsewhere:7",
    "machine": "another",
    "process": 7,
    "started": "1",
}


@pytest.fixture
def lab(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.ends(0, "apply")  # as it was


def changed(folder: Path, value: int) -> str:
    """An inventory beside the lab's with which K3s of every node has to restart."""
    path = folder / "overlay.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": {KNOB: value}}}))
    return str(path)


def killed(lab: Lab, overlay: str, steps: int) -> int:
    """Run an apply that is killed after so many steps; return its exit code."""
    argv = [str(Path(sys.executable).with_name("casemate")), "apply", "-i", lab.path, "-i", overlay]
    done = subprocess.run(
        [*argv, f"--format=json:{overlay}.json"], capture_output=True, timeout=900, check=False,
        env={**os.environ, "CASEMATE_DIES_AFTER_STEPS": str(steps)},
    )  # fmt: skip
    return done.returncode


def settings(lab: Lab) -> list[str]:
    return [lab.root(host, "cat /etc/rancher/k3s/config.yaml.d/casemate-k3s_node.yaml") for host in sorted(lab.hosts)]


def test_a_run_that_is_killed_after_any_step_ends_the_same_when_it_is_started_again(lab: Lab, tmp_path: Path) -> None:
    ends = []
    for steps in range(2):
        overlay = changed(tmp_path, 4097 + steps)
        assert killed(lab, overlay, steps) == 1
        lab.root(lab.server, f"test -s {LOCK}")  # a killed run leaves it, and is no obstacle
        lab.ends(0, "apply", "-i", overlay)
        ends.append([text.replace(str(4097 + steps), "N") for text in settings(lab)])
        assert all("N" in text for text in ends[-1])
        assert not lab.root(lab.server, f"ls {LOCK} 2>/dev/null || true")
    assert ends[0] == ends[1]


def test_a_run_of_another_machine_keeps_this_one_out_until_its_lock_is_ended_by_name(lab: Lab, tmp_path: Path) -> None:
    now = float(lab.root(lab.server, "date +%s"))
    record = {**OTHER, "what": "apply", "since": now, "renewed": now, "seconds": 900}
    lab.root(lab.server, f"cat >{LOCK} <<'END'\n{json.dumps(record)}\nEND")
    before, overlay = settings(lab), changed(tmp_path, 4099)
    report = lab.ends(1, "apply", "-i", overlay)
    assert "bob@elsewhere:7 has the lock of this cluster" in messages(report)
    assert settings(lab) == before
    assert not any(lab.root(host, f"ls {LOCK} 2>/dev/null || true") for host in lab.hosts if host != lab.server)
    casemate = str(Path(sys.executable).with_name("casemate"))
    subprocess.run([casemate, "unlock", OTHER["name"], "-i", lab.path], check=True, capture_output=True, timeout=300)
    lab.ends(0, "apply", "-i", overlay)
