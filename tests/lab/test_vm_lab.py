"""A machine with a kernel of its own is hardened at the strictest level, attacked, rebooted, and looked at again.

What a container cannot show is shown here: AppArmor, modules, parameters and arguments of the kernel, and what a reboot
leaves of all of it. `make vm` runs it; it takes a processor that is emulated, and so some minutes.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casemate_lab import for_tests, lab
from casemate_lab.image import missing_tools

from .applied import Lab, failing

pytestmark = pytest.mark.lab
NAME, MACHINE = "vm", "server1"
ARGUMENTS = [
    "init_on_alloc=1", "slab_nomerge", "page_alloc.shuffle=1", "lockdown=integrity",
    "audit=1", "audit_backlog_limit=8192",
]  # fmt: skip
FROM_THE_NEXT_BOOT = {"BOOT-ARGUMENTS-HARDENED", "BOOT-AUDIT-EARLY"}
"""What these arguments settle."""
BY_HAND = {
    "BOOT-PASSWORD-ASKED": "a password of the boot loader is the operator's",
    "MOUNT-TMP-RESTRICTED": "the disk has one partition",
    "MOUNT-HOME-RESTRICTED": "the disk has one partition",
    "MOUNT-VAR-RESTRICTED": "the disk has one partition",
    "MOUNT-VARTMP-RESTRICTED": "the disk has one partition",
    "MOUNT-LOG-RESTRICTED": "the disk has one partition",
    "MOUNT-AUDIT-RESTRICTED": "the disk has one partition",
    "TIME-CLOCK-KEPT": "the lab has no server of time",
}
"""What only an operator can settle -> why it is not settled here."""
ACCEPTED = ["vantage"]
"""Why something may be not evaluated: there is no second machine to attack from."""
SHOWS = {
    "arguments": "cat /proc/cmdline | cut -d' ' -f3-",
    "parameters": "grep -s '' $(sed -n 's/^-\\?\\([a-z][^ ]*\\) = .*/\\1/p' /etc/sysctl.d/99-zz-casemate.conf"
    " | sed 's,\\.,/,g; s,^,/proc/sys/,') || true",
    "module": "grep -c '^br_netfilter ' /proc/modules",
    "profiles": "grep -c '(enforce)' /sys/kernel/security/apparmor/profiles",
    "failed": "systemctl --failed --plain --no-legend",
    "audit": "auditctl -s | grep ^enabled; auditctl -l | sort",
    "rules": "nft list table inet casemate | grep -v 'elements\\|expires' | sha256sum",
}
"""What shows on the machine what its kernel has."""
Told = dict[str, Any]


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    """The story from nothing to proven again: what each step ended with."""
    impossible = functools.partial(missing_tools, vm=True)
    asked = Told(agents=0, vm=True, here=True, debian=os.environ.get("CASEMATE_LAB_DEBIAN", "12"))
    begun, said = time.monotonic(), Told()
    with (
        tempfile.TemporaryDirectory(prefix="vm-") as folder,
        for_tests.machines(NAME, impossible=impossible, **asked) as inventory,
    ):
        more = Path(folder, "strict.yml")
        machine = Lab(str(inventory), str(more), seconds=1200)
        said["real"] = machine.known["lab_real_k3s"]
        accepted = [*machine.known["casemate_accept_not_evaluated"], *ACCEPTED]
        strict = {
            "casemate_level": "strict",
            "k3s_host_kernel_arguments": ARGUMENTS,
            "k3s_host_ageless_accounts": ["alice"],
        }
        more.write_text(json.dumps({"all": {"vars": {**strict, "casemate_accept_not_evaluated": accepted}}}))

        def took(step: str) -> None:
            print(f"{step}: ended after {time.monotonic() - begun:.0f} s", flush=True)

        took("up")
        said["apply"] = machine.casemate("apply")
        took("apply")
        said["before"] = {what: machine.root(MACHINE, script) for what, script in SHOWS.items()}
        lab.reboot(NAME, MACHINE)
        took("reboot")
        said["after"] = {what: machine.root(MACHINE, script) for what, script in SHOWS.items()}
        said["check"] = machine.casemate("check")
        took("check")
        said["prove"] = machine.casemate("prove")
        took("prove")
        yield said


def wrong(report: dict[str, Any]) -> set[str]:
    """The controls that a report finds wrong, or that could not be judged for a reason that is not accepted."""
    (host,) = report["hosts"]
    assert not host.get("message"), host["message"]
    return {one["control"] for one in host["findings"] if one["status"] in ("fail", "error")}


def test_everything_is_applied_that_the_operator_has_not_to_do(told: Told) -> None:
    """The arguments of the kernel hold from the next boot on."""
    code, report = told["apply"]
    assert wrong(report) == {*BY_HAND, *FROM_THE_NEXT_BOOT}, failing(report)
    assert code == 2


def test_a_reboot_brings_the_arguments_and_takes_nothing_away(told: Told) -> None:
    code, report = told["check"]
    assert wrong(report) == set(BY_HAND), failing(report)
    assert code == 2


def test_nothing_of_the_kernel_is_left_unjudged(told: Told) -> None:
    _, report = told["check"]
    codes = {one["code"] for host in report["hosts"] for one in host["findings"] if one["status"] == "not_evaluated"}
    assert not codes & set(lab.ACCEPTED)


def test_the_kernel_shows_what_it_was_given(told: Told) -> None:
    before, after = told["before"], told["after"]
    assert not set(ARGUMENTS) & set(before["arguments"].split())
    assert set(ARGUMENTS) <= set(after["arguments"].split())
    assert int(after["profiles"]) > 0
    assert after["module"].strip() == "1"
    assert after["failed"] == ""
    assert "enabled 2" in after["audit"], "audit is locked"
    for what in ("parameters", "profiles", "rules", "audit"):
        assert after[what] == before[what], what


def test_the_rebooted_machine_withstands_all_attacks(told: Told) -> None:
    code, report = told["prove"]
    assert code == 0, failing(report)


def test_a_pod_of_a_real_cluster_is_confined_after_the_reboot(told: Told) -> None:
    if not told["real"]:
        pytest.skip("api_semantics: the double runs no pods")
    (host,) = told["prove"][1]["hosts"]
    (found,) = [one for one in host["findings"] if one["control"] == "SERVICE-APPARMOR-RUNNING"]
    assert found["status"] == "pass" and "test_a_pod_is_confined_by_apparmor" in found["evidence"], found
