"""sshd: effective values for every kind of connection, daemon options, overrides by others, and staleness."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.schema import ControlError
from module_utils.casemate.engine.control import parse
from module_utils.casemate.formats import sshd_daemon, sshd_files, sshd_match
from module_utils.casemate.host import machine
from module_utils.casemate.host.files import IMMUTABLE
from module_utils.casemate.host.machine import EnforceError, Result
from module_utils.casemate.kinds import sshd, sshd_dropin

MAIN = "Include /etc/ssh/sshd_config.d/*.conf\nX11Forwarding yes\n"
SHOWN = "permitrootlogin no\nmaxauthtries 4\nallowusers ops\nallowusers alice\nhostkey /b\nhostkey /a\n"
OPEN = SHOWN.replace("permitrootlogin no", "permitrootlogin yes")
ROOT: Any = {"kind": "sshd", "key": "permitrootlogin", "value": "no"}
DAEMON: Any = {"kind": "sshd", "key": "daemon", "value": "current"}
LISTENER: Any = {"kind": "sshd", "key": "listener", "value": "plain"}


def host_of(
    tmp: Path,
    files: dict[str, str] | None = None,
    commands: dict[str, tuple[int, str, str]] | None = None,
    title: str = "sshd: /usr/sbin/sshd -D [listener] 0 of 10-60 startups",
    start: str = "$SSHD_OPTS",
    when: str = "Mon 2096-11-23 20:00:00.000000 UTC",
) -> FakeHost:
    shown = f"ActiveState=active\nActiveEnterTimestamp={when}\nStateChangeTimestamp={when}\nMainPID=77\n"
    shown += "Environment=A=1\nEnvironmentFiles=/etc/default/ssh (ignore_errors=yes)\n"
    shown += "EnvironmentFiles=/etc/default/other (ignore_errors=no)\n"
    shown += f"ExecStart={{ path=/usr/sbin/sshd ; argv[]=/usr/sbin/sshd -D {start} ; ignore_errors=no }}\n"
    return FakeHost(
        tmp,
        {"/etc/ssh/sshd_config": MAIN, "/proc/77/cmdline": title + "\0", **(files or {})},
        {
            "systemctl show ssh.service": (0, shown, ""),
            "/usr/sbin/sshd -T": (0, SHOWN, ""),
            "/usr/sbin/sshd -t": (0, "", ""),
            "systemctl reload ssh.service": (0, "", ""),
            **(commands or {}),
        },
    )


def judge(host: FakeHost, *settings: Any, waived: Collection[int] = ()) -> list[Any]:
    return [sshd.assess(s, o) for s, o in zip(settings, sshd.observe(list(settings), host, waived), strict=True)]


@pytest.mark.parametrize(
    ("key", "value", "ok"),
    [
        ("permitrootlogin", "no", True),
        ("permitrootlogin", "yes", False),
        ("maxauthtries", 4, True),
        ("maxauthtries", 3, False),
        ("allowusers", "alice ops", True),
        ("allowusers", "ops", False),
        ("hostkey", "/a /b", True),
        ("banner", "/etc/issue.net", False),
    ],
)
def test_effective_values(tmp_path: Path, key: str, value: object, ok: bool) -> None:
    (verdict,) = judge(host_of(tmp_path, {"/a": "key", "/b": "key"}), {"key": key, "value": value})
    assert verdict.ok is ok


@pytest.mark.parametrize(
    ("block", "connection"),
    [
        ("User root", "user=root"),
        ("Address 203.0.113.0/24", "addr=203.0.113.0"),
        ("User !ops,adm*", "user=admx"),
        ("Host *.example.org", "host=x.example.org"),
        ("LocalPort 2222", "lport=2222"),
        ("Group wheel", "user=bob"),
        ("Group prim", "user=carl"),
        ("all", "user=root"),
    ],
)
def test_a_match_block_that_opens_again_is_found(tmp_path: Path, block: str, connection: str) -> None:
    class Picky(FakeHost):
        def run(self, argv: Any, stdin: str | None = None, timeout: float = 30) -> Any:
            if "-C" in argv and connection in argv[-1].split(","):
                return super().run(["OPEN"])
            return super().run(argv, stdin, timeout)

    files: Any = {
        "/etc/ssh/sshd_config": MAIN + f"Match {block}\n  PermitRootLogin yes\n",
        "/etc/group": "wheel:x:10:bob\nprim:x:11:\n",
        "/etc/passwd": "bob:x:5:5::/:/bin/sh\ncarl:x:6:11::/:/bin/sh\n",
    }
    host = host_of(tmp_path, files)
    host.__class__ = Picky
    host.commands["OPEN"] = (0, OPEN, "")
    (verdict,) = judge(host, ROOT)
    assert not verdict.ok
    assert f"Match {block}" in verdict.reason
    assert "/etc/ssh/sshd_config" in verdict.reason


def test_a_match_block_for_an_empty_group_opens_nothing(tmp_path: Path) -> None:
    host = host_of(tmp_path, {"/etc/ssh/sshd_config": MAIN + "Match Group nobody\n  PermitRootLogin yes\n"})
    assert judge(host, ROOT)[0].ok
    assert not any("-C" in argv for argv in host.ran)


def test_a_file_that_is_read_before_ours_is_named(tmp_path: Path) -> None:
    planted = {"/etc/ssh/sshd_config.d/00-aaa.conf": "PermitRootLogin yes\n"}
    (verdict,) = judge(host_of(tmp_path, planted, {"/usr/sbin/sshd -T": (0, OPEN, "")}), ROOT)
    assert "decided by /etc/ssh/sshd_config.d/00-aaa.conf:1: remove it there" in verdict.reason
    assert verdict.where == ("/etc/ssh/sshd_config.d/00-aaa.conf:1",)


@pytest.mark.parametrize(
    ("title", "start", "default", "label"),
    [
        (
            "sshd: /usr/sbin/sshd -D -o PermitRootLogin=yes [listener] 0 of 10-60 startups",
            "$SSHD_OPTS",
            "",
            "running daemon",
        ),
        ("sshd: /usr/sbin/sshd -D [listener] 0 of 1", "-o PermitRootLogin=yes", "", "next start"),
        ("sshd: /usr/sbin/sshd -D [listener] 0 of 1", "$SSHD_OPTS", 'SSHD_OPTS="-oPermitRootLogin=yes"', "next start"),
    ],
)
def test_options_of_the_daemon_count(tmp_path: Path, title: str, start: str, default: str, label: str) -> None:
    opened = {"/usr/sbin/sshd -T -o PermitRootLogin=yes": (0, OPEN, "")}
    host = host_of(tmp_path, {"/etc/default/ssh": default}, opened, title=title, start=start)
    (verdict,) = judge(host, ROOT)
    assert not verdict.ok
    assert verdict.reason.startswith(f"{label}: yes")


def test_another_file_of_the_daemon_counts(tmp_path: Path) -> None:
    host = host_of(
        tmp_path, None, {"/usr/sbin/sshd -T -f /tmp/x": (0, OPEN, "")},
        title="sshd: /usr/sbin/sshd -D -f /tmp/x [listener] 0 of 1",
    )  # fmt: skip
    assert not judge(host, ROOT)[0].ok


def test_another_file_of_the_daemon_is_told_once(tmp_path: Path) -> None:
    host = host_of(
        tmp_path, None, {"/usr/sbin/sshd -T -f /tmp/x": (0, OPEN, "")},
        title="sshd: /usr/sbin/sshd -Df /tmp/x [listener] 0 of 1",
    )  # fmt: skip
    root, listener = judge(host, ROOT, LISTENER)
    assert root.ok
    assert (listener.ok, listener.blocked_by) == (False, "-f /tmp/x on the command line of the running daemon")
    assert not judge(host, ROOT, LISTENER, waived={1})[0].ok


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("-D", ()),
        ("-4De -E /var/log/o -u 0", ()),
        ("-Do PermitRootLogin=yes", (("-o", "PermitRootLogin=yes"),)),
        ("-D -oPort=1 -p2 -f /x", (("-o", "Port=1"), ("-p", "2"), ("-f", "/x"))),
        ("-o AllowUsers a b -D", (("-o", "AllowUsers a b"),)),
        ("-f /etc/ssh/sshd_config", ()),
        ("-o", ()),
        ("- -- x --o", ()),
    ],
)
def test_options_that_override(line: str, given: Any) -> None:
    assert sshd_files.overriding(line) == given


@pytest.mark.parametrize(
    ("files", "own", "manager"),
    [
        ({"/etc/default/ssh": "#SSHD_OPTS=-x\nSSHD_OPTS='-o UsePAM=no'\n"}, "", ""),
        ({"/etc/default/ssh": "SSHD_OPTS=\n", "/etc/default/other": "SSHD_OPTS=-o \\\nUsePAM=no\n"}, "", ""),
        ({}, '"SSHD_OPTS=-o UsePAM=no"', ""),
        ({}, "", "A=1\nSSHD_OPTS=$'-o UsePAM=no'\n"),
        ({}, "", "SSHD_OPTS=-oUsePAM=no\n"),
    ],
)
def test_whatever_gives_the_next_start_its_options(
    tmp_path: Path, files: dict[str, str], own: str, manager: str
) -> None:
    host = host_of(tmp_path, files)
    rc, shown, _ = host.commands["systemctl show ssh.service"]
    host.commands["systemctl show ssh.service"] = rc, shown.replace("Environment=A=1", f"Environment={own}"), ""
    host.commands["systemctl show-environment"] = 0, manager, ""
    (listener,) = judge(host, LISTENER)
    assert listener.blocked_by.startswith("-o UsePAM=no on the command line of the next start")


@pytest.mark.parametrize("quote", ["'", '"', "$'", "\\"])
def test_quotes_that_do_not_match_break_nothing(tmp_path: Path, quote: str) -> None:
    assert judge(host_of(tmp_path, {"/etc/default/ssh": f"SSHD_OPTS={quote}-oUsePAM=no"}), LISTENER)[0].evidence


def test_an_option_that_a_failing_keyword_tells_is_not_told_again(tmp_path: Path) -> None:
    both = {"/usr/sbin/sshd -T -o PermitRootLogin=yes": (0, OPEN, "")}
    host = host_of(tmp_path, None, both, start="-o PermitRootLogin=yes")
    assert [verdict.ok for verdict in judge(host, ROOT, LISTENER)] == [False, True]
    assert [verdict.ok for verdict in judge(host, ROOT, LISTENER, waived={0})] == [False, False]


def processes(tmp: Path, mounts: str = "m1", **titles: str) -> dict[str, str]:
    """The first process, the unit's daemon (77) and others; those whose name begins with c are in a container."""
    (tmp / "proc/1/root").mkdir(parents=True)
    (tmp / "proc/1/root/etc").symlink_to(tmp / "etc")
    for pid in ("1", "77", *(name[1:] for name in titles)):
        (tmp / f"proc/{pid}/ns").mkdir(parents=True)
        (tmp / f"proc/{pid}/ns/mnt").symlink_to(mounts if pid == "77" else "m1")
        (tmp / f"proc/{pid}/ns/pid").symlink_to("p2" if f"c{pid}" in titles else "p1")
    return {f"/proc/{name[1:]}/cmdline": title for name, title in titles.items()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's daemons count")
def test_a_second_daemon_of_roots_is_named(tmp_path: Path) -> None:
    evil = "sshd: /usr/sbin/sshd -p 2222 [listener] 0 of 1\0"
    running = processes(tmp_path, p12=evil, c13=evil, p14=evil, p15="sshd: alice [priv]\0", p16="[listener]")
    host = host_of(tmp_path, running)
    os.chown(tmp_path / "proc/14", 1001, -1)
    (listener,) = judge(host, LISTENER)
    assert listener.blocked_by == "process 12 listens beside ssh.service (sshd: /usr/sbin/sshd -p 2222)"


@pytest.mark.parametrize(
    ("mounts", "planted", "other"),
    [
        ("m1", "PermitRootLogin yes\n", ""),
        ("m2", MAIN, ""),
        ("m2", "PermitRootLogin yes\n", "the running daemon has mounts of its own, and another /etc/ssh/sshd_config"),
    ],
)
def test_a_daemon_with_other_files_in_mounts_of_its_own_is_named(
    tmp_path: Path, mounts: str, planted: str, other: str
) -> None:
    host = host_of(tmp_path, {**processes(tmp_path, mounts), "/proc/77/root/etc/ssh/sshd_config": planted})
    assert judge(host, LISTENER)[0].blocked_by == other


@pytest.mark.parametrize(
    ("title", "start", "named"),
    [
        ("sshd: /tmp/sshd -D [listener] 0 of 1", "$SSHD_OPTS", "the running daemon is /tmp/sshd"),
        ("/opt/other --serve", "$SSHD_OPTS", "the running daemon is /opt/other"),
        ("", "$SSHD_OPTS", ""),
    ],
)
def test_another_program_is_named(tmp_path: Path, title: str, start: str, named: str) -> None:
    assert judge(host_of(tmp_path, title=title, start=start), LISTENER)[0].blocked_by == named


LATE, EARLY = "Mon 2096-11-23 20:00:00.000000 UTC", "Mon 2016-11-21 20:00:00.000000 UTC"


@pytest.mark.parametrize(("when", "ok"), [(LATE, True), (EARLY, False)])
def test_a_daemon_older_than_its_files_is_stale(tmp_path: Path, when: str, ok: bool) -> None:
    root, daemon = judge(host_of(tmp_path, when=when), ROOT, DAEMON)
    assert root.ok
    assert daemon.ok is ok
    assert daemon.stale == (() if ok else ("ssh.service",))
    assert ok or "/etc/ssh/sshd_config" in daemon.reason


def test_a_flipped_value_is_named_alone(tmp_path: Path) -> None:
    """A file that nobody read yet and that changes a value counts once: against that value."""
    files = {sshd_files.OWNED: "permitrootlogin yes\n"}
    host = host_of(tmp_path, files, {"/usr/sbin/sshd -T": (0, OPEN, "")}, when=EARLY)
    root, daemon = judge(host, ROOT, DAEMON)
    assert not root.ok
    assert sshd_files.OWNED not in daemon.reason


def test_a_value_that_is_wrong_anyway_does_not_hide_a_lost_reload(tmp_path: Path) -> None:
    host = host_of(tmp_path, None, {"/usr/sbin/sshd -T": (0, OPEN, "")}, when=EARLY)
    root, daemon = judge(host, ROOT, DAEMON)
    assert not root.ok
    assert not daemon.ok


def test_another_mode_of_a_file_is_told_by_the_control_of_that_file(tmp_path: Path) -> None:
    """A change of mode or owner is no change of what the daemon reads; an edit at the same time still counts."""
    host = host_of(tmp_path, when="Wed 2026-11-25 00:00:00.000000 UTC")
    main = tmp_path / "etc/ssh/sshd_config"
    moment = dict.fromkeys(("st_mtime", "st_ctime"), 0.0)

    def stat(path: str) -> Any:
        return SimpleNamespace(**moment) if host.path(path) == str(main) else None

    host.stat = stat  # type: ignore[method-assign]
    assert judge(host, DAEMON)[0].ok
    moment["st_ctime"] = 1e12
    assert not judge(host, DAEMON)[0].ok
    host.failing_files.add("/etc/ssh/sshd_conf*")
    assert judge(host, DAEMON)[0].ok
    moment["st_mtime"] = 1e12
    assert not judge(host, DAEMON)[0].ok


NOT_READ: Any = {
    "our drop-in": sshd_files.OWNED,
    "a drop-in of others": "/etc/ssh/sshd_config.d/50-cloud.conf",
    "the main file": sshd_files.MAIN,
    "a file elsewhere": "/etc/ssh/more/x",
    "the folder of drop-ins": "/etc/ssh/sshd_config.d",
    "a folder elsewhere": "/etc/ssh/more",
    "a host key": "/etc/ssh/ssh_host_ed25519_key",
}


@pytest.mark.parametrize("date", ["now", "ahead", "as it was"])
@pytest.mark.parametrize("what", NOT_READ)
def test_whatever_the_daemon_reads_counts_when_it_is_touched(tmp_path: Path, what: str, date: str) -> None:
    """Touched, or changed and changed back, with all controls judged together: the listener's explains nothing."""
    ours = sshd_dropin.written([ROOT, DAEMON, LISTENER])
    files: Any = {
        sshd_files.MAIN: MAIN + "Include more/*\nHostKey /etc/ssh/ssh_host_ed25519_key\n",
        sshd_files.OWNED: ours,
        **dict.fromkeys(("/etc/ssh/sshd_config.d/50-cloud.conf", "/etc/ssh/more/x", KEY), "# nothing\n"),
    }
    host = host_of(tmp_path, files, when=stamp(time.time() - 1000))
    past = time.time() - 2000
    for folder, _, names in os.walk(tmp_path / "etc/ssh"):
        for name in ["", *names]:
            os.utime(Path(folder) / name, (past, past))
    content_only = what.startswith(("the folder", "a folder", "a host"))
    times: dict[str, float] = {}  # the kernel's own date cannot be set
    real = host.stat

    def stat(path: str) -> Any:
        seen = real(path)
        return seen and SimpleNamespace(st_mtime=seen.st_mtime, st_ctime=times.get(path, past), st_size=1, st_uid=1)

    host.stat = stat  # type: ignore[method-assign]
    assert all(verdict.ok for verdict in judge(host, ROOT, DAEMON, LISTENER))
    touched, late = NOT_READ[what], time.time() - 500
    times[touched] = late
    if date != "as it was":
        given = late if date == "now" else time.time() + 1e8
        os.utime(host.path(touched), (given, given))
    root, daemon, listener = judge(host, ROOT, DAEMON, LISTENER)
    assert root.ok and listener.ok
    assert daemon.ok is (date == "as it was" and content_only)
    assert daemon.ok or (touched in daemon.reason and daemon.stale == ("ssh.service",) and not daemon.blocked_by)
    assert ("in the future" in daemon.reason) is (date == "ahead")


def stamp(seconds: float) -> str:
    return time.strftime("Mon %Y-%m-%d %H:%M:%S.000000 UTC", time.gmtime(seconds))


@pytest.mark.skipif(os.geteuid() != 0, reason="files of root need root")
@pytest.mark.parametrize("path", [sshd_files.OWNED, "/etc/ssh/sshd_config.d/50-cloud.conf"])
def test_a_date_that_stays_ahead_is_put_right_where_the_file_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    ours = sshd_dropin.written([ROOT, DAEMON])
    host = host_of(tmp_path, {sshd_files.OWNED: ours, path: ours}, when=stamp(time.time() - 10))
    real, date = host.stat, {"of the kernel": time.time() + 1e8}

    def stat(path_asked: str) -> Any:
        seen = real(path_asked)
        when = date["of the kernel"] if path_asked == path else time.time() - 100
        return seen and SimpleNamespace(st_mtime=time.time() - 100, st_ctime=when, st_size=1, st_uid=1)

    monkeypatch.setattr(host, "stat", stat)
    monkeypatch.setattr(host, "touch", lambda _: date.update({"of the kernel": time.time() - 100}))
    daemon = judge(host, ROOT, DAEMON)[1]
    assert f"{path} (dated " in daemon.reason and "in the future" in daemon.reason
    assert daemon.blocked_by == ("" if path == sshd_files.OWNED else path)
    assert (f"touch {path}" in daemon.reason) is bool(daemon.blocked_by)
    sshd.enforce([ROOT, DAEMON], {1}, host)
    assert judge(host, ROOT, DAEMON)[1].ok is not bool(daemon.blocked_by)


SOCKET: Any = {
    "active": "ActiveState=active\nAccept=no\n",
    "active, for each login": "ActiveState=active\nAccept=yes\n",
    "inactive": "ActiveState=inactive\nAccept=yes\n",
    "none": "",
}


@pytest.mark.parametrize(
    ("unit", "socket", "says"),
    [
        ("active", "none", ""),
        ("inactive", "active", ""),
        ("inactive", "active, for each login", ""),
        ("inactive", "inactive", "ssh.service is inactive and ssh.socket does not listen"),
        ("failed", "none", "ssh.service is failed and ssh.socket does not listen"),
    ],
)
def test_who_serves_logins_is_told_in_one_place(tmp_path: Path, unit: str, socket: str, says: str) -> None:
    host = host_of(tmp_path)
    shown = host.commands["systemctl show ssh.service"][1].replace("ActiveState=active", f"ActiveState={unit}")
    host.commands["systemctl show ssh.service"] = 0, shown, ""
    host.commands["systemctl show ssh.socket"] = 0, SOCKET[socket], ""
    root, daemon, listener = judge(host, ROOT, DAEMON, LISTENER)
    assert root.ok and listener.ok
    assert (daemon.ok, daemon.blocked_by) == (not says, "ssh.service" if says else "")
    assert says in daemon.reason
    assert not says or "systemctl start ssh.service" in daemon.reason


def test_options_of_a_daemon_for_each_login_count(tmp_path: Path) -> None:
    opened = {"/usr/sbin/sshd -T -o PermitRootLogin=yes": (0, OPEN, "")}
    host = host_of(tmp_path, {"/etc/default/each": "SSHD_OPTS='-o PermitRootLogin=yes'"}, opened, title="")
    start = "{ path=/usr/sbin/sshd ; argv[]=/usr/sbin/sshd -i $SSHD_OPTS ; ignore_errors=yes }"
    each = f"EnvironmentFiles=/etc/default/each (ignore_errors=yes)\nExecStart={start}\n"
    host.commands["systemctl show ssh@casemate.service"] = 0, each, ""
    assert judge(host, ROOT)[0].ok
    host.commands["systemctl show ssh.socket"] = 0, SOCKET["active, for each login"], ""
    host._cache.clear()
    assert judge(host, ROOT)[0].reason.startswith("next start: yes")


@pytest.mark.parametrize(("socket", "command"), [("none", "reload"), ("active", "try-restart")])
def test_a_daemon_that_systemd_listens_for_is_restarted(tmp_path: Path, socket: str, command: str) -> None:
    host = host_of(tmp_path, None, {"systemctl try-restart": (0, "", "")})
    host.commands["systemctl show ssh.socket"] = 0, SOCKET[socket], ""
    sshd_daemon.reread(host)
    assert ["systemctl", command, "ssh.service"] in host.ran


KEY = "/etc/ssh/ssh_host_ed25519_key"
HOSTKEY: Any = {"kind": "sshd", "key": "hostkey", "value": KEY}


class Keys(FakeHost):
    """One on which ssh-keygen is there, and sshd wants a key that it can load."""

    def run(self, argv: Any, stdin: str | None = None, timeout: float = 30) -> Any:
        if argv[0] == "ssh-keygen":
            if "-y" in argv:
                return Result(*((0, "", "") if "good" in Path(argv[-1]).read_text() else (255, "", "invalid format")))
            Path(argv[argv.index("-f") + 1]).write_text("good")
            Path(argv[argv.index("-f") + 1] + ".pub").write_text("public")
            return Result(0, "", "")
        if argv[0] == sshd_files.SSHD and "-h" not in argv and "good" not in (self.text(KEY) or ""):
            return Result(1, "", "sshd: no hostkeys available -- exiting.")
        done = super().run(argv, stdin, timeout)
        scratch = f"hostkey {argv[argv.index('-h') + 1]}\n" if "-h" in argv else ""
        return Result(done.rc, done.out + scratch, done.err)


@pytest.mark.skipif(os.geteuid() != 0, reason="files of root need root")
@pytest.mark.parametrize(
    ("key", "reason", "blocked_by"),
    [
        ("good", "", ""),
        (None, f"there is no {KEY}", ""),
        ("", f"there is no {KEY}", ""),
        ("bad", f"{KEY} cannot be loaded (invalid format): remove it, and apply makes another", "cannot be loaded"),
    ],
)
def test_a_host_key_that_lacks_is_one_finding_and_is_made(
    tmp_path: Path, key: str | None, reason: str, blocked_by: str
) -> None:
    host = host_of(tmp_path, {} if key is None else {KEY: key})
    host.__class__ = Keys
    host.commands["/usr/sbin/sshd -T"] = 0, SHOWN.replace("hostkey /b\nhostkey /a\n", f"hostkey {KEY}\n"), ""
    settings = [ROOT, HOSTKEY, DAEMON, LISTENER]
    root, hostkey, daemon, listener = judge(host, *settings)
    assert root.ok and daemon.ok and listener.ok
    assert (hostkey.ok, hostkey.reason) == (not reason, reason)
    assert blocked_by in hostkey.blocked_by and bool(blocked_by) is bool(hostkey.blocked_by)
    if reason and not blocked_by:
        sshd.enforce(settings, {1}, host)
        assert (host.text(KEY), os.stat(host.path(KEY)).st_mode & 0o777) == ("good", 0o600)
        assert (host.text(KEY + ".pub"), os.stat(host.path(KEY + ".pub")).st_mode & 0o777) == ("public", 0o644)
        assert not {KEY, KEY + ".pub"} & set(host.armed)  # it stays, or no client would ever know it
        assert list(sshd_daemon.RELOAD) in host.ran
        assert judge(host, *settings)[1].ok
        assert "good" not in str(host.changes)


def test_a_host_key_whose_mode_is_wrong_is_told_by_the_control_of_its_mode(tmp_path: Path) -> None:
    host = host_of(tmp_path, {KEY: "bad"})
    host.__class__ = Keys
    host.commands["/usr/sbin/sshd -T"] = 0, SHOWN.replace("hostkey /b\nhostkey /a\n", f"hostkey {KEY}\n"), ""
    host.failing_files.add("/etc/ssh/ssh_host_*_key")
    assert all(verdict.ok for verdict in judge(host, ROOT, HOSTKEY, DAEMON))


def test_a_stopped_daemon_whose_folder_is_gone_is_judged_in_a_private_one(tmp_path: Path) -> None:
    lost = {"/usr/sbin/sshd -T": (255, "", "Missing privilege separation directory: /run/sshd")}
    host = host_of(tmp_path, None, {**lost, "unshare --mount": (0, SHOWN, "")})
    assert judge(host, ROOT)[0].ok
    (tmp_path / "run/sshd").mkdir(parents=True)
    with pytest.raises(OSError, match="privilege separation"):
        judge(host, ROOT)


def test_a_drop_in_that_nothing_can_replace_is_blocked_with_the_flag(tmp_path: Path, monkeypatch: Any) -> None:
    host = host_of(tmp_path, {sshd_files.OWNED: "permitrootlogin yes\n"}, {"/usr/sbin/sshd -T": (0, OPEN, "")})
    flagged = host.path(sshd_files.OWNED)
    monkeypatch.setattr(machine, "flags_of", lambda real: IMMUTABLE if real == flagged else 0)
    root, _ = judge(host, ROOT, DAEMON)
    assert root.blocked_by == f"{sshd_files.OWNED} is immutable: chattr -i {sshd_files.OWNED}"
    assert root.blocked_by in root.reason


def owned(host: FakeHost) -> str:
    return host.text(sshd_files.OWNED) or ""


def test_it_writes_one_drop_in_under_the_guard_and_reloads(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("files of root need root")
    host = host_of(tmp_path, {"/etc/ssh/sshd_config": "# old\nX11Forwarding yes\n"})
    settings: list[Any] = [
        ROOT,
        {"key": "maxauthtries", "value": 4},
        {"key": "x", "value": 1, "enforced": False},
        DAEMON,
    ]
    sshd.enforce(settings, {0}, host)
    assert host.armed == [sshd_files.MAIN, sshd_files.OWNED]
    assert owned(host).splitlines()[1:] == ["maxauthtries 4", "permitrootlogin no"]
    assert (host.text(sshd_files.MAIN) or "").startswith(sshd_files.INCLUDE + "# old")
    assert list(sshd_daemon.RELOAD) in host.ran
    assert host.ran.index(["/usr/sbin/sshd", "-t", "-f", "/dev/stdin"]) < host.ran.index(list(sshd_daemon.RELOAD))


def test_what_another_file_overrides_is_not_written_again_and_again(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("files of root need root")
    host = host_of(tmp_path)
    sshd.enforce([ROOT], {0}, host)
    host.ran.clear()
    host.armed.clear()
    host.changes.clear()
    sshd.enforce([ROOT], {0}, host)
    assert not host.armed
    assert not host.changes
    assert list(sshd_daemon.RELOAD) not in host.ran


def test_what_sshd_refuses_is_not_written(tmp_path: Path) -> None:
    refused = {"/usr/sbin/sshd -t": (255, "", "/dev/stdin line 2: Bad configuration option")}
    host = host_of(tmp_path, {sshd_files.OWNED: "old\n"}, refused)
    with pytest.raises(EnforceError, match="Bad configuration option"):
        sshd.enforce([ROOT], {0}, host)
    assert owned(host) == "old\n"
    assert list(sshd_daemon.RELOAD) not in host.ran


def test_a_broken_configuration_is_an_error_not_a_pass(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot read"):
        judge(host_of(tmp_path, None, {"/usr/sbin/sshd -T": (255, "", "bad line")}), ROOT)


@pytest.mark.parametrize(
    "setting",
    [
        {"key": "match", "value": "all"},
        {"key": "include", "value": "/tmp/x"},
        {"key": "banner", "value": "x\nPermitRootLogin yes"},
        {"key": "Banner", "value": "x"},
        {"key": "banner"},
    ],
)
def test_hostile_settings_are_refused(setting: Any) -> None:
    raw: Any = {
        "id": "SSH-X-Y", "title": "a title", "why": "a good reason", "severity": "low", "level": "baseline",
        "applies_to": ["node"], "mitigations": ["T1.4"], "setting": {"kind": "sshd", **setting},
    }  # fmt: skip
    with pytest.raises(ControlError, match="SSH-X-Y"):
        parse(raw)


@pytest.mark.parametrize(
    "text", ["Match User", "Include", "\x00\x01", 'Match User "a b', "Include /etc/ssh/sshd_config"]
)
def test_hostile_files_do_not_break_it(tmp_path: Path, text: str) -> None:
    host = host_of(tmp_path, {"/etc/ssh/sshd_config.d/x.conf": text + "\n"})
    assert judge(host, ROOT)[0].ok


def test_a_comment_ends_what_a_block_asks_for() -> None:
    assert sshd_match.criteria("User alice # User bob LocalPort 2222") == {"user": "alice"}
    assert sshd_match.criteria("LocalPort=22 #User bob") == {"localport": "22"}


FOLDER = "/etc/ssh/casemate_people/%u"
KEYS: Any = {
    "key": "authorizedkeysfile",
    "value": ".ssh/authorized_keys",
    "users": ["alice", "john.doe"],
    "users_value": FOLDER,
}
BLOCK = f"authorizedkeysfile .ssh/authorized_keys\nMatch User alice,john.doe\n    authorizedkeysfile {FOLDER}\n"
HOME_KEYS = (0, "authorizedkeysfile .ssh/authorized_keys\n", "")
ROOTS_KEYS = (0, f"authorizedkeysfile {FOLDER}\n", "")
ASKED = "/usr/sbin/sshd -T"


def test_another_value_holds_for_some_users(tmp_path: Path) -> None:
    assert sshd_dropin.written([KEYS, ROOT]).split("\n", 1)[1] == BLOCK.replace("\nM", "\npermitrootlogin no\nM")
    host = host_of(
        tmp_path,
        {"/etc/ssh/sshd_config.d/00-casemate.conf": BLOCK},
        {ASKED: HOME_KEYS, f"{ASKED} -C user=alice": ROOTS_KEYS},
    )
    assert judge(host, KEYS)[0].ok
    assert sshd_dropin.unasked([KEYS], host) == ""


@pytest.mark.parametrize("missing", ["alice", "john.doe"])
def test_each_of_them_counts_until_our_block_is_there(tmp_path: Path, missing: str) -> None:
    other = next(name for name in KEYS["users"] if name != missing)
    files = {"/etc/ssh/sshd_config.d/00-casemate.conf": BLOCK.replace("alice,john.doe", other)}
    answers = {ASKED: HOME_KEYS, f"{ASKED} -C user={other}": ROOTS_KEYS, f"{ASKED} -C user={missing}": HOME_KEYS}
    (verdict,) = judge(host_of(tmp_path, files, answers), KEYS)
    assert not verdict.ok
    assert (verdict.expected, verdict.observed) == (FOLDER, ".ssh/authorized_keys")
    assert f"user {missing}: .ssh/authorized_keys" in verdict.reason


def test_who_is_no_longer_one_of_them_is_told(tmp_path: Path) -> None:
    files = {"/etc/ssh/sshd_config.d/00-casemate.conf": BLOCK.replace("alice,john.doe", "eve")}
    (verdict,) = judge(
        host_of(tmp_path, files, {ASKED: HOME_KEYS, f"{ASKED} -C user=eve": ROOTS_KEYS}), {**KEYS, "users": []}
    )
    assert (verdict.expected, verdict.observed) == (".ssh/authorized_keys", FOLDER)
    assert "Match User eve" in verdict.reason


def test_a_block_for_one_of_them_that_is_read_first_is_named(tmp_path: Path) -> None:
    files = {
        "/etc/ssh/sshd_config.d/00-casemate.conf": BLOCK,
        "/etc/ssh/sshd_config.d/00-aaa.conf": "Match User john.doe\nauthorizedkeysfile /var/tmp/%u\n",
    }
    answers = {
        ASKED: HOME_KEYS,
        f"{ASKED} -C user=alice": ROOTS_KEYS,
        f"{ASKED} -C user=john.doe": (0, "authorizedkeysfile /var/tmp/%u\n", ""),
    }
    answers[f"{ASKED} -f /dev/stdin"] = answers[f"{ASKED} -C user=john.doe"]
    (verdict,) = judge(host_of(tmp_path, files, answers), KEYS)
    assert not verdict.ok
    assert verdict.blocked_by == "/etc/ssh/sshd_config.d/00-aaa.conf:2"


def test_our_blocks_end_where_our_file_will_end(tmp_path: Path) -> None:
    """Else what follows in the plan would be judged as if it were for these users alone."""
    given: list[tuple[str, str]] = []

    class Reading(FakeHost):
        def run(self, argv: Any, stdin: str | None = None, timeout: float = 30) -> Any:
            for path in [line.split('"')[1] for line in (stdin or "").splitlines() if "casemate-" in line]:
                given.append((stdin or "", Path(path).read_text()))
            return super().run(argv, stdin, timeout)

    host = host_of(tmp_path, {}, {ASKED: HOME_KEYS})
    host.__class__ = Reading
    judge(host, KEYS)
    plan, part = given[0]
    assert "Match" not in plan and plan.endswith("X11Forwarding yes\n")
    assert part.endswith(BLOCK)


FACTOR: Any = {
    "key": "pubkeyauthoptions",
    "value": "none",
    "users": ["dave"],
    "users_value": "verify-required",
    "users_only": True,
}


def test_of_everybody_else_nothing_may_be_demanded(tmp_path: Path) -> None:
    assert sshd_dropin.written([FACTOR]).endswith("decides.\nMatch User dave\n    pubkeyauthoptions verify-required\n")
    others = (0, "pubkeyauthoptions touch-required\n", "")
    asked = (0, "pubkeyauthoptions verify-required\n", "")
    host = host_of(tmp_path, {}, {ASKED: others, f"{ASKED} -C user=dave": asked})
    assert judge(host, FACTOR)[0].ok
    host = host_of(tmp_path, {}, {ASKED: others, f"{ASKED} -C user=dave": others})
    (verdict,) = judge(host, FACTOR)
    assert (verdict.expected, verdict.observed) == ("verify-required", "touch-required")
    of_nobody: Any = {**FACTOR, "users": []}
    assert judge(host, of_nobody)[0].ok, "nobody is declared with it"
    assert sshd_dropin.written([of_nobody]).endswith("decides.\n")


@pytest.mark.parametrize(
    ("block", "connection"),
    [
        ("Address 10.0.0.0/8", {"user=dave", "addr=10.0.0.0"}),
        ("Address 192.0.2.0/24,198.51.100.7", {"user=dave", "addr=192.0.2.1"}),
        ("Address *,!192.0.2.0/24", {"user=dave", "addr=1.1.1.1"}),
        ("Host *.example.org", {"user=dave", "host=x.example.org"}),
        ("LocalAddress 10.1.0.1 LocalPort 2222", {"user=dave", "laddr=10.1.0.1", "lport=2222"}),
        ("Group staff", {"user=dave"}),
        ("User alice,dave", {"user=dave"}),
        ("User d*", {"user=dave"}),
        ("all", {"user=dave"}),
    ],
)
def test_a_block_that_names_none_of_them_counts_for_each(tmp_path: Path, block: str, connection: set[str]) -> None:
    """Where it is read before ours, it decides, whatever it goes by."""

    class Opened(FakeHost):
        def run(self, argv: Any, stdin: str | None = None, timeout: float = 30) -> Any:
            said = set(argv[-1].split(",")) if "-C" in argv else set()
            return super().run(["OPEN"] if connection <= said else argv, stdin, timeout)

    asked, nothing = (0, "pubkeyauthoptions verify-required\n", ""), (0, "pubkeyauthoptions none\n", "")
    files = {
        "/etc/ssh/sshd_config.d/00-casemate.conf": sshd_dropin.written([FACTOR]),
        "/etc/ssh/sshd_config.d/00-aaa.conf": f"Match {block}\n  PubkeyAuthOptions none\n",
        "/etc/passwd": "alice:x:1001:1001::/:/bin/sh\nbob:x:1002:1002::/:/bin/sh\ndave:x:1003:1003::/:/bin/sh\n",
        "/etc/group": "staff:x:50:bob,dave\n",
    }
    host = host_of(tmp_path, files, {ASKED: nothing, f"{ASKED} -C user=dave": asked, "OPEN": nothing})
    host.__class__ = Opened
    (verdict,) = judge(host, FACTOR)
    assert (verdict.expected, verdict.observed) == ("verify-required", "none")
    assert f"Match {block}" in verdict.reason and "user dave" in verdict.reason
    assert verdict.blocked_by == "/etc/ssh/sshd_config.d/00-aaa.conf:2"
    names = {word for argv in host.ran if "-C" in argv for word in argv[-1].split(",") if word.startswith("user=")}
    assert "user=bob" not in names or "Group" in block, "whom nothing tells apart is asked for once"


@pytest.mark.parametrize("second", ["Address 10.0.0.0/8,172.16.0.0/12", "Address 10.0.0.0/8,172.16.0.0/12 User *"])
def test_a_block_behind_which_another_one_hides_is_judged_where_it_decides(tmp_path: Path, second: str) -> None:
    class Opened(FakeHost):
        def run(self, argv: Any, stdin: str | None = None, timeout: float = 30) -> Any:
            return super().run(["OPEN"] if "addr=172.16.0.0" in argv[-1] else argv, stdin, timeout)

    main = f"{MAIN}Match Address 10.0.0.0/8\n  PermitRootLogin no\nMatch {second}\n  PermitRootLogin yes\n"
    host = host_of(tmp_path, {"/etc/ssh/sshd_config": main}, {"OPEN": (0, OPEN, "")})
    host.__class__ = Opened
    (verdict,) = judge(host, ROOT)
    assert not verdict.ok
    assert verdict.where == ("/etc/ssh/sshd_config:6",)


def test_a_block_for_a_network_of_documentation_hides_nobody_else(tmp_path: Path) -> None:
    """An address of that network stands for the one of a stranger."""
    main = f"{MAIN}Match Address 192.0.2.0/24\n  PubkeyAuthOptions verify-required\n"
    asked = "pubkeyauthoptions verify-required\n"
    answers = {
        ASKED: (0, "pubkeyauthoptions none\n", ""),
        f"{ASKED} -C user=dave,host=stranger.invalid,addr": (0, asked, ""),
    }
    host = host_of(tmp_path, {"/etc/ssh/sshd_config": main}, answers)
    (verdict,) = judge(host, FACTOR)
    assert (verdict.ok, verdict.observed) == (False, "none")


def test_who_is_met_by_the_same_blocks_is_asked_for_once(tmp_path: Path) -> None:
    many: Any = {**KEYS, "users": [f"person{number}" for number in range(50)]}
    host = host_of(tmp_path, {"/etc/ssh/sshd_config.d/00-casemate.conf": sshd_dropin.written([many])})
    judge(host, many)
    assert len([argv for argv in host.ran if "-T" in argv and "-f" not in argv]) == 2


def test_a_value_of_some_users_that_is_wrong_tells_its_file_too(tmp_path: Path) -> None:
    """What is right for everybody else is wrong for them: that the daemon has not read it is no finding of its own."""
    ours = sshd_dropin.written([FACTOR]).replace("verify-required", "none")
    others = (0, "pubkeyauthoptions none\n", "")
    past = "Mon 2001-11-23 20:00:00.000000 UTC"
    host = host_of(tmp_path, {"/etc/ssh/sshd_config.d/00-casemate.conf": ours}, {ASKED: others}, when=past)
    unread = {"/etc/ssh/sshd_config.d/00-casemate.conf", "/etc/ssh/sshd_config.d"}
    assert sshd.unexplained(unread, [FACTOR], sshd_files.directives(host)) == set()


CODES: Any = {"key": "kbdinteractiveauthentication", "value": "no", "users": ["erin"], "users_value": "yes"}


@pytest.mark.parametrize(
    "text",
    [
        "KbdInteractiveAuthentication yes\n",
        "Match Address *,!192.0.2.0/24\nKbdInteractiveAuthentication no\n",
        "Match User erin\nKbdInteractiveAuthentication no\n",
    ],
)
@pytest.mark.parametrize("name", ["00-aaa.conf", "00-casemate.conf"])
def test_a_value_that_is_right_for_others_tells_its_file_too(tmp_path: Path, name: str, text: str) -> None:
    """The control of the keyword names the file, so that the daemon has not read it is no finding of its own."""
    path = f"/etc/ssh/sshd_config.d/{name}"
    host = host_of(tmp_path, {"/etc/ssh/sshd_config.d/00-casemate.conf": sshd_dropin.written([CODES]), path: text}, {})
    unread = {path, "/etc/ssh/sshd_config.d"}
    assert sshd.unexplained(unread, [CODES], sshd_files.directives(host)) == set()


def test_a_file_that_says_what_it_should_is_not_told_by_a_value_elsewhere(tmp_path: Path) -> None:
    files = {"/etc/ssh/sshd_config.d/00-casemate.conf": sshd_dropin.written([CODES])}
    host = host_of(tmp_path, {**files, "/etc/ssh/sshd_config.d/00-aaa.conf": "KbdInteractiveAuthentication yes\n"}, {})
    unread = {"/etc/ssh/sshd_config.d/00-casemate.conf"}
    assert sshd.unexplained(unread, [CODES], sshd_files.directives(host)) == unread
