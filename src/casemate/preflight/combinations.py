"""What no single value shows: whether right values fit each other, the controls, and the other hosts. Pure.

Each problem names the variable or host, what it is, and what to do; a value of `k3s_node_config` is never shown.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from casemate.catalogue import declarations
from casemate.preflight import address_families
from casemate.preflight import k3s_values as k3s_rules
from casemate.preflight.inputs import network
from casemate.preflight.merged_toml import merge
from module_utils.casemate.k3s.files import flag_of, lint
from module_utils.casemate.k3s.flags import SECRETS

IDENTITY = {
    "node-ip": "k3s_node_ip",
    "cluster-cidr": "casemate_cluster_cidr",
    "service-cidr": "casemate_service_cidr",
    "resolv-conf": "k3s_node_resolv_conf",
}
"""Keys whose inputs more than one control follows, and these inputs."""
CREDENTIALS = r"://[^/\s@]*:[^/\s@]+@"
PORT = "the API server is asked for, and let through the firewall, at port 6443; forward another port to it elsewhere"
WHOLE = "every server runs all of the control plane, and is waited for and judged as such"
RUNTIME = "K3s' own containerd is what is protected; give it settings by k3s_node_containerd_dropins"
DECIDED = {
    "data-dir": "everything that is protected lies in /var/lib/rancher/k3s; mount another disk there instead",
    "cluster-reset": "reset a cluster once, by hand, as K3s' documentation says",
    "cluster-reset-restore-path": "restore a snapshot once, by hand, as K3s' documentation says",
    "cluster-init": "the first host of k3s_server starts the cluster; reorder that group instead",
    "server": "every other node joins the first host of k3s_server; reorder that group instead",
    "token-file": "the first server makes the token, and Casemate hands it on in /etc/rancher/k3s/token",
    "agent-token-file": "Casemate makes the token in /etc/rancher/k3s/agent-token",
    "with-node-id": "the node is waited for by its name, which this would extend at random; set node-name instead",
    "https-listen-port": PORT,
    "apiserver-port": PORT,
    "supervisor-port": PORT,
    "apiserver-bind-address": "K3s itself asks its API server at 127.0.0.1; narrow who reaches it by the firewall",
    "disable-agent": "every server is a node, too; keep workloads off it by node-taint",
    "disable-apiserver": WHOLE,
    "disable-controller-manager": WHOLE,
    "disable-etcd": WHOLE,
    "disable-scheduler": WHOLE,
    "datastore-endpoint": "etcd on the servers holds the data; put more servers into k3s_server instead",
    "docker": RUNTIME,
    "container-runtime-endpoint": RUNTIME,
    "rootless": "K3s is a service of root, whose files and units are what is protected",
    "log": "K3s says in the journal how its components run, and there it is read; forward the journal instead",
    "write-kubeconfig": "copy /etc/rancher/k3s/k3s.yaml, whose access is judged there, instead",
}
"""Keys that no input sets: what a node is and where its data lies follows from the inventory alone, and where Casemate
looks for a part of K3s is fixed.

Left to people is what works once it is prepared (flannel-backend none, disable-kube-proxy, disable-cloud-controller:
another one comes as a manifest) and what K3s keeps reachable for itself (bind-address: it listens on loopback, too).
"""


def rule_problems(values: Mapping[str, Any], first: str = "") -> list[str]:
    """Networks that admit everybody, or that overlap; passwords that nobody could change in time.

    `first`: address of the cluster's first server.
    """
    found = []
    for version in (4, 6):
        sources: list[Any] = [n for n in map(network, values.get("casemate_admin_sources") or []) if n]
        sources = [net for net in sources if net.version == version]
        if any(net.prefixlen == 0 for net in ipaddress.collapse_addresses(sources)):
            shown = ", ".join(map(str, sources))
            found.append(f"casemate_admin_sources has {shown}, which is everybody; list the networks of your people")
    given = address_families.networks(values, first)
    pods, services = ([network(part) for part in text.split(",")] for text in given.values())
    if any(a and b and a.version == b.version and a.overlaps(b) for a in pods for b in services):
        found.append(
            f"casemate_cluster_cidr {given['cluster-cidr']} and casemate_service_cidr {given['service-cidr']} overlap. "
            "Separate them"
        )
    least, most = (_number(values, f"k3s_host_password_{end}_days") for end in ("min", "max"))
    if least >= most:
        found.append(
            f"k3s_host_password_min_days is {least} and k3s_host_password_max_days is {most}, so a password could not "
            "be changed before it ends. Make the first one smaller"
        )
    return found


def _number(values: Mapping[str, Any], name: str) -> int:
    """A number that was found right, or its default."""
    return int(values.get(name, declarations.variables()[0][name]))


def dropin_problems(values: Mapping[str, Any]) -> list[str]:
    """Where containerd's settings contradict each other; no value is shown."""
    texts = dict(values.get("k3s_node_containerd_dropins") or {})
    if values.get("casemate_image_list"):
        texts["casemate_image_list"] = declarations.variables()[1]["__k3s_node_image_settings"]
    said = merge({str(name): str(text) for name, text in texts.items()})[1]
    return [f"k3s_node_containerd_dropins: {problem}. Correct it in the inventory" for problem in said]


