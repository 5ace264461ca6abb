"""What K3s fixes at a cluster's birth is compared with what runs; nodes agree about the one cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from casemate import ROOT
from casemate.preflight import birth, host_facts

RUNS: dict[str, Any] = {
    "ClusterIPRanges": [{"IP": "10.42.0.0", "Mask": "//8AAA=="}],
    "ServiceIPRanges": [{"IP": "10.43.0.0", "Mask": "//8AAA=="}],
    "ClusterDNSs": ["10.43.0.10"],
    "ClusterDomain": "cluster.local",
    "FlannelBackend": "vxlan",
    "EncryptSecrets": True,
    "PrivateIP": "192.0.2.1",
}
SEEN = {"hostname": "Node1", "node": "node1", "own": [], "etcd": True, "encryption": True, "cluster": RUNS}
SIX = {
    **RUNS,
    "ClusterIPRanges": [{"IP": "fd00:42::", "Mask": "/////////wAAAAAAAAAAAA=="}],
    "ServiceIPRanges": [{"IP": "fd00:43::", "Mask": "//////////////////8AAA=="}],
    "ClusterDNSs": ["fd00:43::a"],
    "PrivateIP": "2001:db8::1",
}


def problems(values: dict[str, Any], address: str = "192.0.2.1", role: str = "server", **seen: Any) -> list[str]:
    return birth.birth_problems(values, {**SEEN, **seen}, role, address)


@pytest.mark.parametrize(
    ("values", "seen", "says"),
    [
        (
            {"casemate_cluster_cidr": "10.52.0.0/16"},
            {},
            "casemate_cluster_cidr is 10.52.0.0/16, but the cluster runs with 10.42",
        ),
        ({"casemate_cluster_cidr": "10.42.0.0/17"}, {}, "10.42.0.0/16"),
        ({"casemate_cluster_cidr": "10.42.0.0/16,fd00:42::/56"}, {}, "10.42.0.0/16"),
        ({"k3s_node_config": {"cluster-dns": "10.43.0.11"}}, {}, "k3s_node_config.cluster-dns is 10.43.0.11"),
        ({"k3s_node_config": {"cluster-domain": "corp.local"}}, {}, "k3s_node_config.cluster-domain is corp.local"),
        (
            {},
            {"cluster": {**RUNS, "ClusterDomain": "a.b"}, "own": ["cluster-domain"]},
            "not set, which means cluster.local",
        ),
        ({}, {"cluster": {**RUNS, "ClusterIPRanges": SIX["ClusterIPRanges"]}}, "runs with fd00:42::/56"),
        ({"k3s_node_config": {"node-name": "other"}}, {}, "this node is node1 in its cluster, but would be other"),
        ({}, {"hostname": "renamed"}, "this node is node1 in its cluster, but would be renamed"),
    ],
)
def test_what_a_cluster_keeps_is_refused(values: dict[str, Any], seen: dict[str, Any], says: str) -> None:
    [problem] = problems(values, **seen)
    assert says in problem
    assert problems(values, **{**seen, "cluster": {}, "node": ""}) == []  # nothing has run: nothing to lose


def test_another_network_of_services_is_refused_with_the_dns_that_follows_from_it() -> None:
    service, dns = problems({"casemate_service_cidr": "10.53.0.0/16"}, own=["cluster-dns"])
    assert "casemate_service_cidr is 10.53.0.0/16, but the cluster runs with 10.43.0.0/16" in service
    assert "10.53.0.10" in dns and "runs with 10.43.0.10" in dns


def test_a_member_of_etcd_keeps_its_address() -> None:
    [problem] = problems({}, "192.0.2.2")
    assert "k3s_node_ip is 192.0.2.2, but this member of etcd is known to the others by 192.0.2.1" in problem
    assert problems({}, "192.0.2.2", "agent") == problems({}, "192.0.2.2", etcd=False) == []


@pytest.mark.parametrize(
    ("values", "seen", "address"),
    [
        ({}, {}, "192.0.2.1"),
        ({"casemate_cluster_cidr": "10.42.0.0/16", "casemate_service_cidr": "10.43.0.0/16"}, {}, "192.0.2.1"),
        ({"k3s_node_config": {"cluster-dns": ["10.43.0.10"], "cluster-domain": "Cluster.local"}}, {}, "192.0.2.1"),
        ({"k3s_node_config": {"node-name": "NODE1"}}, {"hostname": "other"}, "192.0.2.1"),
        ({}, {"cluster": {**RUNS, "ClusterDomain": "a.b"}}, "192.0.2.1"),  # another file of the host sets it, and stays
        ({}, {"cluster": SIX}, "2001:0db8::1"),
        ({}, {"cluster": {}, "node": ""}, "192.0.2.9"),
    ],
)
def test_what_stays_as_it_is_passes(values: dict[str, Any], seen: dict[str, Any], address: str) -> None:
    assert problems(values, address, **seen) == []


def test_several_servers_do_not_begin_to_encrypt_with_a_key_each() -> None:
    seen = {**SEEN, "encryption": False, "cluster": {**RUNS, "EncryptSecrets": False}}
    [problem] = birth.encryption_problems({}, seen, ["a", "b"])
    assert "k3s secrets-encrypt enable" in problem
    waived: dict[str, Any] = {"casemate_waivers": {birth.ENCRYPTION: {}}}
    assert birth.encryption_problems({}, {**seen, "encryption": True}, ["a", "b"]) == []
    assert birth.encryption_problems(waived, seen, ["a", "b"]) == birth.encryption_problems({}, seen, ["a"]) == []


def test_another_backend_is_a_warning() -> None:
    assert birth.birth_warnings({"k3s_node_config": {"flannel-backend": "host-gw"}}, SEEN)
    assert not birth.birth_warnings({"k3s_node_config": {"flannel-backend": "vxlan"}}, SEEN)
    assert not birth.birth_warnings({}, SEEN)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (
            {"casemate_cluster_cidr": "10.42.0.0/16"},
            {"casemate_cluster_cidr": "10.52.0.0/16"},
            "casemate_cluster_cidr differs",
        ),
        (
            {"k3s_node_config": {"flannel-backend": "host-gw"}},
            {},
            "k3s_node_config.flannel-backend differs between a and b",
        ),
        ({"k3s_node_config": {"disable-network-policy": True}}, {}, "disable-network-policy differs"),
        (
            {"k3s_control_plane_disable": ["servicelb"]},
            {"k3s_control_plane_disable": []},
            "servicelb for a and not for b",
        ),
    ],
)
def test_servers_agree(first: dict[str, Any], second: dict[str, Any], says: str) -> None:
    [problem] = birth.agreement_problems({"a": first, "b": second}, {})
    assert says in problem and "for all" in problem
    assert birth.agreement_problems({"a": first, "b": first}, {}) == []


def test_agents_agree_about_the_networks_alone() -> None:
    other = {"casemate_service_cidr": "10.53.0.0/16", "k3s_node_config": {"cluster-domain": "x"}}
    [problem] = birth.agreement_problems({"a": {}}, {"b": other})
    assert "casemate_service_cidr differs between a and b (not set, 10.53.0.0/16)" in problem


def test_the_probe_tells_what_a_host_is(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", host_facts.script("", ["/dev/null", str(tmp_path / "it's gone")])],
        capture_output=True,
        text=True,
        check=True,
    )
    seen = host_facts.answer_of("host", host_facts.parse(done.stdout))
    assert "lo" in seen["interfaces"] and "127.0.0.1" in seen["addresses"]
    assert seen["absent"] == [str(tmp_path / "it's gone")] and seen["cluster"] == {}
    assert host_facts.answer_of("host", {}) == {}


def test_what_runs_on_hosts_needs_nothing_of_ours() -> None:
    script = (ROOT / "module_utils/casemate/k3s/running.py").read_text()
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True, cwd="/")
    assert json.loads(done.stdout.partition("=")[2])["hostname"]
