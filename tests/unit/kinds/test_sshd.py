"""sshd: effective values for every kind of connection, daemon options, overrides by others, and staleness."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate import sshd_files
from module_utils.casemate.base import EnforceError
from module_utils.casemate.control import ControlError, parse
from module_utils.casemate.kinds import sshd

MAIN = "Include /etc/ssh/sshd_config.d/*.conf\nX11Forwarding yes\n"
SHOWN = "permitrootlogin no\nmaxauthtries 4\nallowusers ops\nallowusers alice\nhostkey /b\nhostkey /a\n"
OPEN = SHOWN.replace("permitrootlogin no", "permitrootlogin yes")
ROOT = {"kind": "sshd", "key": "permitrootlogin", "value": "no"}
DAEMON = {"kind": "sshd", "key": "daemon", "value": "current"}
LISTENER = {"kind": "sshd", "key": "listener", "value": "plain"}


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


def judge(host: FakeHost, *settings: dict[str, Any]) -> list[Any]:
    return [sshd.assess(s, o) for s, o in zip(settings, sshd.observe(list(settings), host), strict=True)]


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
    (verdict,) = judge(host_of(tmp_path), {"key": key, "value": value})
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

    files = {
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
    assert (listener.ok, listener.foreign) == (False, "-f /tmp/x on the command line of the running daemon")
    assert not judge(host, ROOT, {**LISTENER, "waived": True})[0].ok


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
    assert listener.foreign == "-o UsePAM=no on the command line of the next start"


@pytest.mark.parametrize("quote", ["'", '"', "$'", "\\"])
def test_quotes_that_do_not_match_break_nothing(tmp_path: Path, quote: str) -> None:
    assert judge(host_of(tmp_path, {"/etc/default/ssh": f"SSHD_OPTS={quote}-oUsePAM=no"}), LISTENER)[0].evidence


def test_an_option_that_a_failing_keyword_tells_is_not_told_again(tmp_path: Path) -> None:
    both = {"/usr/sbin/sshd -T -o PermitRootLogin=yes": (0, OPEN, "")}
    host = host_of(tmp_path, None, both, start="-o PermitRootLogin=yes")
    assert [verdict.ok for verdict in judge(host, ROOT, LISTENER)] == [False, True]
    assert [verdict.ok for verdict in judge(host, {**ROOT, "waived": True}, LISTENER)] == [False, False]


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
    told = processes(tmp_path, p12=evil, c13=evil, p14=evil, p15="sshd: alice [priv]\0", p16="[listener]")
    host = host_of(tmp_path, told)
    os.chown(tmp_path / "proc/14", 1001, -1)
    (listener,) = judge(host, LISTENER)
    assert listener.foreign == "process 12 listens beside ssh.service (sshd: /usr/sbin/sshd -p 2222)"


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
    assert judge(host, LISTENER)[0].foreign == other


@pytest.mark.parametrize(
    ("title", "start", "named"),
    [
        ("sshd: /tmp/sshd -D [listener] 0 of 1", "$SSHD_OPTS", "the running daemon is /tmp/sshd"),
        ("/opt/other --serve", "$SSHD_OPTS", "the running daemon is /opt/other"),
        ("", "$SSHD_OPTS", ""),
    ],
)
def test_another_program_is_named(tmp_path: Path, title: str, start: str, named: str) -> None:
    assert judge(host_of(tmp_path, title=title, start=start), LISTENER)[0].foreign == named


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
    host.differing.add("/etc/ssh/sshd_conf*")
    assert judge(host, DAEMON)[0].ok
    moment["st_mtime"] = 1e12
    assert not judge(host, DAEMON)[0].ok


def owned(host: FakeHost) -> str:
    return host.text(sshd_files.OWNED) or ""


def test_it_writes_one_drop_in_under_the_guard_and_reloads(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("files of root need root")
    host = host_of(tmp_path, {"/etc/ssh/sshd_config": "# old\nX11Forwarding yes\n"})
    settings: list[dict[str, Any]] = [
        ROOT,
        {"key": "maxauthtries", "value": 4},
        {"key": "x", "value": 1, "enforced": False},
        DAEMON,
    ]
    sshd.enforce(settings, {0}, host)
    assert host.armed == [sshd_files.MAIN, sshd_files.OWNED]
    assert owned(host).splitlines()[1:] == ["maxauthtries 4", "permitrootlogin no"]
    assert (host.text(sshd_files.MAIN) or "").startswith(sshd_files.INCLUDE + "# old")
    assert list(sshd.RELOAD) in host.ran
    assert host.ran.index(["/usr/sbin/sshd", "-t", "-f", "/dev/stdin"]) < host.ran.index(list(sshd.RELOAD))


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
    assert list(sshd.RELOAD) not in host.ran


def test_what_sshd_refuses_is_not_written(tmp_path: Path) -> None:
    refused = {"/usr/sbin/sshd -t": (255, "", "/dev/stdin line 2: Bad configuration option")}
    host = host_of(tmp_path, {sshd_files.OWNED: "old\n"}, refused)
    with pytest.raises(EnforceError, match="Bad configuration option"):
        sshd.enforce([ROOT], {0}, host)
    assert owned(host) == "old\n"
    assert list(sshd.RELOAD) not in host.ran


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
def test_hostile_settings_are_refused(setting: dict[str, Any]) -> None:
    raw = {
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
