"""What decides on the next login is kept with every change, and comes back whatever became of it, disk full or not."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from module_utils.casemate.host import guard as guarding
from module_utils.casemate.host import logins, way_in
from module_utils.casemate.host.guard import HOME, RESERVES, Guard
from module_utils.casemate.host.last_change import LastChange
from module_utils.casemate.host.machine import EnforceError, Host

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to somebody else")
SHADOW = "ops:$y$HASH:19000:0:99999:7:::\n"


class Held(Guard):
    """A guard below a folder; systemd is not asked, and the script reads the shadow file of that folder."""

    def _run(self, argv: Sequence[str]) -> str:
        return "UnitFileState=enabled\nActiveState=active\n" if argv[0] == "systemctl" else super()._run(argv)

    def _script(self) -> str:
        return super()._script().replace("/etc/shadow", f"{self.root}/etc/shadow")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A host with an account that comes in by a key of its own."""
    return laid(tmp_path)


def laid(root: Path) -> Path:
    for folder in (*way_in.FOLDERS[:4], "/home/ops/.ssh"):
        (root / folder[1:]).mkdir(parents=True)
    for name, text in {
        "etc/passwd": f"root:x:0:0::/root:/bin/sh\nops:x:{os.geteuid()}:{os.getegid()}::/home/ops:/bin/bash\n",
        "etc/shadow": SHADOW,
        "etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\n",
        "etc/ssh/ssh_host_ed25519_key": "the host's key\n",
        "etc/sudoers.d/ops": "ops ALL=(ALL) NOPASSWD: ALL\n",
        "etc/pam.d/sshd": "@include common-account\n",
        "home/ops/.ssh/authorized_keys": "ssh-ed25519 AAAA\n",
    }.items():
        (root / name).write_text(text)
    return root


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Put a program of one's own before the system's: it notes its arguments, and then runs a script."""
    folder = tmp_path_factory.mktemp("programs")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name: str, script: str = "") -> Path:
        noted = folder / f"{name}.called"
        noted.touch()
        (folder / name).write_text(f'#!/bin/sh\necho "$@" >>{noted}\n{script}\n')
        (folder / name).chmod(0o755)
        return noted

    for name in ("usermod", "chpasswd", "chage", "dpkg"):
        put(name, "exit 1" if name == "dpkg" else "")
    put("systemctl")
    put("getent", f"grep '^ops:' {folder}/passwd")
    (folder / "passwd").write_text("ops:x:1000:1000::/home/ops:/bin/bash\n")
    return put


def armed(place: Path, account: str = "ops") -> Held:
    guard = Held(root=str(place), account=account)
    guard.arm(["/etc/other"])
    return guard


Programs = Callable[[str, str], Path]
usual = pytest.mark.usefixtures("programs")


@usual
def test_what_somebody_does_to_the_way_in_meanwhile_is_undone(place: Path) -> None:
    guard = armed(place)
    (place / "etc/ssh/sshd_config").write_text("NoSuchKeyword yes\n")
    (place / "etc/ssh/sshd_config.d/00-a.conf").write_text("AuthenticationMethods publickey,password\n")
    (place / "etc/ssh/ssh_host_ed25519_key").unlink()
    (place / "etc/sudoers.d/ops").write_text("ops ALL=(ALL) ALL\n")
    (place / "etc/pam.d/sshd").unlink()
    (place / "etc/nologin").write_text("")
    (place / "home/ops").chmod(0)
    (place / "home/ops/.ssh/authorized_keys").write_text('expiry-time="20200101" ssh-ed25519 AAAA\n')
    assert guard.revert()
    assert (place / "etc/ssh/sshd_config").read_text() == "Include /etc/ssh/sshd_config.d/*.conf\n"
    assert (place / "etc/ssh/ssh_host_ed25519_key").read_text() == "the host's key\n"
    assert (place / "etc/sudoers.d/ops").read_text() == "ops ALL=(ALL) NOPASSWD: ALL\n"
    assert (place / "etc/pam.d/sshd").exists()
    assert not (place / "etc/nologin").exists()
    assert stat.S_IMODE((place / "home/ops").stat().st_mode) == 0o755
    assert (place / "home/ops/.ssh/authorized_keys").read_text() == "ssh-ed25519 AAAA\n"


@usual
def test_a_file_that_somebody_has_added_is_moved_away_and_not_lost(place: Path) -> None:
    guard = armed(place)
    (place / "etc/sudoers.d/zz").write_text("Defaults rootpw\n")
    (place / "etc/pam.d/new.dpkg-new").write_text("dpkg is at work\n")
    guard.revert()
    assert not (place / "etc/sudoers.d/zz").exists()
    (moved,) = (place / HOME[1:]).glob("reverted/*/new/zz")
    assert moved.read_text() == "Defaults rootpw\n"
    assert (place / "etc/pam.d/new.dpkg-new").exists()


def test_a_file_that_a_package_has_brought_stays(place: Path, programs: Programs) -> None:
    programs("dpkg", "case $2 in */etc/pam.d/cron) ;; *) exit 1 ;; esac")
    guard = armed(place)
    (place / "etc/pam.d/cron").write_text("@include common-auth\n")
    guard.revert()
    assert (place / "etc/pam.d/cron").exists()


@usual
def test_a_host_key_that_is_new_stays_and_one_that_is_empty_comes_back(place: Path) -> None:
    key = place / "etc/ssh/ssh_host_ed25519_key"
    guard = armed(place)
    key.write_text("another key, which clients were told of\n")
    guard.revert()
    assert key.read_text() == "another key, which clients were told of\n"
    guard = armed(place)
    key.write_text("")
    guard.revert()
    assert key.read_text() == "another key, which clients were told of\n"


@pytest.mark.parametrize(
    ("now", "called"),
    [
        (SHADOW, {}),
        ("ops:$y$HASH:19000:0:99999:7::1:\n", {"chage": "-m 0 -M 99999 -W 7 -I -1 -E -1 -- ops"}),
        ("ops:$y$HASH:0:0:99999:7:::\n", {"chage": "-d 19000 -- ops"}),
        ("ops:!:19000:0:99999:7:::\n", {"chpasswd": "-e"}),
        ("ops:!:0:0:99999:7:::\n", {"chpasswd": "-e", "chage": "-d 19000 -- ops"}),
    ],
    ids=["as it was", "expired", "a new password is demanded", "locked", "locked by passwd"],
)
def test_an_account_gets_back_its_dates(place: Path, programs: Programs, now: str, called: dict[str, str]) -> None:
    noted = {name: programs(name, "") for name in ("usermod", "chpasswd", "chage")}
    guard = armed(place)
    (place / "etc/shadow").write_text(now)
    guard.revert()
    lines = {name: path.read_text().splitlines() for name, path in noted.items()}
    assert {name: said[-1] for name, said in lines.items() if said} == called


def test_an_account_that_an_older_release_has_kept_keeps_its_dates(place: Path, programs: Programs) -> None:
    noted = programs("chage", "")
    guard = armed(place)
    (entry,) = (path for path in (place / HOME[1:]).glob("pending/*/account"))
    entry.write_text("$y$HASH:19000:/bin/bash\n")
    (place / "etc/shadow").write_text("ops:$y$HASH:19000:0:99999:7::20000:\n")
    guard.revert()
    assert noted.read_text() == ""


@pytest.fixture
def theirs() -> Iterator[Path]:
    """The folder of the keys of an account that is not root's, below folders that it may enter.

    Not below those of pytest, which another run of it closes again.
    """
    with tempfile.TemporaryDirectory(prefix="casemate-") as folder:
        yield given_to_nobody(laid(Path(folder)))


def given_to_nobody(place: Path) -> Path:
    for path in (place, *place.iterdir()):
        path.chmod(0o755)
    (place / "etc/passwd").write_text("ops:x:65534:65534::/home/ops:/bin/sh\n")
    ssh, keys = place / "home/ops/.ssh", place / "home/ops/.ssh/authorized_keys"
    ssh.chmod(0o700)
    keys.chmod(0o600)
    for path in (ssh.parent, ssh, keys):
        os.chown(path, 65534, 65534)
    return ssh


def owner(path: Path) -> tuple[int, str]:
    return path.lstat().st_uid, f"{stat.S_IMODE(path.lstat().st_mode):04o}"


@AS_ROOT
@usual
def test_a_home_that_was_given_to_root_with_all_in_it_comes_back(theirs: Path) -> None:
    place, keys = theirs.parents[2], theirs / "authorized_keys"
    guard = armed(place)
    for path, mode in ((theirs.parent, 0o755), (theirs, 0o750), (keys, 0o640)):
        os.chown(path, 0, 0)
        path.chmod(mode)
    assert guard.revert()
    assert [owner(path) for path in (theirs.parent, theirs, keys)] == [
        (65534, "0755"),
        (65534, "0700"),
        (65534, "0600"),
    ]
    assert keys.read_text() == "ssh-ed25519 AAAA\n"


@AS_ROOT
@usual
@pytest.mark.parametrize("spoilt", ["ssh-ed25519 AAAA\n", "ssh-ed25519 BBBB\n"])
def test_a_folder_of_keys_that_somebody_else_put_there_makes_room(theirs: Path, spoilt: str) -> None:
    """As a backup that root brings back: the account enters no folder that is root's alone."""
    place, keys = theirs.parents[2], theirs / "authorized_keys"
    guard = armed(place)
    theirs.rename(place / "away")
    theirs.mkdir(0o700)
    keys.write_text(spoilt)
    guard.revert()
    assert (owner(theirs), owner(keys), keys.read_text()) == ((65534, "0700"), (65534, "0600"), "ssh-ed25519 AAAA\n")
    assert (theirs.parent / ".ssh.casemate-revert/authorized_keys").read_text() == spoilt


