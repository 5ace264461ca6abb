"""The double of K3s says and leaves what a real K3s says and leaves: the same assertions hold for both.

The machines are a lab's (`casemate lab`), so these tests need root and systemd-nspawn; the real K3s takes part
where its release lies in CASEMATE_K3S_ARTIFACTS (~/.cache/casemate/k3s).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from casemate import ROOT
from casemate_lab import for_tests, lab

pytestmark = pytest.mark.lab
NAME = f"double-{os.getpid()}"  # two runs at a time do not take each other's machines
RELEASE = Path(os.environ.get("CASEMATE_K3S_ARTIFACTS", "~/.cache/casemate/k3s")).expanduser()
REAL = (RELEASE / "k3s").is_file()
DATA = "/var/lib/rancher/k3s"
CONFIG = """cluster-init: true
node-ip: {ip}
flannel-iface: host0
protect-kernel-defaults: true
secrets-encryption: true
agent-token: agents-only
write-kubeconfig-mode: "0640"
nonsense: 1
disable: [traefik, 'servicelb', "coredns", metrics-server, local-storage]
disable-helm-controller: true
kube-apiserver-arg:
- request-timeout=60s
- enable-admission-plugins=NodeRestriction,EventRateLimit
- admission-control-config-file=/etc/rancher/k3s/admission.yaml
- audit-policy-file=/etc/rancher/k3s/audit.yaml
- audit-log-path=/var/log/audit.log
kube-controller-manager-arg: [terminated-pod-gc-threshold=100]
kubelet-arg:
- pod-max-pids=1
"""
DROP_IN = """kubelet-arg: [pod-max-pids=4096]
kube-apiserver-arg+:
- tls-min-version=VersionTLS12
"""
LATER = "kubelet-arg+: [seccomp-default=true, fail-cgroupv1=false]\n"
ADMISSION = """apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: EventRateLimit
  configuration:
    apiVersion: eventratelimit.admission.k8s.io/v1alpha1
    kind: Configuration
    limits:
    - {type: Server, qps: 5000, burst: 20000}
