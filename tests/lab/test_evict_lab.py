"""What an operator names is removed and kept, and nothing else; a run that nobody confirms leaves the host as it was.

Runs on an applied lab, as a part of the drift story, with the double and with a real K3s.
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
from lab.applied import Lab, failing
from lab.test_baseline_lab import named

from casemate import ROOT

pytestmark = pytest.mark.lab

UNIT, LINK = "/etc/systemd/system/planted.service", "/etc/systemd/system/multi-user.target.wants/planted.service"
JOB, PRELOAD = "/etc/cron.d/planted", "/etc/ld.so.preload"
UNITS, JOBS, LOADER = "HOST-UNITS-VOUCHED", "HOST-JOBS-VOUCHED", "HOST-LOADER-VOUCHED"
WHERE = {UNITS: [LINK, UNIT], JOBS: [JOB], LOADER: [PRELOAD]}
FILES = (UNIT, LINK, JOB, PRELOAD)
EVICTED = "/var/lib/casemate/evicted"
PLANT = f"""
printf '[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' >{UNIT}
echo '0 3 * * * root true' >{JOB}; chown root:daemon {JOB}; chmod 4640 {JOB}; touch -d 2020-01-01 {JOB}
ls /usr/lib/*/libm.so.6 >{PRELOAD}
systemctl daemon-reload; systemctl -q enable --now planted
"""
STATE = f"stat -c '%n %a %u:%g %y %N' {' '.join(FILES)}; cat {JOB} {UNIT} {PRELOAD}; systemctl is-active planted"


@pytest.fixture
def lab(lab: Lab) -> Iterator[Lab]:
    lab.root(lab.server, PLANT)
    yield lab
    lab.root(lab.server, f"systemctl -q disable --now planted || true; rm -rf {' '.join(FILES)} {EVICTED}")
    lab.root(lab.server, "systemctl daemon-reload")


def unconfirmed(lab: Lab, folder: Path, *named: str) -> None:
    """The pass that removes, by a controller that is gone before it confirms."""
    tasks = [{"k3s_controls": {"roles": ["k3s_host"]}}]
    play: dict[str, Any] = {"hosts": lab.server, "gather_facts": False, "become": True, "tasks": tasks}
    play["vars_files"] = [str(ROOT / "playbooks/group_vars/all.yml")]
    (folder / "play.yml").write_text(json.dumps([play]))
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", lab.path, str(folder / "play.yml")]
    argv += ["-e", json.dumps({"__casemate_evict": named})]
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_named_goes_and_is_kept_and_a_killed_run_leaves_it(lab: Lab, tmp_path: Path) -> None:
    host, before = lab.server, lab.root(lab.server, STATE)
    code, report = lab.casemate("check")
    assert (code, named(report)[host]) == (2, WHERE), failing(report)

    unconfirmed(lab, tmp_path, UNITS, JOBS, LOADER)
    gone = f"for f in {' '.join(FILES)}; do test ! -e $f; done; ! systemctl -q is-active planted"
    lab.root(host, f"{gone}; test -e /var/lib/casemate/guard/pending; systemctl start casemate-guard-revert")
    lab.root(host, "for i in $(seq 30); do systemctl -q is-active planted && break; sleep 1; done")
    assert lab.root(host, STATE) == before

    code, report = lab.casemate("apply", "--evict", JOBS)
    assert (code, named(report)[host]) == (2, {UNITS: WHERE[UNITS], LOADER: WHERE[LOADER]}), failing(report)
    assert {one["control"] for one in report["hosts"][0]["findings"] if one["action"] == "changed"} == {JOBS}
    lab.root(host, f"test ! -e {JOB}; systemctl -q is-active planted")
    kept = lab.root(host, f"stat -c '%a %U:%G %Y' $(find {EVICTED} -path '*{JOB}' | tail -n 1); stat -c %a {EVICTED}")
    assert kept == f"4640 root:daemon {lab.root(host, 'date -d 2020-01-01 +%s').strip()}\n700\n"
    assert lab.casemate("apply", "--evict", JOBS)[1]["summary"]["changed"] == 0

    code, report = lab.casemate("apply", "--evict", f"{UNITS},{LOADER}")
    assert (code, report["summary"]["changed"]) == (0, 2), failing(report)
    lab.root(host, gone)
    code, report = lab.casemate("apply", "--evict", f"{UNITS},{LOADER}")
    assert (code, report["summary"]["changed"]) == (0, 0), failing(report)
