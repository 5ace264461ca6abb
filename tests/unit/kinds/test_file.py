"""Files: what is demanded of each match, and what enforcing leaves behind."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.host import entries, machine
from module_utils.casemate.host.files import IMMUTABLE
from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.kinds import file

ME: Any = {"owner": "root", "group": "root"}
root = pytest.mark.skipif(os.geteuid() != 0, reason="owned files are root's")


def judge(host: FakeHost, setting: Any) -> Any:
    return file.assess(setting, file.observe([setting], host)[0])


def make(host: FakeHost, path: str, text: str = "x", mode: int = 0o600) -> Path:
    real = Path(host.path(path))
    real.parent.mkdir(parents=True, exist_ok=True)
    real.write_text(text)
    real.chmod(mode)
    return real


@pytest.mark.parametrize(
    ("mode", "setting", "reason"),
    [
        (0o600, {"mode": "0600"}, ""),
        (0o400, {"mode": "0600"}, "mode is 0400, not 0600"),
        (0o400, {"mode_max": "0640"}, ""),
        (0o666, {"mode_max": "0640"}, "mode 0666 allows more than 0640"),
        (0o4755, {"mode_max": "0755"}, "mode 4755 allows more than 0755"),
        (0o600, {"content": "x"}, ""),
        (0o600, {"content": "y"}, "its content differs"),
        (0o600, {"random_bytes": 1}, "it is too short"),
        (0o600, {"owner": "nobody"}, "owner is root, not nobody"),
        (0o600, {"state": "directory"}, "is a file, not a directory"),
        (0o600, {"state": "absent"}, "it is there"),
    ],
)
@root
def test_each_demand_is_judged(tmp_path: Path, mode: int, setting: Any, reason: str) -> None:
    host = FakeHost(tmp_path)
    make(host, "/etc/a", mode=mode)
    verdict = judge(host, {"path": "/etc/a", **setting})
    assert verdict.ok is (reason == "")
    assert reason in verdict.reason


@pytest.mark.parametrize(("missing", "ok"), [("fail", False), ("pass", True), (None, False)])
def test_absence_means_what_the_control_says(tmp_path: Path, missing: str | None, ok: bool) -> None:
    setting: Any = {"path": "/etc/none", **({"missing": missing} if missing else {})}
    assert judge(FakeHost(tmp_path), setting).ok is ok


def test_absence_before_k3s_ran_is_not_evaluated(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="k3s"):
        judge(FakeHost(tmp_path), {"path": "/etc/none", "missing": "k3s"})


def test_one_bad_match_of_a_pattern_fails_it_and_is_named(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    make(host, "/keys/a.key"), make(host, "/keys/b.key", mode=0o644), make(host, "/keys/c.txt", mode=0o666)
    verdict = judge(host, {"path": "/keys/*.key", "mode_max": "0600"})
    assert (verdict.ok, verdict.reason) == (False, "/keys/b.key: mode 0644 allows more than 0600")


@pytest.mark.parametrize("hostile", ["link", "directory", "fifo"])
@root
def test_what_is_no_plain_file_is_neither_right_nor_written(tmp_path: Path, hostile: str) -> None:
    host = FakeHost(tmp_path, {"/victim": "x"})
    path = Path(host.path("/etc/a"))
    path.parent.mkdir()
    if hostile == "link":
        path.symlink_to(host.path("/victim"))
    elif hostile == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    setting: Any = {"path": "/etc/a", "mode": "0644", "content": "x", **ME}
    assert not judge(host, setting).ok
    with pytest.raises(EnforceError, match="not a regular file"):
        file.enforce([setting], {0}, host)
    assert Path(host.path("/victim")).read_text() == "x"


def test_a_file_whose_reload_failed_is_loaded_again(tmp_path: Path) -> None:
    """Of GRUB's arguments: the file is as declared from then on, and the menu without them."""
    host = FakeHost(tmp_path, {"/boot/grub/grub.cfg": "linux /boot/vmlinuz ro quiet"}, {"update-grub": (124, "", "no")})
    setting: Any = {"path": "/etc/a", "mode": "0644", "content": "x slab_nomerge", **ME, "reload": ["update-grub"]}
    setting |= {"made": "/boot/grub/grub.cfg", "holds": "slab_nomerge"}
    with pytest.raises(EnforceError, match="update-grub failed"):
        file.enforce([setting], {0}, host)
    assert judge(host, setting).reason == "/etc/a: /boot/grub/grub.cfg was not made of it"
    assert judge(host, setting).still_enforced
    host.commands["update-grub"] = (0, "", "")
    file.enforce([setting], {0}, host)
    assert host.ran == [["update-grub"]] * 2
    make(host, "/boot/grub/grub.cfg", "linux /boot/vmlinuz ro slab_nomerge quiet")
    assert judge(host, setting).ok
    Path(host.path("/boot/grub/grub.cfg")).unlink()
    assert judge(host, setting).ok


