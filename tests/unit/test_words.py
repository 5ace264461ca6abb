"""What a person reads of a finding on one line."""

from __future__ import annotations

import re
from typing import Any

import pytest
from unit import made

from casemate.report import findings, words

LONG = "/" + "/".join(f"folder-{n}" for n in range(60)) + "/the-end"
REMEDY = "remove it there, or run `k3s secrets-encrypt enable` on one server, then restart the others one by one " * 3


def finding(**given: Any) -> findings.Finding:
    return made.finding(**{"status": "fail", "action": "would_change", **given})


@pytest.mark.parametrize(
    ("given", "difference"),
    [
        ({"expected": "no", "observed": "yes"}, "expected no, is yes"),
        ({"expected": "no", "observed": ""}, "expected no, is nothing"),
        ({"expected": 1, "observed": None}, "expected 1, is nothing"),
        ({"expected": ["a"], "observed": ["b", "c"]}, 'expected ["a"], is ["b", "c"]'),
        ({"expected": {"a": 1, "b": 2}, "observed": {"a": 1, "b": 3}}, "b: expected 2, is 3"),
        ({"expected": {"a": {"b": {"c": 1}}}, "observed": {"a": {"b": {"c": 2}}}}, "a.b.c: expected 1, is 2"),
        ({"expected": {"a": 1}, "observed": {}}, "a: expected 1, is nothing"),
        ({"expected": {}, "observed": {}, "reason": "k3s runs with an older one"}, "k3s runs with an older one"),
        ({"expected": {"a": 1}, "observed": {"a": 1}, "reason": "stale"}, "stale"),
        ({"expected": [], "observed": ["games"], "reason": "games is bad"}, "games is bad"),
        ({"expected": "absent", "observed": "/etc/a", "reason": "it is there"},
         "expected absent, is /etc/a; it is there"),
        ({"expected": {"mode": "0600"}, "observed": {"mode": "0644"}, "reason": "/a: mode is 0644, not 0600"},
         "/a: mode is 0644, not 0600"),
        ({"expected": {"mode_max": "0600"}, "observed": {"mode": "0644"}, "reason": "/a: mode 0644 is too much"},
         "/a: mode 0644 is too much"),
        ({"expected": {"content": "sha256:1"}, "observed": {"content": "sha256:2"}, "reason": "/a: it differs"},
         "/a: it differs"),
        ({"expected": {"spec": "large"}, "observed": ["x"], "reason": "/api/v1/x spec: is a, not b"},
         "/api/v1/x spec: is a, not b"),
        ({"expected": "a", "observed": "b", "action": "blocked", "evidence": "/etc/x:3"},
         "expected a, is b; seen by: /etc/x:3"),
        ({"expected": "a", "observed": "b", "action": "none", "evidence": "/etc/x:3", "reason": "by /etc/x:3"},
         "expected a, is b; by /etc/x:3"),
        ({"expected": "a\n b", "observed": "c"}, "expected a b, is c"),
    ],
)  # fmt: skip
def test_a_difference_says_what_is_and_what_should_be_and_nothing_twice(given: dict[str, Any], difference: str) -> None:
    assert words.difference(finding(**given)) == difference


@pytest.mark.parametrize("status", ["fail", "error"])
@pytest.mark.parametrize("action", ["none", "blocked", "would_change"])
@pytest.mark.parametrize("expected", [None, {}, [], "", {"a": 1}, "x", False, 0])
@pytest.mark.parametrize("observed", [None, {}, [], "", {"a": 1}, "x", ["y"]])
def test_no_difference_is_an_empty_one(status: str, action: str, expected: Any, observed: Any) -> None:
    difference = words.difference(finding(status=status, action=action, expected=expected, observed=observed))
    assert difference
    assert not re.search(r"expected (\S+), is \1$", difference)
    assert "{}" not in difference and "[]" not in difference


def test_a_long_value_loses_its_middle_and_the_remedy_nothing() -> None:
    given = {"a": LONG, "b": 1}
    difference = words.difference(finding(expected={**given, "a": "x" + LONG}, observed=given, reason=REMEDY))
    assert difference.endswith(REMEDY.strip())
    assert difference.count("/folder-0/") == 2 and difference.count("/the-end") == 2
    assert len(difference) < len(REMEDY) + 2 * words.LONG + 100


def test_two_long_values_are_shown_where_they_differ() -> None:
    difference = words.difference(finding(expected=f"{LONG}, port 22, {LONG}", observed=f"{LONG}, port 2222, {LONG}"))
    assert "port 22, " in difference and "port 2222" in difference
    assert len(difference) < 3 * words.LONG


def test_of_two_long_lists_only_what_differs_is_shown() -> None:
    many = [f"/etc/folder/file-{n}" for n in range(40)]
    difference = words.difference(finding(expected={"paths": many}, observed={"paths": [*many[1:], "/tmp/x"]}))
    assert difference == 'paths: lacks "/etc/folder/file-0"; paths: has, not demanded, "/tmp/x"'


def test_of_many_differing_keys_the_first_are_shown_and_the_rest_is_counted() -> None:
    difference = words.difference(
        finding(expected={str(n): n for n in range(9)}, observed={str(n): -1 for n in range(9)})
    )
    assert difference.count("expected") == words.MOST and difference.endswith("and 5 more")


def test_what_was_not_evaluated_is_grouped_by_reason_over_hosts() -> None:
    def skipped(reason: str) -> findings.Finding:
        return finding(status="not_evaluated", action="none", reason=reason, mitigations=[])

    everywhere = [skipped("kernel: read-only"), skipped("kernel: read-only"), skipped("k3s: a"), skipped("k3s: b")]
    hosts = [findings.host_entry(f"n{n}", "ok", everywhere) for n in range(10)]
    hosts.append(findings.host_entry("m", "ok", [skipped("kernel: read-only")]))
    grouped = words.not_evaluated(
        findings.report("check", findings.now(), hosts, {f"n{n}": ["k3s"] for n in range(10)})
    )
    names = [f"n{n}" for n in range(10)]
    assert grouped == [("2 kernel: read-only", names), ("2 k3s (accepted)", names), ("1 kernel: read-only", ["m"])]
