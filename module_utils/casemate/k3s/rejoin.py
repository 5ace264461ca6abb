"""A host that has lost its data, and is still known to its cluster: K3s would refuse it there, late and in few words.

Sources: K3s, pkg/etcd/etcd.go: a member of the same node's name or address may not join again; pkg/nodepassword: a node
is taken only with the password of its first time, which is forgotten with the Node object. K3s removes a member of etcd
with its Node. Pure but for `holds` and `elsewhere`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.verdict import Unavailable
from ..host.machine import Host
from .api import takes

DATABASE = "/var/lib/rancher/k3s/server/db/etcd"
SPLIT = (
    "this server has a cluster of its own: save what you need of it, then run `systemctl stop k3s` and "
    "`rm -r /var/lib/rancher/k3s/server` here, and apply"
)
PASSWORD = "/etc/rancher/node/password"  # noqa: S105 - a path


Known = Mapping[str, Mapping[str, Any]]
"""Name of a node or member of etcd -> its `addresses`, and what else counts."""


def holds(host: Host, server: bool) -> bool:
    """Whether this host has what its cluster knows it by: a server its database, an agent its password."""
    return host.stat(DATABASE if server else PASSWORD) is not None and not (server and removed(host))


def removed(host: Host) -> bool:
    """Whether etcd has removed this server while K3s ran: it serves nothing any more, and joins at its next start.

    Source: K3s, pkg/etcd/etcd.go: the file stays until then, and the database goes with it.
    """
    return host.stat(DATABASE + "/tombstone") is not None


def elsewhere(host: Host, server: str) -> str:
    """Why the data of this host is another cluster's than that of `server` (a URL); nothing where it is not."""
    try:
        takes(host, server)
    except Unavailable as lacking:
        return f"{lacking.why}; {SPLIT}" if lacking.code == "refused" else ""
    return ""


def obstacles(name: str, addresses: Sequence[str], server: bool, nodes: Known, members: Known) -> dict[str, str]:
    """What keeps a host without data from joining: node -> stale, alive (another machine), or member (of no node).

    `alive` is told by another address: right after it was wiped, a node still counts as Ready.
    """
    here = set(addresses)
    found = {name} & set(nodes)
    for member, one in members.items() if server else ():
        node = member.rsplit("-", 1)[0]
        if node == name or here & set(one["addresses"]):
            found.add(node)
    states = {}
    for node in sorted(found):
        known = nodes.get(node)
        alive = known and known["ready"] and not here & set(known["addresses"])
        states[node] = "alive" if alive else "stale" if known else "member"
    return states


def refusals(host: str, found: Mapping[str, str], members: Known, there: str, first: bool) -> list[str]:
    """What stands in the way of `host`, and what to do, on the server `there`."""
    lost = f"{host} has no data of K3s, but the cluster of {there}"
    reorder = f", list {there} first in k3s_server" if first else ""
    ways = {
        "stale": "{lost} still knows it as the node {node}, and would refuse it. If it was wiped or replaced, run "
        "`k3s kubectl delete node {node}` on {there}{reorder}, and apply again",
        "member": "{lost} still has its member of etcd, {node}, and no node of that name. Run {removal} on {there}"
        "{reorder}, and apply again",
        "alive": "{lost} has another machine as the node {node}. Give this one another name by hostnamectl, or by "
        "node-name in k3s_node_config",
    }
    removals = {member.rsplit("-", 1)[0]: one.get("removal", "") for member, one in members.items()}
    remedies = [
        ways[how].format(lost=lost, node=node, there=there, reorder=reorder, removal=removals.get(node, ""))
        for node, how in found.items()
    ]
    if first and not remedies:
        remedies.append(
            f"{lost} runs, and the first server of the inventory would start another one. List {there} first in "
            f"k3s_server and apply again: {host} then joins"
        )
    return remedies
