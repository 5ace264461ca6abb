"""What is planted on machines is named until somebody vouches for it, and again once it is another.

Runs on an applied lab with one server and one agent, as a part of the drift story, with the double and with a real K3s.
"""

from __future__ import annotations

import datetime
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.applied import Lab

from module_utils.casemate.core import waiver

pytestmark = pytest.mark.lab

TOOL, JOB, BINDING = "/usr/local/bin/tool", "/etc/cron.d/tool", "ClusterRoleBinding/tool"
NAMED = {TOOL: "HOST-PROGRAMS-VOUCHED", JOB: "HOST-JOBS-VOUCHED", BINDING: "CLUSTER-BINDINGS-VOUCHED"}
BIND = "k3s kubectl create clusterrolebinding tool --clusterrole=edit --serviceaccount=default:"
UNBIND = "k3s kubectl delete clusterrolebinding --ignore-not-found tool"


@pytest.fixture
def lab(lab: Lab) -> Iterator[Lab]:
    for host in lab.hosts:
        lab.root(host, f"mkdir -p -m 700 /etc/cron.d; printf '#!/bin/sh\\ntrue\\n' >{TOOL}; chmod 755 {TOOL}")
    lab.root(lab.agent, f"echo '0 3 * * * root {TOOL}' >{JOB}")
    if lab.has_api():
        lab.root(lab.server, BIND + "tool")
    yield lab
    for host in lab.hosts:
        lab.root(host, f"rm -f {TOOL} {JOB}")
    if lab.has_api():
        lab.root(lab.server, UNBIND)
    lab.ends(0, "check")


def named(report: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Host -> control that fails -> where."""
    return {
        host["name"]: {one["control"]: one["where"] for one in host["findings"] if one["status"] == "fail"}
        for host in report["hosts"]
    }


def test_what_somebody_vouches_for_is_no_finding_until_it_changes(lab: Lab, tmp_path: Path) -> None:
    code, report = lab.casemate("check")
    programs = {NAMED[TOOL]: [TOOL]}
    bindings = {NAMED[BINDING]: [BINDING]} if lab.has_api() else {}
    assert (code, named(report)[lab.server]) == (2, {**programs, **bindings})
    assert named(report)[lab.agent] == {**programs, NAMED[JOB]: [JOB]}
    path, until = tmp_path / "baseline.yml", waiver.today_in_utc() + datetime.timedelta(days=30)
    argv = [str(Path(sys.executable).with_name("casemate")), "baseline", "-i", lab.path, "--output", str(path)]
    argv += ["--owner", "ops", "--reason", "the backup's", "--expires", until.isoformat()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{3 + len(bindings)} more" in done.stdout
    lab.ends(0, "check", "-i", str(path))
    lab.root(lab.agent, f"echo {shlex.quote('* * * * * root ' + TOOL)} >>{JOB}")
    if bindings:
        lab.root(lab.server, f"{UNBIND}; {BIND}other")
    report = lab.ends(2, "check", "-i", str(path))
    assert named(report)[lab.agent] == {NAMED[JOB]: [JOB]}
    assert named(report)[lab.server] == bindings
