"""What a report of Lynis says."""

from __future__ import annotations

import pytest
from bench import lynis

REPORT = """# Lynis Report
report_version_major=1
warning[]=NETW-2705|Couldn't find 2 responsive nameservers|-|-|
suggestion[]=SSH-7408|Consider hardening SSH configuration|LogLevel (set INFO to VERBOSE)|-|
suggestion[]=SSH-7408|Consider hardening SSH configuration|Port (set 22 to )|-|
details[]=SSH-7408|sshd|desc:sshd option Port;field:Port;prefval:;value:22;|
hardening_index=67
"""


SAID = "2026-01-31 10:00:00 Hardening: assigned"
LOG = f"""2026-01-31 10:00:00 Performing test ID USB-2000 (Check USB authorizations)
{SAID} partial number of hardening points (0 of 3). Currently having 10 points (out of 13)
2026-01-31 10:00:00 Performing test ID SSH-7408 (Check SSH specific defined options)
{SAID} maximum number of hardening points for this item (3). Currently having 13 points (out of 16)
{SAID} partial number of hardening points (1 of 3). Currently having 14 points (out of 19)
{SAID} partial number of hardening points (2 of 3). Currently having 16 points (out of 22)
"""


def test_a_report_has_an_index_and_names_tests() -> None:
    said = lynis.read(REPORT, LOG)
    assert (said.index, said.warnings, said.suggestions) == (67, ["NETW-2705"], ["SSH-7408", "SSH-7408"])
    assert (said.lost, said.points) == ({"USB-2000": 3, "SSH-7408": 3}, 22)


def test_a_report_without_an_index_is_none() -> None:
    with pytest.raises(StopIteration):
        lynis.read("warning[]=A-1|text\n", LOG)
