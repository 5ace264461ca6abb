"""What an operator names is removed and kept, and nothing else: the engine on a machine made of a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost
from unit.kinds.test_vouched import CRON, INFO, MINE, UNTIL, host, host_again, sha256
from unit.test_engine import TODAY, control
from unit.test_guard import Held

from module_utils.casemate.engine.outcome import Outcome
from module_utils.casemate.engine.run import run
from module_utils.casemate.formats import dpkg, dpkg_status
from module_utils.casemate.host import evicted
from module_utils.casemate.host.machine import EnforceError, Result

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root: files of root are what this is about")
JOBS: dict[str, Any] = {
    "kind": "vouched", "paths": ["/etc/cron.d/*"], "used": "cron runs it", "ours": [], "declared": {}
}  # fmt: skip
UNIT, UNITS = "/etc/systemd/system/evil.service", {**JOBS, "paths": ["/etc/systemd/system/**/*"]}
SYSTEMD = {"systemctl daemon-reload": (0, "", ""), "systemctl stop": (0, "", ""), "systemctl restart": (0, "", "")}


def judged(made: FakeHost, *settings: dict[str, Any], check: bool = False) -> Outcome:
    controls = [control(f"JOBS-{number}-VOUCHED", setting) for number, setting in enumerate(settings)]
    made.commands.update(SYSTEMD)
    return run({"k3s_host": controls}, made, check, today=TODAY)


def named(setting: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A setting as it is once the operator names its control."""
    return {**setting, **more, "enforced": True}


def copies(made: FakeHost) -> dict[str, Path]:
    """Path -> its copy, of all that was evicted."""
    home = Path(made.path(evicted.HOME))
    found = [path for path in home.rglob("*") if path.is_symlink() or path.is_file()]
    return {"/" + "/".join(path.relative_to(home).parts[1:]): path for path in found}


def changed(outcome: Outcome) -> list[tuple[str, str]]:
    return [(one["status"], one["action"]) for one in outcome.findings]


def test_nothing_goes_that_nobody_named(tmp_path: Path) -> None:
    made = host(tmp_path, {CRON: MINE})
    done = judged(made, JOBS)
    assert (changed(done), done.roles_to_apply, made.changes) == ([("fail", "none")], [], [])
    assert os.path.exists(made.path(CRON))
    reason = done.findings[0]["reason"]
    assert "`casemate baseline` records" in reason and "`casemate apply --evict JOBS-0-VOUCHED` removes" in reason


def test_what_check_foretells_goes_and_is_kept_and_nothing_else(tmp_path: Path) -> None:
    other = "/etc/other.d/job"
    made = host(tmp_path, {CRON: MINE, "/etc/cron.d/good": MINE, other: MINE}, {"/etc/cron.d/good": MINE})
    os.chmod(made.path(CRON), 0o640)
    os.chown(made.path(CRON), 0, 12345)
    os.utime(made.path(CRON), ns=(1, 2))
    settings = (named(JOBS), {**JOBS, "paths": ["/etc/other.d/*"]})
    plan = judged(host_again(made), *settings, check=True)
    assert changed(plan) == [("fail", "would_change"), ("fail", "none")]
    assert (plan.roles_to_apply, plan.todo, plan.findings[0]["where"]) == (
        ["k3s_host"], {"JOBS-0-VOUCHED": [CRON]}, [CRON]
    )  # fmt: skip
    assert not os.path.exists(made.path(evicted.HOME))
    done = judged(made, *settings)
    assert changed(done) == [("pass", "changed"), ("fail", "none")]
    assert done.findings[0]["before"] == {CRON: sha256(MINE)}
    assert CRON in made.armed
    assert os.path.exists(made.path(other)) and not os.path.exists(made.path(CRON))
    (kept,) = copies(made).values()
    seen = kept.stat()
    assert (kept.read_text(), stat.S_IMODE(seen.st_mode), seen.st_gid, seen.st_mtime_ns) == (MINE, 0o640, 12345, 2)
    again = host_again(made)
    assert changed(judged(again, *settings)) == [("pass", "none"), ("fail", "none")]
    assert (again.changes, len(copies(made))) == ([], 1)


