"""Attacks that are killed in the middle: what they planted is gone soon after, and nobody helps.

Runs on an applied lab, as a part of the host story and of the drift story;
with the double, what takes an API is skipped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from behaviour import planted
from lab import killing
from lab.applied import Lab

from casemate import ROOT

pytestmark = pytest.mark.lab

LOOK = """
getent passwd; cat /run/faillock/* /etc/security/opasswd 2>/dev/null | sha256sum; nft list tables | sort
ls -A /home /tmp /var/tmp; ls -A /var/lib/casemate/attacks 2>/dev/null || :; find /home -name authorized_keys2
systemctl list-units --all --plain --no-legend 'casemate-attack-*' | cut -d' ' -f1
ps -e -o args= | grep '[s]shd -D -e' || :
"""
OBJECTS = "k3s kubectl get namespaces,pods,services,secrets -A -o name"
PROMPT, SLOW = 1, 12
"""After how many seconds an attack is killed: what it plants is there by then."""
WITHIN = 90
"""Seconds after the kill in which a machine has taken everything back, for what is kept is kept for a moment here."""
ON_HOSTS = [
    "test_passwords.py::test_passwd_takes_no_old_password",
    "test_people.py::test_a_key_that_is_written_into_a_home_lets_nobody_in",
    "test_firewall.py::test_reloading_our_table_leaves_those_of_others",
    "test_access.py::test_root_is_refused_even_with_an_accepted_key",
    "test_access.py::test_a_stranger_reads_no_home",
]
IN_THE_CLUSTER = [
    "test_cluster.py::test_a_namespace_without_labels_is_restricted_too",
    "test_cluster.py::test_a_restricted_pod_runs_confined",
    "test_cluster.py::test_a_port_that_a_pod_takes_of_its_node_is_reached_by_nobody_outside",
    "test_control_plane.py::test_a_secret_is_unreadable_in_raw_etcd",
]


def seen(lab: Lab, look: str) -> str:
    return lab.root(lab.server, look)


def attacked(lab: Lab, attack: str, *plugins: str, **more: str) -> subprocess.CompletedProcess[str]:
    """How pytest ends that makes an attack, in a group of processes of its own."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugins]
    argv += [f"--ansible-inventory={lab.path}", f"tests/behaviour/{attack}"]
    places = os.pathsep.join(str(ROOT / folder) for folder in ("tests", "", "src"))
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PYTHONPATH": places, **more}
    return subprocess.run(
        argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
        start_new_session=True,
    )  # fmt: skip


def killed(lab: Lab, attack: str, when: int) -> None:
    """Begin an attack, and have it killed."""
    seconds = {killing.WHEN: str(when), killing.KEPT: str(3 * when + 5)}
    done = attacked(lab, attack, "-p", "lab.killing", **seconds)
    assert done.returncode == -signal.SIGKILL, f"it was to be killed: {done.stdout}{done.stderr}"


def nothing_is_left(lab: Lab) -> None:
    """Wait until a machine has nothing of attacks; AssertionError where something stays."""
    end = time.monotonic() + WITHIN
    while "casemate-attack" in (now := seen(lab, LOOK)) and time.monotonic() < end:
        time.sleep(2)  # systemd tells that a unit has ended before it removes its /tmp and forgets it
    assert "casemate-attack" not in now


def taken_back(lab: Lab, attack: str, look: str, when: int) -> None:
    nothing_is_left(lab)
    before = seen(lab, look)
    killed(lab, attack, when)
    assert seen(lab, look) != before, "nothing was planted"
    end = time.monotonic() + WITHIN
    while (now := seen(lab, look)) != before and time.monotonic() < end:
        time.sleep(2)
    assert now == before


@pytest.mark.parametrize("attack", ON_HOSTS)
def test_what_was_planted_on_a_host_goes_without_the_controller(lab: Lab, attack: str) -> None:
    taken_back(lab, attack, LOOK, PROMPT)


@pytest.mark.parametrize("attack", IN_THE_CLUSTER)
def test_what_was_planted_in_the_cluster_goes_without_the_controller(lab: Lab, attack: str) -> None:
    if not lab.root(lab.server, "command -v k3s || :") or not lab.has_api():
        pytest.skip("api_semantics: no real K3s is installed")
    taken_back(lab, attack, OBJECTS, SLOW)


def test_what_a_machine_kept_that_lost_its_power_goes_before_the_next_attack(lab: Lab) -> None:
    """As if its unit had never come to an end: the script is there, and no unit is."""
    name = planted.new_name()
    place, script = f"/var/tmp/{name}", f"{planted.HOME}/{name}"
    seen(lab, f"mkdir -p -m 700 {planted.HOME} {place}; echo 'rm -r {place}' >{script}")
    done = attacked(lab, "test_access.py::test_a_stranger_reads_no_home")
    assert done.returncode == 0, done.stdout + done.stderr
    nothing_is_left(lab)
