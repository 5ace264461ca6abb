"""What is on a host that conflicts with K3s: other clusters, firewalls that close its ports, listeners on them.

Run by the probe as it stands, by the host's own Python, before the first change: so it imports nothing of ours. The
kind nft asks it for the firewalls, too. It reads only, and tells names, never values: of an environment file the
variables, of a command line the flags.

Sources: K3s' install.sh (unit, environment file, scripts, links), nft(8), iptables-save(8).
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

MARK = "# Managed by Casemate"
FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
DATA, CONFIG = "/var/lib/rancher/k3s", "/etc/rancher/k3s"
DATABASE, ETCD = DATA + "/server/db/state.db", DATA + "/server/db/etcd"
HELD = (DATABASE, ETCD, DATA + "/server/token", DATA + "/agent/client-kubelet.crt")
"""What only a K3s that has run leaves."""
OURS = (CONFIG + "/config.yaml.d/casemate-*.yaml", DATA + "/agent/etc/containerd/config-v3.toml.d/50-casemate.toml")
"""Files that Casemate writes before it starts K3s for the first time."""
SCRIPTS = ("k3s-uninstall.sh", "k3s-agent-uninstall.sh", "k3s-killall.sh")
PORTS = (6443, 2379, 2380, 10250)
CLUSTERS = (
    "rke2-server", "rke2-agent", "k0scontroller", "k0sworker", "kubelet", "snap.microk8s.daemon-kubelite",
    "snap.microk8s.daemon-kubelet", "snap.k8s.kubelet",
)  # fmt: skip
FIREWALLS = ("ufw", "firewalld", "shorewall", "shorewall6", "ferm", "netfilter-persistent", "nftables")
"""Units that bring other Kubernetes or other firewalls."""
REFUSES = re.compile(r"policy drop|^\s*(counter packets \d+ bytes \d+ )?(log .*)?(drop|reject\b.*)$", re.MULTILINE)
"""A policy, or a rule without a condition, that lets nothing pass but what was admitted before."""
Run = Callable[[Sequence[str]], str]


def output(command: Sequence[str]) -> str:
    """What a command says, or nothing."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False, env=environment)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")


