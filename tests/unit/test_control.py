"""Controls: what is malformed is refused by name, all at once."""

from __future__ import annotations

from typing import Any

import pytest

from module_utils.casemate.core.schema import TYPES, ControlError, Field, problem
from module_utils.casemate.engine.control import out_of_bound, parse, parse_all, wrong


def raw(**changes: Any) -> dict[str, Any]:
    made = {
        "id": "SYSCTL-PANIC-SET",
        "title": "A panicked node reboots",
        "why": "A node that hangs serves nobody.",
        "severity": "high",
        "level": "baseline",
        "applies_to": ["node"],
        "mitigations": ["T1.2"],
        "setting": {"kind": "sysctl", "key": "kernel.panic", "value": 10},
    }
    made.update(changes)
    return {name: value for name, value in made.items() if value != "remove"}


def test_a_good_control_is_parsed() -> None:
    control = parse(raw(needs=["kernel"], cost="scan", role="k3s_host"))
    assert (control.identity, control.needs, control.cost) == ("sysctl:kernel.panic", ("kernel",), "scan")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"id": "sysctl-panic"}, "does not match"),
        ({"id": 7}, "7.id"),
        ({"title": "x"}, ".title"),
        ({"why": "remove"}, ".why: missing"),
        ({"severity": "urgent"}, ".severity"),
        ({"level": "paranoid"}, ".level"),
        ({"applies_to": []}, ".applies_to"),
        ({"applies_to": ["everywhere"]}, "'everywhere'"),
        ({"mitigations": ["T9.1"]}, "'T9.1'"),
        ({"mitigations": []}, ".mitigations"),
        ({"vantage": "moon"}, ".vantage"),
        ({"cost": "free"}, ".cost"),
        ({"settings": {}}, ".settings: unknown"),
        ({"setting": "remove"}, ".setting: missing"),
        ({"setting": []}, ".setting"),
        ({"setting": {"kind": "shell", "cmd": "x"}}, "unknown kind 'shell'; known: accepted_lock, account"),
        ({"setting": {"key": "kernel.panic", "value": 1}}, "unknown kind None"),
        ({"setting": {"kind": "sysctl", "value": 1}}, ".setting.key: missing"),
        ({"setting": {"kind": "sysctl", "key": "kernel.panic", "value": 1, "valeu": 2}}, ".setting.valeu: unknown"),
        ({"setting": {"kind": "sysctl", "key": "../etc/passwd", "value": 1}}, "does not match"),
        ({"setting": {"kind": "sysctl", "key": "kernel.panic", "value": [1]}}, "must be of type scalar"),
        ({"setting": {"kind": "file", "path": "relative"}}, ".setting.path"),
        ({"setting": {"kind": "file", "path": "/a", "mode": "644"}}, ".setting.mode"),
        ({"setting": {"kind": "file", "path": "/a", "mode": 420}}, "must be of type str"),
        ({"bound": {"min": 1}}, ".bound.of: missing"),
        ({"os": ["Debian 12"]}, ".os: 'Debian 12' is not a system and its version such as debian12"),
        ({"os": "debian12"}, ".os: must be of type list"),
        ({"refs": {"cis_debian12": "5.1.20"}}, ".refs.cis_debian12: '5.1.20' is not a list of sections"),
        ({"refs": {"cis_debian12": []}}, ".refs.cis_debian12: [] is not a list of sections"),
    ],
)
def test_a_malformed_control_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    faults = wrong(raw(**change))
    assert any(named in fault for fault in faults), faults
    with pytest.raises(ControlError):
        parse(raw(**change))


@pytest.mark.parametrize("junk", [None, 7, "x", [], {}])
def test_what_is_no_control_at_all_is_refused(junk: Any) -> None:
    assert wrong(junk)


def test_all_faults_of_all_controls_are_named_at_once() -> None:
    other = raw(id="OTHER-THING-SET", setting={"kind": "sysctl", "key": "kernel.other", "value": 1})
    with pytest.raises(ControlError) as refused:
        parse_all([raw(level="x"), raw(id="BAD-KIND-SET", setting={"kind": "x"}), other, {**other}])
    for part in ("SYSCTL-PANIC-SET.level", "BAD-KIND-SET.setting.kind", "OTHER-THING-SET: declared twice"):
        assert part in str(refused.value)


def test_no_two_controls_share_a_setting() -> None:
    with pytest.raises(ControlError, match=r"SYSCTL-PANIC-TWO: shares the setting sysctl:kernel\.panic with"):
        parse_all([raw(), raw(id="SYSCTL-PANIC-TWO")])


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ({"min": 14, "of": 14}, ""),
        ({"min": 14, "of": 13}, "at least 14"),
        ({"min": 14, "of": "13"}, "at least 14"),
        ({"min": 14, "of": "15"}, ""),
        ({"max": 60, "of": 61}, "at most 60"),
        ({"min": 1, "of": "x"}, "a number"),
        ({"min": 1, "of": None}, "a number"),
        ({"one_of": ["027"], "of": "027"}, ""),
        ({"one_of": ["027"], "of": "022"}, "one of"),
    ],
)
def test_bounds(bound: dict[str, Any], said: str) -> None:
    found = out_of_bound(parse(raw(bound=bound)))
    assert (found == "") is (said == "")
    assert said in found


def test_without_a_bound_every_knob_is_within() -> None:
    assert out_of_bound(parse(raw())) == ""


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [("int", 1, True), ("int", 0, "1"), ("bool", True, 1), ("str", "", 1), ("list", (), "ab"), ("dict", {}, [])],
)
def test_types_are_exact(kind: str, good: Any, bad: Any) -> None:
    assert kind in TYPES
    assert problem(good, Field(kind)) is None
    assert problem(bad, Field(kind)) is not None
