"""Homes and dot files: whose they are, and who else may use them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Verdict
from module_utils.casemate.kinds import home as kind

ME = os.getuid()
HOMES: Any = {"of": "homes"}
DOTS: Any = {"of": "dot_files"}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A machine with one person, who is whoever runs this, and a service's account."""
    monkeypatch.setattr(kind, "least_uid", lambda value: ME)
    made = FakeHost(
        tmp_path, {"/etc/passwd": f"alice:x:{ME}:{ME}::/home/alice:/bin/bash\nsvc:x:{ME}:7::/:/bin/false\n"}
    )
    (tmp_path / "home/alice").mkdir(parents=True, mode=0o700)
    return made


def judged(setting: Any, host: FakeHost) -> Verdict:
    return kind.assess(setting, kind.observe([setting], host)[0])


@pytest.mark.parametrize(("mode", "after"), [(0o700, 0o700), (0o750, 0o750), (0o755, 0o750), (0o777, 0o750)])
def test_a_home_that_strangers_enter_is_closed(host: FakeHost, mode: int, after: int) -> None:
    os.chmod(host.path("/home/alice"), mode)
    before = judged(HOMES, host)
    assert before.ok is (mode == after)
    assert before.ok or not before.blocked_by
    kind.enforce([HOMES], {0}, host)
    assert os.stat(host.path("/home/alice")).st_mode & 0o7777 == after
    assert judged(HOMES, host).ok


def test_the_home_by_which_casemate_comes_in_stays_as_it_is(host: FakeHost) -> None:
    os.chmod(host.path("/home/alice"), 0o775)
    assert not judged(HOMES, host).ok
    host.context = {"account": "alice"}
    assert judged(HOMES, host).ok
    Path(host.path("/home/alice/.profile")).touch(0o666)
    os.chmod(host.path("/home/alice/.profile"), 0o666)
    assert not judged(DOTS, host).ok, "what its logins run is judged all the same"


def test_a_home_that_is_not_there_or_anothers_is_left_to_people(host: FakeHost, tmp_path: Path) -> None:
    os.rmdir(host.path("/home/alice"))
    assert "has no home there" in judged(HOMES, host).blocked_by
    os.symlink("/etc", host.path("/home/alice"))
    assert not judged(HOMES, host).ok
    os.remove(host.path("/home/alice"))
    os.mkdir(host.path("/home/alice"), 0o777)
    text = f"alice:x:{ME + 1}:{ME}::/home/alice:/bin/bash\n"
    other = FakeHost(tmp_path, {"/etc/passwd": text})
    assert "it is not alice's" in judged(HOMES, other).blocked_by
    kind.enforce([HOMES], {0}, other)
    assert other.changes == []


@pytest.mark.parametrize(
    ("name", "mode", "after"),
    [
        (".profile", 0o644, 0o644),
        (".profile", 0o664, 0o644),
        (".bash_history", 0o644, 0o600),
        (".netrc", 0o640, 0o600),
        ("notes", 0o666, 0o666),
    ],
)
def test_dot_files_are_restricted_and_no_others(host: FakeHost, name: str, mode: int, after: int) -> None:
    path = host.path(f"/home/alice/{name}")
    Path(path).write_text("x")
    os.chmod(path, mode)
    assert judged(DOTS, host).ok is (mode == after)
    kind.enforce([DOTS], {0}, host)
    assert os.stat(path).st_mode & 0o7777 == after
    assert judged(DOTS, host).ok


@pytest.mark.parametrize("name", kind.TRUSTING)
def test_what_lets_others_in_is_named_and_left(host: FakeHost, name: str) -> None:
    Path(host.path(f"/home/alice/{name}")).write_text("+ +\n")
    verdict = judged(DOTS, host)
    assert name in verdict.blocked_by and not verdict.still_enforced


def test_a_link_is_no_dot_file_of_theirs(host: FakeHost) -> None:
    os.symlink("/etc/passwd", host.path("/home/alice/.profile"))
    assert judged(DOTS, host).ok


def test_people_have_a_shell_and_a_number_above_the_systems(tmp_path: Path) -> None:
    lines = ["a:x:1000:1000::/a:/bin/bash", "b:x:999:999::/b:/bin/bash", "c:x:1001:1001::/c:/usr/sbin/nologin"]
    lines += ["nobody:x:65534:65534::/:/bin/bash"]
    assert [one.name for one in kind.people(FakeHost(tmp_path, {"/etc/passwd": "\n".join(lines)}))] == ["a"]
