"""What a host has beside Casemate, judged before the first change: clusters, firewalls, resolvers, twins. Pure.

What module_utils/casemate/host/conflicts.py found on the host is put into words here, with the steps that lead out.
Nothing is taken over or removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from casemate.catalogue import declarations
from module_utils.casemate.k3s import resolvers
from module_utils.casemate.kinds import other_firewalls

FIREWALL = declarations.control("other_firewalls")
RESOLVER = declarations.control("resolver")
CONNECTIONS = ("ssh", "ansible.builtin.ssh", "smart")
"""Connections over which a fresh login can be proven, as the guard demands before it lets a change stay."""
PORTS = {"server": ("6443", "2379", "2380", "10250"), "agent": ("10250",)}
OFF = "systemctl disable --now {0}"
REMEDIES = {
    "ufw": "ufw disable",
    "nftables": "systemctl disable nftables, and nft delete table for the tables named",
    "netfilter-persistent": "netfilter-persistent flush && systemctl disable netfilter-persistent",
    "shorewall": "shorewall clear && systemctl disable shorewall",
    "shorewall6": "shorewall6 clear && systemctl disable shorewall6",
}
"""Firewall -> the commands that take its rules away now and at the next boot, where stopping its unit does not."""
CLUSTERS = {
    "rke2-server": ("RKE2", "/usr/local/bin/rke2-uninstall.sh"),
    "rke2-agent": ("RKE2", "/usr/local/bin/rke2-uninstall.sh"),
    "k0scontroller": ("k0s", "k0s stop && k0s reset"),
    "k0sworker": ("k0s", "k0s stop && k0s reset"),
    "kubelet": ("a kubelet, such as kubeadm's", "kubeadm reset && systemctl disable --now kubelet"),
    "snap.microk8s.daemon-kubelite": ("MicroK8s", "snap remove microk8s"),
    "snap.microk8s.daemon-kubelet": ("MicroK8s", "snap remove microk8s"),
    "snap.k8s.kubelet": ("Canonical Kubernetes", "snap remove k8s"),
}
"""Unit -> (what it is, what removes it)."""


def connection_problems(connection: str) -> list[str]:
    """Whether a fresh login can be proven over this connection, before the first of the changes that need it."""
    if connection in CONNECTIONS:
        return []
    problem = (
        f"ansible_connection is {connection}, over which no fresh login proves that one still gets in: every change "
    )
    problem += (
        "of SSH, sudo or the firewall would be undone. Apply over SSH, from a controller in casemate_admin_sources"
    )
    return [f"{problem} (to this machine too: ansible_connection ssh, with its address in ansible_host)"]


def problems(
    conflicts: Mapping[str, Any], node: str, files: Sequence[str], waived: Sequence[str], stops: bool = False
) -> list[str]:
    """What keeps this host from becoming a node; `files` of resolvers are those that K3s may be given, in order.

    `stops`: apply switches off the other firewalls that it knows.
    """
    found = [_cluster(conflicts["cluster"])] if conflicts.get("cluster") else []
    found += _other_clusters(conflicts.get("units") or {}, conflicts.get("listeners") or {}, node)
    if conflicts.get("denying") and FIREWALL not in waived:
        firewalls = _firewalls(conflicts)
        if not (stops and set(firewalls) & set(other_firewalls.STOPPED)):
            found.append(_firewall(conflicts["denying"], firewalls, stops))
    if RESOLVER not in waived:
        texts = conflicts.get("resolvers") or {}
        path = resolvers.choose(files, texts.get)
        faults = resolvers.faults(path, texts.get(path))
        if faults:
            more = f" (nor of {', '.join(files[1:])})" if len(files) > 1 else ""
            found.append(
                f"pods cannot use the resolvers of {path}{more}: {'; '.join(faults)}. Name a file with resolvers that "
                "pods can reach by k3s_node_resolv_conf, or correct this one"
            )
    return found


def _names(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def _cluster(cluster: Mapping[str, Any]) -> str:
    """A K3s that somebody else installed: what was found, by names, and the steps."""
    parts = []
    for unit in cluster["units"]:
        parts.append(f"{unit['path']}{_names([*unit['flags'], *unit['environment']])}")
        parts += [f"{file}{_names(names)}" for file, names in unit["files"].items()]
    parts += [f"the SQLite database {path}" if path.endswith(".db") else path for path in cluster["data"]]
    parts += [f"{path}{_names(names)}" for path, names in cluster["keys"].items()]
    scripts = [path for path in cluster["scripts"] if "uninstall" in path]
    paths = [unit["path"] for unit in cluster["units"]]
    by_hand = [f"systemctl disable --now {path.rpartition('/')[2]} && rm {path}" for path in paths]
    remove = " and ".join(scripts) or " && ".join([*by_hand, "rm -r /var/lib/rancher/k3s /etc/rancher/k3s"])
    return (
        f"a K3s is here that Casemate did not install: {', '.join(parts)}. It cannot be taken over yet, and was left "
        "as it is. Keep it: take this host out of the inventory. Or replace it: bring its workloads and data away, run "
        f"{remove} on it, which destroys its cluster's data, and apply again"
    )


def _other_clusters(units: Mapping[str, str], listeners: Mapping[str, Sequence[str]], node: str) -> list[str]:
    found, reported = [], set()
    for unit, state in units.items():
        name, remove = CLUSTERS.get(unit.removesuffix(".service"), ("", ""))
        if name:
            reported.add(unit)
            found.append(
                f"{name} is {state} here ({unit}), and wants the ports and folders of K3s. Take this host out of the "
                f"inventory, or remove it: {remove}"
            )
    for port, (program, unit) in listeners.items():
        if port in PORTS[node] and unit not in reported:
            by = f" of {unit}" if unit else ""
            found.append(
                f"port {port}, which K3s needs, is taken by {program}{by}. Stop it, or give it another port"
                + (f": {OFF.format(unit)}" if unit.endswith(".service") else "")
            )
    return found


def _firewalls(conflicts: Mapping[str, Any]) -> list[str]:
    """The other firewalls that are active."""
    units = [unit.removesuffix(".service") for unit, state in conflicts["units"].items() if state == "active"]
    firewalls = [name for name in units if name not in CLUSTERS and name != "ufw"]
    return firewalls + (["ufw"] if conflicts.get("ufw") else [])  # its rules outlive its unit


def _firewall(denying: Sequence[str], firewalls: Sequence[str], stops: bool) -> str:
    """Rules that close what nodes need: where, whose they are as far as units tell, and how they go."""
    whose = f"{' and '.join(firewalls)} {'are' if firewalls[1:] else 'is'} active: " if firewalls else ""
    remedy = "; ".join(REMEDIES.get(name, OFF.format(name)) for name in firewalls)
    known = " and ".join(name for name in firewalls if name in other_firewalls.STOPPED)
    asked = f" (casemate_other_firewalls: stop has apply do that with {known})" if known and not stops else ""
    return (
        f"{whose}rules that are not Casemate's drop whatever they do not admit ({'; '.join(denying)}), "
        "joins and pods too, since each firewall has to admit a packet. List what else may be reached in "
        "k3s_firewall_allow, then turn the other one off: "
        f"{remedy or 'find out what loads these chains, and remove them there'}{asked}. Or, if it admits all that K3s "
        f"needs, waive {FIREWALL}"
    )


def twins(machines: Mapping[str, Mapping[str, str]]) -> tuple[list[str], list[str]]:
    """(problems, warnings) of hosts that are one node, or copies of one machine; `machines`: host -> what it said."""
    found, warnings = [], []
    for host, other, name in _pairs(machines, "node"):
        found.append(
            f"{other} and {host} both have the node name {name}, so one would take the other's place. Give each a name "
            "of its own: hostnamectl set-hostname NAME on it, or node-name in its k3s_node_config"
        )
    for key, what, remedy in (
        ("machine", "/etc/machine-id", "rm /etc/machine-id && systemd-machine-id-setup, and reboot"),
        ("key", "SSH host key", "rm /etc/ssh/ssh_host_*_key* && dpkg-reconfigure openssh-server"),
    ):
        for host, other, _ in _pairs(machines, key):
            warnings.append(f"{other} and {host} have the same {what}, as copies of one machine have. On one: {remedy}")
    return found, warnings


def _pairs(machines: Mapping[str, Mapping[str, str]], key: str) -> list[tuple[str, str, str]]:
    """(host, an earlier one with the same value, the value)."""
    first: dict[str, str] = {}
    pairs = []
    for host, machine in machines.items():
        value = machine.get(key) or ""
        if value and first.setdefault(value, host) != host:
            pairs.append((host, first[value], value))
    return pairs