@AS_ROOT
@usual
@pytest.mark.parametrize("planted", ["file", "link", "hard link"])
def test_nothing_but_the_very_same_file_is_given_away(theirs: Path, planted: str) -> None:
    place, keys, roots = theirs.parents[2], theirs / "authorized_keys", theirs.parents[2] / "etc/secret"
    roots.write_text("root's\n")
    roots.chmod(0o600)
    guard = armed(place)
    keys.rename(place / "kept")  # whose number nothing else gets
    if planted == "file":
        shutil.copy2(roots, keys)
    elif planted == "link":
        keys.symlink_to(roots)
    else:
        os.link(roots, keys)
    guard.revert()
    assert owner(roots) == (0, "0600")
    assert (keys.read_text(), owner(keys)) == ("ssh-ed25519 AAAA\n", (65534, "0600"))
    assert roots.read_text() == "root's\n"


@AS_ROOT
@usual
def test_what_an_older_release_has_kept_of_a_mode_is_not_given_away(theirs: Path) -> None:
    """It did not note which file it was."""
    place = theirs.parents[2]
    guard = armed(place)
    for entry in (place / HOME[1:]).glob("pending/*/mode"):
        entry.write_text(" ".join(entry.read_text().split()[:4]) + "\n")
    os.chown(theirs, 0, 0)
    guard.revert()
    assert owner(theirs.parent / ".ssh.casemate-revert") == (0, "0700")


