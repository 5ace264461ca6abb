"""The guard: what is backed up, who wins, and a revert that may be killed anywhere and run again."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from module_utils.casemate.host.backup import Backup
from module_utils.casemate.host.guard import HOME, TIMER, Guard
from module_utils.casemate.host.last_change import LastChange
from module_utils.casemate.host.machine import EnforceError


class Held(Guard):
    """A guard below a folder; systemd is only noted, the revert runs for real."""

    def __init__(self, root: Path) -> None:
        super().__init__(root=str(root))
        self.asked: list[str] = []

    def _run(self, argv: Sequence[str]) -> str:
        if argv[0] == "systemctl":
            self.asked.append(" ".join(argv[2:]))
            return "UnitFileState=enabled\nActiveState=active\n"
        return super()._run(argv)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/kept").write_text("confirmed\n")
    (tmp_path / "etc/kept").chmod(0o640)
    return tmp_path


def spoil(place: Path) -> None:
    (place / "etc/kept").write_text("locked out\n")
    (place / "etc/kept").chmod(0o666)
    (place / "etc/new").write_text("made by the change\n")


def restored(place: Path) -> bool:
    kept = place / "etc/kept"
    same = kept.read_text() == "confirmed\n" and kept.stat().st_mode & 0o777 == 0o640
    return same and not (place / "etc/new").exists() and not list(place.glob("etc/*.casemate-revert"))


def test_what_is_not_confirmed_is_undone(place: Path) -> None:
    guard = Held(place)
    guard.arm(["/etc/kept", "/etc/new"])
    assert f"restart {TIMER}" in guard.asked
    assert "enable casemate-guard.service" in guard.asked
    spoil(place)
    assert guard.revert()
    assert restored(place)
    assert guard.status()["pending"] is False
    assert guard.status()["reverted_at"] is not None
    assert not guard.confirm(), "what was undone cannot be confirmed"


def test_the_time_counts_from_the_last_change_and_never_after_its_end(place: Path) -> None:
    guard = Held(place)
    guard.arm(["/etc/kept"])
    guard.asked.clear()
    guard.begin_anew()
    assert guard.asked == [f"restart {TIMER}"]
    guard.revert()
    guard.asked.clear()
    guard.begin_anew()
    assert guard.asked == []


def test_what_is_confirmed_stays(place: Path) -> None:
    guard = Held(place)
    guard.arm(["/etc/kept"])
    spoil(place)
    assert guard.confirm()
    assert guard.asked[-1] == f"stop {TIMER}"
    assert not guard.revert()
    assert (place / "etc/kept").read_text() == "locked out\n"


def test_nothing_pending_is_nothing_to_do(place: Path) -> None:
    assert not Held(place).revert()
    assert not Held(place).confirm()
    assert Held(place).status() == {"pending": False, "paths": [], "reverted_at": None}


def test_a_pending_backup_is_never_overwritten(place: Path) -> None:
    Held(place).arm(["/etc/kept"])
    spoil(place)  # and the run is killed here
    second = Held(place)
    second.arm(["/etc/kept", "/etc/new"])
    (place / "etc/new").write_text("more\n")
    second.revert()
    assert (place / "etc/kept").read_text() == "confirmed\n"
    assert (place / "etc/new").read_text() == "made by the change\n", "it was there when it was guarded"


def test_a_killed_revert_is_finished_before_a_new_change(place: Path) -> None:
    Held(place).arm(["/etc/kept", "/etc/new"])
    spoil(place)
    home = Path(str(place) + HOME)
    (home / "pending").rename(home / "reverting")
    Held(place).arm(["/etc/kept"])
    assert restored(place)


def test_the_boot_unit_reverts_only_after_a_reboot(place: Path) -> None:
    guard = Held(place)
    guard.arm(["/etc/kept", "/etc/new"])
    spoil(place)
    home = Path(str(place) + HOME)
    subprocess.run(["/bin/sh", str(home / "revert"), "boot"], check=True)
    assert not restored(place), "this is still the boot that armed it"
    (home / "pending/boot").write_text("another boot\n")
    subprocess.run(["/bin/sh", str(home / "revert"), "boot"], check=True)
    assert restored(place)


def test_the_revert_may_be_killed_anywhere(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Cut off before each command that changes something, and run again."""
    Held(place).arm(["/etc/kept", "/etc/new"])
    spoil(place)
    tried = 0
    for verb in ("mv", "cp", "rm", "sync", "mkdir"):
        for nth in range(1, 6):
            copy = tmp_path_factory.mktemp("cut") / "root"
            shutil.copytree(place, copy)
            shutil.rmtree(Path(str(copy) + HOME))
            guard = Held(copy)
            (copy / "etc/kept").write_text("confirmed\n")
            (copy / "etc/kept").chmod(0o640)
            (copy / "etc/new").unlink()
            guard.arm(["/etc/kept", "/etc/new"])
            spoil(copy)
            script = Path(str(copy) + HOME) / "revert"
            half = 'for a in "$@"; do find "$a" -name data -delete 2>&-; done;' if verb == "rm" else ""
            die = (
                f'n=0; {verb}() {{ n=$((n+1)); [ $n = {nth} ] && {{ {half} kill -KILL $$; }}; command {verb} "$@"; }}\n'
            )
            cut = subprocess.run(["/bin/sh"], input=die + script.read_text(), text=True, capture_output=True)
            tried += cut.returncode < 0
            subprocess.run(["/bin/sh", str(script)], check=True, capture_output=True)
            assert restored(copy), f"killed at {verb} number {nth}"
            assert guard.status()["pending"] is False
    assert tried >= 10


