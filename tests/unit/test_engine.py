"""The engine: one pass, honest findings, and nothing touched before everything is well-formed."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.schema import ControlError
from module_utils.casemate.core.verdict import Unavailable, Verdict
from module_utils.casemate.engine.run import foreseen, run
from module_utils.casemate.kinds import KINDS, file, sysctl

TODAY = datetime.date(2027, 1, 31)
KEYS = {
    "control", "title", "role", "kind", "severity", "level", "status", "code", "action", "expected", "observed",
    "before", "after", "reason", "where", "evidence", "mitigations", "refs", "waiver",
}  # fmt: skip
root = pytest.mark.skipif(os.geteuid() != 0, reason="owned files are root's")


def control(cid: str, setting: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": cid,
        "title": "Title of it",
        "why": "Because it matters.",
        "severity": "high",
        "level": "baseline",
        "applies_to": ["node"],
        "mitigations": ["T1.2"],
        "setting": setting,
        **more,
    }


def owned(cid: str = "FILE-A-SET", path: str = "/etc/a", **more: Any) -> dict[str, Any]:
    return control(cid, {"kind": "file", "path": path, "content": "good\n", "mode": "0600", **more})


def instead(monkeypatch: Any, **parts: Any) -> None:
    """Give the kind of files other parts."""
    monkeypatch.setitem(KINDS, "file", dataclasses.replace(KINDS["file"], **parts))


def settle(host: FakeHost, *controls: dict[str, Any], check: bool = False, **more: Any) -> Any:
    return run({"k3s_host": controls}, host, check, today=TODAY, **more)


def one(host: FakeHost, *controls: dict[str, Any], **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = settle(host, *controls, **more).findings[0]
    assert set(found) == KEYS
    return found


def tree(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mode, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


@root
def test_check_says_what_apply_does_and_touches_nothing(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/etc/b": "evil", "/proc/sys/kernel/panic": "0\n"})
    controls = [
        owned(),
        owned("FILE-B-SET", "/etc/b"),
        control("SYSCTL-P-SET", {"kind": "sysctl", "key": "kernel.panic", "value": 10}),
        control("FILE-C-ABSENT", {"kind": "file", "path": "/etc/c", "state": "absent"}),
    ]
    before = tree(tmp_path)
    plan = settle(host, *controls, check=True)
    assert (tree(tmp_path), host.changes, plan.changed, plan.roles_to_apply) == (before, [], False, ["k3s_host"])
    done = settle(host, *controls)
    planned = [f["control"] for f in plan.findings if f["action"] == "would_change"]
    assert (
        planned == [f["control"] for f in done.findings if f["action"] == "changed"] == [c["id"] for c in controls[:3]]
    )
    for said, did in zip(plan.findings, done.findings, strict=True):
        assert (said["before"], said["expected"], did["status"]) == (did["before"], did["expected"], "pass")
    after = tree(tmp_path)
    again = settle(FakeHost(tmp_path), *controls)
    assert (again.changed, again.roles_to_apply, tree(tmp_path)) == (False, [], after)
    assert {(f["status"], f["action"]) for f in again.findings} == {("pass", "none")}


@root
def test_what_check_foretells_is_shown_as_a_diff(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/etc/b": "evil\n", "/proc/sys/kernel/panic": "0\n", "/var/lib/dpkg/status": ""})
    controls = [
        owned(),
        owned("FILE-B-SET", "/etc/b", owner="root"),
        control("SYSCTL-P-SET", {"kind": "sysctl", "key": "kernel.panic", "value": 10}),
        control("FILE-C-ABSENT", {"kind": "file", "path": "/etc/c", "state": "absent"}),
        control("PACKAGE-A-PRESENT", {"kind": "package", "name": "a", "state": "present"}),
    ]
    law, plan = {"k3s_host": controls}, settle(host, *controls, check=True)
    shown = {(d["before_header"], d["before"], d["after"]) for d in foreseen(law, plan.findings, host)}
    mode = f"mode: {os.stat(tmp_path / 'etc/b').st_mode & 0o7777:04o}\nowner: root\nstate: file\n"
    assert {d[0] for d in shown} == {
        "/etc/a (FILE-A-SET)", "/etc/b (FILE-B-SET)", "kernel.panic (SYSCTL-P-SET)", "a (PACKAGE-A-PRESENT)",
    }  # fmt: skip
    assert ("/etc/a (FILE-A-SET)", "", "good\n") in shown
    assert ("/etc/a (FILE-A-SET)", "state: absent\n", "mode: 0600\nstate: file\n") in shown
    assert ("/etc/b (FILE-B-SET)", "evil\n", "good\n") in shown
    assert ("/etc/b (FILE-B-SET)", mode, mode.replace(mode[:10], "mode: 0600")) in shown
    assert ("kernel.panic (SYSCTL-P-SET)", "live: 0\nnext boot: null\n", "10\n") in shown
    applied = settle(host, *controls)
    assert foreseen(law, applied.findings, host) == []


@root
@pytest.mark.parametrize("old", ["canary-1\n", None])
def test_a_diff_shows_nothing_secret(tmp_path: Path, old: str | None) -> None:
    host = FakeHost(tmp_path, {"/etc/a": old} if old else {})
    secret = owned(content="canary-2\n", sensitive=True)
    plan = settle(host, secret, check=True)
    shown = foreseen({"k3s_host": [secret]}, plan.findings, host)
    assert "canary" not in json.dumps(shown)
    assert "content: hmac:" in shown[0]["after"] and shown[0]["before"] != shown[0]["after"]
    assert "mode: 0600\n" in shown[0]["after"]  # what is no secret says what differs


@root
@pytest.mark.parametrize(("old", "says"), [("x" * 200_000, "200000 characters"), ("a\0b", "not text")])
def test_a_diff_is_not_larger_than_people_read(tmp_path: Path, old: str, says: str) -> None:
    host = FakeHost(tmp_path, {"/etc/a": old})
    plan = settle(host, owned(), check=True)
    shown = foreseen({"k3s_host": [owned()]}, plan.findings, host)
    assert len(json.dumps(shown)) < 1000
    assert any(says in d["before"] and d["after"] == "good\n" for d in shown)


def test_a_control_whose_values_agree_shows_why_it_is_wrong(tmp_path: Path, monkeypatch: Any) -> None:
    instead(
        monkeypatch,
        assess=lambda *_: Verdict(
            ok=False, expected={"a": 1}, observed={"a": 1}, reason="k3s still runs with the older"
        ),
    )
    host = FakeHost(tmp_path, {"/etc/a": "good\n"})
    plan = settle(host, owned(), check=True)
    (shown,) = foreseen({"k3s_host": [owned()]}, plan.findings, host)
    assert (shown["before"], shown["after"]) == ("a: 1\nwrong: k3s still runs with the older\n", "a: 1\n")


def test_the_firewall_shows_its_rules(tmp_path: Path) -> None:
    rules = control("FW-RULES-LOADED", {"kind": "nft", "ruleset": "table inet casemate {}\n"})
    host = FakeHost(tmp_path, {"/etc/casemate/firewall.nft": "old\n"}, {"nft": (1, "", "")})
    host.commands["unshare"] = (0, '{"nftables": []}', "")
    plan = settle(host, rules, check=True)
    assert plan.findings[0]["action"] == "would_change"
    shown = foreseen({"k3s_host": [rules]}, plan.findings, host)
    assert [(d["before"], d["after"]) for d in shown] == [
        ("old\n", "table inet casemate {}\n"),
        ("no such table\n", "the table inet casemate\n"),
    ]


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (control("BAD-KIND-SET", {"kind": "shell", "cmd": "rm"}), "BAD-KIND-SET.setting.kind: unknown kind 'shell'"),
        (owned(colour="red"), "FILE-A-SET.setting.colour: unknown"),
        (owned(), "FILE-A-SET: declared twice"),
        (owned("FILE-A-AGAIN"), "FILE-A-AGAIN: shares the setting file:/etc/a with FILE-A-SET"),
    ],
)
def test_what_is_malformed_is_refused_before_anything_is_observed(
    tmp_path: Path, monkeypatch: Any, bad: dict[str, Any], named: str
) -> None:
    looked: list[Any] = []
    instead(monkeypatch, observe=lambda *a: looked.append(a))
    with pytest.raises(ControlError, match=named):
        settle(FakeHost(tmp_path), owned(), bad)
    assert looked == []


@pytest.mark.parametrize("where", ["observe", "assess"])
@pytest.mark.parametrize("crash", [ValueError("boom"), KeyError("x"), PermissionError("no")])
def test_a_kind_that_crashes_is_an_error_and_never_a_pass(
    tmp_path: Path, monkeypatch: Any, where: str, crash: Exception
) -> None:
    def broken(*_: Any) -> Any:
        raise crash

    instead(monkeypatch, **{where: broken})
    host = FakeHost(tmp_path, {"/proc/sys/kernel/x": "1\n", "/etc/sysctl.d/1.conf": "kernel.x=1"})
    other = control("SYSCTL-X-SET", {"kind": "sysctl", "key": "kernel.x", "value": 1})
    made = {f["control"]: f for f in settle(host, owned(), other).findings}
    assert (made["FILE-A-SET"]["status"], made["SYSCTL-X-SET"]["status"]) == ("error", "pass")
    assert type(crash).__name__ in made["FILE-A-SET"]["reason"]


def test_a_kind_that_forgets_a_setting_is_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    instead(monkeypatch, observe=lambda *_: [])
    assert one(FakeHost(tmp_path), owned())["status"] == "error"


@pytest.mark.parametrize("crash", [ValueError("boom"), OSError(28, "No space left on device", "/etc/a")])
def test_a_kind_that_crashes_while_enforcing_is_blocked(tmp_path: Path, monkeypatch: Any, crash: Exception) -> None:
    def broken(*_: Any) -> None:
        raise crash

    instead(monkeypatch, enforce=broken)
    made = one(FakeHost(tmp_path), owned())
    assert (made["status"], made["action"]) == ("fail", "blocked")
    assert str(crash.args[-1]).split("/")[0] in made["reason"] or "No space" in made["reason"]


@pytest.mark.parametrize("place", ["raised", "returned", "assess"])
def test_what_cannot_be_had_is_not_evaluated(tmp_path: Path, monkeypatch: Any, place: str) -> None:
    lacking = Unavailable("kernel", "read-only here")

    def missing(*_: Any) -> Any:
        raise lacking

    if place == "returned":
        instead(monkeypatch, observe=lambda *_: [lacking])
    else:
        instead(monkeypatch, **{"observe" if place == "raised" else "assess": missing})
    made = one(FakeHost(tmp_path), owned())
    assert (made["status"], made["action"], made["reason"]) == ("not_evaluated", "none", "kernel: read-only here")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"needs": ["apparmor"]}, "apparmor:"),
        ({"needs": ["modules"]}, "modules:"),
        ({"needs": ["api_semantics"]}, "api_semantics:"),
        ({"vantage": "stranger"}, "vantage:"),
    ],
)
def test_what_this_machine_lacks_is_said(tmp_path: Path, more: dict[str, Any], reason: str) -> None:
    host = FakeHost(tmp_path, {"/etc/a": "good\n"}, context={"capabilities": []})
    made = one(host, control("FILE-A-SET", {"kind": "file", "path": "/etc/a"}, **more))
    assert made["status"] == "not_evaluated"
    assert made["reason"].startswith(reason)


WAIVER = {"reason": "why not", "owner": "me", "expires": "2027-01-31"}


def test_a_valid_waiver_keeps_the_host_as_it_is(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    result = settle(host, owned(), waivers={"FILE-A-SET": WAIVER})
    made = result.findings[0]
    assert (made["status"], made["action"], made["waiver"]) == ("waived", "none", WAIVER)
    assert (result.roles_to_apply, host.read("/etc/a")) == ([], None)


@root
def test_an_expired_waiver_counts_as_none_and_says_since_when(tmp_path: Path) -> None:
    host, waivers = FakeHost(tmp_path), {"FILE-A-SET": {**WAIVER, "expires": "2027-01-30"}}
    planned = one(host, owned(), check=True, waivers=waivers)
    assert (planned["status"], planned["action"]) == ("fail", "would_change")
    assert planned["reason"] == "the waiver expired on 2027-01-30; it is missing"
    made = one(host, owned(), waivers=waivers)
    assert (made["status"], made["action"], made["waiver"]) == ("pass", "changed", None)


def test_a_waiver_holds_to_the_end_of_its_day_by_the_controllers_clock(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, context={"today": "2027-02-01"})
    for ends, status in (("2027-02-01", "waived"), ("2027-01-31", "fail")):
        waivers = {"FILE-A-SET": {**WAIVER, "expires": ends}}
        assert run({"r": [owned()]}, host, True, waivers).findings[0]["status"] == status


@root
def test_a_waiver_of_what_passes_is_not_shown(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/etc/a": "x"})
    passing = control("FILE-A-SET", {"kind": "file", "path": "/etc/a"})
    made = one(host, passing, waivers={"FILE-A-SET": WAIVER})
    assert (made["status"], made["waiver"]) == ("pass", None)


@pytest.mark.parametrize("waiver", [{"reason": "x"}, {"expires": "soon"}, {"expires": ""}])
def test_a_waiver_without_a_date_is_refused(tmp_path: Path, waiver: dict[str, str]) -> None:
    with pytest.raises(ControlError, match="FILE-A-SET"):
        settle(FakeHost(tmp_path), owned(), waivers={"FILE-A-SET": waiver})


@root
def test_a_waived_setting_stays_out_of_the_owned_file(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/proc/sys/kernel/a": "0\n", "/proc/sys/kernel/b": "0\n"})
    controls = [control(f"SYSCTL-{k.upper()}-SET", {"kind": "sysctl", "key": f"kernel.{k}", "value": 1}) for k in "ab"]
    settle(host, *controls, waivers={"SYSCTL-B-SET": WAIVER})
    assert ("kernel.a = 1" in (host.text(sysctl.OWNED) or ""), host.read("/proc/sys/kernel/b")) == (True, b"0\n")
    assert "kernel.b" not in (host.text(sysctl.OWNED) or "")


def test_a_pass_with_only_waived_failures_writes_and_restarts_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    files = {"/proc/sys/kernel/a": "1\n", "/proc/sys/kernel/b": "0\n", "/etc/sysctl.d/1.conf": "kernel.a = 1\n"}
    host = FakeHost(tmp_path, files)
    controls = [control(f"SYSCTL-{k.upper()}-SET", {"kind": "sysctl", "key": f"kernel.{k}", "value": 1}) for k in "ab"]
    instead(monkeypatch, assess=lambda *_: Verdict(ok=False, expected="a", observed="b", stale=("k3s.service",)))
    waivers = {"SYSCTL-B-SET": WAIVER, "FILE-A-SET": WAIVER}
    result = settle(host, *controls, owned(), waivers=waivers)
    assert (host.changes, host.read(sysctl.OWNED), result.stale, result.changed) == ([], None, [], False)


@pytest.mark.parametrize(("knob", "status"), [(14, "pass"), (8, "fail"), ("8", "fail"), ("x", "fail")])
def test_a_knob_beyond_its_bound_fails_although_the_host_obeys_it(tmp_path: Path, knob: Any, status: str) -> None:
    host = FakeHost(tmp_path, {"/etc/a": "x"})
    bounded = control("FILE-A-SET", {"kind": "file", "path": "/etc/a"}, bound={"min": 14, "of": knob})
    assert one(host, bounded)["status"] == status
    assert one(host, bounded, waivers={"FILE-A-SET": WAIVER})["status"] in (status, "waived")


@root
def test_a_sensitive_value_is_only_a_digest(tmp_path: Path, monkeypatch: Any) -> None:
    instead(
        monkeypatch,
        assess=lambda *_: Verdict(ok=False, expected="canary-1", observed={"is": "canary-2"}, reason="it differs"),
    )
    made = one(FakeHost(tmp_path), owned(sensitive=True), check=True)
    assert "canary" not in json.dumps(made)
    assert made["expected"].startswith("hmac:") and made["expected"] != made["observed"]


@root
def test_a_refused_change_is_blocked_with_the_reason_and_the_old_bytes(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/etc/a": "old"}, {"visudo": (1, "", "syntax error")})
    made = one(host, owned(validate=["visudo", "-cf", "%s"]))
    assert (made["status"], made["action"], host.read("/etc/a")) == ("fail", "blocked", b"old")
    assert "syntax error" in made["reason"]


@root
def test_observe_only_settings_are_never_changed(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/etc/a": "old"})
    assert one(host, owned(enforced=False), check=True)["action"] == "none"
    made = one(host, owned(enforced=False))
    assert (made["status"], made["action"], host.read("/etc/a")) == ("fail", "none", b"old")


def test_what_a_task_enforces_is_planned_and_left_to_the_task(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/var/lib/dpkg/status": ""})
    package = control("PACKAGE-A-PRESENT", {"kind": "package", "name": "a", "state": "present"})
    assert one(host, package, check=True)["action"] == "would_change"
    assert one(host, package)["action"] == "blocked"


@pytest.mark.parametrize(
    ("still_enforced", "more", "action", "roles"),
    [
        (False, {}, "blocked", []),
        (True, {}, "blocked", ["k3s_host"]),
        (False, {"enforced": False}, "none", []),
        (True, {"enforced": False}, "none", []),
    ],
)
def test_what_somebody_else_decides_is_blocked_in_check_as_in_apply(
    tmp_path: Path, monkeypatch: Any, still_enforced: bool, more: dict[str, Any], action: str, roles: list[str]
) -> None:
    tried: list[Any] = []
    instead(
        monkeypatch,
        assess=lambda *_: Verdict(
            ok=False, expected="a", observed="b", reason="/x:1", blocked_by="/x:1", still_enforced=still_enforced
        ),
    )
    instead(monkeypatch, enforce=lambda _, todo, host: tried.append(todo))
    plan, done = (settle(FakeHost(tmp_path), owned(**more), check=check) for check in (True, False))
    for one in (plan.findings[0], done.findings[0]):
        assert (one["status"], one["action"], one["reason"], one["after"]) == ("fail", action, "/x:1", "b")
    assert (plan.roles_to_apply, done.roles_to_apply, bool(tried)) == (roles, [], bool(roles))


def test_a_waived_control_is_blocked_by_nobody_and_its_kind_knows(tmp_path: Path, monkeypatch: Any) -> None:
    received: list[Any] = []

    def observe(settings: list[dict[str, Any]], _: Any, waived: set[int]) -> list[dict[str, Any]]:
        received.append(waived)
        return [{} for _ in settings]

    instead(monkeypatch, observe=observe)
    instead(
        monkeypatch,
        assess=lambda *_: Verdict(ok=False, expected="a", observed="b", blocked_by="/x:1", still_enforced=True),
    )
    made = settle(FakeHost(tmp_path), owned(), check=True, waivers={"FILE-A-SET": WAIVER})
    assert (made.findings[0]["status"], made.findings[0]["action"], made.roles_to_apply) == ("waived", "none", [])
    assert received[0] == {0}


def test_stale_units_are_returned(tmp_path: Path, monkeypatch: Any) -> None:
    instead(monkeypatch, assess=lambda *_: Verdict(ok=False, expected="a", observed="b", stale=("k3s.service",)))
    assert settle(FakeHost(tmp_path), owned(), owned("FILE-B-SET", "/etc/b"), check=True).stale == ["k3s.service"]


def test_findings_come_in_the_order_of_the_catalogue(tmp_path: Path) -> None:
    controls = [
        control("PACKAGE-A-ABSENT", {"kind": "package", "name": "a", "state": "absent"}),
        owned(),
        control("SYSCTL-X-SET", {"kind": "sysctl", "key": "kernel.x", "value": 1}, needs=["apparmor"]),
    ]
    found = settle(FakeHost(tmp_path), *controls, check=True).findings
    assert [f["control"] for f in found] == [c["id"] for c in controls]


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_is_whole(name: str) -> None:
    kind = KINDS[name]
    assert kind.enforced_by in ("engine", "task", None)
    assert all(callable(part) for part in (kind.identity, kind.observe, kind.assess)) and kind.schema
    assert (kind.enforce is not None) == (kind.enforced_by == "engine")
    assert "kind" not in kind.schema


def server_config(**more: Any) -> dict[str, Any]:
    setting = {
        "kind": "k3s_config",
        "file": "casemate-k3s_node.yaml",
        "options": {"server": "https://a:6443"},
        "gate": True,
    }
    return control("NODE-A-SET", {**setting, **more})


@root
def test_a_write_that_is_refused_is_told_apart_from_what_a_restart_clears(tmp_path: Path, monkeypatch: Any) -> None:
    """By the pass, whatever the words: with this list K3s is started or not."""
    host = FakeHost(tmp_path, {"/etc/rancher/k3s/config.yaml.d/x": ""})
    made = settle(host, owned(), server_config())
    assert (made.unsettled, made.barred) == ([], [])

    def full(*_: object, **__: object) -> tuple[int, str]:
        raise OSError(28, "No space left on device", "/proc/1/fd/3/.casemate-x")

    monkeypatch.setattr("tempfile.mkstemp", full)
    for place, wanted in (("file", owned()), ("k3s", server_config())):
        made = settle(FakeHost(tmp_path / place, {"/etc/rancher/k3s/config.yaml.d/x": ""}), wanted)
        assert len(made.unsettled) == 1 and "No space left on device" in made.unsettled[0]
        assert ("/etc/a" if place == "file" else "casemate-k3s_node.yaml") in made.unsettled[0]
        assert "/proc/" not in made.unsettled[0]
        assert bool(made.barred) is (place == "k3s")


@root
def test_what_somebody_else_decides_is_no_refused_write_but_bars_where_it_is_a_gate(tmp_path: Path) -> None:
    theirs = {"/etc/rancher/k3s/config.yaml.d/zz.yaml": "server: https://b:6443\n"}
    made = settle(FakeHost(tmp_path, theirs), server_config())
    assert made.unsettled == [] and len(made.barred) == 1
    waived = {"NODE-A-SET": {"reason": "r", "owner": "o", "expires": "2027-12-31"}}
    assert settle(FakeHost(tmp_path / "b", theirs), server_config(), waivers=waived).barred == []


def test_a_control_that_could_not_be_judged_is_unsettled(tmp_path: Path, monkeypatch: Any) -> None:
    instead(monkeypatch, observe=lambda settings, host, waived: [][0])
    [said] = settle(FakeHost(tmp_path), owned()).unsettled
    assert said.startswith("FILE-A-SET: IndexError")


def test_a_check_says_what_the_tasks_have_to_act_on(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/var/lib/dpkg/status": ""})
    package = control("PACKAGE-A-PRESENT", {"kind": "package", "name": "a", "state": "present"})
    assert list(settle(host, package, check=True).todo) == ["PACKAGE-A-PRESENT"]
    assert settle(host, package).todo == {}


@pytest.mark.parametrize(
    ("today", "status"), [("2026-12-31", "waived"), ("2027-01-01", "waived"), ("2027-01-02", "fail")]
)
def test_a_waiver_ends_on_the_day_that_the_controller_has(tmp_path: Path, today: str, status: str) -> None:
    """A host without a clock would never see it end, or would end it years too early."""
    host = FakeHost(tmp_path, context={"today": today})
    controls = [owned("FILE-A-SET")]
    waivers = {"FILE-A-SET": {"reason": "r", "owner": "o", "expires": "2027-01-01"}}
    assert run({"k3s_host": controls}, host, True, waivers).findings[0]["status"] == status


@pytest.mark.parametrize("command", file.RELOADS[1:])
def test_a_reload_that_is_refused_is_told_although_the_file_is_right(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = "/etc/systemd/x.conf.d/casemate.conf"
    setting = {"kind": "file", "path": path, "mode": "0644", "content": "right\n", "reload": command}
    other = {"kind": "file", "path": "/etc/a.conf", "mode": "0644", "content": "x\n"}
    host = FakeHost(tmp_path, {path: "wrong\n"}, {" ".join(command): (1, "", "Access denied")})
    controls = [control("TEST-A-SET", other), control("TEST-B-SET", setting)]
    done = run({"role": controls}, host, False)
    first, refused = done.findings
    assert host.text(path) == "right\n"
    assert (first["status"], first["action"]) == ("pass", "changed")
    assert (refused["status"], refused["action"]) == ("fail", "blocked")
    assert f"{' '.join(command)} failed: Access denied" in refused["reason"]
    assert done.unsettled == [refused["reason"]]


@root
@pytest.mark.parametrize(
    ("release", "judged"),
    [
        ('ID=debian\nVERSION_ID="12"\n', ["FILE-A-SET", "FILE-B-SET"]),
        ("ID=debian\nVERSION_ID='13'\n", ["FILE-A-SET"]),
        ('ID=ubuntu\nVERSION_ID="24.04"\n', ["FILE-A-SET"]),
        ("", ["FILE-A-SET"]),
    ],
)
def test_a_control_for_other_systems_is_not_judged(tmp_path: Path, release: str, judged: list[str]) -> None:
    host = FakeHost(tmp_path, {"/etc/os-release": release, "/etc/b": "theirs\n"})
    done = settle(host, owned(), {**owned("FILE-B-SET", "/etc/b"), "os": ["debian11", "debian12"]})
    assert [made["control"] for made in done.findings] == judged
    assert (host.text("/etc/b") == "good\n") == ("FILE-B-SET" in judged)


def test_who_looks_from_outside_asks_for_no_k3s_of_its_own(tmp_path: Path) -> None:
    """The controller looks at each node: its own units say nothing of them, and asking costs for each."""
    signed = {"kind": "artifact", "aspect": "signature", "lock": "/lock", "allowed_signers": "", "enforced": False}
    host = FakeHost(tmp_path, commands={"systemctl show k3s": (0, "ActiveState=active\n", "")})
    outcome = settle(host, control("NODE-LOCK-SIGNED", signed), check=True, from_outside=True)
    assert outcome.findings[0]["status"] == "fail"
    assert not outcome.runs_k3s
    assert host.ran == []
    assert settle(host, control("NODE-LOCK-SIGNED", signed), check=True).runs_k3s