@AS_ROOT
@usual
def test_keys_come_back_with_no_more_than_their_owner_s_rights(theirs: Path) -> None:
    place, ssh, keys = theirs.parents[2], theirs, theirs / "authorized_keys"
    guard = armed(place)
    keys.unlink()
    keys.write_text("spoilt\n")  # and root's now
    guard.revert()
    assert (keys.read_text(), keys.stat().st_uid) == ("ssh-ed25519 AAAA\n", 65534)
    guard = armed(place)
    ssh.rename(place / "home/ops/away")
    ssh.symlink_to(place / "etc/sudoers.d")
    guard.revert()
    assert sorted(path.name for path in (place / "etc/sudoers.d").iterdir()) == ["ops"]


@usual
def test_where_the_disk_takes_no_copy_files_are_written_over(place: Path, programs: Programs) -> None:
    programs("cp", "echo 'cp: No space left on device' >&2; exit 1")
    guard = armed(place)
    (place / "etc/sudoers.d/ops").write_text("ops ALL=(ALL) ALL # and much more than there was before\n")
    (place / "etc/sudoers.d/ops").chmod(0o600)
    inode = (place / "etc/sudoers.d/ops").stat().st_ino
    guard.revert()
    seen = (place / "etc/sudoers.d/ops").stat()
    assert (place / "etc/sudoers.d/ops").read_text() == "ops ALL=(ALL) NOPASSWD: ALL\n"
    assert (seen.st_ino, stat.S_IMODE(seen.st_mode)) == (inode, 0o644)