@pytest.mark.parametrize("path", ["relative", "/etc/two\nlines", "/etc/folder"])
def test_what_cannot_be_guarded_is_refused(place: Path, path: str) -> None:
    (place / "etc/folder").mkdir()
    with pytest.raises(EnforceError, match="nothing was changed"):
        Held(place).arm([path])


def test_without_systemd_nothing_may_change(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Guard, argv: Sequence[str]) -> str:
        raise EnforceError("systemctl failed")

    monkeypatch.setattr(Guard, "_run", refuse)
    with pytest.raises(EnforceError, match="could not be armed"):
        Guard(root=str(place)).arm(["/etc/kept"])


@pytest.mark.parametrize(("given", "used"), [(1, 60), (120, 120), (5000, 900), ("90", 90)])
def test_the_time_has_bounds(given: int, used: int) -> None:
    assert Guard(given).seconds == used


def test_backups_are_private(place: Path) -> None:
    Held(place).arm(["/etc/kept"])
    for folder in (Path(str(place) + HOME), Path(str(place) + HOME) / "pending"):
        assert os.stat(folder).st_mode & 0o777 == 0o700


def test_an_unfinished_backup_is_no_backup(place: Path) -> None:
    """Whoever is killed while he arms has changed nothing yet, so there is nothing to restore of that file."""
    guard = Held(place)
    guard.arm(["/etc/kept"])
    half = place / f"{HOME[1:]}/pending/1.new"
    half.mkdir()
    (half / "path").write_text(str(place / "etc/other"))
    spoil(place)
    (place / "etc/new").unlink()
    assert guard.revert()
    assert restored(place)


def test_a_full_disk_leaves_nothing_half_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Held(place)
    guard.arm(["/etc/kept"])
    before = sorted(place.rglob("*"))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(EnforceError, match=r"nothing was changed: .*No space left on device: .*pending/1.new/path"):
            guard.arm(["/etc/other"])
    assert sorted(place.rglob("*")) == before
    spoil(place)
    (place / "etc/new").unlink()
    assert guard.revert()
    assert restored(place)


def test_a_revert_that_fails_leaves_no_copy_and_is_tried_again(place: Path) -> None:
    guard = Held(place)
    guard.arm(["/etc/kept"])
    spoil(place)
    (place / "etc/new").unlink()
    data = place / f"{HOME[1:]}/pending/0/data"
    data.rename(place / "elsewhere")
    with pytest.raises(EnforceError):
        guard.revert()
    assert not list(place.glob("etc/*.casemate-revert"))
    (place / "elsewhere").rename(place / f"{HOME[1:]}/reverting/0/data")
    assert guard.revert()
    assert restored(place)


@pytest.mark.parametrize("settle", ["restore", "drop"])
def test_a_backup_stands_without_a_guard_and_is_settled_once(place: Path, settle: str) -> None:
    backup = Backup("/var/lib/casemate/other", str(place))
    backup.keep(["/etc/kept"])
    backup.keep(["/etc/kept", "/etc/new"])
    assert backup.paths() == [str(place / "etc/kept"), str(place / "etc/new")]
    spoil(place)
    assert getattr(backup, settle)()
    assert restored(place) is (settle == "restore")
    assert not backup.restore()
    assert not backup.drop()
    assert not (place / HOME[1:]).exists(), "neither timer nor boot unit nor the guard's own copies"


def test_of_what_others_may_write_meanwhile_mode_and_owner_come_back_and_no_content(place: Path) -> None:
    kept, inner = place / "etc/kept", place / "etc/inner"
    inner.mkdir(mode=0o711)
    guard = Held(place)
    guard.arm(["/etc/kept", "/etc/inner"], "mode")
    guard.arm(["/etc/kept"], "mode")
    assert len(guard.paths()) == 2
    for path in (kept, inner):
        path.chmod(0o700)
    kept.write_text("somebody else's work\n")
    assert guard.revert()
    assert (kept.stat().st_mode & 0o777, inner.stat().st_mode & 0o777) == (0o640, 0o711)
    assert kept.read_text() == "somebody else's work\n"


