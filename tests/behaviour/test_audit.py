"""Attacks on the record of what was done: by whoever became root and would leave no trace."""

from __future__ import annotations

import shlex
import time

import pytest
from testinfra.host import Host

from .planted import planted
from .test_access import variables

WATCH = ("/etc/sudoers", "-p", "wa", "-k", "scope")


def auditctl(host: Host, *arguments: str) -> tuple[bool, str]:
    """Whether auditctl takes an order, and what it prints.

    It ends with 255 where it does not, by which ssh tells of a lost connection.
    """
    done = host.run("sh -c %s", f"auditctl {shlex.join(arguments)} || exit 1")
    return done.rc == 0, str(done.stdout)


@pytest.fixture(scope="session")
def audited(nodes: list[Host]) -> list[Host]:
    """The nodes that are audited, which level strict alone asks for."""
    strict = [host for host in nodes if variables(host).get("casemate_level") == "strict"]
    for host in strict:
        if not auditctl(host, "-s")[0]:
            pytest.skip("audit: the kernel does not audit a machine of this inventory")
    return strict


def records(host: Host) -> int:
    """How many records there are of changes of the rules of sudo, once what was just done has been written."""
    time.sleep(1)
    found = host.run("ausearch --input-logs --key scope --raw")
    return str(found.stdout).count("type=SYSCALL")


@pytest.mark.control("AUDIT-SUDOERS-RECORDED", "SERVICE-AUDITD-RUNNING", "AUDIT-RULES-RUNNING")
def test_whoever_touches_the_rules_of_sudo_is_recorded(audited: list[Host]) -> None:
    for host in audited:
        before = records(host)
        host.check_output("chmod --reference=/etc/sudoers /etc/sudoers")
        assert records(host) > before


@pytest.mark.control("AUDIT-RULES-LOCKED")
def test_not_even_root_switches_the_record_off(audited: list[Host]) -> None:
    for host in audited:
        with planted(host, "true", f"auditctl -e 1; auditctl -w {shlex.join(WATCH)}; true"):
            before = auditctl(host, "-l")
            auditctl(host, "-W", *WATCH)  # which ends with 0 where it changes nothing
            assert auditctl(host, "-l") == before
            assert not auditctl(host, "-e", "0")[0]