@pytest.mark.parametrize("settle", ["revert", "confirm"])
@usual
def test_room_is_set_aside_for_as_long_as_a_change_is_pending(place: Path, settle: str) -> None:
    guard = armed(place)
    reserve = place / RESERVES[0][1:]
    assert reserve.stat().st_blocks * 512 >= guarding.ROOM
    assert not (place / RESERVES[1][1:]).exists(), "it is the same disk"
    assert getattr(guard, settle)()
    assert not reserve.exists()


def test_room_is_given_up_before_anything_is_written(place: Path, programs: Programs) -> None:
    reserve = place / RESERVES[0][1:]
    programs("cp", f'[ ! -e {reserve} ] || exit 1; exec /bin/cp "$@"')
    guard = armed(place)
    (place / "etc/pam.d/sshd").unlink()
    guard.revert()
    assert (place / "etc/pam.d/sshd").exists()


def test_without_room_nothing_may_change(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(EnforceError, match=r"nothing was changed: .*No space left on device: .*guard/reserve"):
        armed(place)
    assert not (place / RESERVES[0][1:]).exists()


def handed_over(place: Path) -> list[str]:
    return [one.name for one in LastChange("", str(place)).entries()]


@usual
def test_only_what_the_run_itself_changes_can_be_taken_back_later(place: Path) -> None:
    guard = armed(place)
    guard.arm(["/etc/ssh/sshd_config"])
    (place / "etc/ssh/sshd_config").write_text("ours\n")
    (place / "etc/sudoers.d/ops").write_text("somebody else's\n")
    (place / "etc/hosts.deny").write_text("somebody else's\n")
    assert guard.confirm()
    assert handed_over(place) == ["/etc/ssh/sshd_config"]


@usual
def test_the_way_in_is_kept_once_as_it_was_before_the_first_change(place: Path) -> None:
    first = armed(place).paths()
    (place / "etc/sudoers.d/ops").write_text("spoilt\n")  # and the run is killed here
    second = armed(place)
    assert second.paths() == first
    second.revert()
    assert (place / "etc/sudoers.d/ops").read_text() == "ops ALL=(ALL) NOPASSWD: ALL\n"


def test_nobody_s_way_in_is_kept_where_nobody_came_in(place: Path) -> None:
    assert armed(place, "").paths() == [str(place / "etc/other")]


@usual
def test_two_runs_at_once_keep_what_each_of_them_changes(place: Path) -> None:
    names = [[f"/etc/{run}{number}" for number in range(12)] for run in "abcd"]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(Held(root=str(place), account="ops").arm, one) for one in names]:
            done.result()
    held = Held(root=str(place)).paths()
    assert all(held.count(str(place / name[1:])) == 1 for run in names for name in run)


@pytest.mark.parametrize(
    ("active", "enabled", "does"),
    [
        ("ssh.service", "ssh.service", ["reset-failed ssh.service", "restart ssh.service"]),
        ("", "ssh.service", ["reset-failed ssh.service", "restart ssh.service"]),
        ("ssh.service", "", ["reset-failed ssh.service", "restart ssh.service"]),
        ("", "", []),
        ("ssh.socket", "ssh.socket", ["stop ssh.service", "restart ssh.socket"]),
        ("ssh.service", "ssh.socket", ["stop ssh.service", "restart ssh.socket"]),
        ("ssh.socket", "", ["try-restart ssh.service"]),
    ],
    ids=["runs", "died", "runs unasked", "nobody wants it", "systemd listens", "systemd listened", "listens unasked"],
)
def test_sshd_listens_again(tmp_path: Path, programs: Programs, active: str, enabled: str, does: list[str]) -> None:
    answers = f"""
for last; do :; done
case "$*" in
  *is-active*) [ "$last" = "{active}" ] || exit 3 ;;
  *is-enabled*) [ "$last" = "{enabled}" ] || exit 1 ;;
esac"""
    noted = programs("systemctl", answers)
    sshd = programs("sshd", "")
    after = guarding.AFTER.replace("/usr/sbin/sshd", str(sshd).removesuffix(".called"))
    after = after.replace("/run/sshd", f"{tmp_path}/run").replace("/etc/systemd/system/", f"{tmp_path}/")
    script = f"newline='\n' restored='\n/etc/ssh/sshd_config' how= failed=0\n{after}\nexit $failed"
    subprocess.run(["/bin/sh", "-c", script], check=True)
    said = [line.removeprefix("-q ") for line in noted.read_text().splitlines()]
    told = [line for line in said if not line.startswith("is-")]
    assert told[: len(does)] == does and (told == does or active != enabled)
    assert (tmp_path / "run").is_dir(), "sshd demands it"
    programs("sshd", "exit 255")
    assert subprocess.run(["/bin/sh", "-c", script], check=False).returncode == 1, "it is tried again"