"""
AUDIT = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"
CONTAINERD = "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nrestrict_oom_score_adj = true\n"
UNIT = """[Service]
Type=notify
Delegate=yes
KillMode=process
LimitNOFILE=20000
TimeoutStartSec=90
ExecStart=/usr/local/bin/k3s {kind}
"""


@dataclass
class Machine:
    """A machine of the lab with a K3s installed by hand."""

    name: str
    workdir: Path
    address: str

    def run(self, command: str, stdin: bytes | None = None, fails: bool = False) -> str:
        """Run a command as root; returns what it printed to standard output."""
        argv = [*lab.enter(NAME), "ssh", "-F", "none", "-i", str(self.workdir / "id_ed25519"), "-o", "BatchMode=yes"]
        argv += ["-o", f"UserKnownHostsFile={self.workdir}/known_hosts", "-o", "ControlMaster=auto"]
        argv += ["-o", f"ControlPath={self.workdir}/%h", "-o", "ControlPersist=60", f"ops@{self.address}"]
        done = subprocess.run(
            [*argv, f"sudo sh -c {shlex.quote(command)}"], input=stdin, capture_output=True, check=False
        )
        assert fails or done.returncode == 0, f"{command}: {done.stderr.decode()}{done.stdout.decode()}"
        return done.stdout.decode()

    def write(self, path: str, text: str) -> None:
        self.run(f"mkdir -p {Path(path).parent} && cat > {path}", text.encode())

    def install(self, release: Path, kind: str) -> None:
        self.run("install -m755 /dev/stdin /usr/local/bin/k3s", (release / "k3s").read_bytes())
        self.write(f"{DATA}/agent/etc/containerd/config-v3.toml.d/10-lab.toml", CONTAINERD)
        unit = "k3s" if kind == "server" else "k3s-agent"
        self.write(f"/etc/systemd/system/{unit}.service", UNIT.format(kind=kind))

    def journal(self, unit: str) -> str:
        return self.run(f"journalctl -u {unit} -b -o cat --no-pager")

    def arguments(self, unit: str, component: str) -> list[str]:
        """The flags of the component's last start, with the machine's own names taken out."""
        found = re.findall(rf'^time="[^"]+Z" level=info msg="Running {component} (--.*)"$', self.journal(unit), re.M)
        assert found, f"{self.name} has no line about {component}"
        return re.sub(rf"\b({self.name}|{re.escape(self.address)})\b", "NODE", found[-1]).split(" --")

    def listening(self) -> set[tuple[str, str]]:
        """(loopback, node or any; protocol and port) of what K3s listens on."""
        found = set()
        for line in self.run("ss -Hltun").splitlines():
            protocol, _, _, _, local = line.split()[:5]
            address, _, port = local.rpartition(":")
            where = {"127.0.0.1": "loopback", "[::1]": "loopback", self.address: "node"}.get(address, "any")
            if port not in ("22", "53", "5353", "5355") and not int(port) > 32767:
                found.add((where, f"{protocol}/{port}"))
        return found

    def tree(self) -> dict[str, str]:
        """Path -> type, mode, owner and link target of what lies in K3s' folders."""
        skip = r"\( -path '*/containerd/io.*' -o -path '*/data/*' -o -path '*/snapshots/*' -o -name '*.sock*' \) -prune"
        where = f"/etc/rancher {DATA} /run/k3s /var/lib/kubelet -maxdepth 6"
        lines = self.run(f"find {where} {skip} -o -printf '%p\\t%y %m %u %l\\n'").splitlines()
        return dict(line.split("\t", 1) for line in lines)

    def ask(self, url: str, cert: str = "") -> tuple[int, str]:
        """Status code and body of a request without credentials, or with a certificate; 0 when TLS refuses it."""
        script = (
            "import ssl,sys,urllib.request as u,urllib.error as e\n"
            "c=ssl._create_unverified_context()\n"
            "for p in sys.argv[2:]: c.load_cert_chain(p)\n"
            "try: r=u.urlopen(sys.argv[1],context=c,timeout=9)\n"
            "except e.HTTPError as f: r=f\n"
            "except OSError as f: print(0,f); sys.exit()\n"
            "print(r.status, r.read().decode())\n"
        )
        code, _, body = self.run(f"python3 -c {shlex.quote(script)} {url} {cert}").partition(" ")
        return int(code), body.strip()


@pytest.fixture(scope="session")
def machines(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[Machine, Machine]]]:
    """A server and an agent for the double, and for the real K3s where there is one: installed and started."""
    work = tmp_path_factory.mktemp("double")
    kinds = ["double", "real"] if REAL else ["double"]
    with for_tests.machines(NAME, servers=len(kinds), agents=len(kinds), workdir=work):
        state = lab.load(NAME)
        assert state
        made: dict[str, tuple[Machine, Machine]] = {}
        for i, kind in enumerate(kinds, 1):
            addresses = [state["machines"][name]["address"] for name in (f"server{i}", f"agent{i}")]
            made[kind] = (Machine(f"server{i}", work, addresses[0]), Machine(f"agent{i}", work, addresses[1]))
        double = work / "double"
        subprocess.run([ROOT / "tests/double/k3s/make_release", double, "v1.36.3+k3s1"], check=True)
        with ThreadPoolExecutor() as pool:
            releases = {"double": double, "real": RELEASE}
            list(pool.map(lambda kind: start(*made[kind], releases[kind]), made))
        yield made


