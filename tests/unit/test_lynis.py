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


def test_a_report_has_an_index_and_names_tests() -> None:
    said = lynis.read(REPORT)
    assert (said.index, said.warnings, said.suggestions) == (67, ["NETW-2705"], ["SSH-7408", "SSH-7408"])


def test_a_report_without_an_index_is_none() -> None:
    with pytest.raises(StopIteration):
        lynis.read("warning[]=A-1|text\n")
