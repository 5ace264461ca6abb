"""Values that K3s or its kubelet would not start with are refused before any host is touched; right ones pass."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from casemate.catalogue import declarations
from casemate.preflight import k3s_values as k3s_rules
from module_utils.casemate.k3s import running as k3s_running

LONG = "a" * 64


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (
            "node-label",
            ["node-role.kubernetes.io/worker=true"],
            "item 1: a kubelet may not give itself node-role.kub",
        ),
        ("node-label", "zone=a,kubernetes.io/role=x", "may not give itself kubernetes.io/role"),
        ("node-label", ["node-restriction.kubernetes.io/x=y"], "may not give itself"),
        ("node-label", ["app.k8s.io/x=y"], "may not give itself"),
        ("node-label", ["worker"], "worker has no value: write worker=value"),
        ("node-label", ["a b=c"], "its key is none"),
        ("node-label", ["Example.org/a=c"], "its key is none"),
        ("node-label", ["/a=c"], "its key is none"),
        ("node-label", [f"{LONG}=c"], "its key is none"),
        ("node-label", [f"a={LONG}"], "the value of a is none"),
        ("node-label", ["a=-b"], "the value of a is none"),
        ("node-label", ["a=b=c"], "the value of a is none"),
        ("node-label", [""], "item 1: its key is none"),
        ("node-taint", ["dedicated=gpu"], "dedicated has no effect"),
        ("node-taint", ["dedicated"], "dedicated has no effect"),
        ("node-taint", ["dedicated=gpu:NoScheduled"], "did you mean NoSchedule"),
        ("node-taint", ["dedicated=gpu:noschedule"], "dedicated has another effect"),
        ("node-taint", ["a=b:NoSchedule", "a=c:NoSchedule"], "a is there twice with the effect NoSchedule"),
        ("node-taint", ["a=b:NoSchedule-"], "ends in a dash"),
        ("node-taint", ["a-"], "ends in a dash"),
        ("node-taint", [":NoSchedule"], "its key is none"),
        ("node-taint", ["a=b=c:NoSchedule"], "the value of a is none"),
        ("node-taint", ["a=b:NoSchedule:x"], "a has another effect"),
        ("node-name", "my_node", "RFC 1123"),
        ("node-name", "-node", "RFC 1123"),
        ("node-name", "n" * 254, "RFC 1123"),
        ("node-external-ip", "example.org", "has to be an IP address"),
        ("node-external-ip", ["192.0.2.1", "192.0.2.0/24"], "has to be an IP address"),
        ("cluster-dns", "kube-dns", "has to be an IP address"),
        ("cluster-domain", "cluster_local", "it is no domain"),
        ("flannel-backend", "wireguard", "it is none of none, vxlan"),
        ("egress-selector-mode", "off", "it is none of agent"),
        ("service-node-port-range", "32767-30000", "no range of ports"),
        ("service-node-port-range", "30000", "no range of ports"),
    ],
)
def test_keys_that_stop_k3s(key: str, value: Any, says: str) -> None:
    [problem] = k3s_rules.config_problems({key: value})
    assert problem.startswith(f"k3s_node_config.{key}: ") and says in problem and "Correct or remove it" in problem


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("node-label", ["zone=a", "example.org/gpu=", "node.kubernetes.io/pool=x", "topology.kubernetes.io/zone=z"]),
        ("node-label", "a.kubelet.kubernetes.io/x=1,b=2"),
        ("node-label", ["kubernetes.io.example.org/x=1", "notk8s.io/x=1"]),
        ("node-taint", ["CriticalAddonsOnly=true:NoExecute", "a:NoSchedule", "a=:PreferNoSchedule"]),
        ("node-name", "Node-1.example.org"),
        ("node-external-ip", ["192.0.2.1", "2001:db8::1"]),
        ("cluster-dns", "10.43.0.10,fd00:43::a"),
        ("flannel-backend", "host-gw"),
        ("service-node-port-range", "30000-32767"),
        ("debug", True),
    ],
)
def test_keys_that_k3s_takes(key: str, value: Any) -> None:
    assert k3s_rules.config_problems({key: value}) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["max-pod=10"], "max-pod, which is no flag of the kubelet (did you mean max-pods?)"),
        (["max-pods=many"], "whole number"),
        (["max-pods"], "whole number"),
        (["max-pods=-1"], "from 0 to"),
        (["image-gc-high-threshold=101"], "from 0 to 100"),
        (["image-gc-high-threshold=70"], "image-gc-low-threshold 80 and image-gc-high-threshold 70"),
        (["sync-frequency=10"], "a duration"),
        (["fail-swap-on=nope"], "true or false"),
        (["feature-gates=NodeSwap"], "NodeSwap is no switch"),
        (["feature-gates=NodeSwap=on"], "no switch such as"),
        (["eviction-hard=memory.available"], "no threshold"),
        (["eviction-hard=memory.free<5%"], "memory.free is unknown"),
        (["eviction-hard=nodefs.available<500%"], "no threshold"),
        (["eviction-hard=memory.available<0"], "no positive amount"),
        (["eviction-hard=memory.available<100MB"], "no threshold"),
        (["eviction-soft=memory.available<1Gi"], "without a grace period"),
        (["eviction-soft-grace-period=memory.available=90"], "no grace period"),
        (["eviction-minimum-reclaim=imagefs.available=lots"], "no amount"),
        (["system-reserved=memory=500MB"], "no amount"),
        (["kube-reserved=gpu=1"], "gpu is unknown"),
        (["container-log-max-size=10MB"], "an amount"),
        (["cgroup-driver=cgroup"], "allowed: 'cgroupfs', 'systemd'"),
        (["topology-manager-policy=strict"], "allowed: 'none'"),
        (["node-labels=kubernetes.io/role=x"], "may not give itself"),
        (["register-with-taints=a=b"], "a has no effect"),
        (["address=host0"], "no IP address"),
    ],
)
def test_arguments_that_stop_the_kubelet(arguments: list[str], says: str) -> None:
    [problem] = k3s_rules.kubelet_problems(arguments, "v1.36.3+k3s1")
    assert problem.startswith("k3s_node_kubelet_args") and says in problem


def test_arguments_that_the_kubelet_takes() -> None:
    right = [
        "fail-cgroupv1=false", "v=2", "max-pods=250", "sync-frequency=1m30s", "feature-gates=NodeSwap=true,A=false",
        "eviction-hard=memory.available<100Mi,nodefs.available<10%", "eviction-soft=memory.available<1.5Gi",
        "eviction-soft-grace-period=memory.available=1m30s", "system-reserved=cpu=200m,memory=1e9",
        "image-gc-high-threshold=70", "image-gc-low-threshold=60", "cgroup_driver=systemd", "seccomp-default",
        "housekeeping-interval=10s", "tls-min-version=VersionTLS13",
    ]  # fmt: skip
    assert k3s_rules.kubelet_problems(right, "v1.36.3+k3s1") == []
    assert k3s_rules.kubelet_problems(["anything=1"], "v1.99.0+k3s1") == []  # refused for its version elsewhere


SEEN = {
    "hostname": "node1",
    "interfaces": ["eth0", "lo"],
    "addresses": ["0000:0000:0000:0000:0000:0000:0000:0001", "127.0.0.1", "192.0.2.1", "2001:0db8:0000::0001"],
    "absent": [],
}


@pytest.mark.parametrize(
    ("values", "seen", "address", "says"),
    [
        (
            {"k3s_node_config": {"flannel-iface": "eth9"}},
            {},
            "192.0.2.1",
            "is eth9, and this host has no such interface; it",
        ),
        ({}, {}, "192.0.2.9", "is not an address of this host; it has 192.0.2.1, 2001:db8::1"),
        ({}, {}, "127.0.0.1", "is loopback"),
        ({}, {}, "192.0.2.1,2001:db8::2", "2001:db8::2, which is not an address"),
        ({}, {"hostname": "my_node"}, "192.0.2.1", "the host calls itself my_node"),
        ({"k3s_node_resolv_conf": "/x"}, {"absent": ["/x"]}, "192.0.2.1", "k3s_node_resolv_conf names /x"),
        (
            {"k3s_control_plane_apiserver_args": ["v=1", "oidc-ca-file=/x"]},
            {"absent": ["/x"]},
            "192.0.2.1",
            "k3s_control_plane_apiserver_args[1] names /x",
        ),
        (
            {"k3s_node_config": {"vpn-auth-file": "/x"}},
            {"absent": ["/x"]},
            "192.0.2.1",
            "k3s_node_config.vpn-auth-file",
        ),
    ],
)
def test_what_the_host_lacks(values: dict[str, Any], seen: dict[str, Any], address: str, says: str) -> None:
    [problem] = k3s_rules.host_problems(values, {**SEEN, **seen}, address)
    assert says in problem


def test_a_host_that_has_all_of_it_passes() -> None:
    values = {
        "k3s_node_config": {"flannel-iface": "eth0", "node-name": "n"},
        "k3s_node_resolv_conf": "/etc/resolv.conf",
    }
    assert k3s_rules.host_problems(values, {**SEEN, "hostname": "my_node"}, "192.0.2.1,2001:db8::1") == []
    assert k3s_rules.host_problems(values, {}, "192.0.2.9") == []  # a host that could not tell
    key = "service-account-key-file=/var/lib/rancher/k3s/server/tls/service.key"
    assert list(k3s_rules.named_files({**values, "k3s_control_plane_apiserver_args": [key]})) == [
        "/etc/resolv.conf"
    ]  # K3s makes the other one itself


def mount(**change: Any) -> dict[str, Any]:
    return {"room": [{"folder": "/etc/rancher/k3s/config.yaml.d", "mib": 50, "inodes": 5000, "ro": False, **change}]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inodes": 0}, "/etc/rancher/k3s/config.yaml.d has 0 inodes free (df -i); 32 are needed"),
        ({"inodes": 31}, "31 inodes free"),
        ({"folder": "/var/lib/rancher", "inodes": 999}, "1000 are needed"),
        ({"ro": True}, "cannot be written: remount it read-write"),
        ({"mib": 0}, "has no MiB free"),
        ({"inodes": None}, ""),  # btrfs counts none
        ({"inodes": 32, "mib": 1}, ""),
    ],
)
def test_every_mount_that_is_written_to_has_room(change: dict[str, Any], says: str) -> None:
    found = k3s_rules.room_problems(mount(**change))
    assert len(found) == bool(says) and says in "".join(found)
    assert k3s_rules.room_problems({}) == []


def test_a_mount_is_found_by_the_folder_that_lies_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders on one file system are one; a folder that is not there yet lies where it would be made."""
    rooms = k3s_running.room([str(tmp_path), str(tmp_path / "a/b"), "/proc"])
    assert [one["folder"] for one in rooms] == [str(tmp_path), "/proc"]
    assert rooms[1]["inodes"] is None  # proc counts none

    class Full:
        f_flag, f_files, f_favail, f_bavail, f_frsize = os.ST_RDONLY, 1, 0, 0, 4096

    monkeypatch.setattr("os.statvfs", lambda folder: Full)
    assert k3s_running.room([str(tmp_path)]) == [{"folder": str(tmp_path), "mib": 0, "inodes": 0, "ro": True}]


def test_every_folder_of_an_owned_file_is_asked_for() -> None:
    owned = [
        control["setting"]
        for controls in declarations.controls().values()
        for control in controls
        if control["setting"]["kind"] == "file" and {"content", "random_bytes"} & {*control["setting"]}
    ]
    _, known = declarations.variables()
    paths = [re.sub(r"\{\{ (\w+) \}\}", lambda name: str(known.get(name[1], name[0])), one["path"]) for one in owned]
    folders = {os.path.dirname(path) for path in paths if "{{" not in os.path.dirname(path)}
    assert folders and folders <= {*k3s_running.WRITTEN}, folders - {*k3s_running.WRITTEN}