def text(path: str) -> str:
    """A file's text, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read() if os.path.isfile(path) else ""
    except OSError:
        return ""


def variables(lines: str) -> List[str]:
    """The names that an environment file sets."""
    return sorted(set(re.findall(r"(?m)^\s*(?:export\s+)?([A-Za-z_]\w*)=", lines)))


def k3s_units(root: str = "") -> Iterator[Tuple[str, str]]:
    """(path, text) of each unit, whatever its name, that starts a server or an agent of K3s."""
    seen = set()
    for folder in FOLDERS:
        for path in sorted(glob.glob(f"{root}{folder}/*.service")):
            name, lines = os.path.basename(path), text(path).replace("\\\n", " ")
            starts = re.search(r"(?m)^ExecStart=[\"']?(?:\S*/)?k3s[\"']?\s+[\"']?(server|agent)\b", lines)
            if starts and name not in seen:
                seen.add(name)
                yield path[len(root) :], lines


def flags(lines: str) -> List[str]:
    """The names of the flags with which a unit starts K3s."""
    found = []
    for line in re.findall(r"(?m)^ExecStart=(.*)$", lines):
        try:
            words = shlex.split(line)
        except ValueError:  # a quote without its end
            words = line.split()
        found += [word.partition("=")[0] for word in words[2:] if word.startswith("-")]
    return list(dict.fromkeys(found))


def described(path: str, lines: str, root: str = "") -> Dict[str, Any]:
    """A unit of somebody else: its flags, and the environment that it reads, by name."""
    name = os.path.basename(path)
    named = [given.lstrip("-").replace("%N", name[: -len(".service")]) for given in _given(lines, "EnvironmentFile")]
    files = {file: variables(text(root + file)) for file in dict.fromkeys([*named, f"{path}.env"])}
    inline = variables("\n".join(word for one in _given(lines, "Environment") for word in _words(one)))
    return {
        "path": path,
        "flags": flags(lines),
        "environment": inline,
        "files": {file: names for file, names in files.items() if names},
    }


def _given(lines: str, key: str) -> List[str]:
    return [one.strip() for one in re.findall(rf"(?m)^{key}=(.*)$", lines)]


def _words(line: str) -> List[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def cluster(root: str = "") -> Dict[str, Any]:
    """The K3s of somebody else that is here: units, data, configuration and scripts; empty where there is none.

    Data are Casemate's where a file lies beside them that it writes before the first start. SQLite's are nobody's of
    ours: the first server of Casemate begins with etcd.
    """
    units = list(k3s_units(root))
    somebody_elses = [described(path, lines, root) for path, lines in units if MARK not in lines]
    ours = len(somebody_elses) < len(units) or any(glob.glob(root + pattern) for pattern in OURS)
    held = [path for path in HELD if os.path.exists(root + path)]
    if not somebody_elses and not (held and not ours) and not (DATABASE in held and ETCD not in held):
        return {}
    keys = {
        path[len(root) :]: re.findall(r"(?m)^([A-Za-z0-9-]+)\+?[ \t]*:", text(path))
        for path in [f"{root}{CONFIG}/config.yaml", *sorted(glob.glob(f"{root}{CONFIG}/config.yaml.d/*.y*ml"))]
        if not os.path.basename(path).startswith("casemate-")
    }
    places = [f"/usr/local/bin/{name}" for name in SCRIPTS] + [f"/opt/bin/{name}" for name in SCRIPTS]
    return {
        "units": somebody_elses,
        "data": held,
        "keys": {path: names for path, names in keys.items() if names},
        "scripts": [path for path in places if os.path.exists(root + path)],
    }


def states(run: Run = output) -> Dict[str, str]:
    """Unit -> active or enabled, of those of other clusters and firewalls that are one of both."""
    names = [f"{name}.service" for name in (*CLUSTERS, *FIREWALLS)]
    found = {}
    for block in run(["systemctl", "show", "-p", "Id,ActiveState,UnitFileState", "--", *names]).split("\n\n"):
        shown = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if shown.get("ActiveState") in ("active", "activating", "reloading"):
            found[shown.get("Id", "")] = "active"
        elif shown.get("UnitFileState") in ("enabled", "enabled-runtime"):
            found[shown.get("Id", "")] = "enabled"
    return found


def listeners(root: str = "", run: Run = output) -> Dict[str, List[str]]:
    """Port of K3s -> [program, unit] of the process that has it and is of no unit of K3s."""
    found: Dict[str, List[str]] = {}
    for line in run(["ss", "-Hltnp"]).splitlines():
        said = re.search(r":(\d+)\s+\S+\s+users:\(\(\"([^\"]+)\",pid=(\d+)", line)
        if said and int(said.group(1)) in PORTS:
            groups = re.findall(r"([^/\n]+\.(?:service|scope))", text(f"{root}/proc/{said.group(3)}/cgroup"))
            unit = groups[-1] if groups else ""
            if not {"k3s.service", "k3s-agent.service"} & set(groups):
                found[said.group(1)] = [said.group(2), unit]
    return found


def denying(root: str = "", run: Run = output) -> List[str]:
    """Chains for incoming packets, not Casemate's, that drop or refuse whatever they do not admit.

    What counts is the rules that are loaded, not the packages: a policy, or a rule for every packet. All tables have to
    admit a packet. Those of iptables are tables of nftables, too, but for its older kind.
    """
    found: List[str] = []
    table = chain = ""
    for line in run(["nft", "list", "chains"]).splitlines():
        words = line.split()
        if words[:1] == ["table"]:
            table = " ".join(words[1:3])
        elif words[:1] == ["chain"]:
            chain = words[1]
        elif "type filter hook input" in line or "type filter hook prerouting" in line:
            if table == "inet casemate":
                continue
            rules = run(["nft", "list", "chain", *table.split(), chain])
            if REFUSES.search(rules):
                found.append(f"table {table}, chain {chain}")
    for version, names in (("", "ip_tables_names"), ("6", "ip6_tables_names")):
        legacy = "filter" in text(f"{root}/proc/net/{names}").split()  # asking for it would load it
        if found and not legacy:
            continue
        rules = run([f"ip{version}tables-legacy-save" if legacy else f"ip{version}tables-nft-save", "-t", "filter"])
        if re.search(r"(?m)^:INPUT DROP|^-A INPUT -j (DROP|REJECT)", rules):
            found.append(f"ip{version}tables, chain INPUT")
    return found


def ufw(root: str = "") -> bool:
    """Whether somebody has enabled ufw, by its ufw.conf: a script of sh, in which a value may be quoted.

    It stays when the package is removed, and with that what loads its rules.
    """
    is_there = os.path.exists(f"{root}/lib/ufw/ufw-init")
    return is_there and bool(re.search(r"(?im)^\s*ENABLED=[\"']?yes", text(f"{root}/etc/ufw/ufw.conf")))


def main() -> None:
    """Say what is on this host that conflicts with K3s, and what else preflight compares hosts by."""
    key = text("/etc/ssh/ssh_host_ed25519_key.pub").split()[1:2]
    found = {
        "cluster": cluster(),
        "units": states(),
        "ufw": ufw(),
        "listeners": listeners(),
        "denying": denying(),
        "machine": text("/etc/machine-id").strip(),
        "key": hashlib.sha256("".join(key).encode()).hexdigest()[:16] if key else "",
        "resolvers": {path: text(path) for path in sys.argv[1:] if os.path.isfile(path)},
    }
    print("casemate:conflicts=" + json.dumps(found, sort_keys=True))


if __name__ == "__main__":
    main()
