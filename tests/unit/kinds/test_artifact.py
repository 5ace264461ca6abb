"""Bytes of K3s as they are installed, run, unpacked, dated and signed."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.host.machine import Result
from module_utils.casemate.kinds import artifact

WRAPPER = "/usr/local/bin/k3s"
NAME, OTHER = "ab" * 32, "cd" * 32
TEXT = f"wrapper with embed/{NAME}.tar.zst in it"
DIGESTS = {os.uname().machine: hashlib.sha256(TEXT.encode()).hexdigest()}
UP = "ActiveState=active\nExecMainStartTimestamp=Thu 2026-01-01 00:00:00.000000 UTC\nMainPID=7\n"


def judge(host: FakeHost, setting: Any) -> Any:
    seen = artifact.observe([setting], host)[0]
    if isinstance(seen, Exception):
        raise seen
    return artifact.assess(setting, seen)


@pytest.mark.parametrize(
    ("text", "digests", "optional", "ok"),
    [
        (TEXT, DIGESTS, False, True),
        (TEXT + "\0", DIGESTS, False, False),
        (TEXT[:-1], DIGESTS, False, False),
        (None, DIGESTS, False, False),
        (TEXT, {}, False, False),
        (TEXT, {"another": DIGESTS[os.uname().machine]}, False, False),
        (None, {}, True, True),
        (TEXT[:-1], DIGESTS, True, False),
    ],
)
def test_only_the_locked_bytes_pass(tmp_path: Path, text: str | None, digests: Any, optional: bool, ok: bool) -> None:
    host = FakeHost(tmp_path, {WRAPPER: text} if text is not None else {})
    assert judge(host, {"aspect": "file", "digests": digests, "optional": optional}).ok is ok


def test_a_link_to_the_right_bytes_is_not_the_installed_file(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/elsewhere": TEXT, WRAPPER + ".x": ""})
    os.symlink(host.path("/elsewhere"), host.path(WRAPPER))
    assert not judge(host, {"aspect": "file", "digests": DIGESTS}).ok


def process(folder: Path, tree: str, wrapper: str = TEXT) -> FakeHost:
    """A machine whose K3s runs from an unpacked tree of this name."""
    exe = f"{artifact.DATA}/{tree}/bin/k3s"
    files = {WRAPPER: wrapper, exe: "the real program", "/proc/7/status": ""}
    host = FakeHost(folder, files, {"systemctl show k3s.service": (0, UP, "")})
    os.symlink(host.path(exe), host.path("/proc/7/exe"))
    return host


@pytest.mark.parametrize(("tree", "ok"), [(NAME, True), (OTHER, False)])
def test_the_process_must_come_from_the_installed_wrapper(tmp_path: Path, tree: str, ok: bool) -> None:
    verdict = judge(process(tmp_path, tree), {"aspect": "running"})
    assert (verdict.ok, verdict.stale) == (ok, () if ok else ("k3s.service",))


def test_a_deleted_executable_is_not_the_wrapper_s(tmp_path: Path) -> None:
    host = process(tmp_path, NAME)
    os.unlink(host.path(f"{artifact.DATA}/{NAME}/bin/k3s"))
    assert not judge(host, {"aspect": "running"}).ok


def test_without_a_process_nothing_passes(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not run"):
        judge(FakeHost(tmp_path, {WRAPPER: TEXT}), {"aspect": "running"})


class Unpacking(FakeHost):
    """A machine whose wrapper unpacks `fresh` where the private mount is."""

    fresh: Path

    def run(self, argv: Any, stdin: str | None = None, timeout: float = 30) -> Result:
        """Unpack into the folder that the command would mount."""
        if argv[0] != "unshare":
            return super().run(argv, stdin, timeout)
        shutil.copytree(self.fresh, f"{argv[-3]}/{NAME}", symlinks=True)
        return Result(0, "", "")


@pytest.fixture
def unpacked(tmp_path: Path) -> Unpacking:
    host = Unpacking(tmp_path / "root", {WRAPPER: TEXT})
    host.fresh = tmp_path / "fresh"
    (host.fresh / "bin").mkdir(parents=True)
    (host.fresh / "bin/k3s").write_text("the real program")
    (host.fresh / "bin/.sha256sums").write_text("sums")
    (host.fresh / "bin/kubectl").symlink_to("k3s")
    Path(host.path(artifact.DATA)).mkdir(parents=True)
    shutil.copytree(host.fresh, host.path(f"{artifact.DATA}/{NAME}"), symlinks=True)
    return host


TREE = {"aspect": "unpacked", "digests": DIGESTS}


def test_an_untouched_tree_passes_and_leaves_no_scratch(unpacked: Unpacking) -> None:
    verdict = judge(unpacked, TREE)
    assert (verdict.ok, verdict.observed) == (True, "3 files as in the wrapper")
    assert os.listdir(unpacked.path("/var/lib/rancher/k3s")) == ["data"]


@pytest.mark.parametrize("kind", ["edited", "edited with its checksum", "added", "removed", "relinked", "writable"])
def test_every_change_of_the_tree_is_found(unpacked: Unpacking, kind: str) -> None:
    folder = Path(unpacked.path(f"{artifact.DATA}/{NAME}/bin"))
    if kind.startswith("edited"):
        (folder / "k3s").write_text("another program")
    if kind == "edited with its checksum":
        (folder / ".sha256sums").write_text("other sums")
    if kind == "added":
        (folder / "runc").write_text("of an intruder")
    if kind == "removed":
        (folder / "k3s").unlink()
    if kind == "relinked":
        (folder / "kubectl").unlink()
        (folder / "kubectl").symlink_to("/tmp/kubectl")
    if kind == "writable":
        (folder / "k3s").chmod(0o666)
    assert not judge(unpacked, TREE).ok


def test_a_wrapper_that_is_not_the_locked_one_vouches_for_nothing(unpacked: Unpacking) -> None:
    Path(unpacked.path(WRAPPER)).write_text("swapped")
    with pytest.raises(Unavailable, match="cannot vouch"):
        judge(unpacked, TREE)
    assert not [argv for argv in unpacked.ran if argv[0] == "unshare"]


FLOOR = {"aspect": "version", "floor": "v1.36.3+k3s1", "digests": DIGESTS}


@pytest.mark.parametrize(("wanted", "ok"), [("v1.36.4+k3s1", True), ("v1.36.3+k3s1", True), ("v1.36.2+k3s9", False)])
def test_the_version_has_a_floor(tmp_path: Path, wanted: str, ok: bool) -> None:
    host = FakeHost(tmp_path, {WRAPPER: TEXT}, context={"version": wanted})
    verdict = judge(host, FLOOR)
    assert (verdict.ok, verdict.observed) == (ok, wanted)
    assert not host.ran


def test_foreign_bytes_are_believed_when_they_call_themselves_too_old_and_are_never_run(tmp_path: Path) -> None:
    said = "-X github.com/k3s-io/k3s/pkg/version.Version=v1.30.0+k3s1 -s -w"
    host = FakeHost(tmp_path, {WRAPPER: said}, context={"version": "v1.36.3+k3s1"})
    verdict = judge(host, FLOOR)
    assert (verdict.ok, verdict.observed) == (False, "v1.30.0+k3s1")
    Path(host.path(WRAPPER)).write_text(said.replace("v1.30.0", "v9.9.9"))
    with pytest.raises(Unavailable, match=r"calls itself v9\.9\.9\+k3s1 proves nothing"):
        judge(host, FLOOR)
    assert not host.ran


@pytest.mark.parametrize(("files", "says"), [({}, "there is no"), ({WRAPPER: "#!/bin/sh"}, "names no version")])
def test_a_binary_that_names_no_version_has_none(tmp_path: Path, files: dict[str, str], says: str) -> None:
    with pytest.raises(Unavailable, match=says):
        judge(FakeHost(tmp_path, files), FLOOR)


@pytest.mark.parametrize(("rc", "ok"), [(0, True), (255, False)])
def test_the_lock_needs_an_allowed_signer(tmp_path: Path, rc: int, ok: bool) -> None:
    lock = tmp_path / "lock.json"
    for path in (lock, tmp_path / "lock.json.sig", tmp_path / "allowed"):
        path.write_text("{}")
    found = {"ssh-keygen -Y find-principals": (0, "release@example.org\n", "")}
    host = FakeHost(tmp_path, commands={**found, "ssh-keygen -Y verify": (rc, "", "")})
    verdict = judge(host, {"aspect": "signature", "lock": str(lock), "allowed_signers": str(tmp_path / "allowed")})
    assert verdict.ok is ok
    nobody = judge(host, {"aspect": "signature", "lock": str(lock), "allowed_signers": ""})
    assert not nobody.ok
    assert "casemate_allowed_signers" in nobody.reason


@pytest.mark.parametrize(
    ("issued", "expires", "says"),
    [
        ("", "", ""),
        ("2026-11-29", "2026-11-29", ""),
        ("2026-01-01", "2026-11-28", "ended on 2026-11-28, and today is 2026-11-29 in UTC. Review it"),
        ("2026-11-30", "2027-01-01", "issued on 2026-11-30, and the clock of this controller says 2026-11-29"),
    ],
)
def test_a_lock_holds_between_its_days(tmp_path: Path, issued: str, expires: str, says: str) -> None:
    host = FakeHost(tmp_path, context={"today": "2026-11-29"})
    verdict = judge(host, {"aspect": "validity", "lock": "/lock", "issued": issued, "expires": expires})
    assert verdict.ok is not bool(says)
    assert says in verdict.reason


HERE = {"aspect": "file", "digests": DIGESTS, "version": "v1.36.3+k3s1"}


@pytest.mark.parametrize("what", ["empty", "directory", "pipe", "link", "absent"])
def test_whatever_is_in_the_place_of_k3s_fails_one_control_and_hangs_nobody(tmp_path: Path, what: str) -> None:
    host = FakeHost(tmp_path, {"/elsewhere": TEXT})
    path = Path(host.path(WRAPPER))
    path.parent.mkdir(parents=True)
    if what == "empty":
        path.touch()
    elif what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "link":
        path.symlink_to(host.path("/elsewhere"))
    verdict = judge(host, HERE)
    assert not verdict.ok
    assert bool(verdict.blocked_by) is (what == "directory")  # the others are replaced
    with pytest.raises(Unavailable):
        judge(host, FLOOR)
    assert artifact._holds(str(path), "0" * 64) is False


@pytest.mark.parametrize(
    ("stated", "downgrade", "blocked_by"),
    [("v1.37.0+k3s1", False, True), ("v1.37.0+k3s1", True, False), ("v1.36.2+k3s1", False, False), ("", False, False)],
)
def test_check_foretells_that_apply_refuses_a_downgrade(
    tmp_path: Path, stated: str, downgrade: bool, blocked_by: bool
) -> None:
    host = FakeHost(tmp_path, {WRAPPER: f"-X github.com/k3s-io/k3s/pkg/version.Version={stated} -s"})
    verdict = judge(host, {**HERE, "downgrade": downgrade})
    assert not verdict.ok
    assert bool(verdict.blocked_by) is blocked_by
    assert ("k3s_node_allow_downgrade" in verdict.reason) is blocked_by