def start(server: Machine, agent: Machine, release: Path) -> None:
    server.install(release, "server")
    server.write("/etc/rancher/k3s/config.yaml", CONFIG.format(ip=server.address))
    server.write("/etc/rancher/k3s/config.yaml.d/10-first.yaml", DROP_IN)
    server.write("/etc/rancher/k3s/config.yaml.d/20-later.yaml", LATER)
    server.write("/etc/rancher/k3s/admission.yaml", ADMISSION)
    server.write("/etc/rancher/k3s/audit.yaml", AUDIT)
    agent.install(release, "agent")
    server.run("systemctl daemon-reload; systemctl start k3s")
    token = server.run(f"cat {DATA}/server/agent-token").strip()
    agent.write(
        "/etc/rancher/k3s/config.yaml",
        f"server: https://{server.address}:6443\ntoken: {token}\nnode-ip: {agent.address}\nflannel-iface: host0\n"
        "protect-kernel-defaults: true\nkubelet-arg: [fail-cgroupv1=false]\n",
    )
    agent.run("systemctl daemon-reload; systemctl start k3s-agent")
    time.sleep(5 if release == RELEASE else 0)  # the last listeners come after READY


@pytest.fixture(params=["double", "real"])
def pair(request: pytest.FixtureRequest, machines: dict[str, tuple[Machine, Machine]]) -> tuple[Machine, Machine]:
    if request.param not in machines:
        pytest.skip(f"no real K3s: {RELEASE}/k3s does not exist")
    return machines[request.param]


@pytest.fixture
def server(pair: tuple[Machine, Machine]) -> Machine:
    return pair[0]


@pytest.fixture
def agent(pair: tuple[Machine, Machine]) -> Machine:
    return pair[1]


@pytest.fixture
def both(machines: dict[str, tuple[Machine, Machine]]) -> tuple[tuple[Machine, Machine], tuple[Machine, Machine]]:
    if "real" not in machines:
        pytest.skip(f"no real K3s: {RELEASE}/k3s does not exist")
    return machines["double"], machines["real"]


def test_the_version_has_k3s_format(server: Machine) -> None:
    first = server.run("k3s --version").splitlines()[0]
    assert re.fullmatch(r"k3s version v1\.36\.3\+k3s1 \((double|[0-9a-f]{8})\)", first)


def test_it_unpacks_itself_with_sums_and_links(server: Machine) -> None:
    folder = server.run(f"readlink {DATA}/data/current").strip()
    assert re.fullmatch(rf"{DATA}/data/[0-9a-f]{{64}}", folder)
    assert (
        server.run(f"cd {folder}/bin && sha256sum --quiet -c .sha256sums && stat -c %a .sha256sums k3s") == "644\n755\n"
    )
    for line in server.run(f"cat {folder}/bin/.links").splitlines():
        name, target = line.split()
        assert server.run(f"readlink {folder}/bin/{name}").strip() == target
    assert server.run(f"readlink {DATA}/data/cni/portmap").strip() == f"{folder}/bin/cni"


def test_no_secret_stands_in_the_process_list(pair: tuple[Machine, Machine]) -> None:
    for machine, kind in zip(pair, ("server", "agent"), strict=True):
        pid = machine.run(f"pidof k3s-{kind}").split()[0]
        title = machine.run(f"tr '\\0' ' ' < /proc/{pid}/cmdline; cat /proc/{pid}/comm").split()
        assert title == ["/usr/local/bin/k3s", kind, f"k3s-{kind}"]


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/etc/rancher/k3s/k3s.yaml", "640"),
        ("/etc/rancher/node/password", "600"),
        (f"{DATA}/agent/client-kubelet.key", "600"),
        (f"{DATA}/agent/etc/kubelet.conf.d/00-k3s-defaults.conf", "600"),
        (f"{DATA}/agent/etc/kubelet.conf.d", "700"),
        (f"{DATA}/agent/kubelet.kubeconfig", "600"),
        (f"{DATA}/server", "700"),
        (f"{DATA}/server/token", "600"),
        (f"{DATA}/server/agent-token", "600"),
        (f"{DATA}/server/cred/passwd", "600"),
        (f"{DATA}/server/cred/encryption-config.json", "600"),
        (f"{DATA}/server/db/etcd", "700"),
        (f"{DATA}/server/tls/server-ca.crt", "644"),
        (f"{DATA}/server/tls/server-ca.key", "600"),
        (f"{DATA}/server/tls/etcd/server-client.key", "600"),
    ],
)
def test_files_have_k3s_modes(server: Machine, path: str, mode: str) -> None:
    assert server.run(f"stat -c '%a %U' {path}").split() == [mode, "root"]


