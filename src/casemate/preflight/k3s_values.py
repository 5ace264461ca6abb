"""Values with which K3s or its kubelet does not start, told before any host is touched. Pure.

Of `k3s_node_config` only keys of labels and taints, and names of interfaces, networks and nodes are shown.
Sources: ValidateKubeletFlags and ParseTaints of Kubernetes, k8s.io/apimachinery/pkg/util/validation, and K3s' pkg/cli.
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from casemate.catalogue import declarations
from module_utils.casemate.k3s.files import flag_of

LABEL = r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)"
PREFIX = r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
NAME = r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
KEY_WORDS = "63 letters, digits, dots, dashes and _ at most, after a domain in lower case and a slash, if any"
VALUE_WORDS = "63 letters, digits, dots, dashes and _ at most, from letter or digit to letter or digit"
DURATION = r"[+-]?(0|(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*)"
QUANTITY = r"[+]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?"
PERCENT = r"(100(\.0*)?|\d{1,2}(\.\d*)?)%"
BOOLEAN = r"1|t|T|TRUE|true|True|0|f|F|FALSE|false|False"
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
KUBELET_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
KUBELET_LABELS = (
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
)
"""What a kubelet may say of itself below kubernetes.io and k8s.io, besides everything below KUBELET_DOMAINS."""
SIGNALS = (
    "memory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "containerfs.available",
    "containerfs.inodesFree",
    "allocatableMemory.available",
    "pid.available",
)
RESERVABLE = ("cpu", "memory", "ephemeral-storage", "pid")
ADDRESSES = ("node-ip", "node-external-ip", "cluster-dns", "advertise-address")
NETWORKS = ("cluster-cidr", "service-cidr")
CHOICES = {
    "flannel-backend": ("none", "vxlan", "host-gw", "wireguard-native", "tailscale"),
    "egress-selector-mode": ("agent", "cluster", "pod", "disabled"),
}
"""Key of K3s -> what it may be (pkg/cli/cmds, pkg/agent/flannel)."""
FILES = ("flannel-conf", "flannel-cni-conf", "image-credential-provider-config", "vpn-auth-file", "etcd-s3-endpoint-ca")
"""Keys of K3s that name a file of the host without which it does not start."""
INODES, FEW = {"/var/lib/rancher": 1000, "/var/lib/rancher/k3s": 1000}, 32
"""Inodes that have to be free: K3s unpacks itself and its images into hundreds of files; elsewhere go a few."""
OURS = ("/etc/rancher/k3s/admission.yaml", "/etc/rancher/k3s/audit-policy.yaml")
"""What Casemate writes itself."""
MADE = "/var/lib/rancher/k3s/"
"""Where K3s makes its own files, some at its first start."""


def items(value: Any) -> list[str]:
    """The parts of a value that K3s takes as a list, or as text with commas."""
    return [part.strip() for one in (value if isinstance(value, list) else [value]) for part in str(one).split(",")]


def _is_key(text: str) -> bool:
    prefix, slash, name = text.rpartition("/")
    return bool(re.fullmatch(LABEL, name)) and (not slash or bool(re.fullmatch(PREFIX, prefix)))


def label_fault(text: str) -> str:
    """Why the kubelet does not take a label `key=value`; empty where it does."""
    key, given, value = text.partition("=")
    prefix = key.rpartition("/")[0]
    if not _is_key(key):
        return f"its key is none: {KEY_WORDS}"
    if not given:
        return f"{key} has no value: write {key}=value"
    if value and not re.fullmatch(LABEL, value):
        return f"the value of {key} is none: {VALUE_WORDS}"
    official = re.search(r"(^|\.)(kubernetes|k8s)\.io$", prefix)
    own = key in KUBELET_LABELS or any(prefix == one or prefix.endswith(f".{one}") for one in KUBELET_DOMAINS)
    if official and not own:
        return (
            f"a kubelet may not give itself {key}; a key below {' or '.join(KUBELET_DOMAINS)}, one of a domain of your "
            f"own, or none of a domain is allowed. Set this one by `kubectl label node`"
        )
    return ""


def taint_fault(text: str) -> str:
    """Why the kubelet does not take a taint `key[=value]:Effect`; empty where it does."""
    said, colon, effect = text.partition(":")
    key, _, value = said.partition("=")
    if text.endswith("-"):
        return "it ends in a dash, which removes a taint, and a node begins with none: use `kubectl taint node`"
    if not colon or effect not in EFFECTS:
        near = difflib.get_close_matches(effect, EFFECTS, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        shown = f"{key} has" if _is_key(key) else "it has"
        wrong = "another effect" if colon else "no effect"
        return f"{shown} {wrong}{hint}; allowed: key[=value]:Effect with {', '.join(EFFECTS)}"
    if not _is_key(key):
        return f"its key is none: {KEY_WORDS}"
    if value and not re.fullmatch(LABEL, value):
        return f"the value of {key} is none: {VALUE_WORDS}"
    return ""


def taints_fault(texts: Sequence[str]) -> str:
    """The first fault of some taints, or two of one key and effect."""
    for at, text in enumerate(texts):
        if fault := taint_fault(text):
            return f"item {at + 1}: {fault}"
    pairs = [(text.partition(":")[0].partition("=")[0], text.partition(":")[2]) for text in texts]
    twice = next((pair for pair in pairs if pairs.count(pair) > 1), None)
    return f"{twice[0]} is there twice with the effect {twice[1]}" if twice else ""


def labels_fault(texts: Sequence[str]) -> str:
    """The first fault of some labels."""
    return next((f"item {at + 1}: {fault}" for at, text in enumerate(texts) if (fault := label_fault(text))), "")


def _address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _network(text: str) -> bool:
    try:
        return "/" in text and bool(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return False


def config_problems(config: Mapping[str, Any]) -> list[str]:
    """What K3s or its kubelet would not take of the keys of `k3s_node_config`."""
    found = []

    def refuse(key: str, fault: str) -> None:
        found.append(f"k3s_node_config.{key}: {fault}. Correct or remove it")

    if "node-label" in config and (fault := labels_fault(items(config["node-label"]))):
        refuse("node-label", fault)
    if "node-taint" in config and (fault := taints_fault(items(config["node-taint"]))):
        refuse("node-taint", fault)
    if "node-name" in config and not re.fullmatch(NAME, str(config["node-name"]).lower()):
        refuse(
            "node-name", "it is no name of a node: lower-case letters, digits, dashes and dots, 253 at most (RFC 1123)"
        )
    for key, is_right, what in (
        *((key, _address, "an IP address") for key in ADDRESSES),
        *((key, _network, "a network such as 10.42.0.0/16") for key in NETWORKS),
    ):
        if key in config and not all(map(is_right, items(config[key]))):
            refuse(key, f"every item of it has to be {what}")
    for key, allowed in CHOICES.items():
        if key in config and str(config[key]) not in allowed:
            refuse(key, f"it is none of {', '.join(allowed)}")
    if "cluster-domain" in config and not re.fullmatch(NAME, str(config["cluster-domain"])):
        refuse("cluster-domain", "it is no domain: lower-case letters, digits, dashes and dots")
    if "service-node-port-range" in config:
        ends = re.fullmatch(r"(\d{1,5})[-+](\d{1,5})", str(config["service-node-port-range"]))
        if not ends or not 0 < int(ends[1]) <= int(ends[2]) <= 65535:
            refuse("service-node-port-range", "it is no range of ports, such as 30000-32767")
    return found


def host_name_problems(name: str, config: Mapping[str, Any]) -> list[str]:
    """Whether a host's own name can be the node's, where no `node-name` is given."""
    if not name or "node-name" in config or re.fullmatch(NAME, name.lower()):
        return []
    todo = "rename it by hostnamectl, or set node-name in k3s_node_config"
    return [f"the host calls itself {name}, no name of a node (letters, digits, dashes and dots, RFC 1123): {todo}"]


@functools.cache
def kubelet() -> Mapping[str, Any]:
    """What the kubelet takes, by its minor version; read once."""
    known: Mapping[str, Any] = declarations.read(Path(__file__).parent / "schema/kubelet.yml")
    return known


@functools.cache
def _flags(minor: str) -> dict[str, tuple[str, Any]]:
    """The kubelet's flags of a minor version -> (type, choices or range)."""
    known = kubelet().get(minor) or {}
    flags = {n: (kind, None) for kind, names in known.items() if isinstance(names, list) for n in names}
    flags.update({name: ("choices", allowed) for name, allowed in (known.get("choices") or {}).items()})
    return {n: (kind, (known.get("ranges") or {}).get(n, more)) for n, (kind, more) in flags.items()}


