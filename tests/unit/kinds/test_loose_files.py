"""Files that everybody may change, and files of nobody, anywhere on a host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Verdict
from module_utils.casemate.kinds import loose_files as kind

LOOSE: Any = {"of": "world_writable", "skipped": ["/var/lib/rancher", "/run"]}
UNOWNED: Any = {"of": "unowned", "skipped": []}


@pytest.fixture(autouse=True)
def _open(tmp_path: Path) -> None:
    """Everybody gets into the root of a machine."""
    os.chmod(tmp_path, 0o755)


def judged(setting: Any, host: FakeHost) -> Verdict:
    return kind.assess(setting, kind.observe([setting], host)[0])


@pytest.mark.parametrize(
    ("path", "mode", "folder", "named"),
    [
        ("/srv/x", 0o666, False, True),
        ("/srv/x", 0o664, False, False),
        ("/srv/x", 0o1666, False, True),  # the sticky bit of a file means nothing
        ("/srv/d", 0o777, True, True),
        ("/srv/d", 0o1777, True, False),
        ("/srv/d", 0o775, True, False),
        ("/var/lib/rancher/x", 0o666, False, False),
        ("/run/x", 0o666, False, False),
        ("/runner", 0o666, False, True),
    ],
)
def test_what_everybody_may_change_is_named(tmp_path: Path, path: str, mode: int, folder: bool, named: bool) -> None:
    real = tmp_path / path.lstrip("/")
    host = FakeHost(tmp_path, {} if folder else {path: ""})
    if folder:
        real.mkdir(parents=True)
    os.chmod(real, mode)
    verdict = judged(LOOSE, host)
    assert verdict.observed == ([path] if named else "nothing")
    assert ("chmod o-w" in verdict.reason) is named


def test_a_link_is_followed_nowhere(tmp_path: Path) -> None:
    host = FakeHost(tmp_path / "host", {"/srv/kept": ""})
    (tmp_path / "outside").mkdir(mode=0o777)
    os.chmod(tmp_path / "outside", 0o777)
    os.chmod(tmp_path / "host", 0o755)
    os.symlink(tmp_path / "outside", tmp_path / "host/srv/link")
    assert judged(LOOSE, host).ok


def test_what_lies_where_only_root_gets_in_is_left_out(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/srv/closed/x": ""})
    os.chmod(tmp_path / "srv/closed/x", 0o666)
    os.chmod(tmp_path / "srv/closed", 0o700)
    assert judged(LOOSE, host).ok is (os.getuid() == 0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(
    ("uid", "gid", "named"), [(54321, 0, True), (0, 54321, True), (0, 0, False), (100005, 100005, False)]
)
def test_files_of_nobody_are_named(tmp_path: Path, uid: int, gid: int, named: bool) -> None:
    lists = {"/etc/subuid": "alice:100000:65536\n", "/etc/subgid": "alice:100000:65536\n", "/srv/x": ""}
    host = FakeHost(tmp_path, {**lists, "/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "/etc/group": "root:x:0:\n"})
    os.chown(tmp_path / "srv/x", uid, gid)
    assert judged(UNOWNED, host).observed == (["/srv/x"] if named else "nothing")


def test_a_walk_ends_where_there_is_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "MOST", 2)
    host = FakeHost(tmp_path, {f"/srv/{n}": "" for n in range(5)})
    for n in range(5):
        os.chmod(tmp_path / f"srv/{n}", 0o666)
    verdict = judged(LOOSE, host)
    assert len(verdict.where) == 2 and "the walk ended after 2" in verdict.reason


def test_file_systems_of_other_machines_are_not_walked() -> None:
    lines = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:9 / /mnt/a\\040b rw shared:1 - xfs /dev/sdb rw\n"
    lines += "3 1 0:8 / /srv rw - nfs4 server:/x rw\n4 1 0:7 / /proc rw - proc proc rw\nodd\n"
    assert kind._disks(lines) == {"/", "/mnt/a b"}


def test_one_walk_finds_for_each_what_it_would_find_alone(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/srv/x": "", "/run/x": ""})
    for name in ("srv/x", "run/x"):
        os.chmod(tmp_path / name, 0o666)
    asked = [LOOSE, UNOWNED, {**LOOSE, "skipped": []}, {**UNOWNED, "skipped": LOOSE["skipped"]}]
    together = kind.observe(asked, host)
    assert together == [kind.observe([one], host)[0] for one in asked]
    assert [sorted(one["found"]) for one in together[:3:2]] == [["/srv/x"], ["/run/x", "/srv/x"]]