def test_a_copy_keeps_rights_and_attributes_where_nobody_but_root_gets(tmp_path: Path) -> None:
    made = host(tmp_path, {CRON: MINE})
    os.chmod(made.path(CRON), 0o4755)
    os.setxattr(made.path(CRON), "user.note", b"who")
    os.makedirs(made.path(evicted.HOME), mode=0o755)
    judged(made, named(JOBS))
    (kept,) = copies(made).values()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o4755
    assert os.getxattr(kept, "user.note") == b"who"
    assert stat.S_IMODE(os.stat(made.path(evicted.HOME)).st_mode) == 0o700


def test_no_secret_is_in_the_diff(tmp_path: Path) -> None:
    made = host(tmp_path, {CRON: "password"})
    judged(made, named(JOBS))
    assert made.changes == [{"path": CRON, "before": f"{sha256('password')}\n", "after": ""}]


def test_a_link_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    made = host(tmp_path, {"/opt/bad": MINE, "/etc/cron.d/x": ""})
    os.symlink(made.path("/opt/bad"), made.path(CRON))
    assert changed(judged(made, named(JOBS))) == [("pass", "changed")]
    assert not os.path.lexists(made.path(CRON)) and os.path.exists(made.path("/opt/bad"))
    assert os.readlink(copies(made)[CRON]) == made.path("/opt/bad")


def test_what_was_vouched_for_and_changed_goes(tmp_path: Path) -> None:
    made = host(tmp_path, {CRON: MINE, "/etc/cron.d/other": MINE})
    declared = {path: {**UNTIL, "digest": sha256(text)} for path, text in
                ((CRON, "was"), ("/etc/cron.d/other", MINE))}  # fmt: skip
    assert changed(judged(made, named(JOBS, declared=declared))) == [("pass", "changed")]
    assert os.listdir(made.path("/etc/cron.d")) == ["other"]


def brought(tmp_path: Path) -> FakeHost:
    """A file of a package with other bytes."""
    return host(tmp_path, {CRON: "evil"}, {CRON: MINE})


def conffile(tmp_path: Path) -> FakeHost:
    made = brought(tmp_path)
    Path(made.path(dpkg_status.STATUS)).write_text(f"Package: some\nConffiles:\n {CRON} {'0' * 32}\n")
    return made


def special(tmp_path: Path) -> FakeHost:
    made = host(tmp_path, {"/etc/cron.d/x": ""}, {"/etc/cron.d/x": ""})
    os.mkfifo(made.path(CRON))
    return made


def chosen(tmp_path: Path) -> FakeHost:
    """A link that update-alternatives made to what nobody vouches for."""
    made = host(tmp_path, {"/opt/bad": MINE, "/etc/cron.d/x": "", "/etc/alternatives/x": ""}, {"/etc/cron.d/x": ""})
    Path(made.path(dpkg.ALTERNATIVES)).mkdir(parents=True)
    Path(made.path(f"{dpkg.ALTERNATIVES}/job")).write_text(f"auto\n{CRON}\n\n/opt/bad\n30\n")
    os.symlink("../alternatives/job", made.path(CRON))
    os.symlink("../../opt/bad", made.path("/etc/alternatives/job"))
    return made


def of_k3s(tmp_path: Path) -> FakeHost:
    made = host(tmp_path, {CRON: MINE})
    made.commands["systemctl show k3s.service"] = (0, f"DropInPaths={CRON} /etc/x.conf\nActiveState=active\n", "")
    return made


def login(tmp_path: Path) -> FakeHost:
    made = host(tmp_path, {"/root/.ssh/rc": MINE, "/etc/passwd": "root:x:0:0::/root:/bin/sh\n"})
    made.context = {**made.context, "account": "root"}
    return made