def _pairs(value: str, separator: str, keys: Sequence[str], pattern: str, what: str) -> str:
    for pair in filter(None, value.split(",")):
        key, given, said = pair.partition(separator)
        if not given:
            return f"{pair} is no {what}"
        if keys and key.strip() not in keys:
            return f"{key} is unknown; allowed: {', '.join(keys)}"
        if not re.fullmatch(pattern, said.strip()):
            return f"{pair} is no {what}"
    return ""


def _threshold(value: str) -> str:
    wrong = _pairs(value, "<", SIGNALS, f"{QUANTITY}|{PERCENT}", "threshold such as memory.available<100Mi or <5%")
    zero = next((p for p in value.split(",") if re.fullmatch(r"[0.]+[A-Za-z]*", p.partition("<")[2])), "")
    return wrong or (f"{zero} is no positive amount" if zero else "")


CHECKS: dict[str, Callable[[str], str]] = {
    "address": lambda v: "" if not v or _address(v) else "it is no IP address",
    "bool": lambda v: "" if re.fullmatch(BOOLEAN, v) else "allowed: true or false",
    "duration": lambda v: "" if re.fullmatch(DURATION, v) else "allowed: a duration such as 10s or 1h30m",
    "labels": lambda v: labels_fault(v.split(",")) if v else "",
    "periods": lambda v: _pairs(v, "=", SIGNALS, DURATION, "grace period such as memory.available=1m30s"),
    "quantities": lambda v: _pairs(v, "=", RESERVABLE, QUANTITY, "amount such as memory=500Mi"),
    "quantity": lambda v: "" if re.fullmatch(QUANTITY, v) else "allowed: an amount such as 10Mi",
    "reclaims": lambda v: _pairs(v, "=", SIGNALS, f"{QUANTITY}|{PERCENT}", "amount such as imagefs.available=2Gi"),
    "switches": lambda v: _pairs(v, "=", (), BOOLEAN, "switch such as NodeSwap=true"),
    "taints": lambda v: taints_fault(v.split(",")) if v else "",
    "thresholds": _threshold,
}
"""Type of a flag -> why a value is not of it, or nothing."""