def test_tokens_pin_the_authority(server: Machine) -> None:
    ca = hashlib.sha256(server.run(f"cat {DATA}/server/tls/server-ca.crt").encode()).hexdigest()
    assert server.run(f"cat {DATA}/server/agent-token").strip() == f"K10{ca}::node:agents-only"
    assert server.run(f"cat {DATA}/server/node-token").startswith(f"K10{ca}::server:")


def test_the_administrators_kubeconfig_holds_the_administrators_key(server: Machine) -> None:
    held = yaml.safe_load(server.run("cat /etc/rancher/k3s/k3s.yaml"))
    ((cluster,), (user,)) = ([one[kind] for one in held[f"{kind}s"]] for kind in ("cluster", "user"))
    assert list(cluster) == ["certificate-authority-data", "server"]
    data = (cluster["certificate-authority-data"], user["client-certificate-data"], user["client-key-data"])
    for name, encoded in zip(("server-ca.crt", "client-admin.crt", "client-admin.key"), data, strict=True):
        assert base64.b64decode(encoded).decode() == server.run(f"cat {DATA}/server/tls/{name}")


def test_a_command_that_does_nothing_runs_what_is_unpacked(server: Machine) -> None:
    assert server.run("k3s ctr --version").startswith("ctr")


def test_servers_listen_where_k3s_does(server: Machine) -> None:
    loopback = {"2379", "2380", "2381", "2382", "6444", "10010", "10248", "10249", "10256", "10257", "10258", "10259"}
    expected = {("loopback", f"tcp/{port}") for port in loopback} | {("node", "tcp/2379"), ("node", "tcp/2380")}
    expected |= {("any", "tcp/6443"), ("any", "tcp/10250"), ("any", "udp/8472")}
    assert server.listening() == expected


def test_agents_listen_where_k3s_does(agent: Machine) -> None:
    loopback = {("loopback", f"tcp/{port}") for port in ("6444", "10010", "10248", "10249", "10256")}
    assert agent.listening() == loopback | {("any", "tcp/10250"), ("any", "udp/8472")}


@pytest.mark.parametrize(
    ("url", "code", "body"),
    [
        ("https://127.0.0.1:6443/version", 401, '"reason":"Unauthorized"'),
        ("https://127.0.0.1:6443/api/v1/secrets", 401, '"reason":"Unauthorized"'),
        ("https://127.0.0.1:6443/ping", 200, "pong"),
        ("https://127.0.0.1:6443/cacerts", 200, "-----BEGIN CERTIFICATE-----"),
        ("https://127.0.0.1:6443/v1-k3s/config", 403, '"message":"forbidden"'),
        ("https://127.0.0.1:10250/pods", 401, "Unauthorized"),
        ("https://127.0.0.1:2379/health", 0, ""),
        ("https://127.0.0.1:2380/", 0, ""),
        ("http://127.0.0.1:2381/health", 200, "true"),
        ("http://127.0.0.1:10248/healthz", 200, "ok"),
        ("https://127.0.0.1:10257/healthz", 200, "ok"),
        ("https://127.0.0.1:10259/metrics", 403, '"reason":"Forbidden"'),
    ],
)
def test_strangers_get_what_k3s_gives_them(server: Machine, url: str, code: int, body: str) -> None:
    status, said = server.ask(url)
    assert (status, body in said.replace('": "', '":"')) == (code, True), said


