"""What a cluster keeps from its birth on, and what all its servers have to agree on. Pure.

K3s does not say so itself: with another network of pods its controllers end some time after the start, with another
domain or DNS address running pods resolve nothing, and a server whose critical values differ refuses to join (K3s'
CriticalControlArgs). So what runs is compared with what is wanted before anything changes.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from casemate import ROOT
from casemate.catalogue import declarations
from casemate.preflight.k3s_values import items

USUAL = declarations.read(ROOT / "playbooks/group_vars/all.yml")["__casemate_usual_networks"]
V4: dict[str, str] = USUAL["IPv4"]
V6: dict[str, str] = USUAL["IPv6"]
ENCRYPTION = declarations.control("k3s_config", key="secrets-encryption")


class Fixed(NamedTuple):
    """One value of a cluster: who sets it, K3s' own name for what runs, and why it stays."""

    variable: str
    field: str
    why: str


FIXED = {
    "cluster-cidr": Fixed(
        "casemate_cluster_cidr",
        "ClusterIPRanges",
        "every node keeps the addresses of pods that it got when it joined, and K3s ends where they do not fit",
    ),
    "service-cidr": Fixed(
        "casemate_service_cidr",
        "ServiceIPRanges",
        "every Service keeps its address, and the certificates name the first one",
    ),
    "cluster-dns": Fixed(
        "k3s_node_config.cluster-dns",
        "ClusterDNSs",
        "the DNS Service keeps its address, and every running pod asks it there",
    ),
    "cluster-domain": Fixed(
        "k3s_node_config.cluster-domain",
        "ClusterDomain",
        "names in running pods and in certificates end in it",
    ),
}
"""Key -> what no restart changes. The datastore, the tokens and the data's folder are Casemate's own choice, see
DECIDED in rules.py; the cipher changes by a rotation of keys, which the control of the active cipher says."""

CRITICAL = (
    *FIXED,
    "disable-cloud-controller",
    "disable-helm-controller",
    "disable-network-policy",
    "egress-selector-mode",
    "embedded-registry",
    "flannel-backend",
    "flannel-external-ip",
    "flannel-ipv6-masq",
    "supervisor-metrics",
)
"""Keys that K3s compares when a server joins."""
VARIABLES = ("casemate_cluster_cidr", "casemate_service_cidr", "k3s_node_config", "k3s_control_plane_disable")
"""The inputs that hold them."""
REBUILD = "Set it back to what runs; another one takes a new cluster, into which the workloads are moved"


def wanted(values: Mapping[str, Any], key: str) -> str:
    """What the inventory gives a key, "" for K3s' own default."""
    config = values.get("k3s_node_config") or {}
    given = {
        "cluster-cidr": values.get("casemate_cluster_cidr"),
        "service-cidr": values.get("casemate_service_cidr"),
    }.get(key, config.get(key))
    return ",".join(items(given)) if given not in (None, "") else ""


def defaults(node_ip: str) -> dict[str, str]:
    """K3s' own values for a node with this first address."""
    networks = V6 if ":" in node_ip.split(",")[0] else V4
    dns = ipaddress.ip_network(networks["service-cidr"])[10]
    return {**networks, "cluster-dns": str(dns), "cluster-domain": "cluster.local"}


def running(field: Any) -> str:
    """One field of K3s' own structure as a configuration would name it; networks come as address and mask."""
    parts = field if isinstance(field, list) else [field]
    shown = []
    for part in parts:
        if isinstance(part, Mapping):
            mask = base64.b64decode(str(part.get("Mask", "")))
            part = f"{part.get('IP')}/{sum(bin(byte).count('1') for byte in mask)}"
        shown.append(str(part))
    return ",".join(shown)


def _same(one: str, other: str) -> bool:
    def plain(text: str) -> Any:
        try:
            return ipaddress.ip_network(text, strict=False)
        except ValueError:
            return text.lower().rstrip(".")

    return list(map(plain, one.split(","))) == list(map(plain, other.split(",")))


