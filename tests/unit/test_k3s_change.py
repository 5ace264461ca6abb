"""A change of K3s comes whole or not at all: what is kept, what goes back, and who may be killed when."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.host.machine import EnforceError, Host
from module_utils.casemate.k3s import change as k3s_change
from module_utils.casemate.k3s.change import Change, go_back, joined_server, state_of

CONFIG = "/etc/rancher/k3s/config.yaml.d/casemate-k3s_node.yaml"
FRESH = "/etc/rancher/k3s/fresh.yaml"
UNIT = "k3s.service"
OLD, PATCH, MINOR = (f"pkg/version.Version=v1.{minor}+k3s1" for minor in ("36.3", "36.4", "37.0"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for path, text in ((CONFIG, "old: 1\n"), ("/usr/local/bin/k3s", OLD)):
        (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path[1:]).write_text(text)
    return tmp_path


def text(place: Path, path: str) -> str:
    return (place / path[1:]).read_text()


def write(place: Path) -> None:
    """What a pass of the engine does."""
    host = Host(str(place), guard=Change(str(place)).keep_file)
    host.write(CONFIG, b"new: 2\n")
    host.write(FRESH, b"x\n")


def machine(place: Path, state: str, started: str) -> FakeHost:
    shown = f"ActiveState={state}\nExecMainStartTimestamp={started}\n"
    return FakeHost(place, commands={"systemctl show": (0, shown, ""), "systemctl --quiet": (0, "", "")})


def asked(host: FakeHost) -> list[str]:
    return [" ".join(argv[2:]) for argv in host.ran if argv[:2] == ["systemctl", "--quiet"]]


LONG_AGO, LATER = "Tue 2020-11-24 13:00:00.000001 UTC", "Tue 2099-11-24 13:00:00.000001 UTC"


@pytest.mark.parametrize(
    ("state", "started", "anew"),
    [
        ("active", LATER, True),  # it was started with the change, and may be dying
        ("failed", LONG_AGO, True),
        ("activating", LATER, True),
        ("active", LONG_AGO, False),  # the change has not reached it: it runs as it did
    ],
)
def test_what_was_written_goes_back_and_k3s_starts_where_the_change_had_reached_it(
    place: Path, state: str, started: str, anew: bool
) -> None:
    change, host = Change(str(place)), machine(place, state, started)
    change.begin()
    write(place)
    assert change.is_pending()
    paths, binary, again = go_back(change, host, UNIT, True)
    assert ([path.removeprefix(str(place)) for path in paths], binary, again) == ([CONFIG, FRESH], "", anew)
    assert text(place, CONFIG) == "old: 1\n" and not (place / FRESH[1:]).exists()
    assert asked(host) == [
        "daemon-reload",
        *(["reset-failed k3s.service", "restart --no-block k3s.service"] if anew else []),
    ]
    assert not change.is_pending()


def test_what_k3s_was_seen_to_run_with_stays(place: Path) -> None:
    change = Change(str(place))
    change.begin()
    write(place)
    assert change.drop()
    assert text(place, CONFIG) == "new: 2\n" and not change.is_pending()
    assert change.back(True) == ([], "")
    assert text(place, CONFIG) == "new: 2\n"


def test_what_a_killed_run_left_is_the_state_to_go_back_to(place: Path) -> None:
    for _ in range(2):  # the second run finds the first one's files, with which nobody has seen K3s run
        change = Change(str(place))
        change.begin()
        write(place)
        (place / CONFIG[1:]).write_text("of the killed run\n")
    Change(str(place)).back(True)
    assert text(place, CONFIG) == "old: 1\n"


def test_going_back_that_was_killed_is_finished_before_anything_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = Change(str(place))
    change.begin()
    write(place)
    (place / "var/lib/casemate/k3s/pending").rename(place / "var/lib/casemate/k3s/reverting")
    assert change.is_pending()
    change.begin()
    assert text(place, CONFIG) == "old: 1\n"
    write(place)
    change.back(True)
    assert text(place, CONFIG) == "old: 1\n"


def test_what_did_not_change_is_not_written_anew(place: Path) -> None:
    """Its time would change, and K3s would count as running with an older one."""
    change = Change(str(place))
    change.begin()
    change.keep([CONFIG])
    before = (place / CONFIG[1:]).stat()
    assert change.back(True) == ([], "")
    assert (place / CONFIG[1:]).stat().st_ctime_ns == before.st_ctime_ns


@pytest.mark.parametrize(
    ("new", "server", "previous", "back", "says"),
    [
        (PATCH, True, OLD, True, ""),
        (MINOR, False, OLD, True, ""),
        (MINOR, True, OLD, False, "stays v1.37.0+k3s1: it may have changed data that v1.36.3+k3s1 reads"),
        (PATCH, True, MINOR, False, "is not the one that was replaced"),
    ],
)
def test_the_binary_goes_back_where_an_older_one_reads_the_data(
    place: Path, new: str, server: bool, previous: str, back: bool, says: str
) -> None:
    change = Change(str(place))
    change.begin()
    (place / "usr/local/bin/k3s").rename(place / "usr/local/bin/k3s.previous")
    (place / "usr/local/bin/k3s.previous").write_text(previous)
    (place / "usr/local/bin/k3s").write_text(new)
    change.begin()  # of the run after a killed one: the binary of before stays noted
    paths, said = change.back(server)
    assert (text(place, "/usr/local/bin/k3s") == OLD) is back
    assert bool(paths) is back and says in said and bool(said) is not back


def test_what_cannot_be_kept_is_not_changed(place: Path) -> None:
    def full(paths: Sequence[str], sort: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/var/lib/casemate/k3s/pending/0")

    host = Host(str(place), guard=full)
    with pytest.raises(OSError, match="No space left on device"):
        host.write(CONFIG, b"new: 2\n")
    with pytest.raises(OSError, match="No space left on device"):
        host.remove(CONFIG)
    assert text(place, CONFIG) == "old: 1\n"
    assert [path.name for path in (place / CONFIG[1:]).parent.iterdir()] == ["casemate-k3s_node.yaml"]


@pytest.mark.parametrize("cause", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_a_write_that_fails_names_the_file_and_the_cause(
    place: Path, monkeypatch: pytest.MonkeyPatch, cause: int
) -> None:
    def fails(*_: object, **__: object) -> tuple[int, str]:
        raise OSError(cause, "the cause", "/proc/1/fd/3/.casemate-x")

    monkeypatch.setattr("tempfile.mkstemp", fails)
    with pytest.raises(OSError, match="the cause") as failed:
        Host(str(place)).write(CONFIG, b"new: 2\n")
    assert failed.value.filename == CONFIG


def test_a_restart_that_systemd_refuses_is_told(place: Path) -> None:
    change = Change(str(place))
    change.begin()
    write(place)
    host = FakeHost(place, commands={"systemctl --quiet daemon-reload": (1, "", "no bus")})
    with pytest.raises(EnforceError, match="daemon-reload failed: no bus"):
        go_back(change, host, UNIT, True)
    assert text(place, CONFIG) == "old: 1\n"


@pytest.mark.parametrize(
    ("files", "server"),
    [
        ({CONFIG: "server: https://192.0.2.1:6443\n"}, "https://192.0.2.1:6443"),
        ({"/etc/rancher/k3s/config.yaml": "server: https://a\n", CONFIG: "node-ip: 192.0.2.1\n"}, "https://a"),
        ({CONFIG: "server: https://a\n", CONFIG.replace("casemate", "zz"): 'server: ""\n'}, ""),
        ({CONFIG: "node-ip: 192.0.2.1\n"}, ""),
        ({}, ""),
    ],
)
def test_a_node_that_would_join_nobody_is_known(tmp_path: Path, files: dict[str, str], server: str) -> None:
    assert joined_server(FakeHost(tmp_path, files)) == server


@pytest.mark.parametrize(
    ("load", "active", "installed", "runs"),
    [
        ("loaded", "active", True, True),
        ("loaded", "activating", True, True),
        ("loaded", "inactive", True, False),
        ("loaded", "failed", True, False),
        ("not-found", "inactive", False, False),
    ],
)
def test_what_runs_here(tmp_path: Path, load: str, active: str, installed: bool, runs: bool) -> None:
    host = FakeHost(tmp_path, commands={f"systemctl show {UNIT}": (0, f"LoadState={load}\nActiveState={active}\n", "")})
    assert state_of(host, UNIT) == {"installed": installed, "runs": runs, "up": active == "active"}


def test_the_note_of_the_binary_is_its_digest(place: Path) -> None:
    Change(str(place)).begin()
    note = place / k3s_change.HOME[1:] / "pending/binary"
    assert note.read_text() == hashlib.sha256(OLD.encode()).hexdigest()