def _int_fault(value: str, bounds: Sequence[int] | None) -> str:
    if not re.fullmatch(r"[+-]?\d{1,18}", value):
        return "allowed: a whole number"
    low, high = bounds or (-(2**63), 2**63 - 1)
    return "" if low <= int(value) <= high else f"allowed: from {low} to {high}"


def kubelet_problems(arguments: Sequence[Any], version: str) -> list[str]:
    """What the kubelet of a K3s version would not take of `k3s_node_kubelet_args`."""
    minor = ".".join(re.findall(r"\d+", version)[:2])
    known = _flags(minor) if minor else {}
    found, seen = [], {}
    for at, item in enumerate(arguments):
        name, value = flag_of(item)
        name = name.replace("_", "-")  # as the kubelet itself reads it
        if not known:
            continue  # a version that this release does not know is refused for that
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            found.append(f"k3s_node_kubelet_args[{at}] has {name}, which is no flag of the kubelet{hint}. Correct it")
            continue
        kind, more = known[name]
        seen[name] = value
        if kind == "int":
            fault = _int_fault(value, more)
        elif kind == "choices":
            fault = "" if value in more else f"allowed: {', '.join(map(repr, more))}"
        else:
            fault = CHECKS[kind](value) if kind in CHECKS else ""
        if fault:
            found.append(f"k3s_node_kubelet_args[{at}] is {item}, which the kubelet refuses: {fault}. Correct it")
    soft = {p.partition("<")[0] for p in seen.get("eviction-soft", "").split(",") if p}
    graced = {p.partition("=")[0] for p in seen.get("eviction-soft-grace-period", "").split(",") if p}
    if not found and soft - graced:
        found.append(
            f"k3s_node_kubelet_args has eviction-soft for {', '.join(sorted(soft - graced))} without a grace period. "
            "Add it to eviction-soft-grace-period"
        )
    high, low = seen.get("image-gc-high-threshold", "85"), seen.get("image-gc-low-threshold", "80")
    if not found and int(low) >= int(high):
        found.append(
            f"k3s_node_kubelet_args has image-gc-low-threshold {low} and image-gc-high-threshold {high}. "
            "The low one must be less; the defaults are 80 and 85"
        )
    return found


