"""What the last run changed on a host goes back, and nothing else does.

Runs on an applied lab, as a part of the drift story, with the double and with a real K3s.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from lab.applied import Lab

pytestmark = pytest.mark.lab

OTHERWISE = """
all:
  vars:
    k3s_host_umask: "077"
    k3s_host_lockout_failures: 4
    k3s_firewall_allow: [{proto: tcp, port: 30080, sources: [203.0.113.0/24]}]
"""
STATE = """
cd /etc; pam='/var/lib/pam /usr/share/pam-configs'
find . $pam -type f -not -name '*.service' -printf '%p %m %U:%G ' -exec sha256sum {} \\; | sort
nft list table inet casemate
systemctl list-unit-files --no-legend --state=enabled,masked
"""


def revert(lab: Lab, *arguments: str) -> str:
    """What `casemate revert` says; it has to succeed."""
    argv = [str(Path(sys.executable).with_name("casemate")), "revert", "-i", lab.path, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_last_run_goes_back_and_only_once(lab: Lab, tmp_path: Path) -> None:
    before = lab.root(lab.server, STATE)
    (tmp_path / "otherwise.yml").write_text(OTHERWISE)
    lab.ends(0, "apply", "-i", lab.path, "-i", str(tmp_path / "otherwise.yml"))
    applied = lab.root(lab.server, STATE)
    assert "30080" in applied

    said = revert(lab, "--plan")
    assert f"{lab.server}: would go back: " in said
    assert "/etc/profile.d/zz-casemate.sh" in said
    assert "/etc/casemate/firewall.nft" in said
    assert lab.root(lab.server, STATE) == applied, "--plan changed something"

    assert "/etc/casemate/firewall.nft" in revert(lab)
    assert lab.root(lab.server, STATE) == before
    lab.ends(0, "check")
    assert set(revert(lab).splitlines()) == {f"{host}: nothing to take back" for host in lab.hosts}
