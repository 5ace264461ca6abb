"""What a host is and what its K3s runs with, for the judgement before the first change. Prints one JSON object.

Run by the probe as it stands, by the host's own Python and before any module is there: so it imports nothing of ours.
What the cluster runs with comes from K3s' own /v1-k3s/config, asked with the kubelet's credentials as every agent does;
files on disk do not tell, since a K3s that ended over a wrong value has written that one into some of them. A K3s that
systemd keeps starting again is not asked either: it answers with the wrong value until it ends.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import subprocess
import sys
from typing import Any, Dict, List, Sequence

AGENT = "/var/lib/rancher/k3s/agent/"
OWN = "/etc/rancher/k3s/config.yaml.d/casemate-k3s_node.yaml"
IMAGES = "/etc/casemate/images/list.json"
"""The signed list of images that this node goes by."""
KEYS = (
    "ClusterIPRanges",
    "ServiceIPRanges",
    "ClusterDNSs",
    "ClusterDomain",
    "FlannelBackend",
    "EncryptSecrets",
    "PrivateIP",
)
WRITTEN = (
    "/etc",
    "/etc/apt/apt.conf.d",
    "/etc/audit/rules.d",
    "/etc/casemate",
    "/etc/default",
    "/etc/default/grub.d",
    "/etc/logrotate.d",
    "/etc/modprobe.d",
    "/etc/modules-load.d",
    "/etc/needrestart/conf.d",
    "/etc/profile.d",
    "/etc/rancher/k3s",
    "/etc/rancher/k3s/config.yaml.d",
    "/etc/rancher/node",
    "/etc/security/limits.d",
    "/etc/security/pwquality.conf.d",
    "/etc/ssh",
    "/etc/ssh/sshd_config.d",
    "/etc/sudoers.d",
    "/etc/sysctl.d",
    "/etc/systemd/coredump.conf.d",
    "/etc/systemd/journald.conf.d",
    "/etc/systemd/system",
    "/etc/tmpfiles.d",
    "/usr/local/bin",
    "/var/lib/casemate",
    "/var/lib/kubelet",
    "/var/lib/rancher",
    "/var/lib/rancher/k3s",
    "/var/lib/rancher/k3s/agent",
    "/var/lib/rancher/k3s/agent/containerd",
    "/var/lib/rancher/k3s/agent/etc/containerd",
    "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d",
    "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d",
    "/var/lib/rancher/k3s/agent/images",
    "/var/lib/rancher/k3s/data",
    "/var/lib/rancher/k3s/server",
    "/var/lib/rancher/k3s/server/db",
    "/var/lib/rancher/k3s/server/db/etcd",
    "/var/lib/rancher/k3s/server/tls",
    "/var/log",
    "/var/log/k3s",
)
"""Folders that an apply or K3s writes into; each may be a mount of its own."""
SETTLED = 60.0
"""Seconds after which a K3s that systemd started again counts as one that stays."""


def addresses() -> List[str]:
    """The addresses of this host, as the kernel lists them."""
    found = []
    last = ""
    for line in _text("/proc/net/fib_trie").split("\n"):
        word = re.search(r"(\d+\.\d+\.\d+\.\d+)$", line)
        last = word.group(1) if word else last
        if "/32 host LOCAL" in line:
            found.append(last)
    for line in filter(None, _text("/proc/net/if_inet6").split("\n")):
        digits = line.split()[0]
        found.append(":".join(digits[i : i + 4] for i in range(0, 32, 4)))
    return sorted(set(found))


def node_name() -> str:
    """The name by which this host's kubelet is known to the cluster, from its certificate."""
    try:
        seen = ssl._ssl._test_decode_cert(AGENT + "client-kubelet.crt")  # type: ignore[attr-defined]
    except (OSError, ssl.SSLError, AttributeError):
        return ""
    names = [value for part in seen.get("subject", ()) for key, value in part if key == "commonName"]
    return names[0][len("system:node:") :] if names and names[0].startswith("system:node:") else ""


def settled_unit() -> str:
    """The unit of K3s that runs and stays, or nothing."""
    for unit in ("k3s.service", "k3s-agent.service"):
        asked = ["systemctl", "show", "-p", "ActiveState,NRestarts,ActiveEnterTimestampMonotonic", "--", unit]
        try:
            out = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False).stdout
        except (OSError, subprocess.SubprocessError):
            return ""
        shown = dict(line.split("=", 1) for line in out.split("\n") if "=" in line)
        if shown.get("ActiveState") != "active":
            continue
        since = float(_text("/proc/uptime").split()[0]) - int(shown.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        if shown.get("NRestarts", "0") in ("", "0") or since >= SETTLED:
            return unit
    return ""


def cluster(unit: str) -> Dict[str, Any]:
    """What the cluster runs with, by the names of K3s' own structure; empty where nobody says so."""
    port = 6443 if unit == "k3s.service" else 6444  # an agent's own way to the servers
    try:
        context = ssl.create_default_context(cafile=AGENT + "server-ca.crt")
        context.load_cert_chain(AGENT + "client-kubelet.crt", AGENT + "client-kubelet.key")
        asked = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
        asked.request("GET", "/v1-k3s/config")
        answer = asked.getresponse()
        settings = json.loads(answer.read()) if answer.status == 200 else {}
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    return {key: settings[key] for key in KEYS if key in settings} if isinstance(settings, dict) else {}


def room(folders: Sequence[str]) -> List[Dict[str, Any]]:
    """Of each file system below these folders: one of them, MiB and inodes free, and whether it may be written.

    Some file systems count no inodes (btrfs says 0 of 0); then they are None.
    """
    found: Dict[Any, Dict[str, Any]] = {}
    for folder in folders:
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        try:
            seen = os.statvfs(folder)
            key = (os.stat(folder).st_dev, bool(seen.f_flag & os.ST_RDONLY))
        except OSError:
            continue
        inodes = seen.f_favail if seen.f_files else None
        found.setdefault(
            key, {"folder": folder, "mib": seen.f_bavail * seen.f_frsize >> 20, "inodes": inodes, "ro": key[1]}
        )
    return list(found.values())


def image_list() -> int:
    """The serial of the list of images; 0 where there is none, or it has none."""
    try:
        serial = json.loads(_text(IMAGES))["serial"]
    except (KeyError, RecursionError, TypeError, ValueError):
        return 0
    return serial if isinstance(serial, int) else 0


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def main(paths: Sequence[str]) -> None:
    """Say what this host is; `paths` are files whose absence is to be told."""
    unit = settled_unit()
    found = {
        "hostname": os.uname().nodename,
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "addresses": addresses(),
        "absent": [path for path in paths if not os.path.exists(path)],
        "node": node_name(),
        "own": re.findall(r"(?m)^([a-z0-9-]+):", _text(OWN)),
        "etcd": os.path.isdir("/var/lib/rancher/k3s/server/db/etcd"),
        "encryption": os.path.exists("/var/lib/rancher/k3s/server/cred/encryption-config.json"),
        "image_list": image_list(),
        "room": room(WRITTEN),
        "cluster": cluster(unit) if unit else {},
    }
    print("casemate:host=" + json.dumps(found, sort_keys=True))


if __name__ == "__main__":
    main(sys.argv[1:])
