"""What is on a host beside Casemate: seen by what is effective, told by names, and put into words with the way out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from casemate.preflight import host_facts, neighbours
from module_utils.casemate.host import conflicts
from module_utils.casemate.kinds import other_firewalls

CANARY = "K10canary::server:canary"
UNITS = "/etc/systemd/system"
SCRIPT_UNIT = """[Unit]
Description=Lightweight Kubernetes
[Service]
Type=notify
EnvironmentFile=-/etc/default/%N
EnvironmentFile=-/etc/sysconfig/%N
EnvironmentFile=-{path}.env
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStart=/usr/local/bin/k3s \\
    {node} \\
\t'--disable=traefik' \\
\t'--token' \\
\t'canary-token' \\
\t'--datastore-endpoint=mysql://root:canary@tcp(db:3306)/k3s' \\

"""
OUR_UNIT = "# Managed by Casemate. No secret stands here: systemd shows units to everybody.\n[Service]\n"
OUR_UNIT += "ExecStart=/usr/local/bin/k3s server\n"
SERVER = {f"{UNITS}/k3s.service": SCRIPT_UNIT.format(path=f"{UNITS}/k3s.service", node="server")}
SQLITE = {conflicts.DATABASE: "SQLite format 3", conflicts.DATA + "/server/token": CANARY}
ETCD = {conflicts.ETCD + "/member/snap/db": "", conflicts.DATA + "/server/token": CANARY}
AGENT_DATA = {conflicts.DATA + "/agent/client-kubelet.crt": "x"}
OURS = {conflicts.CONFIG + "/config.yaml.d/casemate-k3s_node.yaml": "cluster-init: true\n"}
TOML = {conflicts.DATA + "/agent/etc/containerd/config-v3.toml.d/50-casemate.toml": "version = 3\n"}


def laid(root: Path, files: dict[str, str]) -> str:
    FakeHost(root, files)
    return str(root)


def refusals(root: Path, files: dict[str, str], node: str = "server") -> str:
    """All that preflight says of these files."""
    found: Any = {"cluster": conflicts.cluster(laid(root, files)), "resolvers": {"/r": "nameserver 192.0.2.1\n"}}
    return "\n".join(neighbours.problems(found, node, ["/r"], []))


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({**SERVER, **SQLITE}, [f"{UNITS}/k3s.service (--disable, --token, --datastore-endpoint)",
                                f"the SQLite database {conflicts.DATABASE}"]),
        ({**SERVER, f"{UNITS}/k3s.service.env": f"K3S_TOKEN='{CANARY}'\nHTTP_PROXY=canary\n", **ETCD},
         [f"{UNITS}/k3s.service.env (HTTP_PROXY, K3S_TOKEN)", conflicts.ETCD]),
        ({**SERVER, "/etc/default/k3s": "K3S_DATASTORE_ENDPOINT=canary\n"},
         ["/etc/default/k3s (K3S_DATASTORE_ENDPOINT)"]),
        ({f"{UNITS}/k3s-agent.service": SCRIPT_UNIT.format(path=f"{UNITS}/k3s-agent.service", node="agent"),
          f"{UNITS}/k3s-agent.service.env": f"K3S_URL='https://canary:6443'\nK3S_TOKEN='{CANARY}'\n"},
         [f"{UNITS}/k3s-agent.service (--", f"{UNITS}/k3s-agent.service.env (K3S_TOKEN, K3S_URL)"]),
        ({f"{UNITS}/k3s-blue.service": SCRIPT_UNIT.format(path="/x", node="server")}, [f"{UNITS}/k3s-blue.service"]),
        ({"/usr/lib/systemd/system/kube.service": "ExecStart=/opt/bin/k3s server -d /canary\n"},
         ["/usr/lib/systemd/system/kube.service (-d)"]),
        ({f"{UNITS}/k3s.service": 'Environment="K3S_TOKEN=canary" A=canary\nExecStart=/usr/local/bin/k3s server\n'},
         [f"{UNITS}/k3s.service (A, K3S_TOKEN)"]),
        ({f"{UNITS}/k3s.service": "ExecStart=/usr/local/bin/k3s server --kubelet-arg='open\n"}, ["(--kubelet-arg)"]),
        (SQLITE, [f"the SQLite database {conflicts.DATABASE}"]),
        ({**SQLITE, f"{UNITS}/k3s.service": OUR_UNIT, **OURS}, [f"the SQLite database {conflicts.DATABASE}"]),
        (ETCD, [conflicts.ETCD]),
        (AGENT_DATA, [conflicts.DATA + "/agent/client-kubelet.crt"]),
        ({**SERVER, conflicts.CONFIG + "/config.yaml": f"token: {CANARY}\ntls-san:\n  - canary\n"},
         [conflicts.CONFIG + "/config.yaml (token, tls-san)"]),
        ({**SERVER, "/usr/local/bin/k3s-uninstall.sh": "", "/usr/local/bin/k3s-killall.sh": ""},
         ["run /usr/local/bin/k3s-uninstall.sh on it"]),
        (SERVER, [f"systemctl disable --now k3s.service && rm {UNITS}/k3s.service"]),
    ],
)  # fmt: skip
def test_a_k3s_of_somebody_else_is_named_without_a_value(
    tmp_path: Path, files: dict[str, str], names: list[str]
) -> None:
    said = refusals(tmp_path, files)
    assert [name for name in names if name not in said] == []
    assert "canary" not in said
    assert "take this host out of the inventory" in said


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"/usr/local/bin/k3s": "binary"},  # a run was killed after each of these
        {"/usr/local/bin/k3s": "binary", conflicts.CONFIG + "/token": CANARY},
        {f"{UNITS}/k3s.service": OUR_UNIT},
        {f"{UNITS}/k3s.service": OUR_UNIT, **TOML},
        OURS,
        {**OURS, **ETCD},
        {f"{UNITS}/k3s.service": OUR_UNIT, **ETCD},
        {f"{UNITS}/k3s.service": OUR_UNIT, **OURS, **ETCD, conflicts.DATABASE: ""},  # left over from long ago
        {f"{UNITS}/k3s.service": OUR_UNIT, **OURS, f"{UNITS}/k3s.service.env": "K3S_TOKEN=x\n"},
        {f"{UNITS}/k3s-agent.service": OUR_UNIT.replace("server", "agent"), **TOML, **AGENT_DATA},
        {**TOML, **AGENT_DATA, **ETCD},  # the machine was made anew around its data
        {conflicts.CONFIG + "/config.yaml": "node-label: [a=b]\n"},
        {f"{UNITS}/k3s-backup.service": "ExecStart=/usr/local/bin/k3s etcd-snapshot save\n"},
        {f"{UNITS}/other.service": "ExecStart=/usr/bin/notk3s server\nExecStop=/usr/local/bin/k3s server\n"},
    ],
)
def test_what_casemate_made_or_half_made_is_never_refused(tmp_path: Path, files: dict[str, str]) -> None:
    assert refusals(tmp_path, files) == ""


def answers(**commands: str) -> Callable[[Sequence[str]], str]:
    """A host on which commands, named by their words with _, say something."""

    def run(command: Sequence[str]) -> str:
        line = "_".join(command).replace("-", "_")
        return next((said for start, said in commands.items() if line.startswith(start)), "")

    return run


def shown(*states: tuple[str, str, str]) -> str:
    return "\n\n".join(f"Id={name}\nActiveState={active}\nUnitFileState={file}" for name, active, file in states)


@pytest.mark.parametrize(
    ("states", "says"),
    [
        (("rke2-server.service", "active", "enabled"), "RKE2 is active here (rke2-server.service)"),
        (("k0sworker.service", "inactive", "enabled"), "k0s is enabled here"),
        (("snap.microk8s.daemon-kubelite.service", "active", "enabled"), "snap remove microk8s"),
        (("kubelet.service", "activating", "enabled"), "kubeadm reset"),
        (("kubelet.service", "inactive", "disabled"), ""),
        (("kubelet.service", "inactive", ""), ""),
    ],
)
def test_another_kubernetes_is_named_with_what_removes_it(states: tuple[str, str, str], says: str) -> None:
    units = conflicts.states(answers(systemctl=shown(states, ("ufw.service", "inactive", ""))))
    found = neighbours.problems({"units": units}, "server", ["/r"], [neighbours.RESOLVER])
    assert [says in one for one in found] == ([True] if says else [])


@pytest.mark.parametrize(
    ("port", "pid", "node", "says"),
    [
        (6443, 7, "server", "port 6443, which K3s needs, is taken by haproxy of haproxy.service"),
        (6443, 7, "agent", ""),
        (10250, 7, "agent", "port 10250"),
        (10250, 8, "agent", ""),  # K3s itself
        (8080, 7, "server", ""),
    ],
)
def test_who_holds_a_port_of_k3s_is_named(tmp_path: Path, port: int, pid: int, node: str, says: str) -> None:
    laid(tmp_path, {"/proc/7/cgroup": "0::/system.slice/haproxy.service\n",
                    "/proc/8/cgroup": "1:name=systemd:/system.slice/k3s-agent.service/x\n"})  # fmt: skip
    line = f'LISTEN 0 4096 *:{port} *:* users:(("haproxy",pid={pid},fd=13))\n'
    found: Any = {"listeners": conflicts.listeners(str(tmp_path), answers(ss=line))}
    said = neighbours.problems(found, node, ["/r"], [neighbours.RESOLVER])
    assert [says in one for one in said] == ([True] if says else [])


CHAINS = """table {table} {{
	chain {chain} {{
		type filter hook {hook} priority filter; policy {policy};
	}}
}}
"""


@pytest.mark.parametrize(
    ("table", "hook", "policy", "rule", "refuses"),
    [
        ("ip filter", "input", "drop", "", True),
        ("inet firewalld", "input", "accept", "reject with icmpx admin-prohibited", True),
        ("inet mine", "prerouting", "accept", "counter packets 3 bytes 9 drop", True),
        ("ip6 filter", "input", "accept", 'log prefix "no: " drop', True),
        ("ip filter", "input", "accept", "counter packets 9 bytes 9 jump KUBE-FIREWALL", False),
        ("inet f2b", "input", "accept", "tcp dport 22 ip saddr @banned reject", False),
        ("inet filter", "input", "accept", "ct state invalid drop", False),
        ("ip filter", "forward", "drop", "", False),  # Docker's; flannel's rules come before it
        ("inet casemate", "input", "drop", "", False),
    ],
)
def test_what_is_loaded_tells_whether_a_firewall_closes_the_node(
    tmp_path: Path, table: str, hook: str, policy: str, rule: str, refuses: bool
) -> None:
    listed = CHAINS.format(table=table, chain="INPUT", hook=hook, policy=policy)
    chain = listed.replace(f"policy {policy};", f"policy {policy};\n\t\ttcp dport 22 accept\n\t\t{rule}")
    run = answers(nft_list_chains=listed, nft_list_chain_=chain)
    found = conflicts.denying(str(tmp_path), run)
    assert found == ([f"table {table}, chain INPUT"] if refuses else [])
    host = FakeHost(tmp_path, commands={"nft list chains": (0, listed, ""), "nft list chain ": (0, chain, "")})
    setting: Any = {"choice": "keep"}
    verdict = other_firewalls.assess(setting, other_firewalls.observe([setting], host)[0])
    assert (verdict.ok, table in verdict.reason) == (not refuses, refuses)


@pytest.mark.parametrize(
    ("rules", "refuses"),
    [
        ("*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n", True),
        ("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\n", True),
        ("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n-A INPUT -p tcp --dport 22 -j DROP\n", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_rules_of_iptables_are_read_where_nft_is_not_there(
    tmp_path: Path, kind: str, rules: str, refuses: bool
) -> None:
    laid(tmp_path, {"/proc/net/ip_tables_names": "filter\n"} if kind == "legacy" else {})
    assert bool(conflicts.denying(str(tmp_path), answers(**{f"iptables_{kind}_save": rules}))) is refuses


@pytest.mark.parametrize(
    ("settings", "on"),
    [
        ("ENABLED=yes\n", True),
        ('ENABLED="yes"\n', True),
        ("ENABLED='YES'\n", True),
        ("ENABLED=no\n", False),
        ("# ENABLED=yes\n", False),
        ("", False),
    ],
)
def test_ufw_is_on_where_its_settings_say_so_as_sh_reads_them(tmp_path: Path, settings: str, on: bool) -> None:
    for path, content in (("etc/ufw/ufw.conf", settings), ("lib/ufw/ufw-init", "")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(content)
    assert conflicts.ufw(str(tmp_path)) is on


def test_ufw_that_was_removed_is_off_whatever_its_settings_say(tmp_path: Path) -> None:
    (tmp_path / "etc/ufw").mkdir(parents=True)
    (tmp_path / "etc/ufw/ufw.conf").write_text("ENABLED=yes\n")
    assert not conflicts.ufw(str(tmp_path))


@pytest.mark.parametrize(
    ("units", "ufw", "says"),
    [
        ({"ufw.service": "active"}, True, "ufw is active: rules that are not Casemate's drop"),
        ({"ufw.service": "active"}, False, "find out what loads these chains"),
        ({}, True, "then turn the other one off: ufw disable (casemate_"),  # `ufw enable` starts no unit
        ({"firewalld.service": "active"}, True, "firewalld and ufw are active"),
        ({"firewalld.service": "active"}, False, "systemctl disable --now firewalld"),
        ({"netfilter-persistent.service": "active"}, False, "netfilter-persistent flush"),
        ({"nftables.service": "active", "ferm.service": "enabled"}, False, "systemctl disable nftables"),
        ({}, False, "find out what loads these chains"),
    ],
)
def test_an_active_firewall_is_named_with_the_commands(units: dict[str, str], ufw: bool, says: str) -> None:
    found: Any = {"denying": ["table ip filter, chain INPUT"], "units": units, "ufw": ufw}
    (said,) = neighbours.problems(found, "agent", ["/r"], [neighbours.RESOLVER])
    assert says in said
    assert "table ip filter, chain INPUT" in said
    assert neighbours.problems(found, "agent", ["/r"], [neighbours.RESOLVER, neighbours.FIREWALL]) == []
    assert neighbours.problems({"units": units, "ufw": ufw}, "agent", ["/r"], [neighbours.RESOLVER]) == []


@pytest.mark.parametrize(
    ("units", "ufw", "refused"),
    [
        ({}, True, False),
        ({"firewalld.service": "active"}, False, False),
        ({"netfilter-persistent.service": "active"}, False, False),
        ({"shorewall.service": "active"}, False, True),
        ({}, False, True),
    ],
)
def test_a_firewall_that_apply_switches_off_is_no_refusal(units: dict[str, str], ufw: bool, refused: bool) -> None:
    found: Any = {"denying": ["table ip filter, chain INPUT"], "units": units, "ufw": ufw}
    assert bool(neighbours.problems(found, "agent", ["/r"], [neighbours.RESOLVER], stops=True)) is refused
    (said,) = neighbours.problems(found, "agent", ["/r"], [neighbours.RESOLVER])
    assert ("casemate_other_firewalls: stop" in said) is not refused


def test_resolvers_that_no_pod_reaches_are_refused_before_the_first_change() -> None:
    stub, good = {"/etc/resolv.conf": "nameserver 127.0.0.53\n"}, {"/run/r": "nameserver 192.0.2.53\n"}
    files = ["/etc/resolv.conf", "/run/r"]
    assert neighbours.problems({"resolvers": {**stub, **good}}, "agent", files, []) == []
    (said,) = neighbours.problems({"resolvers": stub}, "agent", files, [])
    assert "/etc/resolv.conf:1: nameserver 127.0.0.53 is on loopback" in said
    assert "k3s_node_resolv_conf" in said
    assert neighbours.problems({"resolvers": stub}, "agent", files, [neighbours.RESOLVER]) == []
    (missing,) = neighbours.problems({}, "agent", ["/srv/r"], [])
    assert "/srv/r is missing" in missing


@pytest.mark.parametrize(
    ("connection", "right"),
    [("ssh", True), ("smart", True), ("local", False), ("docker", False), ("paramiko", False), ("a.b.nsenter", False)],
)  # fmt: skip
def test_only_over_ssh_a_fresh_login_is_proven(connection: str, right: bool) -> None:
    assert (neighbours.connection_problems(connection) == []) is right


def test_hosts_that_would_be_one_node_are_refused_and_copies_of_one_machine_are_told() -> None:
    machines: Any = {
        "a": {"node": "web", "machine": "1", "key": "k"},
        "b": {"node": "db", "machine": "1", "key": "k"},
        "c": {"node": "web", "machine": "2", "key": ""},
        "d": {"node": "", "machine": "", "key": ""},
        "e": {},
    }
    problems, warnings = neighbours.twins(machines)
    assert len(problems) == 1
    assert problems[0].startswith("a and c both have the node name web")
    assert [one.partition(",")[0] for one in warnings] == [
        "a and b have the same /etc/machine-id", "a and b have the same SSH host key",
    ]  # fmt: skip
    assert neighbours.twins({"a": machines["a"], "d": {}}) == ([], [])


def test_the_probe_runs_as_it_stands() -> None:
    done = subprocess.run(
        ["sh", "-c", host_facts.script(sys.executable, [], ["/etc/passwd"])], capture_output=True, text=True
    )
    seen: Any = host_facts.answer_of("conflicts", host_facts.parse(done.stdout))
    assert set(seen) == {"cluster", "units", "ufw", "listeners", "denying", "machine", "key", "resolvers"}
    assert "root:" in json.dumps(seen["resolvers"]["/etc/passwd"])
