"""Lines and words as the daemons of a host read them, in every file of a host that is read by line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from unit.fake_host import FakeHost

from casemate import ROOT
from module_utils.casemate.formats import pam_stack
from module_utils.casemate.formats.sshd_files import directives
from module_utils.casemate.formats.sshd_match import groups_of
from module_utils.casemate.host.text import split_lines, split_words, systemd_lines
from module_utils.casemate.kinds import account, kernel_module, mount_option, sysctl

ODD = ("\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c", "\x1d", "\x1e")
"""What Python takes for the end of a line, and no daemon does."""


@pytest.mark.parametrize(
    ("text", "lines"),
    [("", []), ("a", ["a"]), ("a\n", ["a"]), ("a\n\nb", ["a", "", "b"]), ("\n", [""]), ("a\r\nb", ["a\r", "b"])],
)
def test_a_newline_alone_ends_a_line(text: str, lines: list[str]) -> None:
    assert split_lines(text) == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("a\r\nb\n\rc\rd\0e", ["a", "b", "c", "d", "e"]),
        ("a\n\nb\n", ["a", "", "b"]),
        ("a\r\rb", ["a", "", "b"]),
    ],
)
def test_lines_of_systemd(text: str, lines: list[str]) -> None:
    assert systemd_lines(text) == lines


def test_words_are_parted_by_ascii_alone() -> None:
    assert split_words(" \ta\xa0b\u3000c\td\r\n") == ["a\xa0b\u3000c", "d"]


@pytest.mark.parametrize("odd", ODD)
def test_nothing_is_hidden_by_what_only_python_takes_for_an_end(tmp_path: Path, odd: str) -> None:
    """A comment goes on to the end of its line; a line that begins after an odd character is part of that comment."""
    hidden = f"# a comment{odd}"
    host = FakeHost(
        tmp_path,
        {
            "/etc/ssh/sshd_config": f"{hidden}PermitRootLogin yes\n",
            "/etc/sysctl.d/99-x.conf": f"{hidden}kernel.panic=0\n",
            "/etc/modules-load.d/x.conf": f"{hidden}cramfs\n",
            "/etc/pam.d/common-password": f"{hidden}password required pam_unix.so yescrypt\n",
            "/etc/login.defs": f"{hidden}UID_MIN 5\n",
            "/etc/passwd": f"x:x:1:1:{odd}y:x:0:0::/:/bin/sh\nz:x:5:7::/:\n",
            "/etc/group": f"g:x:6:{odd}wheel:x:7:\nwheel:x:7:\n",
        },
    )
    assert [line.key for line in directives(host)] == [""]
    assert sysctl.boot_lines(host) == {}
    assert kernel_module.boot_list(host) == set()
    assert pam_stack.stack("common-password", "password", host) == []
    assert account.login_defs(host.text("/etc/login.defs") or "") == {}
    assert mount_option.fstab(f"{hidden}/dev/x /tmp ext4 noexec 0 0\n") == {}
    assert groups_of(host)["z"] == {"wheel"}


def test_nothing_that_runs_on_hosts_parts_lines_as_python_does() -> None:
    """yaml_subset reads what Go's YAML reads, with more ends of a line; others read the kernel and our own commands."""
    allowed = {"yaml_subset.py", "signature.py", "readiness.py", "text.py", "running.py", "conflicts.py"}
    found = [
        path.name
        for path in (ROOT / "module_utils/casemate").rglob("*.py")
        if path.name not in allowed and re.search(r"\.splitlines\(", path.read_text())
    ]
    assert found == []
