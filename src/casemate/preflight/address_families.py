"""IPv4, IPv6 or both: whether the addresses of nodes and the networks of the cluster are of the same families. Pure.

K3s (pkg/agent/run.go) starts no node whose addresses lack a family of the cluster's networks, and its API server none
whose first network of services is of another family than its own address. Sizes: Kubernetes takes 20 bits for services,
and 16 for the nodes' parts of the pods' network, each of 8 bits of IPv4 or 64 of IPv6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from casemate.preflight.birth import V4, V6
from casemate.preflight.inputs import network

INPUTS = {"cluster-cidr": "casemate_cluster_cidr", "service-cidr": "casemate_service_cidr"}
BOTH = {key: f"{V4[key]},{V6[key]}" for key in INPUTS}


def versions(text: str) -> list[int]:
    """4 and 6 for each address or network, in order; what is neither is left out: it is refused elsewhere."""
    return [net.version for net in map(network, text.split(",")) if net]


def words(families: list[int]) -> str:
    """IPv4, IPv6, or both in order."""
    return " and ".join(f"IPv{version}" for version in families)


def networks(values: Mapping[str, Any], first: str) -> dict[str, str]:
    """The networks of pods and services as K3s takes them; `first`: address of the cluster's first server."""
    usual = V6 if versions(first)[:1] == [6] else V4
    return {key: str(values.get(name) or usual[key]) for key, name in INPUTS.items()}


def problems(values: Mapping[str, Any], address: str, first: str) -> list[str]:
    """What is wrong with the families of a node with this `address` (or two), and with the networks' sizes."""
    taken = networks(values, first)
    pods, services = (versions(text) for text in taken.values())
    node = versions(address)
    if pods != services:
        return [
            f"casemate_cluster_cidr {taken['cluster-cidr']} is {words(pods)}, but casemate_service_cidr "
            f"{taken['service-cidr']} is {words(services)}. Give both the same families in the same order, such as "
            + _example(pods if len(pods) >= len(services) else services)
        ]
    found = [f"{INPUTS[key]} {net} {fault}" for key, text in taken.items() for net, fault in _sizes(key, text, values)]
    if not node or (set(pods) <= set(node) and node[0] == pods[0]):
        return found
    problem = (
        f"k3s_node_ip, or else ansible_host, is {address}, {words(node)}, but the cluster's networks are {words(pods)}"
    )
    if set(pods) <= set(node):
        return [
            *found,
            f"{problem}: the first of both has to be of one family. Reorder k3s_node_ip, or set {_example(node)}",
        ]
    need = "an address of each" if len(pods) > 1 else f"an {words(pods)} address"
    return [*found, f"{problem}. Give every node {need} in k3s_node_ip, or set {_example(node)}"]


def warnings(values: Mapping[str, Any], address: str, first: str) -> list[str]:
    """That a node of both families gives its pods one of them only, where nobody said which."""
    node, pods = versions(address), versions(networks(values, first)["cluster-cidr"])
    if len(node) < 2 or len(pods) > 1 or any(values.get(name) for name in INPUTS.values()):
        return []
    problem = f"k3s_node_ip is {address}, but pods and services get addresses of {words(pods)} only, as K3s has it"
    return [f"{problem}. For both, set {_example(node)} before the cluster is made"]


def _example(families: list[int]) -> str:
    """The inputs for these families."""
    usual = {4: V4, 6: V6}
    return " and ".join(f"{name}: {','.join(usual[v][key] for v in families)}" for key, name in INPUTS.items())


def _sizes(key: str, text: str, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(network, what is wrong with its size)."""
    found = []
    masked = "node-cidr-mask-size" in str(values.get("k3s_node_config") or "")  # the controller manager's own argument
    for net in (one for one in map(network, text.split(",")) if one):
        most = net.max_prefixlen - 20 if key == "service-cidr" else 8 if net.version == 4 else 48
        last = net.max_prefixlen - 4 if key == "service-cidr" else 24 if net.version == 4 else 64
        if not most <= net.prefixlen <= last and not (masked and key == "cluster-cidr"):
            found.append((str(net), f"has the size /{net.prefixlen}; Kubernetes takes /{most} to /{last}. Correct it"))
    return found
