"""Taking back the last run: what goes back, what stays, and whose change it is."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from module_utils.casemate.host.guard import AFTER, Guard
from module_utils.casemate.host.last_change import OF_PACKAGES, Entry, LastChange
from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.kinds import sysctl
from module_utils.casemate.operations import revert

BEFORE = {"etc/one": "first\n", "etc/two": "first\n"}


class Machine:
    """A folder that is a machine; systemd is only noted, all else runs for real."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/bash\nalice:x:1001:1001::/home/alice:/bin/bash\n")
        for name, text in BEFORE.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)

    def run(self, name: str) -> None:
        """From now on the machine is changed by a run of this name."""
        lock = self.root / "var/lib/casemate/lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        record = {"run": name, "name": name, "what": "apply", "renewed": time.time(), "since": 0, "seconds": 900}
        lock.write_text(json.dumps(record))

    def guard(self) -> Guard:
        class Held(Guard):
            def _run(self, argv: Sequence[str]) -> str:
                return "" if argv[0] == "systemctl" else super()._run(argv)

        return Held(root=str(self.root))

    def change(self, note: str = "", **files: str | None) -> None:
        """What one role of a run does: guard, write, confirm."""
        guard = self.guard()
        guard.arm([f"/etc/{name}" for name in files], note=note)
        for name, text in files.items():
            path = self.root / "etc" / name
            path.unlink(missing_ok=True) if text is None else path.write_text(text)
        assert guard.confirm()

    def last(self) -> LastChange:
        return LastChange(AFTER, str(self.root))

    def planned(self) -> revert.Plan:
        last = self.last()
        return revert.plan(last.entries(), last.changed_since(), runs_k3s=False, gone=last.gone())

    def revert(self) -> revert.Plan:
        planned, guard = self.planned(), self.guard()
        if planned.back:
            revert.take_back(guard, self.last(), planned)
            assert guard.confirm()
        return planned

    def files(self) -> dict[str, str]:
        return {str(path.relative_to(self.root)): path.read_text() for path in sorted(self.root.glob("etc/???*"))
                if path.is_file() and path.name not in ("passwd", "shadow")}  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.run("one")
    return made


def test_what_all_roles_of_the_last_run_changed_goes_back(machine: Machine) -> None:
    machine.change(one="second\n", new="made\n")
    machine.change(two=None)
    machine.change(one="third\n")
    planned = machine.revert()
    assert {Path(entry.name).name for entry in planned.back} == {"one", "two", "new"}
    assert machine.files() == BEFORE


def test_only_the_last_run_goes_back(machine: Machine) -> None:
    machine.change(one="second\n")
    machine.run("two")
    machine.change(two="second\n")
    machine.revert()
    assert machine.files() == {"etc/one": "second\n", "etc/two": "first\n"}


def test_there_is_nothing_to_take_back_twice(machine: Machine) -> None:
    machine.change(one="second\n")
    machine.revert()
    assert machine.planned() == revert.Plan([], {})


def test_a_password_that_somebody_has_changed_since_is_theirs(machine: Machine) -> None:
    """To put back the old one would give whoever knew it the account again."""
    shadow = machine.root / "etc/shadow"
    shadow.write_text("alice:$y$old:19000::::::\n")
    (machine.root / "etc/group").write_text("video:x:44:alice\n")
    for day, sort in enumerate(("account", "person"), 19001):  # as two roles of one run
        guard = machine.guard()
        guard.arm(["alice"], sort)
        shadow.write_text(f"alice:!$y$old:{day}::::::\n")
        assert guard.confirm()
    assert machine.planned().stay == {}
    assert {one.sort for one in machine.planned().back} == {"account", "person"}
    shadow.write_text("alice:$y$new:19100::::::\n")
    assert machine.planned() == revert.Plan([], {"alice": revert.CHANGED})