@pytest.mark.parametrize(("nft", "ends"), [("exit 0", 0), ("exit 1", 1), (None, 0)])
def test_a_table_that_cannot_be_loaded_is_tried_again_unless_nft_is_gone(
    tmp_path: Path, nft: str | None, ends: int
) -> None:
    """With its package, say: the host would try for ever, and no guard could be armed meanwhile."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/rm").symlink_to("/bin/rm")
    if nft is not None:
        (tmp_path / "bin/nft").write_text(f"#!/bin/sh\n{nft}\n")
        (tmp_path / "bin/nft").chmod(0o755)
    (tmp_path / "firewall.nft").write_text("table inet casemate {}\n")
    after = guarding.AFTER.replace("/etc/casemate/", f"{tmp_path}/").replace("/etc/systemd/system/", f"{tmp_path}/")
    script = f"newline='\n' restored='\n{tmp_path}/firewall.nft' how= failed=0\n{after}\nexit $failed"
    done = subprocess.run(["/bin/sh", "-c", script], env={"PATH": f"{tmp_path}/bin"}, check=False)
    assert done.returncode == ends


def test_what_is_kept_last_comes_back_first(place: Path) -> None:
    """A mode below a folder that nobody may enter cannot be set, and keys are written by their owner."""
    kept = [(sort, name) for sort, names in way_in.kept("ops", Host(str(place))) for name in names]
    keys = "/home/ops/.ssh/authorized_keys"
    order = [
        ("unit", "ssh.service"),
        ("account", "ops"),
        ("mode", keys),
        ("mode", "/home/ops/.ssh"),
        ("mode", "/home/ops"),
    ]
    order += [("mode", "/home"), ("lost", "/etc/ssh/ssh_host_ed25519_key"), ("mode", "/etc"), ("mode", "/")]
    assert [one for one in kept if one in order] == order
    assert {sort for sort, name in kept if name == keys} & {"file", "theirs"}
    assert set(way_in.FOLDERS) <= {name for sort, name in kept if sort == "folder"}


def test_keys_are_looked_for_where_sshd_does_for_this_very_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Match block may have another file of keys for the addresses of admins."""
    asked: list[tuple[str, list[str]]] = []
    here = ["203.0.113.9", "40022", "203.0.113.1", "22"]

    def effective(name: str, session: list[str]) -> dict[str, str]:
        asked.append((name, session))
        return {}

    monkeypatch.setattr(logins, "session", lambda: here)
    monkeypatch.setattr(logins, "effective", effective)
    way_in.kept("root", Host())
    assert asked == [("root", here)]


def test_what_is_not_as_expected_keeps_nobody_from_arming(place: Path) -> None:
    (place / "etc/ssh/sshd_config").unlink()
    (place / "etc/ssh/sshd_config").symlink_to("elsewhere")
    shutil.rmtree(place / "home")
    (place / "etc/security").rmdir()
    (place / "etc/security").write_text("a file\n")
    armed(place)
    armed(place, "nobody.known")


def test_whoever_sudo_made_root_came_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ops")
    assert way_in.account() == "ops"
    monkeypatch.delenv("SUDO_USER")
    assert way_in.account() == "root"