def birth_problems(values: Mapping[str, Any], seen: Mapping[str, Any], node: str, address: str) -> list[str]:
    """Where the inventory wants of a running cluster what it cannot become. `seen`: what k3s_running told."""
    cluster, found = seen.get("cluster") or {}, []
    usual = defaults(address)
    service = wanted(values, "service-cidr")
    if service:
        usual["cluster-dns"] = ",".join(str(ipaddress.ip_network(net, strict=False)[10]) for net in service.split(","))
    for key, (variable, field, why) in FIXED.items():
        given = wanted(values, key)
        # What the inventory leaves out another file of the host may set; apply changes it where ours had set it.
        left_out = not given and key not in V4 and key not in (seen.get("own") or ())
        if field not in cluster or left_out:
            continue
        now, then = running(cluster[field]), given or usual[key]
        if not _same(now, then):
            by = f"{variable} is {then}" if given else f"{variable} is not set, which means {then}"
            found.append(f"{by}, but the cluster runs with {now}, and {why}. {REBUILD}")
    name = str((values.get("k3s_node_config") or {}).get("node-name") or seen.get("hostname") or "").lower()
    if seen.get("node") and name and seen["node"] != name:
        found.append(
            f"this node is {seen['node']} in its cluster, but would be {name} (node-name of k3s_node_config, or its "
            f"host name): a second node, and this one never Ready again. Set node-name to {seen['node']}, or drain "
            "and remove the node first"
        )
    ours = str(cluster.get("PrivateIP") or "")
    if node == "server" and seen.get("etcd") and ours and not _same(ours, address.split(",")[0]):
        found.append(
            f"k3s_node_ip is {address}, but this member of etcd is known to the others by {ours}, and would not find "
            f"itself among them. Set k3s_node_ip to {ours}, or remove the server from the cluster and join it again"
        )
    return found


def encryption_problems(values: Mapping[str, Any], seen: Mapping[str, Any], servers: Sequence[str]) -> list[str]:
    """Whether several servers would each begin to encrypt with a key of its own."""
    cluster = seen.get("cluster") or {}
    waived = ENCRYPTION in (values.get("casemate_waivers") or {})
    if cluster.get("EncryptSecrets") is not False or seen.get("encryption") or waived or len(servers) < 2:
        return []
    why = "with the setting alone each server would make a key of its own, which the others cannot read"
    todo = "Run `k3s secrets-encrypt enable` once on this server, and apply again"
    return [f"the cluster does not encrypt Secrets, and {why}. {todo}"]


def birth_warnings(values: Mapping[str, Any], seen: Mapping[str, Any]) -> list[str]:
    """What a running cluster may become only with all its nodes together."""
    now = str((seen.get("cluster") or {}).get("FlannelBackend") or "")
    then = wanted(values, "flannel-backend") or ("vxlan" if "flannel-backend" in (seen.get("own") or ()) else "")
    if not now or not then or now == then:
        return []
    why = "pods of different nodes reach each other again only when all nodes have restarted"
    return [f"flannel-backend becomes {then} and is {now}: {why}, and old interfaces go at the next boot"]


def agreement_problems(servers: Mapping[str, Mapping[str, Any]], agents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the nodes' variables disagree about the one cluster; both: host -> its variables."""
    found = []
    for key in CRITICAL:
        everybody = {**servers, **agents} if key in V4 else servers
        said: dict[str, str] = {}
        for name, values in everybody.items():
            said.setdefault(wanted(values, key).lower(), name)
        if len(said) > 1:
            (one, first), (two, second) = list(said.items())[:2]
            variable = FIXED[key].variable if key in FIXED else f"k3s_node_config.{key}"
            shown = f" ({one or 'not set'}, {two or 'not set'})" if key in FIXED else ""
            found.append(
                f"{variable} differs between {first} and {second}{shown}, but K3s takes no server into a cluster with "
                "another one. Set it once, for all"
            )
    lists = {name: "servicelb" in (values.get("k3s_control_plane_disable") or ()) for name, values in servers.items()}
    if len(set(lists.values())) > 1:
        one, two = (next(name for name, off in lists.items() if off is state) for state in (True, False))
        found.append(
            f"k3s_control_plane_disable has servicelb for {one} and not for {two}, but all servers have to agree. "
            "Set it once, for all"
        )
    return found
