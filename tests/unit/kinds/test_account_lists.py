"""The lists of accounts and groups, and whether they agree with themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fake_host import FakeHost

from module_utils.casemate.kinds import account_lists as kind

PASSWD = "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\n"
GROUP = "root:x:0:\nalice:x:1000:\n"
SHELLS = "# /etc/shells: valid login shells\n/bin/sh\n/bin/bash\n"


@pytest.mark.parametrize(
    ("of", "path", "line", "named"),
    [
        ("accounts_of_gid_0", "/etc/passwd", "eve:x:2001:0::/:/bin/sh", "eve"),
        ("groups_of_gid_0", "/etc/group", "wheel:x:0:", "wheel"),
        ("shadowed", "/etc/passwd", "eve:$y$j9T$a$b:2001:1000::/:/bin/sh", "eve"),
        ("groups_of_accounts", "/etc/passwd", "eve:x:2001:2001::/:/bin/sh", "eve"),
        ("uids", "/etc/passwd", "eve:x:1000:1000::/:/bin/sh", "1000"),
        ("gids", "/etc/group", "eve:x:1000:", "1000"),
        ("account_names", "/etc/passwd", "alice:x:2001:1000::/:/bin/sh", "alice"),
        ("group_names", "/etc/group", "alice:x:2001:", "alice"),
        ("shells", "/etc/shells", "/usr/sbin/nologin", "/usr/sbin/nologin"),
    ],
)
def test_a_line_that_does_not_agree_is_named_by_its_control(
    tmp_path: Path, of: Any, path: str, line: str, named: str
) -> None:
    right = {"/etc/passwd": PASSWD, "/etc/group": GROUP, "/etc/shells": SHELLS}
    for more, wrong in (("", []), (f"{line}\n", [named])):
        host = FakeHost(tmp_path, {**right, path: right[path] + more})
        verdict = kind.assess({"of": of}, kind.observe([{"of": of}], host)[0])
        assert verdict.ok is (not wrong) and verdict.observed == (wrong or "nothing")


def test_without_accounts_nothing_passes(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be read"):
        kind.observe([{"of": "uids"}], FakeHost(tmp_path))


@given(st.text(), st.text())
def test_any_list_is_survived(tmp_path_factory: pytest.TempPathFactory, group: str, shells: str) -> None:
    files = {"/etc/passwd": PASSWD, "/etc/group": group, "/etc/shells": shells}
    host = FakeHost(
        tmp_path_factory.mktemp("host"), {k: v.encode("utf-8", "replace").decode() for k, v in files.items()}
    )
    for of in kind.LOOKS:
        kind.assess({"of": of}, kind.observe([{"of": of}], host)[0])  # type: ignore[typeddict-item]
