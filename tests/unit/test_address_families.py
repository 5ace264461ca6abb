"""IPv4, IPv6 and both: nodes and networks agree, or preflight says what to set; every role reads two addresses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from unit.resolving import resolved

from casemate.preflight import address_families, combinations

A4, A6 = "192.0.2.7", "2001:db8::7"
P4, P6, S4, S6 = "10.42.0.0/16", "fd00:42::/56", "10.43.0.0/16", "fd00:43::/112"


def given(pods: str = "", services: str = "") -> dict[str, Any]:
    return {n: v for n, v in (("casemate_cluster_cidr", pods), ("casemate_service_cidr", services)) if v}


@pytest.mark.parametrize(
    ("address", "first", "pods", "services", "says"),
    [
        (A4, A4, "", "", ""),
        (A6, A6, "", "", ""),  # K3s' own networks are of IPv6 then
        (f"{A4},{A6}", A4, "", "", ""),
        (f"{A6},{A4}", f"{A6},{A4}", "", "", ""),
        (A4, A4, P4, S4, ""),
        (A6, A6, P6, S6, ""),
        (f"{A4},{A6}", f"{A4},{A6}", f"{P4},{P6}", f"{S4},{S6}", ""),
        (f"{A6},{A4}", f"{A6},{A4}", f"{P6},{P4}", f"{S6},{S4}", ""),
        ("node.example", "node.example", "", "", ""),  # refused elsewhere
        (f"{A4},{A6}", A4, f"{P4},{P6}", "", "casemate_service_cidr: 10.43.0.0/16,fd00:43::/112"),
        (f"{A4},{A6}", A4, "", f"{S4},{S6}", "casemate_cluster_cidr 10.42.0.0/16 is IPv4, but casemate_service_cidr"),
        (f"{A4},{A6}", A4, f"{P4},{P6}", f"{S6},{S4}", "is IPv4 and IPv6, but casemate_service_cidr"),
        (A4, A4, P6, S6, "k3s_node_ip, or else ansible_host, is 192.0.2.7, IPv4, but the cluster's networks are IPv6"),
        (A4, A4, f"{P4},{P6}", f"{S4},{S6}", "Give every node an address of each in k3s_node_ip, or set"),
        (A6, A6, P4, S4, "Give every node an IPv4 address in k3s_node_ip, or set casemate_cluster_cidr: fd00:42::/56"),
        (A6, A6, P4, "", "casemate_cluster_cidr 10.42.0.0/16 is IPv4, but casemate_service_cidr fd00:43::/112 is IPv6"),
        (f"{A6},{A4}", f"{A6},{A4}", f"{P4},{P6}", f"{S4},{S6}", "the first of both has to be of one family"),
        (f"{A4},{A6}", f"{A4},{A6}", f"{P6},{P4}", f"{S6},{S4}", "the first of both has to be of one family"),
        (A6, A4, "", "", "IPv6, but the cluster's networks are IPv4"),  # an agent of a cluster of IPv4
        (
            A6,
            A6,
            P6,
            "fd00:43::/64",
            "casemate_service_cidr fd00:43::/64 has the size /64; Kubernetes takes /108 to /124",
        ),
        (
            A6,
            A6,
            "fd00:42::/40",
            S6,
            "casemate_cluster_cidr fd00:42::/40 has the size /40; Kubernetes takes /48 to /64",
        ),
        (A4, A4, "10.42.0.0/25", S4, "/25; Kubernetes takes /8 to /24"),
        (A4, A4, P4, "10.128.0.0/9", "/9; Kubernetes takes /12 to /28"),
    ],
)
def test_addresses_and_networks_are_of_the_same_families(
    address: str, first: str, pods: str, services: str, says: str
) -> None:
    found = address_families.problems(given(pods, services), address, first)
    assert [says in one for one in found] == ([True] if says else [])


def test_another_part_for_each_node_is_left_to_who_asks_for_it() -> None:
    mask = {"k3s_node_config": {"kube-controller-manager-arg": ["node-cidr-mask-size=26"]}}
    assert address_families.problems({**given("10.42.0.0/25", S4), **mask}, A4, A4) == []


@pytest.mark.parametrize(
    ("address", "pods", "count"),
    [(A4, "", 0), (f"{A4},{A6}", "", 1), (f"{A4},{A6}", f"{P4},{P6}", 0), (f"{A4},{A6}", P4, 0)],
)
def test_a_node_of_both_families_is_told_that_its_pods_get_one(address: str, pods: str, count: int) -> None:
    found = address_families.warnings(given(pods, pods.replace("42", "43")), address, address)
    assert len(found) == count
    assert all("casemate_cluster_cidr: 10.42.0.0/16,fd00:42::/56" in one for one in found)


def test_k3s_own_networks_of_ipv6_may_not_be_overlapped_either() -> None:
    values = given(pods="fd00:43::/48")
    assert "overlap" in combinations.rule_problems(values, A6)[0]
    assert (
        combinations.rule_problems(given(pods="10.43.0.0/20"), A6) == []
    )  # of the other family, which families refuses


def test_the_firewall_admits_both_addresses_of_each_node() -> None:
    sources = resolved("__k3s_firewall_sources", one=f"{A4},{A6}", two="2001:db8::8,192.0.2.8")
    assert sources["nodes"] == [A4, A6, "2001:db8::8", "192.0.2.8"]
    assert sources["servers"] == [A4, A6]
    assert sources["pods"] == [P4, S4]
    ruleset = resolved("__k3s_firewall_ruleset", one=f"{A4},{A6}", two="192.0.2.8")
    elements = dict(re.findall(r"set (\w+) \{[^{}]*?(?:elements = \{ ([^}]*) \})?\s*\}", ruleset))
    assert (elements["nodes4"], elements["nodes6"]) == (f"{A4}, 192.0.2.8", A6)
    assert (elements["servers4"], elements["servers6"]) == (A4, A6)
    assert (elements["pods4"], elements["pods6"]) == (f"{P4}, {S4}", "")


def test_where_the_first_address_is_ipv6_so_are_the_networks() -> None:
    assert resolved("__k3s_firewall_sources", one=A6, two="2001:db8::8")["pods"] == [P6, S6]


@pytest.mark.parametrize(
    ("first", "url"),
    [
        (A4, f"https://{A4}:6443"),
        (A6, f"https://[{A6}]:6443"),
        (f"{A4},{A6}", f"https://{A4}:6443"),
        (f"{A6},{A4}", f"https://[{A6}]:6443"),
    ],
)
def test_other_nodes_join_at_the_first_address(first: str, url: str) -> None:
    assert resolved("__k3s_node_joined", "two", one=first, two="192.0.2.8")["server"] == url
    context = resolved("__casemate_context", one=first)
    assert (context["node_ip"], context["node_address"]) == (first, first.split(",")[0])
    assert resolved("__k3s_node_options", one=first)["node-ip"] == first