def named_files(values: Mapping[str, Any]) -> dict[str, str]:
    """Path on the host -> the variable that names it and needs it there."""
    config = values.get("k3s_node_config") or {}
    found = {str(config[key]): f"k3s_node_config.{key}" for key in FILES if config.get(key)}
    if values.get("k3s_node_resolv_conf", "auto") != "auto":
        found[str(values["k3s_node_resolv_conf"])] = "k3s_node_resolv_conf"
    for variable in ("k3s_node_kubelet_args", "k3s_control_plane_apiserver_args"):
        for at, item in enumerate(values.get(variable) or []):
            name, path = flag_of(item)
            if re.search(r"-(file|config|kubeconfig)$", name) and path.startswith("/"):
                found.setdefault(path, f"{variable}[{at}]")
    return {path: name for path, name in found.items() if path not in OURS and not path.startswith(MADE)}


def room_problems(seen: Mapping[str, Any]) -> list[str]:
    """Mounts on which a file of ours could not be written; `seen`: what k3s_running told."""
    found = []
    for mount in seen.get("room") or ():
        folder, least = mount["folder"], INODES.get(mount["folder"], FEW)
        if mount["ro"]:
            found.append(f"{folder} is on a file system that cannot be written: remount it read-write")
        elif mount["inodes"] is not None and mount["inodes"] < least:
            found.append(
                f"{folder} has {mount['inodes']} inodes free (df -i); {least} are needed: remove files there, or make "
                "the file system with more"
            )
        elif mount["mib"] < 1:
            found.append(f"{folder} has no MiB free (df); 1 MiB is needed: free or add disk space")
    return found


def host_problems(values: Mapping[str, Any], seen: Mapping[str, Any], address: str) -> list[str]:
    """What the inventory names and this host does not have; `seen`: what k3s_running told."""
    if not seen:
        return []
    config = values.get("k3s_node_config") or {}
    found = host_name_problems(str(seen.get("hostname") or ""), config)
    interfaces = seen.get("interfaces") or []
    if config.get("flannel-iface") and str(config["flannel-iface"]) not in interfaces:
        found.append(
            f"k3s_node_config.flannel-iface is {config['flannel-iface']}, and this host has no such interface; it has "
            f"{', '.join(name for name in interfaces if name != 'lo')}. Correct or remove it"
        )
    here = {ipaddress.ip_address(text) for text in seen.get("addresses") or ()}
    usable = [str(one) for one in sorted(here, key=str) if not one.is_loopback and not one.is_link_local]
    for text in address.split(","):
        if not _address(text.strip()):
            continue
        one = ipaddress.ip_address(text.strip())
        if here and (one not in here or one.is_loopback):
            where = "is loopback" if one.is_loopback else "is not an address of this host"
            found.append(
                f"k3s_node_ip, or else ansible_host, is {text}, which {where}; it has {', '.join(usable)}. Set "
                "k3s_node_ip to the one by which the nodes reach it, and the outer one as node-external-ip in "
                "k3s_node_config"
            )
    named = named_files(values)
    for path in seen.get("absent") or ():
        if path in named:
            found.append(f"{named[path]} names {path}, which this host does not have. Put it there, or correct it")
    return found
