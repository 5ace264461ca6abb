"""Whether the cluster is the inventory: its nodes and members of etcd on one side, the declared hosts on the other.

Both are known by their addresses, since a host may be called otherwise than its node. Judged on the first server, for
all hosts, also for those that a run leaves out or does not reach.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Literal, TypedDict
from urllib.parse import urlsplit

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host.machine import Host
from ..k3s.api import Api
from ..k3s.etcd import Etcd, removal
from .kind import Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    aspect: Annotated[Literal["declared", "joined"], Key("every node is a host, or every host a node")]
    servers: Annotated[
        list[list[str]], Key("for each: its name, k3s_node_ip and ansible_host; what is empty is not set")
    ]
    agents: Annotated[list[list[str]], Key("as servers")]


class Setting(Needed):
    """What a control of this kind demands."""


CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
STRANGE = "is no host of the inventory: list it there, or stop K3s on it for good and remove it by"
"""K3s that still runs on it would join again at its next start."""
Known = dict[str, dict[str, Any]]
"""Name of a node or member of etcd -> its `addresses`, and what else counts."""


def identity(setting: Setting) -> str:
    """One control for each direction."""
    return str(setting["aspect"])


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """The nodes and members of the cluster; the same for all settings."""
    nodes, members = cluster_of(host)
    return [{"nodes": nodes, "members": members} for _ in settings]


def cluster_of(host: Host) -> tuple[Known, Known]:
    """The nodes as the API tells them, and the members of etcd: name -> addresses and what else counts."""
    nodes = {item["metadata"]["name"]: _node(item) for item in Api(host).get("/api/v1/nodes")["items"]}
    members = {
        one.get("name") or one["ID"]: {
            "addresses": _addresses(urlsplit(url).hostname or "" for url in one.get("peerURLs") or ()),
            "votes": not one.get("isLearner"),
            "removal": removal(one["ID"]),
        }
        for one in Etcd(host).members()
    }
    return nodes, members


def _node(item: dict[str, Any]) -> dict[str, Any]:
    status, meta = item.get("status") or {}, item["metadata"]
    ready: dict[str, Any] = next((one for one in status.get("conditions") or () if one["type"] == "Ready"), {})
    return {
        "addresses": _addresses(a["address"] for a in status.get("addresses") or () if a["type"] == "InternalIP"),
        "server": (meta.get("labels") or {}).get(CONTROL_PLANE) == "true",
        "ready": ready.get("status") == "True",
        "said": ready.get("message") or "its kubelet has not reported yet",
        "leaving": "deletionTimestamp" in meta,
        "born": meta.get("creationTimestamp") or "",
    }


def _addresses(texts: Iterable[str]) -> list[str]:
    """What of these are addresses, in one spelling."""
    found = []
    for text in texts:
        try:
            found.append(str(ipaddress.ip_address(text.strip())))
        except ValueError:
            continue  # a name
    return found


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Every node and member has the address of one host, or every host is one node that is Ready, and votes."""
    hosts = {
        name: {"server": server, "addresses": _addresses((node_ip or ansible_host or name).split(","))}
        for server, rows in ((True, setting["servers"]), (False, setting["agents"]))
        for name, node_ip, ansible_host in rows
    }
    judge = _undeclared if setting["aspect"] == "declared" else _missing
    wrong = judge(hosts, seen["nodes"], seen["members"])
    expected = {name: host["addresses"] for name, host in hosts.items()}
    observed = {name: node["addresses"] for name, node in seen["nodes"].items()}
    return Verdict(
        ok=not wrong,
        expected=expected,
        observed=observed,
        reason=several([told for _, told in wrong]),
        evidence="GET /api/v1/nodes and etcd's member list",
        where=tuple(dict.fromkeys(where for where, _ in wrong)),
    )


def _undeclared(hosts: Known, nodes: Known, members: Known) -> list[tuple[str, str]]:
    """Nodes and members of no host, and all but the newest of several of the same host: which, and what is said."""
    wrong: list[tuple[str, str]] = []
    owners: dict[str, str] = {}
    removed = set()
    for name, one in sorted(nodes.items(), key=lambda item: str(item[1]["born"]), reverse=True):
        host, delete = _host_of(one, hosts), f"`k3s kubectl delete node {name}` on a server"
        if host is None:
            told = f"node {name} ({_where(one)}) {STRANGE} {delete}, which removes it from etcd too"
        elif owners.setdefault(host, name) != name:
            told = f"nodes {owners[host]} and {name} are both {host} ({_where(one)}): remove the older by {delete}"
        else:
            continue
        wrong.append((f"Node/{name}", told))
        removed.add(name)
    servers, owners = {name: host for name, host in hosts.items() if host["server"]}, {}
    for name, one in sorted(members.items(), key=lambda item: item[0].rsplit("-", 1)[0] not in nodes):
        node, host = name.rsplit("-", 1)[0], _host_of(one, servers)
        if node in removed:
            continue  # it goes with its node
        remove = f"{one.get('removal')} on a server"
        if host is None:
            by = f"`k3s kubectl delete node {node}` on a server" if node in nodes else f"{remove}, since it has no node"
            wrong.append((f"etcd's member {name}", f"etcd's member {name} ({_where(one)}) {STRANGE} {by}"))
        elif owners.setdefault(host, name) != name:
            twins = f"etcd's members {owners[host]} and {name} are both {host} ({_where(one)})"
            wrong.append((f"etcd's member {name}", f"{twins}: remove the latter by {remove}"))
    return wrong


def _where(one: dict[str, Any]) -> str:
    return ", ".join(one["addresses"]) or "no address"


def _missing(hosts: Known, nodes: Known, members: Known) -> list[tuple[str, str]]:
    """Hosts that are no node, or not what they are declared as, or not well: which node or host, and what is said."""
    wrong: list[tuple[str, str]] = []
    for name, host in hosts.items():
        owned = {n: node for n, node in nodes.items() if _host_of(node, {name: host})}
        where = ", ".join(host["addresses"])
        if not owned:
            wrong.append((name, f"{name} ({where}) is no node of this cluster: apply to it"))
        elif not any(node["ready"] for node in owned.values()):
            wrong += [(f"Node/{n}", f"{name}: node {n} is not Ready: {node['said']}") for n, node in owned.items()]
        for n, node in owned.items():
            if node["leaving"]:
                wrong.append((f"Node/{n}", f"{name}: node {n} is being deleted"))
            if node["server"] != host["server"]:
                told = f"{name}: node {n} is {_role(node)}, but declared as {_role(host)}"
                wrong.append((f"Node/{n}", told))
        votes = [one["votes"] for one in members.values() if _host_of(one, {name: host})]
        if host["server"] and owned and not any(votes):
            told = f"{name} has no vote in etcd: it is {'only learning' if votes else 'no member'}"
            wrong.append((f"etcd's member {name}", told))
    return wrong


def _role(one: dict[str, Any]) -> str:
    return "a server" if one["server"] else "an agent"


def _host_of(one: dict[str, Any], hosts: Known) -> str | None:
    """The host that has one of these addresses."""
    return next((name for name, host in hosts.items() if set(host["addresses"]) & set(one["addresses"])), None)


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, places=lambda setting: ["/api/v1/nodes"])