def test_a_unit_started_before_the_change_is_stale(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    make(host, "/etc/a")
    setting: Any = {"path": "/etc/a", "unit": "a.service"}
    for offset, ok, stale in ((-60, False, ("a.service",)), (60, True, ())):
        shown = time.strftime("%a %Y-%m-%d %H:%M:%S.000000 UTC", time.gmtime(time.time() + offset))
        host.commands = {"systemctl show": (0, f"ActiveState=active\nActiveEnterTimestamp={shown}\n", "")}
        host._cache.clear()
        verdict = judge(host, setting)
        assert (verdict.ok, verdict.stale) == (ok, stale)


def test_a_stopped_unit_is_not_stale(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, commands={"systemctl show": (0, "ActiveState=inactive\n", "")})
    make(host, "/etc/a")
    assert judge(host, {"path": "/etc/a", "unit": "a.service"}).ok


@root
def test_enforcing_makes_it_right_once(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, commands={"systemctl": (0, "", "")})
    make(host, "/etc/old", mode=0o666), make(host, "/etc/gone"), make(host, "/etc/edited", "evil", 0o666)
    settings: list[Any] = [
        {"path": "/etc/new", "content": "new\n", "mode": "0640", "reload": ["systemctl", "daemon-reload"], **ME},
        {"path": "/etc/edited", "content": "good\n", "mode": "0600", "reload": ["systemctl", "daemon-reload"], **ME},
        {"path": "/etc/old", "mode_max": "0640"},
        {"path": "/etc/gone", "state": "absent"},
        {"path": "/var/folder", "state": "directory", "mode": "0750", **ME},
        {"path": "/etc/secret", "random_bytes": 8, "mode": "0600"},
        {"path": "/etc/watched", "content": "x", "enforced": False},
    ]
    file.enforce(settings, set(range(len(settings))), host)
    assert [judge(host, s).ok for s in settings] == [True] * 6 + [False]
    assert host.ran == [["systemctl", "daemon-reload"]]
    assert all("secret" not in c["path"] or not c["after"] for c in host.changes)
    before, secret = list(host.changes), host.read("/etc/secret")
    file.enforce(settings, set(range(len(settings))), host)
    assert (host.changes, host.read("/etc/secret")) == (before, secret)


@root
def test_a_refused_file_does_not_stop_the_others(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    make(host, "/etc/d/x")
    settings: Any = [
        {"path": "/etc/d", "content": "x", "mode": "0600"},
        {"path": "/etc/b", "content": "x", "mode": "0600"},
    ]
    with pytest.raises(EnforceError, match="/etc/d"):
        file.enforce(settings, {0, 1}, host)
    assert host.read("/etc/b") == b"x"


def test_only_listed_reloads_run(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    setting: Any = {"path": "/etc/a", "content": "x", "reload": ["systemctl", "restart", "k3s.service"]}
    with pytest.raises(EnforceError, match="not an allowed reload"):
        file.enforce([setting], {0}, host)
    assert host.ran == [] and host.read("/etc/a") is None


@root
def test_the_guard_is_armed_before_the_write(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/etc/b": "", "/etc/c": ""})
    wanted: Any = [{"path": "/etc/a", "content": "x", "mode": "0600"}, {"path": "/etc/b", "mode_max": "0600"}]
    file.enforce([*wanted, {"path": "/etc/c", "state": "absent"}], {0, 1, 2}, host)
    assert host.armed == ["/etc/a", "mode /etc/b", "/etc/c"]


@given(have=st.integers(0, 0o7777), most=st.integers(0, 0o7777))
def test_mode_max_allows_exactly_the_subsets(have: int, most: int) -> None:
    entry: Any = {"path": "/a", "state": "file", "mode": have, "acl": False, "content": "", "owner": "root"}
    entry.update(group="root", short=False, late="", barred="")
    setting: Any = {"path": "/a", "mode_max": f"0{most:o}"}
    verdict = file.assess(setting, {"entries": [entry]})
    assert verdict.ok is (have | most == most)


@root
def test_restricting_never_widens_a_mode(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    real = make(host, "/etc/a", mode=0o422)
    file.enforce([{"path": "/etc/a", "mode_max": "0640"}], {0}, host)
    assert stat.S_IMODE(real.stat().st_mode) == 0o400


def test_a_file_with_a_control_of_its_own_is_not_judged_by_a_pattern_too(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/etc/d/own": "x", "/etc/d/other": "y"})
    for name in ("own", "other"):
        (tmp_path / "etc/d" / name).chmod(0o666)
    all_of_them: file.Setting = {"path": "/etc/d/*", "mode_max": "0600"}
    one: file.Setting = {"path": "/etc/d/own", "mode": "0600"}
    seen = file.observe([all_of_them, one], host)
    reasons = [file.assess(setting, at).reason for setting, at in zip([all_of_them, one], seen, strict=True)]
    assert reasons == ["/etc/d/other: mode 0666 allows more than 0600", "/etc/d/own: mode is 0666, not 0600"]
    assert "(and 1 more)" in file.assess(all_of_them, file.observe([all_of_them], host)[0]).reason
    (tmp_path / "etc/d/other").unlink()
    assert file.assess(all_of_them, file.observe([all_of_them, one], host)[0]).ok


@pytest.mark.parametrize(("files", "reason"), [(["00-k3s", "50-own"], ""), (["00-k3s", "99-x"], "it is there")])
def test_a_folder_holds_nothing_but_what_is_known(tmp_path: Path, files: list[str], reason: str) -> None:
    host = FakeHost(tmp_path, {f"/etc/d/{name}": "" for name in files})
    alone: Any = {"path": "/etc/d/*", "state": "absent", "known": ["00-k3s"], "enforced": False}
    own: Any = {"path": "/etc/d/50-own", "mode": "0600"}
    verdict = file.assess(alone, file.observe([alone, own], host)[0])
    assert (verdict.ok, verdict.reason) == (not reason, reason)
    assert not reason or verdict.observed == "/etc/d/99-x"
    assert verdict.where == (("/etc/d/99-x",) if reason else ())


@pytest.mark.parametrize(
    ("pattern", "there"),
    [
        ("/etc/d/**/*.conf", [".zz.conf", "zz.conf", "s/zz.conf", "s/.t/zz.conf", "s/00-k3s.conf", ".conf", "é.conf"]),
        ("/etc/d/*.conf", [".zz.conf", "zz.conf", ".conf"]),
    ],
)
def test_a_folder_that_a_daemon_reads_is_listed_as_the_daemon_does(
    tmp_path: Path, pattern: str, there: list[str]
) -> None:
    """The kubelet walks it (filepath.WalkDir), containerd globs (filepath.Glob): both see hidden names."""
    alone: Any = {"path": pattern, "state": "absent", "known": ["00-k3s.conf"], "enforced": False}
    for number, name in enumerate(there):
        host = FakeHost(tmp_path / str(number), {"/etc/d/00-k3s.conf": "", "/etc/d/50.conf": "", "/etc/d/x.txt": ""})
        own: Any = {"path": "/etc/d/50.conf", "mode": "0600"}
        assert file.assess(alone, file.observe([alone, own], host)[0]).ok
        make(host, f"/etc/d/{name}")
        assert file.assess(alone, file.observe([alone, own], host)[0]).observed == f"/etc/d/{name}"


FLAG = "/etc/a is immutable: chattr -i /etc/a"


@root
@pytest.mark.parametrize(
    ("setting", "there", "blocked_by"),
    [
        ({"content": "new", "mode": "0600"}, True, FLAG),
        ({"mode": "0640"}, True, FLAG),
        ({"mode_max": "0400"}, True, FLAG),
        ({"owner": "nobody"}, True, FLAG),
        ({"state": "absent"}, True, FLAG),
        ({"random_bytes": 32, "mode": "0600"}, True, FLAG),
        ({"content": "x", "mode": "0600"}, True, ""),
        ({"mode": "0600"}, True, ""),
        ({"content": "new", "mode": "0600"}, False, "/etc is immutable: chattr -i /etc"),
        ({"state": "directory", "mode": "0600"}, False, "/etc is immutable: chattr -i /etc"),
        ({"state": "absent"}, False, ""),
        ({"mode": "0600", "missing": "pass"}, False, ""),
    ],
)
def test_what_a_flag_bars_is_blocked_with_the_command_that_lifts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: Any, there: bool, blocked_by: str
) -> None:
    host = FakeHost(tmp_path, {"/etc/other": ""})
    if there:
        make(host, "/etc/a")
    flagged = host.path("/etc/a" if there else "/etc")
    monkeypatch.setattr(machine, "flags_of", lambda real: IMMUTABLE if real == flagged else 0)
    verdict = judge(host, {"path": "/etc/a", **setting})
    assert (verdict.blocked_by, verdict.still_enforced) == (blocked_by, False)
    assert blocked_by in verdict.reason
    assert verdict.ok is (not blocked_by)


def test_one_flag_does_not_keep_the_others_from_being_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost(tmp_path)
    make(host, "/etc/a", mode=0o666), make(host, "/etc/b", mode=0o666)
    monkeypatch.setattr(machine, "flags_of", lambda real: IMMUTABLE if real == host.path("/etc/a") else 0)
    verdict = judge(host, {"path": "/etc/*", "mode_max": "0600"})
    assert (verdict.blocked_by, verdict.still_enforced) == (FLAG, True)


@root
def test_a_file_dated_in_the_future_is_told_as_such_and_brought_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel's date stays ahead, so that no restart would help."""
    up = "ActiveState=active\nActiveEnterTimestamp=Fri 2026-11-20 12:00:00.000000 UTC\n"
    host = FakeHost(tmp_path, commands={"systemctl show k3s.service": (0, up, "")})
    make(host, "/etc/a")
    ahead = {"": True}
    monkeypatch.setattr(entries, "stays_ahead", lambda seen: ahead.pop("", False))
    monkeypatch.setattr(host, "dated", lambda path: f"{path} (dated 2030-01-01, in the future)")
    setting: Any = {"path": "/etc/a", "content": "x", "mode": "0600", "unit": "k3s.service"}
    verdict = judge(host, setting)
    assert "dated 2030-01-01, in the future" in verdict.reason and verdict.stale == ("k3s.service",)
    file.enforce([setting], {0}, host)
    assert [change["after"] for change in host.changes] == ["dated now\n"]


def test_a_pattern_of_folders_is_no_folder_of_that_name(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    Path(host.path("/etc/cron.daily")).mkdir(parents=True, mode=0o755)
    setting: Any = {"path": "/etc/cron.[hdwmy]*ly", "state": "directory", "mode_max": "0700"}
    file.enforce([setting], {0}, host)
    assert os.listdir(host.path("/etc")) == ["cron.daily"]
    assert judge(host, setting).ok


@root
def test_a_trap_of_one_keeps_nobody_else_from_being_settled(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/victim/authorized_keys": "x"})
    keys = {name: make(host, f"/home/{name}/.ssh/authorized_keys", mode=0o666) for name in ("alice", "zoe")}
    trap, victim = Path(host.path("/home/eve/.ssh")), Path(host.path("/victim/authorized_keys"))
    trap.parent.mkdir()
    trap.symlink_to(victim.parent)
    os.chown(trap.parent, 12345, -1)
    with pytest.raises(EnforceError, match=r"eve/\.ssh/authorized_keys is not touched"):
        file.enforce([{"path": "/home/*/.ssh/authorized_keys", "mode_max": "0600"}], {0}, host)
    assert [stat.S_IMODE(path.stat().st_mode) for path in keys.values()] == [0o600, 0o600]
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644


def test_what_apply_cannot_replace_is_said_by_check(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    make(host, "/d/a", mode=0o600)
    Path(host.path("/d/b")).symlink_to("a")
    link = judge(host, {"path": "/d/*", "mode_max": "0600"})
    make(host, "/d/a", mode=0o666)
    both = judge(host, {"path": "/d/*", "mode_max": "0600"})
    assert [(v.ok, v.blocked_by, v.still_enforced) for v in (link, both)] == [
        (False, "/d/b", False),
        (False, "/d/b", True),
    ]


KEYS: Any = {"kind": "file", "path": "/home/*/.ssh/authorized_keys", "login": True, "mode_max": "0600", "no_acl": True}
FOLDERS: Any = {**KEYS, "path": "/home/*/.ssh", "state": "directory", "mode_max": "0700"}


@root
@pytest.mark.parametrize(
    ("account", "owner", "mode", "after", "left"),
    [
        ("ops", 1000, 0o600, 0o600, False),
        ("ops", 1000, 0o644, 0o644, False),
        ("ops", 1000, 0o664, 0o664, True),
        ("ops", 1000, 0o646, 0o646, True),
        ("ops", 1001, 0o600, 0o600, True),
        ("ops", 1001, 0o644, 0o644, True),
        ("ops", 0, 0o644, 0o644, False),
        ("ops", 0, 0o666, 0o666, True),
        ("bob", 1000, 0o644, 0o600, False),
        ("bob", 0, 0o644, 0o644, False),
        ("bob", 0, 0o666, 0o644, False),
        ("bob", 1001, 0o644, 0o600, False),
        ("nobody-here", 1000, 0o644, 0o600, False),
    ],
)
def test_what_logs_somebody_in_stays_readable_and_that_of_casemate_as_it_is(
    tmp_path: Path, account: str, owner: int, mode: int, after: int, left: bool
) -> None:
    people = "bob:x:1001:1001::/home/bob:/bin/sh\nops:x:1000:1000::/srv/ops:/bin/sh\n"
    given = {"/etc/passwd": people, "/srv/ops/.ssh/authorized_keys": "key", "/home/x/y": ""}
    host = FakeHost(tmp_path, given, context={"account": account})
    (tmp_path / "home/ops").symlink_to("../srv/ops")
    keys = tmp_path / "srv/ops/.ssh/authorized_keys"
    for path, bits in ((keys, mode), (keys.parent, mode | (mode & 0o444) >> 2)):
        os.chown(path, owner, owner)
        path.chmod(bits)
    verdicts = [
        file.assess(one, seen) for one, seen in zip([KEYS, FOLDERS], file.observe([KEYS, FOLDERS], host), strict=True)
    ]
    for verdict in verdicts:
        assert bool(verdict.blocked_by) is left
        assert verdict.ok is (mode == after and not left)
        assert ("by hand: ch" in verdict.reason) is left
    file.enforce([KEYS, FOLDERS], {0, 1}, host)
    assert keys.stat().st_mode & 0o777 == after
    assert keys.parent.stat().st_mode & 0o055 == (after & 0o044) | (after & 0o044) >> 2


@root
@pytest.mark.parametrize(
    ("name", "account", "entry", "ok"),
    [
        ("ops", "ops", "user:12345:r--", True),
        ("ops", "ops", "user:12345:rw-", False),
        ("bob", "ops", "user:12345:r--", False),
        ("root", "root", "user:12345:r--", True),
        ("root", "ops", "user:12345:r--", False),
    ],
)
def test_an_acl_of_what_logs_casemate_in_is_left_and_only_writing_counts(
    tmp_path: Path, name: str, account: str, entry: str, ok: bool
) -> None:
    home = "/root" if name == "root" else f"/home/{name}"
    uid = 0 if name == "root" else 1000
    passwd = f"{name}:x:{uid}:{uid}::{home}:/bin/sh\n"
    host = FakeHost(
        tmp_path, {"/etc/passwd": passwd, f"{home}/.ssh/authorized_keys": "k"}, context={"account": account}
    )
    keys = Path(host.path(f"{home}/.ssh/authorized_keys"))
    os.chown(keys, uid, uid)
    keys.chmod(0o600)
    if subprocess.run(["setfacl", "-m", entry, str(keys)], check=False, capture_output=True).returncode:
        pytest.skip("a file system without ACLs, or no setfacl")
    before = (os.getxattr(keys, "system.posix_acl_access"), keys.stat().st_mode)
    path = f"{home.replace(name, '*') if uid else home}/.ssh/authorized_keys"
    setting: Any = {**KEYS, "path": path, "login": bool(uid)}
    verdict = file.assess(setting, file.observe([setting], host)[0])
    assert (verdict.ok, bool(verdict.blocked_by)) == (ok, not ok and name == account)
    file.enforce([setting], {0}, host)
    if name == account:
        assert (os.getxattr(keys, "system.posix_acl_access"), keys.stat().st_mode) == before
    else:
        assert "system.posix_acl_access" not in os.listxattr(keys)


def test_an_account_of_a_directory_is_known_by_its_home_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = SimpleNamespace(pw_uid=4711, pw_dir=str(tmp_path))
    monkeypatch.setattr(pwd, "getpwnam", {"from.ldap": known}.__getitem__)
    host = machine.Host(context={"account": "from.ldap"})
    assert entries.account_of("from.ldap", host) == (4711, str(tmp_path))
    assert entries.account_of("nobody-of-that-name", host) == (-1, "")
    assert entries.whom_it_logs_in(f"{tmp_path}/.ssh/authorized_keys", host) == "from.ldap"
    assert entries.whom_it_logs_in(f"{tmp_path}/.sshx", host) == ""


def test_what_is_there_and_may_not_be_says_what_becomes_of_it(tmp_path: Path) -> None:
    setting: Any = {"path": "/etc/a", "state": "absent", "advice": "the host undoes it"}
    for files, said in (({"/etc/a": "x"}, "it is there; the host undoes it"), ({}, "")):
        host = FakeHost(tmp_path / str(len(files)), files)
        assert file.assess(setting, file.observe([setting], host)[0]).reason == said


@root
def test_what_nobody_asks_for_any_more_is_taken_away_and_then_not_judged(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    setting: Any = {**ME, "path": "/etc/x", "mode": "0644", "content": "x\n", "unset": "no list"}
    asked: Any = {**setting, "unset": ""}
    with pytest.raises(Unavailable, match="no list") as why:
        judge(host, setting)
    assert why.value.code == "unasked"
    file.enforce([asked], {0}, host)
    assert judge(host, asked).ok
    assert judge(host, setting).reason == "it is there"
    file.enforce([setting], {0}, host)
    assert not os.path.exists(host.path("/etc/x"))


@root
@pytest.mark.parametrize("way", ["unset", "take_back"])
def test_with_a_unit_go_the_links_by_which_it_started_at_boot(tmp_path: Path, way: str) -> None:
    path, wants = "/etc/systemd/system/x.path", "/etc/systemd/system/paths.target.wants"
    host = FakeHost(tmp_path, commands={"systemctl daemon-reload": (0, "", "")})
    make(host, path)
    for name, target in (("x.path", path), ("other.path", path), ("x.path.d", path)):
        link = Path(host.path(f"{wants}/{name}"))
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(target)
    foreign = Path(host.path("/etc/systemd/system/multi-user.target.wants/x.path"))
    foreign.parent.mkdir()
    foreign.symlink_to("/usr/lib/systemd/system/x.path")
    setting: Any = {"path": path, "mode": "0600", "content": "x", "unset": "nobody asks"}
    if way == "unset":
        file.enforce([setting], {0}, host)
    else:
        file.take_back([setting], [], host)
    assert not os.path.lexists(host.path(path))
    assert sorted(os.listdir(host.path(wants))) == ["other.path", "x.path.d"]
    assert foreign.is_symlink()