def test_what_is_kept_twice_ends_as_it_was_first(place: Path) -> None:
    """A file whose mode changes and that is written then."""
    guard = Held(place)
    guard.arm(["/etc/kept"], "mode")
    (place / "etc/kept").chmod(0o600)
    guard.arm(["/etc/kept"])
    spoil(place)
    (place / "etc/new").unlink()
    assert guard.revert()
    assert restored(place)


def test_a_file_that_went_or_became_a_link_gets_no_mode(place: Path) -> None:
    guard = Held(place)
    guard.arm(["/etc/kept"], "mode")
    (place / "etc/other").write_text("")
    (place / "etc/other").chmod(0o600)
    (place / "etc/kept").unlink()
    (place / "etc/kept").symlink_to(place / "etc/other")
    assert guard.revert()
    assert (place / "etc/other").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to somebody else")
def test_below_what_others_may_replace_a_revert_does_no_more_than_they_could(place: Path) -> None:
    theirs, ours = place / "home/.ssh", place / "etc"
    theirs.mkdir(parents=True)
    (theirs / "kept").write_text("")
    for path in (place, *place.iterdir(), theirs):
        path.chmod(0o755)
    for path in (theirs, theirs.parent, theirs / "kept"):
        os.chown(path, 65534, 65534)
    (theirs / "kept").chmod(0o604)
    for folder in list(place.parents)[:-2]:
        folder.chmod(folder.stat().st_mode | 0o111)
    guard = Held(place)
    guard.arm(["/home/.ssh/kept"], "mode")
    (theirs / "kept").chmod(0o600)
    assert guard.revert()
    assert (theirs / "kept").stat().st_mode & 0o777 == 0o604
    guard.arm(["/home/.ssh/kept"], "mode")
    theirs.rename(place / "home/away")
    theirs.symlink_to(ours)
    (ours / "kept").chmod(0o600)
    guard.revert()
    assert (ours / "kept").stat().st_mode & 0o777 == 0o600
    assert (ours / "kept").stat().st_uid == 0
    os.chown(place / "home/away/kept", 0, 0)
    with pytest.raises(EnforceError, match="folder of somebody else"):
        guard.arm(["/home/away/kept"], "mode")


def test_a_link_comes_back_as_a_link(place: Path) -> None:
    (place / "etc/link").symlink_to("nowhere")
    guard = Held(place)
    guard.arm(["/etc/link"])
    (place / "etc/link").unlink()
    assert guard.revert()
    assert os.readlink(place / "etc/link") == "nowhere"


def test_live_values_come_back_but_not_at_boot(place: Path) -> None:
    value = place / "etc/value"
    value.write_text("1\n")
    for how, after in (("", "1\n"), ("boot", "2\n")):
        guard = Held(place)
        guard.arm(["/etc/value"], "value")
        value.write_text("2\n")
        (place / f"{HOME[1:]}/pending/boot").write_text("another boot\n")
        subprocess.run(["/bin/sh", str(place / HOME[1:] / "revert"), how], check=True)
        assert value.read_text() == after


def test_when_the_time_ran_out_nothing_more_may_change(place: Path) -> None:
    guard = Held(place)
    guard.arm(["/etc/kept"])
    asked = len(guard.asked)
    guard.arm(["/etc/new"])
    assert len(guard.asked) == asked, "the timer of a pass is set once"
    Held(place).revert()
    with pytest.raises(EnforceError, match="nothing was changed"):
        guard.arm(["/etc/other"])
    assert not (place / HOME[1:] / "pending").exists()


def test_what_is_no_account_is_not_guarded_as_one(place: Path) -> None:
    (place / "etc/passwd").write_text(
        "ops:x:1000:1000::/:/bin/sh\n+toor::0:0:::\nops:x:0:0::/:/bin/sh\na b:x:1:1::/:\n"
    )
    (place / "etc/shadow").write_text("ops:$y$HASH:19000:::::\n")
    guard = Held(place)
    guard.arm(["ops"], "account")
    assert (place / HOME[1:] / "pending/0/account").read_text() == "$y$HASH:19000:/bin/sh:::::\n"
    for name in ("toor", "+toor", "a b", "-x", ""):
        with pytest.raises(EnforceError, match="no account"):
            guard.arm([name], "account")


