"""A change that locks everybody out is undone by the machine itself: controller killed, rebooted, or just failing.

Each story has a machine of its own and they all run at once, because most of their time is the minute in which the
guard waits. What happens on a machine is observed from outside, as on a console; logins only prove who gets in.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from lab.guarded import DROPIN, GUARD, HARMLESS, SECONDS, USERS, WALL, Machine, Mistake, roles, sshd, until

from casemate_lab import for_tests

pytestmark = pytest.mark.lab
NAME = "guardtest"
GUARD_SECONDS = json.dumps({"k3s_access_guard_seconds": SECONDS})


def undone(machine: Machine, before: str) -> None:
    """The guard has had its minute: logins work, and everything is what it was."""
    until(lambda: not machine.login(), SECONDS + 60, "the machine undoes it by itself")
    until(lambda: not machine.pending(), 30, "the revert ends")
    assert machine.state() == before


def killed(machine: Machine, mistake: Mistake) -> None:
    """The controller is killed right after the change: the timer on the host undoes it."""
    before = machine.state()
    machine.lose_controller(mistake)
    undone(machine, before)


def rebooted(machine: Machine, mistake: Mistake) -> None:
    """The power is cut while the timer still has a quarter of an hour: it is the boot that undoes it."""
    before, began = machine.state(), time.monotonic()
    machine.lose_controller(mistake, seconds=900)
    machine.reboot(hard=True)
    assert not machine.login()
    assert machine.state() == before
    assert not machine.pending()
    assert time.monotonic() - began < 600


def refused(machine: Machine, role: str, wrong: dict[str, Any], mistake: Mistake) -> None:
    """The controller lives, and its fresh login fails: one clear message, and the host undoes it all the same."""
    before = machine.state()
    # The operator's own options keep a connection open, under a name that does not tell users apart.
    kept = f"-o ControlMaster=auto -o ControlPersist=60 -o ControlPath={machine.folder}/open-%h"
    options = {**wrong, "k3s_access_guard_seconds": SECONDS, "ansible_ssh_extra_args": kept}
    code, said = machine.run(roles(role), "-e", json.dumps(options))
    assert code != 0
    assert f"The host undoes it by itself within {SECONDS} s" in said
    assert mistake.refusal in said
    undone(machine, before)


def repeated(machine: Machine) -> None:
    """A first run is killed while pending; what the second one finds is not taken for the good state."""
    before = machine.state()
    machine.lose_controller(HARMLESS)
    machine.lose_controller(USERS)
    undone(machine, before)


def resumed(machine: Machine) -> None:
    """A run is killed before it confirms; the next one finds nothing to change, and confirms what is there."""
    good = machine.state()
    machine.root(f"sed -i 's/^maxauthtries .*/maxauthtries 9/' {DROPIN}")
    with machine.half_done({"roles": ["k3s_access"]}, f"grep -q 'maxauthtries 4' {DROPIN}", "-e", GUARD_SECONDS):
        pass
    code, said = machine.run(roles("k3s_access"), "-e", GUARD_SECONDS)
    assert (code, machine.pending()) == (0, False), said
    time.sleep(SECONDS + 15)
    assert machine.state() == good


def confirmed(machine: Machine) -> None:
    """A second run changes, reloads and restarts nothing; a reboot keeps what was confirmed."""
    stamps = "systemctl show -p MainPID -p StateChangeTimestampMonotonic ssh casemate-firewall casemate-guard-revert"
    before, state = machine.root(stamps), machine.state()
    code, said = machine.run(roles("k3s_access", "k3s_firewall"))
    assert (code, "changed=0" in said) == (0, True), said
    assert machine.root(stamps) == before
    machine.reboot(hard=False)
    assert not machine.login()
    assert machine.state() == state


def cut(machine: Machine) -> None:
    """Every seventh prefix of the revert, cut off by a kill and then run again, ends in the confirmed state."""
    script, state = f"{GUARD}/revert", machine.state()
    good = machine.root(f"sha256sum {DROPIN}")
    tasks: list[dict[str, Any]] = []
    for line in range(4, len(machine.root(f"cat {script}").splitlines()) + 1, 7):
        engine = {"controls": {"k3s_access": [sshd("maxsessions", 20 + line)]}, "context": {"guard_seconds": 900}}
        # -x writes one line for each command: the shell dies of it when the reader has seen enough
        then = f"""grep -q "maxsessions {20 + line}" {DROPIN} && test -d {GUARD}/pending || exit 1
            sh -x {script} 2>&1 | head -n {line} >/dev/null
            sh {script} >/dev/null; sha256sum {DROPIN}; ls {GUARD}"""
        tasks += [
            {"k3s_controls": engine},
            {
                "name": f"Cut at {line}",
                "ansible.builtin.shell": then,
                "register": "seen",
                "failed_when": f"seen.rc != 0 or seen.stdout_lines != ['{good}', 'revert', 'reverted']",
            },
        ]
    code, said = machine.run(tasks)
    assert code == 0, said
    assert machine.state() == state


STORIES: dict[str, Callable[[Machine], None]] = {
    "killed-users": lambda machine: killed(machine, USERS),
    "killed-firewall": lambda machine: killed(machine, WALL),
    "rebooted-users": lambda machine: rebooted(machine, USERS),
    "rebooted-firewall": lambda machine: rebooted(machine, WALL),
    "refused-users": lambda machine: refused(machine, "k3s_access", {"casemate_automation_user": "nobody"}, USERS),
    "refused-firewall": lambda machine: refused(
        machine, "k3s_firewall", {"casemate_admin_sources": ["192.0.2.0/24"]}, WALL
    ),
    "repeated": repeated,
    "resumed": resumed,
    "confirmed": confirmed,
    "cut": cut,
}


@pytest.fixture(scope="module")
def under_way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """All stories under way, on machines with k3s_access and k3s_firewall applied: a state to go back to."""
    folder = tmp_path_factory.mktemp("lab")
    with for_tests.machines(NAME, servers=0, agents=len(STORIES), workdir=folder / "work") as inventory:
        machines = [Machine(NAME, inventory, folder, f"agent{i + 1}") for i in range(len(STORIES))]
        code, said = machines[0].run(roles("k3s_access", "k3s_firewall"), hosts="k3s_agent")
        assert code == 0, said
        with ThreadPoolExecutor(len(STORIES)) as pool:
            yield {name: pool.submit(STORIES[name], machine) for name, machine in zip(STORIES, machines, strict=True)}


@pytest.mark.parametrize("story", STORIES)
def test_nobody_is_locked_out(under_way: dict[str, Future[None]], story: str) -> None:
    under_way[story].result()