def test_another_firewall_stays_off_where_k3s_is_and_ours_stays_for_it() -> None:
    unit = "/etc/systemd/system/casemate-firewall.service"
    names = {"file": ["/etc/ufw/ufw.conf", "/etc/casemate/firewall.nft", unit], "unit": ["ufw.service"]}
    entries = [Entry(number, sort, name) for sort in names for number, name in enumerate(names[sort])]
    assert set(revert.plan(entries, [], runs_k3s=True).stay) == {*names["file"], "ufw.service"}
    assert revert.plan(entries, [], runs_k3s=False).stay == {}
    alone = [one for one in entries if "ufw" not in one.name]
    assert revert.plan(alone, [], runs_k3s=True).stay == {}, "there was none before"


def test_a_revert_that_nobody_confirms_is_undone(machine: Machine) -> None:
    machine.change(one="second\n", new="made\n")
    guard = machine.guard()
    revert.take_back(guard, machine.last(), machine.planned())
    assert machine.files() == BEFORE
    assert guard.revert()
    assert machine.files() == {"etc/new": "made\n", "etc/one": "second\n", "etc/two": "first\n"}


def test_it_can_be_taken_back_again_then_and_only_then(machine: Machine) -> None:
    """A controller that dies in the middle of a revert must not take with it what there was before."""
    machine.change(one="second\n", two="second\n", new="made\n")
    (machine.root / "etc/two").write_text("somebody else's\n")
    planned, guard = machine.planned(), machine.guard()
    revert.take_back(guard, machine.last(), planned)
    assert guard.revert()
    assert machine.planned() == planned and planned.stay
    machine.revert()
    assert machine.files() == {"etc/one": "first\n", "etc/two": "somebody else's\n"}
    assert machine.planned() == revert.Plan([], {})
    machine.change(one="third\n")
    assert machine.guard().revert() is False and [one.name for one in machine.planned().back] == ["/etc/one"]


def test_so_it_can_where_putting_back_is_killed_on_its_way(machine: Machine) -> None:
    machine.change(one="second\n")
    planned, guard, last = machine.planned(), machine.guard(), machine.last()
    guard.arm(["/etc/one"])
    guard.final()
    last.set_aside()
    (machine.root / "var/lib/casemate/last/pending").rename(machine.root / "var/lib/casemate/last/reverting")
    (machine.root / "etc/one").write_text("half of")
    assert guard.revert()
    assert machine.planned() == planned
    machine.revert()
    assert machine.files() == BEFORE


def test_what_somebody_else_changed_since_stays(machine: Machine) -> None:
    machine.change(one="second\n", two="second\n")
    (machine.root / "etc/one").write_text("somebody else's\n")
    assert list(machine.revert().stay) == ["/etc/one"]
    assert machine.files() == {"etc/one": "somebody else's\n", "etc/two": "first\n"}


def test_what_went_with_its_package_keeps_nothing_else_from_going_back(machine: Machine) -> None:
    """The guard cannot keep the mode of what is not there, and would refuse all of it."""
    (machine.root / "etc/program").write_text("")
    (machine.root / "etc/shadow").write_text("alice:!:19000::::::\n")
    guard = machine.guard()
    guard.arm(["/etc/program", "/etc/one"], "mode")
    guard.arm(["alice"], "account")
    guard.arm(["/etc/one"])
    (machine.root / "etc/program").chmod(0o600)
    (machine.root / "etc/one").unlink()
    passwd = machine.root / "etc/passwd"
    passwd.write_text(passwd.read_text().replace("/bin/bash", "/usr/sbin/nologin"))
    assert guard.confirm()
    (machine.root / "etc/program").unlink()
    passwd.write_text("root:x:0:0::/root:/bin/bash\n")
    planned = machine.revert()
    assert planned.stay == {"/etc/program": revert.GONE, "alice": revert.GONE}
    assert (machine.root / "etc/one").read_text() == "first\n"


def test_another_mode_is_a_change_too(machine: Machine) -> None:
    machine.change(one="second\n")
    (machine.root / "etc/one").chmod(0o600)
    assert list(machine.planned().stay) == ["/etc/one"]


