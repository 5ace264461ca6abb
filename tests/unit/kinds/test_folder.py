"""A folder of our own: what is declared lies in it, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Verdict
from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.kinds import folder as kind
from module_utils.casemate.kinds.kind import Pass

PATH = "/etc/keys"
SETTING: Any = {"path": PATH, "files": {"alice": "key 1\n", "john.doe": "key 2\n"}, "mode": "0644"}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="files have to be root's")


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    (tmp_path / "etc").mkdir()
    made = FakeHost(tmp_path)
    kind.enforce([SETTING], {0}, made)
    assert judged(made).ok
    made.changes.clear()
    made.armed.clear()
    return made


def judged(host: FakeHost) -> Verdict:
    return kind.assess(SETTING, kind.observe([SETTING], host)[0])


def test_it_is_made_whole(host: FakeHost, tmp_path: Path) -> None:
    assert {path.name: path.read_text() for path in (tmp_path / "etc/keys").iterdir()} == SETTING["files"]
    assert (tmp_path / "etc/keys").stat().st_mode & 0o7777 == 0o755
    kind.enforce([SETTING], {0}, host)
    assert host.changes == [] and host.armed == [], "once more changes nothing"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda at: (at / "alice").write_text("key 3\n"), "alice: its content differs"),
        (lambda at: (at / "alice").unlink(), "alice: it is missing"),
        (lambda at: (at / "eve").write_text("key\n"), "eve: nobody declared it"),
        (lambda at: (at / ".hidden").write_text("key\n"), ".hidden: nobody declared it"),
        (lambda at: (at / "alice").chmod(0o666), "alice: it is not root's with mode 0644"),
        (lambda at: os.chown(at / "alice", 1000, -1), "alice: it is not root's"),
        (lambda at: at.chmod(0o777), "it is not root's with mode 0755"),
        (
            lambda at: ((at / "alice").unlink(), (at / "alice").symlink_to("/etc/passwd")),
            "alice: it is no regular file",
        ),
    ],
)
def test_drift_is_told_and_healed(host: FakeHost, tmp_path: Path, damage: Any, says: str) -> None:
    damage(tmp_path / "etc/keys")
    verdict = judged(host)
    assert says in verdict.reason and not verdict.blocked_by
    kind.enforce([SETTING], {0}, host)
    assert judged(host).ok
    assert host.armed, "the guard holds what was there"


def test_a_waiver_takes_back_what_is_ours_unless_a_daemon_looks_there(host: FakeHost, tmp_path: Path) -> None:
    at = tmp_path / "etc/keys"
    (at / "alice").write_text("# Managed by Casemate (roles/x)\nkey 1\n")
    named = Pass([{"kind": "sshd", "users_value": f"{PATH}/%u"}], False)
    assert kind.left(SETTING, named, host).stays == "a control that is not waived names it"
    assert kind.left(SETTING, Pass([], False), host) == (PATH, "")
    kind.take_back([SETTING], [], host)
    assert [path.name for path in at.iterdir()] == ["john.doe"], "that one is not ours"
    assert kind.left(SETTING, Pass([], False), host) == ("", "")


def test_what_is_no_file_is_left_and_told(host: FakeHost, tmp_path: Path) -> None:
    (tmp_path / "etc/keys/eve").mkdir()
    verdict = judged(host)
    assert verdict.blocked_by == f"{PATH}/eve is a folder" and not verdict.still_enforced
    with pytest.raises(EnforceError, match="directory"):
        kind.enforce([SETTING], {0}, host)


def test_a_link_in_the_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/keys").symlink_to("/tmp")
    host = FakeHost(tmp_path)
    assert judged(host).blocked_by == f"{PATH} is no folder"
