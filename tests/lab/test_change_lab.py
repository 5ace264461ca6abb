"""A change with which K3s does not come up goes back on the host, and nothing is written where it cannot be.

Runs on an applied lab with one server and one agent, as a part of the drift story, with the double and with a real K3s:
both end over a feature gate that the kubelet does not know, after they were ready.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lab.applied import Lab, failing, messages

pytestmark = pytest.mark.lab

FOLDER = "/etc/rancher/k3s/config.yaml.d"
PENDING = "/var/lib/casemate/k3s/pending"
UNITS = {"k3s_server": "k3s", "k3s_agent": "k3s-agent"}


def overlay(folder: Path, group: str, host: str, **values: Any) -> str:
    path = folder / "overlay.yml"
    path.write_text(yaml.safe_dump({"all": {"children": {group: {"hosts": {host: values}}}}}))
    return str(path)


@pytest.mark.parametrize("group", ["k3s_agent", "k3s_server"])
def test_a_node_goes_back_to_what_it_ran_with(lab: Lab, tmp_path: Path, group: str) -> None:
    host = lab.agent if group == "k3s_agent" else lab.server
    look = f"cat {FOLDER}/casemate-k3s_node.yaml; test ! -e {PENDING}; systemctl is-active {UNITS[group]}"
    before = lab.root(host, look)
    refused = ["fail-cgroupv1=false", "feature-gates=NoSuchGate=true"]
    report = lab.ends(1, "apply", "-i", overlay(tmp_path, group, host, k3s_node_kubelet_args=refused))
    assert "unrecognized feature gate: NoSuchGate" in messages(report)
    back = f"back as it was ({FOLDER}/casemate-k3s_node.yaml), and {UNITS[group]}.service runs with it again"
    assert back in messages(report)
    assert lab.root(host, look) == before
    lab.ends(0, "check")


def test_a_folder_that_takes_no_file_is_refused_before_anything_changes(lab: Lab) -> None:
    lab.root(lab.agent, f"mount -t tmpfs -o nr_inodes=1 tmpfs {FOLDER}")
    try:
        code, report = lab.casemate("apply")
    finally:
        lab.root(lab.agent, f"umount {FOLDER}")
    assert code == 1, failing(report)
    assert f"{FOLDER} has 0 inodes free" in messages(report)
    assert lab.root(lab.agent, "systemctl is-active k3s-agent").strip() == "active"