def account_tools(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A passwd of one line, for a getent and a userdel that know no other one; returns it."""
    folder.mkdir()
    passwd = folder / "passwd"
    for name, script in {
        "getent": f'grep "^$5:" {passwd}',
        "userdel": f'[ "$1 $2 $3" = "--remove --force --" ] && sed -i "/^$4:/d" {passwd}',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return passwd


def test_an_account_that_was_made_goes_where_nobody_confirms_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passwd = account_tools(place / "tools", monkeypatch)
    (place / "etc/passwd").write_text("root:x:0:0::/root:/bin/bash\n")
    guard = Held(place)
    guard.arm(["ops"], "new_account")
    passwd.write_text("ops:x:1000:1000::/home/ops:/bin/bash\nops2:x:1001:1001::/home/ops2:/bin/bash\n")
    assert guard.revert()
    assert passwd.read_text() == "ops2:x:1001:1001::/home/ops2:/bin/bash\n"
    guard.arm(["ops"], "new_account")
    assert guard.revert(), "one that was never made is no fault"


@pytest.mark.parametrize("name", ["kept", "-r", "a b", ""])
def test_an_account_that_is_there_is_never_removed(place: Path, name: str) -> None:
    (place / "etc/passwd").write_text("kept:x:1000:1000::/home/kept:/bin/bash\n")
    with pytest.raises(EnforceError, match="is no new account"):
        Held(place).arm([name], "new_account")


def test_what_is_final_is_not_kept_for_whoever_reverts_a_run(place: Path) -> None:
    for final in (False, True):
        guard = Held(place)
        guard.arm(["/etc/kept"])
        if final:
            guard.final()
        (place / "etc/kept").write_text(f"{final}\n")
        assert guard.confirm()
        held = LastChange(root=str(place)).entries()
        assert bool(held) is not final
        shutil.rmtree(place / "var/lib/casemate/last", ignore_errors=True)


PEOPLE = {
    "etc/passwd": "ops:x:1000:1000::/:/bin/sh\nalice:x:1001:1001::/:/bin/bash\n",
    "etc/shadow": "ops:!:19000::::::\nalice:$y$HASH:19000:::::20819:\n",
    "etc/group": "video:x:44:alice\nadm:x:4:ops,alice\n",
}


def test_of_a_person_all_is_kept_that_people_declare(place: Path) -> None:
    for path, text in PEOPLE.items():
        (place / path).write_text(text)
    guard = Held(place)
    guard.arm(["alice", "ops", "new"], "person")
    kept = [(place / HOME[1:] / f"pending/{number}/person").read_text() for number in range(3)]
    assert kept == ["$y$HASH:19000:/bin/bash:20819:video,adm\n", "!:19000:/bin/sh::adm\n", "absent\n"]
    with pytest.raises(EnforceError, match="no account"):
        guard.arm(["-x"], "person")


def test_people_go_back_and_who_was_made_stays_out(place: Path, tmp_path: Path) -> None:
    for path, text in PEOPLE.items():
        (place / path).write_text(text)
    guard = Held(place)
    guard.arm(["alice", "new"], "person")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("usermod", "chpasswd", "chage"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/said\n')
        (programs / name).chmod(0o755)
    (programs / "getent").write_text('#!/bin/sh\n[ "$*" != "-s files group video" ]\n')  # which was removed since
    (programs / "getent").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    script = str(place / HOME[1:] / "revert")
    subprocess.run(["/bin/sh", script], check=True, env=environment, capture_output=True)
    assert (tmp_path / "said").read_text().splitlines() == [
        "usermod -L -e 1 -- new",
        "usermod -s /bin/bash -e 20819 -G adm -- alice",
        "chpasswd -e",
        "chage -d 19000 -- alice",
    ]


@pytest.mark.parametrize(
    ("how", "path", "runs"),
    [
        ("", "/etc/default/grub.d/zz-casemate.cfg", ["update-grub"]),
        ("boot", "/etc/default/grub.d/zz-casemate.cfg", ["systemd-run -q --no-block --collect update-grub"]),
        ("", "/etc/kept", []),
    ],
)
def test_what_boots_next_is_what_was_there_before(place: Path, how: str, path: str, runs: list[str]) -> None:
    guard = Held(place)
    guard.arm([path])
    (place / path[1:]).parent.mkdir(parents=True, exist_ok=True)
    (place / path[1:]).write_text("changed\n")
    programs = place / "programs"
    programs.mkdir()
    for name in ("update-grub", "systemd-run"):
        (programs / name).write_text(f'#!/bin/sh\necho {name}${{1:+ "$*"}} >>{place}/said\n')
        (programs / name).chmod(0o755)
    script = place / HOME[1:] / "revert"
    script.write_text(script.read_text().replace('"$newline/etc', f'"$newline{place}/etc'))
    (place / HOME[1:] / "pending/boot").write_text("of another boot\n")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["/bin/sh", str(script), *how.split()], check=True, env=environment, capture_output=True)
    said = place / "said"
    assert (said.read_text().splitlines() if said.exists() else []) == runs