def test_a_certificate_of_a_foreign_authority_is_nobody(server: Machine) -> None:
    server.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /O=system:masters/CN=admin "
        "-keyout /tmp/key.pem -out /tmp/cert.pem && cat /tmp/key.pem /tmp/cert.pem > /tmp/foreign.pem"
    )
    for url in ("https://127.0.0.1:6443/version", "https://127.0.0.1:10250/pods"):
        assert server.ask(url, "/tmp/foreign.pem")[0] == 401
    assert server.ask("https://127.0.0.1:2379/", "/tmp/foreign.pem")[0] == 0


def test_etcd_answers_who_has_its_certificate(server: Machine) -> None:
    path = f"{DATA}/server/tls/etcd"
    script = (
        "import ssl,sys,urllib.request as u;p=sys.argv[1];c=ssl.create_default_context(cafile=p+'/server-ca.crt');"
        "c.load_cert_chain(p+'/client.crt',p+'/client.key');"
        "c.wrap_socket(__import__('socket').create_connection(('127.0.0.1',2379)),"
        "server_hostname='127.0.0.1').version();"
        "print(u.urlopen('https://127.0.0.1:2382/health',context=c).read().decode())"
    )
    assert json.loads(server.run(f"python3 -c {shlex.quote(script)} {path}"))["health"] == "true"


def test_the_journal_shows_the_flags_that_run(server: Machine) -> None:
    apiserver = server.arguments("k3s", "kube-apiserver")
    for flag in (
        "anonymous-auth=false",
        "request-timeout=60s",
        "tls-min-version=VersionTLS12",
        "enable-admission-plugins=NodeRestriction,EventRateLimit",
        f"encryption-provider-config={DATA}/server/cred/encryption-config.json",
    ):
        assert flag in apiserver
    assert "terminated-pod-gc-threshold=100" in server.arguments("k3s", "kube-controller-manager")
    kubelet = server.arguments("k3s", "kubelet")
    assert "seccomp-default=true" in kubelet
    assert "pod-max-pids=4096" in kubelet
    assert "pod-max-pids=1" not in kubelet  # a drop-in's list replaces


def test_the_kubelet_is_told_where_resolvers_stand(pair: tuple[Machine, Machine]) -> None:
    for machine in pair:
        said = machine.run(f"cat {DATA}/agent/etc/kubelet.conf.d/00-k3s-defaults.conf")
        assert re.findall(r"(?m)^resolvConf: (.*)$", said) == ["/etc/resolv.conf"]


def test_an_unknown_key_is_skipped_with_a_warning(server: Machine) -> None:
    assert 'level=warning msg="Unknown flag --nonsense found in config.yaml, skipping' in server.journal("k3s")


def test_secrets_are_encrypted(server: Machine) -> None:
    status = json.loads(server.run("k3s secrets-encrypt status -o json"))
    assert status == {"stage": "start", "activekey": "AES-CBC aescbckey", "enable": True, "hashmatch": True}


def test_certificates_are_reported(pair: tuple[Machine, Machine]) -> None:
    for machine, name in zip(pair, ("kube-scheduler.crt", "client-kubelet.crt"), strict=True):
        found = json.loads(machine.run("k3s certificate check -o json"))["Certificates"]
        one = next(item for item in found if item["Filename"] == name)
        assert set(one) == {"Filename", "Subject", "Issuer", "Usages", "ExpiryTime", "ResidualTime", "Status"}
        assert one["Status"] == "OK"
        assert one["ExpiryTime"] == time.strftime(
            "%Y-%m-%dT%H:%M:%SZ", time.strptime(one["ExpiryTime"], "%Y-%m-%dT%H:%M:%SZ")
        )