def _flat(value: Any) -> list[Any]:
    return [one for part in value for one in _flat(part)] if isinstance(value, (list, tuple)) else [value]


def option_problems(values: Mapping[str, Any], node: str, version: str) -> list[str]:
    """What is wrong with the keys of `k3s_node_config` for a server or agent of a K3s version; no value is shown."""
    config, waived = values.get("k3s_node_config") or {}, values.get("casemate_waivers") or {}
    found = [f"k3s_node_config: {fault.rstrip('?')}. Correct or remove it" for fault in lint(config, node, version)]
    plain = {k: v for k, v in config.items() if not any(re.search(CREDENTIALS, str(value)) for value in _flat(v))}
    found += k3s_rules.config_problems(plain)
    found += k3s_rules.kubelet_problems(values.get("k3s_node_kubelet_args") or [], version)
    if any(flag_of(item)[0] == "hostname-override" for item in values.get("k3s_node_kubelet_args") or []):
        found.append(
            "k3s_node_kubelet_args has hostname-override, but the kubelet's credentials are made for the name that K3s "
            "knows. Remove it; set node-name in k3s_node_config instead"
        )
    setters: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    for control in (control for role in (declarations.controls() if config else {}).values() for control in role):
        setting = control["setting"]
        if "absent_key" in setting:
            refused[setting["absent_key"]] = control["id"]
        elif setting["kind"] == "k3s_config" and "key" in setting:
            knob = re.fullmatch(r"\{\{ (k3s_\w+) \}\}", str(setting.get("value")))
            if setting["key"] not in setters or knob:
                setters[setting["key"]] = {"id": control["id"], "file": setting["file"], "knob": knob}
    for key in config:
        by = setters.get(key)
        if any(re.search(CREDENTIALS, str(value)) for value in _flat(config[key])):
            found.append(
                f"k3s_node_config.{key} holds an address with a password, which reports would show. Remove it: "
                "use a proxy that asks for none or, for S3, name a Secret that holds all of it (etcd-s3-config-secret)"
            )
        if key in DECIDED:
            found.append(f"k3s_node_config.{key} is what Casemate decides itself. Remove it; {DECIDED[key]}")
        elif key in SECRETS:
            found.append(
                f"k3s_node_config.{key} is a secret, and may not stand in an inventory or a configuration. Remove it: "
                "tokens are made on the hosts; else name a file (vpn-auth-file) or, for S3, a Secret "
                "(etcd-s3-config-secret)"
            )
        elif by and not (by["id"] in waived and by["file"] != "casemate-k3s_node.yaml"):
            sets = by["knob"][1] if by["knob"] else IDENTITY.get(key)
            instead = f"set {sets} instead" if sets else f"see `casemate explain {by['id']}`"
            found.append(f"k3s_node_config.{key} is what Casemate sets itself. Remove it; {instead}")
        elif refused.get(key, "") not in ("", *waived):
            found.append(f"k3s_node_config.{key} may not be set. Remove it; see `casemate explain {refused[key]}`")
        elif key in IDENTITY:
            found.append(f"k3s_node_config.{key} is what Casemate sets itself. Remove it; set {IDENTITY[key]} instead")
    return found


def inventory_problems(
    groups: Mapping[str, Sequence[str]], nodes: Mapping[str, Sequence[Any]]
) -> tuple[list[str], list[str]]:
    """(problems, warnings) of the groups and of nodes: name -> (address in the cluster, where Ansible connects to)."""
    servers, agents = groups.get("k3s_server") or [], groups.get("k3s_agent") or []
    found: list[str] = []
    warnings: list[str] = []
    if not servers:
        found.append("the inventory has no server. Put at least one host into the group k3s_server")
    found += [
        f"{name} is in both k3s_server and k3s_agent. Leave it in one (a server runs workloads too)"
        for name in servers
        if name in agents
    ]
    first: dict[tuple[str, Any], str] = {}
    for name, places in nodes.items():
        addresses = str(places[0]).split(",")
        if "/" in str(places[0]) or None in map(network, addresses):
            found.append(f"{name} has no address but the name {places[0]}. Set k3s_node_ip to the node's IP address")
        for what, place in [
            *(("k3s_node_ip, or else ansible_host,", str(network(one) or one).partition("/")[0]) for one in addresses),
            ("ansible_host and port", places[1]),
        ]:
            other = first.setdefault((what, str(place)), name)
            if other != name:
                found.append(f"{other} and {name} have the same {what} {place}. Give each node an address of its own")
                break
    if servers and len(servers) % 2 == 0:
        warnings.append(
            f"{len(servers)} servers survive the loss of no more of them than {len(servers) - 1} would, since etcd "
            "needs a majority: an odd number of servers is better"
        )
    return found, warnings