def test_what_was_guarded_and_did_not_change_is_not_told(machine: Machine) -> None:
    machine.change(one="second\n", two="first\n", never=None)
    assert [Path(entry.name).name for entry in machine.planned().back] == ["one"]


def test_what_packages_changed_stays_with_them(machine: Machine) -> None:
    machine.change(note=OF_PACKAGES, one="second\n")
    assert machine.planned() == revert.Plan([], {})


PAM = ["/etc/pam.d/common-auth", "/var/lib/pam/auth", "/var/lib/pam/seen", "/usr/share/pam-configs/casemate-su"]


@pytest.mark.parametrize(
    ("names", "changed", "stays"),
    [
        (PAM, [], []),
        (PAM[1:], [], PAM[1:]),  # the first of them came with a package
        (PAM[3:], [], PAM[3:]),  # all of them but the profile did
        (PAM, PAM[:1], PAM),
        (["/etc/pam.d/common-password", *PAM], [], ["/etc/pam.d/common-password", *PAM]),
        (["/etc/pam.d/su", "/usr/share/pam-configs/theirs"], [], []),
    ],
)
def test_what_pam_auth_update_made_goes_back_whole_or_stays(
    names: list[str], changed: list[str], stays: list[str]
) -> None:
    entries = [Entry(number, "file", name) for number, name in enumerate(["/etc/other", *names])]
    planned = revert.plan(entries, changed, runs_k3s=False)
    assert set(planned.stay) == set(stays)
    assert [one.name for one in planned.back] == ["/etc/other", *(name for name in names if name not in stays)]


def test_a_change_that_the_host_undid_is_no_last_change(machine: Machine) -> None:
    machine.change(one="second\n")
    machine.run("two")
    guard = machine.guard()
    guard.arm(["/etc/two"])
    (machine.root / "etc/two").write_text("second\n")
    guard.revert()
    assert [Path(entry.name).name for entry in machine.planned().back] == ["one"]


@pytest.mark.parametrize("killed", ["before it was handed over", "half way"])
def test_a_confirmation_that_was_killed_is_handed_over_by_the_next(machine: Machine, killed: str) -> None:
    guard = machine.guard()
    guard.arm(["/etc/one", "/etc/two"])
    for name in ("one", "two"):
        (machine.root / "etc" / name).write_text("second\n")
    assert guard.claim()
    if killed == "half way":
        last, confirmed = machine.last(), Path(guard.confirmed)
        Path(last.pending).mkdir(parents=True)
        (Path(last.pending) / "run").write_text("one")
        (confirmed / "0").rename(Path(last.pending) / "0")
        (Path(last.pending) / "0/applied").write_text("")
    assert not machine.guard().confirm()
    assert {Path(entry.name).name for entry in machine.last().entries()} == {"one", "two"}


def test_a_full_disk_keeps_no_change_from_being_confirmed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(LastChange, "take_over", full)
    machine.change(one="second\n")
    assert not machine.guard().status()["pending"]


def test_what_cannot_go_back_leaves_all_as_it_was(machine: Machine) -> None:
    machine.change(one="second\n", two="second\n")
    last = machine.last()
    Path(last.pending, "0", "data").unlink()
    guard = machine.guard()
    with pytest.raises(EnforceError, match="is as it was before"):
        revert.take_back(guard, machine.last(), machine.planned())
    assert machine.files() == {"etc/one": "second\n", "etc/two": "second\n"}


def test_a_kubelet_keeps_the_values_that_it_starts_with() -> None:
    entries = [Entry(0, "file", sysctl.OWNED), Entry(1, "value", "/proc/sys/vm/overcommit_memory"),
               Entry(2, "file", "/etc/issue")]  # fmt: skip
    assert revert.plan(entries, [], runs_k3s=True).back == entries[2:]
    assert set(revert.plan(entries, [], runs_k3s=True).stay.values()) == {revert.NEEDED}
    assert revert.plan(entries, [], runs_k3s=False).back == entries