def test_raw_requests_and_snapshots_work(server: Machine) -> None:
    assert server.run("k3s kubectl --request-timeout=5s get --raw=/readyz") == "ok"
    server.run("k3s etcd-snapshot save")
    assert server.run(f"stat -c %a {DATA}/server/db/snapshots/*").split() == ["600"]
    assert "on-demand-" in server.run("k3s etcd-snapshot ls")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--token x", "--server is required"),
        ("--server https://127.0.0.1:6443", "--token is required"),
        ("--nonsense", "flag provided but not defined: -nonsense"),
    ],
)
def test_agents_refuse_to_start_without_the_essentials(agent: Machine, args: str, message: str) -> None:
    said = agent.run(f"K3S_CONFIG_FILE=/none timeout 20 k3s agent --data-dir /tmp/empty {args} 2>&1; echo code=$?")
    assert f"Error: {message}" in said
    assert said.endswith("code=1\n")


def test_the_double_passes_the_same_flags(both: tuple[tuple[Machine, Machine], tuple[Machine, Machine]]) -> None:
    double, real = both
    for unit, component, i in (
        ("k3s", "kube-apiserver", 0),
        ("k3s", "kube-scheduler", 0),
        ("k3s", "kube-controller-manager", 0),
        ("k3s", "kube-proxy", 0),
        ("k3s", "kubelet", 0),
        ("k3s-agent", "kube-proxy", 1),
        ("k3s-agent", "kubelet", 1),
    ):
        assert double[i].arguments(unit, component) == real[i].arguments(unit, component)


def test_the_double_knows_the_same_flags(both: tuple[tuple[Machine, Machine], tuple[Machine, Machine]]) -> None:
    facts = json.loads((ROOT / "tests/double/k3s/facts.json").read_text())
    for machine, kind in zip(both[1], ("server", "agent"), strict=True):
        shown = re.findall(r"^ +--([a-z0-9-]+)", machine.run(f"k3s {kind} --help"), re.M)
        known = " ".join(facts["flags"][kind].values()).split()
        assert len(shown) > 30
        assert set(shown) - {"help"} <= set(known)


def test_the_double_leaves_the_same_files(both: tuple[tuple[Machine, Machine], tuple[Machine, Machine]]) -> None:
    double, real = both
    for mine, its in zip(double, real, strict=True):
        made, expected = mine.tree(), its.tree()
        # K3s unpacks the charts that it was built with; one that was built without has no folder for them.
        made = {path: entry for path, entry in made.items() if path in expected or not path.endswith("/server/static")}
        assert made.items() <= expected.items(), made.items() - expected.items()
        left = {path for path in expected.keys() - made.keys() if not re.search(r"/member/wal/|/static/", path)}
        assert not {path for path in left if re.search(r"/server/|\.(key|crt|kubeconfig)$", path)}


def test_agents_wait_for_a_server_that_knows_their_token(pair: tuple[Machine, Machine]) -> None:
    server, agent = pair
    token = server.run(f"cat {DATA}/server/agent-token").strip()
    agent.run(f"systemctl stop k3s-agent; rm {DATA}/agent/*.crt {DATA}/agent/*.key")
    for wrong, why in (
        (token.replace("agents-only", "guessed"), "failed to retrieve configuration from server: not authorized"),
        (f"K10{'ab' * 32}::node:agents-only", "token CA hash does not match the Cluster CA certificate hash"),
    ):
        said = agent.run(f"timeout 5 k3s agent --token {wrong} 2>&1; echo code=$?")
        assert why in said
        assert said.endswith("code=124\n")


def test_files_that_the_api_server_needs_stop_k3s_when_missing(server: Machine) -> None:
    server.run("systemctl stop k3s")
    for name, said in (("admission", "unable to read admission control"), ("audit", "loading audit policy file")):
        server.run(f"mv /etc/rancher/k3s/{name}.yaml /root")
        tried = server.run("timeout 40 k3s server 2>&1; echo code=$?")
        server.run(f"mv /root/{name}.yaml /etc/rancher/k3s")
        assert said in tried
        assert "Shutdown request received" in tried
        assert tried.endswith("code=0\n")
    other = server.run("timeout 40 k3s server --token other 2>&1; echo code=$?")
    assert "bootstrap data already found and encrypted with different token" in other
    assert other.endswith("code=1\n")
