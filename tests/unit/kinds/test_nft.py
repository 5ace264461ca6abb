"""nft: who reaches a port is computed from the live rules, and nothing that is not understood counts as shut."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.kinds import nft

Rule = list[Any]


def match(left: Any, right: Any, op: str = "==") -> Any:
    return {"match": {"op": op, "left": left, "right": right}}


def dport(right: Any, proto: str = "tcp") -> Any:
    return match({"payload": {"protocol": proto, "field": "dport"}}, right)


def saddr(right: Any) -> Any:
    return match({"payload": {"protocol": "ip", "field": "saddr"}}, right)


ACCEPT: Any = {"accept": None}
DROP: Any = {"drop": None}
ANSWERS: Rule = [match({"ct": {"key": "state"}}, ["established", "related"], "in"), ACCEPT]
LOOPBACK: Rule = [match({"meta": {"key": "iifname"}}, "lo"), ACCEPT]
ICMP: Rule = [match({"meta": {"key": "l4proto"}}, {"set": ["icmp", "ipv6-icmp"]}), ACCEPT]
PODS: Rule = [saddr({"prefix": {"addr": "10.42.0.0", "len": 16}}), ACCEPT]
SERVERS: Rule = [dport({"range": [2379, 2380]}), saddr("@servers4"), ACCEPT]
SHUT: Rule = [dport({"set": [22, {"range": [2379, 2380]}]}), DROP]
LOG: Rule = [{"limit": {"rate": 10, "burst": 20, "per": "minute"}}, {"log": {"prefix": "x"}}]
GOOD: list[Rule] = [ANSWERS, LOOPBACK, ICMP, SERVERS, SHUT, PODS, LOG]
ETCD: Any = {"chain": "input", "proto": "tcp", "ports": [2379, 2380], "sources": ["10.0.0.1", "10.0.0.2"]}
REST: Any = {"chain": "input", "proto": "tcp", "ports": [], "sources": ["10.42.0.0/16"]}


TEXT = """table inet casemate {
\tflags dormant
\tset servers4 {
\t\tflags interval
\t}
}
"""


def accept_to(port: int, proto: str = "tcp") -> Rule:
    """A hole for everybody."""
    return [dport(port, proto), ACCEPT]


def listing(rules: list[Rule], policy: str = "drop", elements: tuple[str, ...] = ("10.0.0.1", "10.0.0.2")) -> str:
    things: list[Any] = [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "casemate", "handle": 7}},
        {"set": {"name": "servers4", "elem": list(elements), "handle": 3}},
        {"chain": {"name": "input", "hook": "input", "policy": policy, "handle": 1}},
    ]
    return json.dumps(
        {"nftables": things + [{"rule": {"chain": "input", "handle": i, "expr": r}} for i, r in enumerate(rules)]}
    )


def host_of(tmp: Path, live: str | None, declared: str = "", file: str = "rules\n") -> FakeHost:
    return FakeHost(
        tmp,
        {nft.FILE: file},
        {
            "nft -j list table inet casemate": (0, live, "") if live is not None else (1, "", "No such file"),
            "nft list table inet casemate": (0, TEXT.replace("\tflags dormant\n", ""), ""),
            "unshare --net": (0, declared, "") if declared else (1, "", "syntax error"),
            "nft -c -f": (0, "", ""),
            " ".join(nft.RELOAD): (0, "", ""),
        },
    )


def judge(tmp: Path, rules: list[Rule], setting: Any, **how: Any) -> Any:
    host = host_of(tmp, listing(rules, **how))
    return nft.assess(setting, nft.observe([setting], host)[0])


@pytest.mark.parametrize("setting", [ETCD, REST, {"chain": "input", "policy": "drop"}, {**REST, "proto": "udp"}])
def test_the_declared_rules_pass(tmp_path: Path, setting: Any) -> None:
    assert judge(tmp_path, GOOD, setting).ok


@pytest.mark.parametrize(
    ("rule", "open_to"),
    [
        ([ACCEPT], "0.0.0.0/0, ::/0"),
        ([dport(2379), ACCEPT], "0.0.0.0/0"),
        ([dport({"set": [80, {"range": [2000, 3000]}]}), ACCEPT], "0.0.0.0/0"),
        ([match({"payload": {"protocol": "th", "field": "dport"}}, 2379), ACCEPT], "0.0.0.0/0"),
        ([saddr({"prefix": {"addr": "203.0.113.0", "len": 24}}), ACCEPT], "203.0.113.0/24"),
        ([saddr({"range": ["203.0.113.4", "203.0.113.7"]}), ACCEPT], "203.0.113.4/30"),
        ([match({"meta": {"key": "mark"}}, 7), ACCEPT], "0.0.0.0/0"),
        ([match({"payload": {"protocol": "tcp", "field": "dport"}}, 22, "!="), ACCEPT], "0.0.0.0/0"),
        ([match({"ct": {"key": "state"}}, ["new"], "in"), ACCEPT], "0.0.0.0/0"),
        ([match({"ct": {"key": "state"}}, "untracked"), ACCEPT], "0.0.0.0/0"),
        ([match({"meta": {"key": "iifname"}}, "eth*"), ACCEPT], "0.0.0.0/0"),
        ([{"jump": {"target": "elsewhere"}}], "0.0.0.0/0"),
        ([{"vmap": {"key": {}, "data": {}}}], "0.0.0.0/0"),
    ],
)
def test_a_hole_is_found(tmp_path: Path, rule: Rule, open_to: str) -> None:
    verdict = judge(tmp_path, [rule, *GOOD], ETCD)
    assert not verdict.ok
    assert f"tcp/2379: open to {open_to}" in verdict.reason
    assert "shut to" not in verdict.reason  # what is open to everybody is open to those who are listed


@pytest.mark.parametrize(
    "drop",
    [
        [dport({"range": [2379, 2380]}), saddr("10.0.0.9"), DROP],
        [match({"meta": {"key": "mark"}}, 7), DROP],
        [{"limit": {"rate": 1}}, DROP],
        [dport(2379, "udp"), DROP],
    ],
)
def test_a_drop_that_does_not_always_drop_closes_nothing(tmp_path: Path, drop: Rule) -> None:
    verdict = judge(tmp_path, [ANSWERS, LOOPBACK, SERVERS, drop, PODS], ETCD)
    assert "open to 10.42.0.0/16" in verdict.reason


@pytest.mark.parametrize(
    ("rules", "how", "setting", "reason"),
    [
        ([r for r in GOOD if r is not SERVERS], {}, ETCD, "shut to 10.0.0.1/32"),
        (GOOD, {"elements": ("10.0.0.1",)}, ETCD, "shut to 10.0.0.2/32"),
        (GOOD, {"elements": ("10.0.0.1", "10.0.0.2", "10.0.0.3")}, ETCD, "open to 10.0.0.2/31"),
        ([r for r in GOOD if r is not SHUT], {}, ETCD, "open to 10.42.0.0/16"),
        (GOOD, {"policy": "accept"}, REST, "open to 0.0.0.0/0"),
        (GOOD, {"policy": "accept"}, {"chain": "input", "policy": "drop"}, ""),
        (GOOD, {}, {"chain": "nothere", "policy": "drop"}, ""),
        (GOOD, {}, {**ETCD, "chain": "nothere"}, "open to 0.0.0.0/0"),
    ],
)
def test_drift_is_named(tmp_path: Path, rules: list[Rule], how: Any, setting: Any, reason: str) -> None:
    verdict = judge(tmp_path, rules, setting, **how)
    assert not verdict.ok
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("live", "file", "reason"),
    [
        (listing(GOOD), "rules\n", ""),
        (listing(GOOD).replace('"handle": 3', '"handle": 44'), "rules\n", ""),
        (listing(GOOD), "other\n", "the next boot would"),
        (listing(GOOD[1:]), "rules\n", "lost: rule"),
        (listing([*GOOD, [*PODS[:1], DROP]]), "rules\n", "added: rule"),
        (listing([LOOPBACK, ANSWERS, *GOOD[2:]]), "rules\n", "order"),
        (listing(GOOD, policy="accept"), "rules\n", "lost: chain input"),
        (listing(GOOD, elements=("10.0.0.1",)), "rules\n", "lost: set servers4"),
        (None, "rules\n", "not loaded"),
    ],
)
def test_the_whole_is_compared_with_its_declaration(tmp_path: Path, live: str | None, file: str, reason: str) -> None:
    setting: Any = {"ruleset": "rules\n"}
    verdict = nft.assess(setting, nft.observe([setting], host_of(tmp_path, live, listing(GOOD), file))[0])
    assert verdict.ok is (reason == "")
    assert reason in verdict.reason


@pytest.mark.parametrize(
    "live",
    [
        listing(GOOD).replace('"handle": 7', '"handle": 7, "flags": "dormant"'),
        listing(GOOD).replace('"handle": 7', '"handle": 7, "flags": "inet"'),  # nft 1.0.6, another word
        '{"nftables": [{"table": {"family": "inet", "name": "casemate", "handle": 6, "flags": \n',  # nft 1.0.6
    ],
)
def test_a_dormant_table_is_told_once(tmp_path: Path, live: str) -> None:
    host = host_of(tmp_path, live, listing(GOOD))
    host.commands["nft list table inet casemate"] = (0, TEXT, "")
    seen = nft.observe(list(LAW.values()), host)
    verdicts = [nft.assess(setting, one) for setting, one in zip(LAW.values(), seen, strict=True)]
    assert [verdict.reason for verdict in verdicts if not verdict.ok] == ["added: the table is dormant"]
    for command in ("unshare --net", "nft list table inet casemate"):
        host.commands[command] = (1, "", "syntax error")
        with pytest.raises(OSError, match=r"(cannot be listed|do not load): syntax error"):
            nft.observe(list(LAW.values()), host)


def test_rules_that_do_not_load_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="syntax error"):
        nft.observe([{"ruleset": "x"}], host_of(tmp_path, listing(GOOD)))


def test_without_nftables_it_fails_and_does_not_crash(tmp_path: Path) -> None:
    setting: Any = {"ruleset": "x"}
    verdict = nft.assess(setting, nft.observe([setting], FakeHost(tmp_path))[0])
    assert not verdict.ok


def test_it_loads_the_declared_file_under_the_guard(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("files of root need root")
    host = host_of(tmp_path, None)
    nft.enforce([ETCD, {"ruleset": "declared\n"}], {0}, host)
    assert host.armed == [nft.FILE]
    assert host.text(nft.FILE) == "declared\n"
    assert host.ran[-1] == list(nft.RELOAD)
    assert not any("flush" in " ".join(argv) for argv in host.ran)


def test_what_nft_refuses_is_not_written(tmp_path: Path) -> None:
    host = host_of(tmp_path, None)
    host.commands["nft -c -f"] = (1, "", "Error: syntax error")
    with pytest.raises(EnforceError, match="syntax error"):
        nft.enforce([{"ruleset": "declared\n"}], {0}, host)
    assert host.text(nft.FILE) == "rules\n"
    assert list(nft.RELOAD) not in host.ran


def test_without_the_declaration_nothing_is_loaded(tmp_path: Path) -> None:
    host = host_of(tmp_path, None)
    with pytest.raises(EnforceError, match="waived"):
        nft.enforce([ETCD], {0}, host)
    assert not host.armed


WHOLE: Any = {"ruleset": "rules\n"}
CLOSED: Any = {"chain": "input", "policy": "drop"}
SSH_SHUT: Any = {"chain": "input", "proto": "tcp", "ports": [22], "sources": []}
LAW: Any = {
    "whole": WHOLE,
    "closed": CLOSED,
    "etcd": ETCD,
    "ssh": SSH_SHUT,
    "rest": REST,
    "udp": {**REST, "proto": "udp"},
}
MALLORY = saddr({"prefix": {"addr": "203.0.113.0", "len": 24}})


def failing(tmp: Path, live: str, law: dict[str, Any], file: str = "rules\n", waived: str = "") -> str:
    settings, excused = list(law.values()), {n for n, name in enumerate(law) if name == waived}
    seen = nft.observe(settings, host_of(tmp, live, listing(GOOD), file), excused)
    return " ".join(name for (name, s), one in zip(law.items(), seen, strict=True) if not nft.assess(s, one).ok)


def without(*rules: Rule) -> list[Rule]:
    return [rule for rule in GOOD if not any(rule is one for one in rules)]


ELSEWHERE: Rule = [{"vmap": {"key": {}, "data": {}}}]
FLIPS: list[tuple[str, str]] = [
    (listing(GOOD), ""),
    (listing([accept_to(2379), *GOOD]), "etcd"),
    (listing([accept_to(2379), accept_to(22), *GOOD]), "etcd ssh"),
    (listing(without(SERVERS)), "etcd"),
    (listing([ANSWERS, LOOPBACK, ICMP, SHUT, SERVERS, PODS, LOG]), "etcd"),
    (listing(without(SHUT)), "etcd ssh"),
    (listing(GOOD, elements=("10.0.0.1",)), "etcd"),
    (listing(GOOD, elements=("10.0.0.1", "10.0.0.2", "203.0.113.9")), "etcd"),
    (listing(GOOD, policy="accept"), "closed"),
    (listing([*GOOD, [match({"meta": {"key": "l4proto"}}, "tcp"), ACCEPT]]), "rest"),
    (listing([*GOOD, [match({"meta": {"key": "l4proto"}}, "udp"), ACCEPT]]), "udp"),
    (listing(without(PODS)), "rest udp"),
    (listing([*GOOD, [MALLORY, ACCEPT]]), "rest udp"),
    (listing([[ACCEPT], *GOOD]), "etcd ssh rest udp"),
    # what no specific control tells
    (listing([accept_to(9999), *GOOD]), "whole"),
    (listing(without(ANSWERS)), "whole"),
    (listing([LOOPBACK, ANSWERS, *GOOD[2:]]), "whole"),
    (listing([[dport(2379), saddr("10.0.0.9"), DROP], *GOOD]), "whole"),
    # a second difference beside one that is told
    (listing([accept_to(2379), accept_to(9999), *GOOD]), "whole etcd"),
    (listing([[dport({"set": [2379, 9999]}), ACCEPT], *GOOD]), "whole etcd"),
    (listing([[dport({"range": [2000, 3000]}), ACCEPT], *GOOD]), "whole etcd"),
    (listing([accept_to(2379), *without(ANSWERS)]), "whole etcd"),
    (listing([*without(ANSWERS), [MALLORY, ACCEPT]]), "whole rest udp"),
    (listing([accept_to(2379), LOOPBACK, ANSWERS, *GOOD[2:]]), "whole etcd"),
    (
        listing([*GOOD, [match({"meta": {"key": "l4proto"}}, "tcp"), ACCEPT], [saddr("10.42.1.1"), ACCEPT]]),
        "whole rest",
    ),
    (listing(GOOD, policy="accept").replace('"hook": "input"', '"hook": "output"'), "whole closed"),
    (listing([accept_to(22), *GOOD], elements=("10.0.0.1",)), "etcd ssh"),
    (listing([accept_to(2379), *GOOD]).replace('"servers4", "elem"', '"servers4", "flags": [], "elem"'), "whole etcd"),
    (listing([[dport(2379), {"strange": 1}, *ELSEWHERE], *GOOD]), "etcd"),
]


@pytest.mark.parametrize(("live", "names"), FLIPS)
def test_a_change_is_told_once_and_never_lost(tmp_path: Path, live: str, names: str) -> None:
    assert failing(tmp_path, live, LAW) == names


def test_the_file_of_the_next_boot_stays_with_the_whole(tmp_path: Path) -> None:
    assert failing(tmp_path, listing([accept_to(2379), *GOOD]), LAW, "other\n") == "whole etcd"


@pytest.mark.parametrize("name", ["etcd", "closed", "rest"])
def test_a_control_that_is_not_here_or_waived_hides_nothing(tmp_path: Path, name: str) -> None:
    changed: Any = {
        "etcd": listing([accept_to(2379), *GOOD]),
        "closed": listing(GOOD, policy="accept"),
        "rest": listing([*GOOD, [match({"meta": {"key": "l4proto"}}, "tcp"), ACCEPT]]),
    }[name]
    absent = {key: setting for key, setting in LAW.items() if key != name}
    assert "whole" in failing(tmp_path / "absent", changed, absent)
    assert failing(tmp_path / "waived", changed, LAW, waived=name).split()[0] == "whole"


def test_a_waived_policy_leaves_the_ports_to_their_controls(tmp_path: Path) -> None:
    assert failing(tmp_path, listing(GOOD, policy="accept"), LAW, waived="closed") == "whole closed rest udp"


@pytest.mark.parametrize("only", list(LAW))
def test_whichever_control_fails_the_declared_rules_are_loaded(tmp_path: Path, only: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("files of root need root")
    host = host_of(tmp_path, listing([]))
    nft.enforce(list(LAW.values()), {list(LAW).index(only)}, host)
    assert host.ran[-1] == list(nft.RELOAD)
    assert host.armed == [nft.FILE]


def test_a_rule_that_no_control_of_ports_can_judge_counts_against_the_whole(tmp_path: Path) -> None:
    strange = [dport({"set": [{"odd": 1}]}), ACCEPT]
    for rules in ([*GOOD, strange], [[ACCEPT], *GOOD, strange]):
        assert failing(tmp_path, listing(rules), {"whole": WHOLE}) == "whole"
        seen = nft.observe(list(LAW.values()), host_of(tmp_path, listing(rules), listing(GOOD)))[0]
        assert "added: rule" in nft.assess(WHOLE, seen).reason


def test_a_rule_for_every_port_is_a_hole_and_no_crash(tmp_path: Path) -> None:
    assert "rest" in failing(tmp_path, listing([[dport({"range": [1, 65535]}), ACCEPT], *GOOD]), LAW)