@pytest.mark.parametrize(
    ("machine", "more", "by_hand"),
    [
        (brought, {}, "by hand: apt-get install --reinstall some"),
        (conffile, {}, "--reinstall -o DPkg::Options::=--force-confask,confnew some"),
        (special, {}, f"by hand: rm {CRON}"),
        (chosen, {}, "by hand: update-alternatives --auto job"),
        (of_k3s, {}, f"rm {CRON}; systemctl daemon-reload; systemctl restart k3s.service"),
        (login, {"paths": ["/root/.ssh/rc"]}, "where root logs in"),
        (lambda at: host(at, {CRON: MINE}), {"edited": ["/etc/cron.d/j*"]}, "edit it by hand"),
        (lambda at: host(at, {CRON: MINE}), {"copies": {CRON: "/usr/x"}}, f"by hand: cp /usr/x {CRON}"),
        (lambda at: host(at, {CRON: MINE}), {"of_profiles": CRON}, "by hand: pam-auth-update --force"),
    ],
)
def test_what_is_brought_back_otherwise_stays_and_says_how(
    tmp_path: Path, machine: Any, more: dict[str, Any], by_hand: str
) -> None:
    made, setting = machine(tmp_path), named(JOBS, **more)
    for check in (True, False):
        done = judged(made, setting, check=check)
        assert changed(done) == [("fail", "blocked")]
        assert by_hand in done.findings[0]["reason"]
        assert "--evict" not in done.findings[0]["reason"]
    assert (made.changes, os.path.exists(made.path(evicted.HOME))) == ([], False)


def test_of_both_sorts_one_goes_and_the_other_stays(tmp_path: Path) -> None:
    made = host(tmp_path, {CRON: "evil", "/etc/cron.d/mine": MINE}, {CRON: MINE})
    assert changed(judged(host_again(made), named(JOBS), check=True)) == [("fail", "blocked")]
    done = judged(made, named(JOBS))
    assert changed(done) == [("fail", "blocked")]
    assert done.findings[0]["where"] == [CRON]
    assert list(copies(made)) == ["/etc/cron.d/mine"]


@pytest.mark.parametrize(
    ("path", "called"), [(UNIT, UNIT), ("/usr/lib/systemd/system/evil.service", "/lib/systemd/system/evil.service")]
)
def test_units_are_stopped_by_name_before_their_files_go(tmp_path: Path, path: str, called: str) -> None:
    made = host(tmp_path, {path: "[Service]\n"})
    ours = f"Id=evil.service\nActiveState=active\nFragmentPath={called}\n"
    other = "Id=cron.service\nActiveState=active\nFragmentPath=/usr/lib/systemd/system/cron.service\n"
    made.commands["systemctl show *"] = (0, f"{ours}\n{other}", "")
    setting = named(UNITS, paths=[f"{os.path.dirname(path)}/**/*"])
    assert changed(judged(made, setting)) == [("pass", "changed")]
    assert made.armed == ["unit evil.service", path]
    acted = [argv[1:] for argv in made.ran if argv[0] == "systemctl" and argv[1] != "show"]
    assert acted == [["stop", "--", "evil.service"], ["daemon-reload"]]


def test_a_unit_of_a_package_that_was_hidden_restarts_and_is_never_stopped(tmp_path: Path) -> None:
    made = host(tmp_path, {UNIT: "[Service]\n", "/usr/lib/systemd/system/evil.service": "[Service]\n"})
    made.commands["systemctl show *"] = (0, f"Id=evil.service\nActiveState=active\nFragmentPath={UNIT}\n", "")
    judged(made, named(UNITS))
    acted = [argv[1:] for argv in made.ran if argv[0] == "systemctl" and argv[1] != "show"]
    assert acted == [["daemon-reload"], ["restart", "--", "evil.service"]]


def test_what_a_generator_made_is_stopped_once_it_is_gone(tmp_path: Path) -> None:
    generator = "/etc/systemd/system-generators/evil"
    made = host(tmp_path, {generator: "x"})
    before = "Id={0}\nLoadState={1}\nActiveState=active\nFragmentPath={2}\n"
    all_loaded = before.format("evil.service", "loaded", "/run/systemd/generator/evil.service")
    root = before.format("-.mount", "loaded", "/run/systemd/generator/-.mount")
    old = before.format("old.service", "not-found", "")

    class Reloading(FakeHost):
        def run(self, argv: Sequence[str], stdin: str | None = None, timeout: float = 30) -> Result:
            gone = before.format("evil.service", "not-found", "")
            reloaded = ["systemctl", "daemon-reload"] in self.ran
            self.commands["systemctl show *"] = (0, "\n".join([gone if reloaded else all_loaded, root, old]), "")
            return super().run(argv, stdin, timeout)

    again = Reloading(Path(made.root), context=made.context)
    judged(again, named({**JOBS, "paths": ["/etc/systemd/system-generators/*"]}))
    stops = [argv for argv in again.ran if argv[:2] == ["systemctl", "stop"]]
    assert stops == [["systemctl", "stop", "--", "evil.service"]]


def test_what_cannot_be_kept_is_not_removed_and_stops_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = host(tmp_path, {CRON: MINE, "/etc/cron.d/other": MINE})
    keep = evicted.keep

    def full(path: str, place: str, where: Any) -> None:
        if path == CRON:
            raise OSError(28, "No space left on device", path)
        keep(path, place, where)

    monkeypatch.setattr(evicted, "keep", full)
    done = judged(made, named(JOBS))
    assert changed(done) == [("fail", "blocked")]
    assert "No space left" in done.findings[0]["reason"]
    assert os.listdir(made.path("/etc/cron.d")) == ["job"]


def test_without_a_guard_or_a_place_nothing_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = host(tmp_path, {CRON: MINE})
    Path(made.path(evicted.HOME)).parent.mkdir(parents=True)
    os.symlink("/tmp", made.path(evicted.HOME))
    assert changed(judged(made, named(JOBS))) == [("fail", "blocked")]
    os.remove(made.path(evicted.HOME))

    def refuse(names: Sequence[str], sort: str) -> None:
        raise EnforceError("the guard could not be armed")

    made._guard = refuse
    assert changed(judged(made, named(JOBS))) == [("fail", "blocked")]
    assert os.path.exists(made.path(CRON))


def test_killed_anywhere_it_comes_back(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each step that changes something, and undone as the timer on the host does it."""
    survived = 0
    for kill_at in range(20):
        made = host(tmp_path_factory.mktemp("host"), {CRON: MINE, "/etc/cron.d/other": "x", "/etc/cron.d/b": "y"})
        os.chmod(made.path(CRON), 0o6750)
        os.chown(made.path(CRON), 0, 12345)
        os.chmod(made.path(CRON), 0o6750)
        os.setxattr(made.path(CRON), "user.note", b"who")
        before = state(made)
        guard, steps = Held(Path(made.root)), iter(range(99))
        made._guard = guard.arm

        def step(real: Any, steps: Any = steps, kill_at: int = kill_at) -> Any:
            def stepped(*given: Any, **more: Any) -> Any:
                if next(steps) == kill_at:
                    raise KeyboardInterrupt
                return real(*given, **more)

            return stepped

        with monkeypatch.context() as patched:
            patched.setattr(evicted, "keep", step(evicted.keep))
            patched.setattr(os, "unlink", step(os.unlink))
            made.run = step(made.run)  # type: ignore[method-assign]
            try:
                judged(made, named(JOBS))
            except KeyboardInterrupt:
                pass
            else:
                survived = kill_at
        guard.revert()
        assert state(made) == before, kill_at
        if survived:
            break
    assert survived > 8


def state(made: FakeHost) -> dict[str, Any]:
    found = {}
    for path in sorted(Path(made.path("/etc/cron.d")).iterdir()):
        seen = path.stat()
        found[path.name] = (
            path.read_text(), seen.st_mode, seen.st_gid, seen.st_mtime_ns, os.listxattr(path)
        )  # fmt: skip
    return found


def test_what_a_waiver_excuses_stays(tmp_path: Path) -> None:
    made = host(tmp_path, {CRON: MINE})
    waivers = {"JOBS-0-VOUCHED": {"reason": "r", "owner": "o", "expires": "2099-01-01"}}
    done = run({"k3s_host": [control("JOBS-0-VOUCHED", named(JOBS))]}, made, False, waivers, today=TODAY)
    assert (changed(done), os.path.exists(made.path(CRON))) == ([("waived", "none")], True)


def test_two_evictions_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    made = host(tmp_path, {})
    assert len({evicted.folder(made) for _ in range(3)}) == 3


def test_a_package_of_another_database_is_brought_back_by_its_name(tmp_path: Path) -> None:
    made = host(tmp_path, {"/var/lib/ucf/registry": f"some {CRON}\n", f"{INFO}/x": ""})
    command = dpkg.reinstall(CRON, "some", made)
    assert command == f"mv {CRON} /root && UCF_FORCE_CONFFMISS=1 apt-get install --reinstall some"
