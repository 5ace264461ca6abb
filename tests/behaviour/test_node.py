"""Attacks on K3s' bytes, credentials and kubelet: by a swapped file, a local user, a stranger and a taken agent."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from testinfra.host import Host

from .attempts import DIGEST, DOWNGRADE, GENUINE, SPOILED, UNLOCKED, Attempts
from .conftest import Kubectl, is_double, own_address, python_on, unit

TOKENS = ("/etc/rancher/k3s/agent-token", "/etc/rancher/k3s/token", "/var/lib/rancher/k3s/server/token")

CALL = """
import base64, http.client, json, re, socket, ssl, sys
host, port, path, token_file, user, version = sys.argv[1:7]
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
if version:
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
headers = {}
if token_file:
    secret = open(token_file).read().strip().rpartition("::")[2].rpartition(":")[2]
    headers["Authorization"] = "Basic " + base64.b64encode((user + ":" + secret).encode()).decode()
caller = http.client.HTTPSConnection(host, int(port), timeout=10, context=context)
try:
    caller.request("GET", path, headers=headers)
    answer = caller.getresponse()
    print(json.dumps({"status": answer.status, "body": answer.read().decode("utf-8", "replace")[:2000]}))
except (OSError, http.client.HTTPException) as refused:
    print(json.dumps({"status": 0, "body": str(refused)}))
"""

SEARCH = """
import glob, os, subprocess, sys
secrets = []
for path in sys.argv[1:]:
    if os.path.exists(path):
        secrets.append(open(path, "rb").read().strip().rpartition(b"::")[2].rpartition(b":")[2])
assert secrets and all(len(secret) > 20 for secret in secrets)
places = {}
for pattern in ("/proc/[0-9]*/cmdline", "/proc/[0-9]*/environ", "/etc/rancher/k3s/config.yaml*",
                "/etc/systemd/system/k3s*", "/etc/rancher/k3s/*.d/*", "/etc/default/k3s*", "/var/lib/casemate/**"):
    for path in glob.glob(pattern, recursive=True):
        try:
            places[path] = open(path, "rb").read()
        except OSError:
            pass
units = ["systemctl", "show", "k3s.service", "k3s-agent.service"]
for command in (units, ["journalctl", "--no-pager", "--quiet", "--boot"]):
    places[" ".join(command)] = subprocess.run(command, capture_output=True).stdout
assert len(places) > 10
print(" ".join(place for place, text in places.items() if any(secret in text for secret in secrets)))
"""


def call(host: Host, port: int, path: str, address: str = "", token: str = "", user: str = "", tls: str = "") -> Any:
    """Status and body of a request from a machine: to itself, unless an address is given."""
    return json.loads(python_on(host, CALL, address or own_address(host), str(port), path, token, user, tls))


@pytest.fixture(scope="session")
def genuine(running: list[Host]) -> list[Host]:
    """The nodes with a real K3s: a double has no kubelet and unpacks nothing."""
    real = [host for host in running if not is_double(host)]
    if not real:
        pytest.skip("api_semantics: the installed release is a double without a kubelet")
    return real


@pytest.mark.control("NODE-BINARY-VERIFIED", "NODE-IMAGES-VERIFIED", "NODE-LOCK-SIGNED")
@pytest.mark.parametrize("how", SPOILED)
def test_other_bytes_than_the_lock_s_are_not_installed(tried: Attempts, how: str) -> None:
    (refused,) = tried.answers[how]
    assert not refused.get("changed")
    assert f"the lock demands {DIGEST}" in refused["msg"]
    assert "v1.30.0" in tried.host.check_output("cat %s/k3s", tried.left(how))
    assert tried.host.check_output("ls -A %s", tried.left(how)).split() == ["genuine", "k3s"]


@pytest.mark.control("NODE-BINARY-VERIFIED", "NODE-VERSION-PATCHED")
def test_a_downgrade_is_refused(tried: Attempts) -> None:
    (refused,) = tried.answers[DOWNGRADE]
    assert not refused.get("changed")
    assert "older than the installed v1.30.0+k3s1: refused" in refused["msg"]
    assert "v1.30.0" in tried.host.check_output("cat %s/k3s", tried.left(DOWNGRADE))
    assert not tried.host.file(f"{tried.left(DOWNGRADE)}/run").exists, "what nobody has verified was run as root"


@pytest.mark.control("NODE-BINARY-VERIFIED")
def test_without_a_locked_digest_nothing_is_installed(tried: Attempts) -> None:
    (refused,) = tried.answers[UNLOCKED]
    assert not refused.get("changed")
    assert "the lock holds no digest" in refused["msg"]
    assert "v1.30.0" in tried.host.check_output("cat %s/k3s", tried.left(UNLOCKED))


@pytest.mark.control("NODE-BINARY-VERIFIED")
def test_the_locked_bytes_are_installed_once(tried: Attempts) -> None:
    first, second = tried.answers[GENUINE]
    assert first["changed"]
    assert not second["changed"]
    assert tried.host.file(f"{tried.left(GENUINE)}/k3s").mode == 0o755


@pytest.mark.control("NODE-TREE-VERIFIED", "NODE-PROCESS-VERIFIED")
def test_a_file_planted_among_the_unpacked_ones_is_found(genuine: list[Host], tried: Attempts) -> None:
    assert tried.planted is not None
    assert (tried.planted["status"], tried.planted["observed"]) == ("fail", "changed: bin/casemate-attack")


@pytest.mark.control(
    "NODE-TOKEN-PRIVATE", "NODE-AGENT-TOKEN-SEPARATE", "NODE-CONFIG-PRIVATE", "NODE-MAIN-CONFIG-PRIVATE",
    "NODE-FOLDER-OWNED", "NODE-DROPINS-PRIVATE", "NODE-PASSWORD-PRIVATE", "NODE-REGISTRIES-PRIVATE",
    "NODE-BINARY-PRIVATE", "NODE-UNIT-OWNED",
    "KUBELET-CREDENTIALS-PRIVATE", "KUBELET-KEYS-PRIVATE", "KUBELET-CERTIFICATES-PRIVATE", "KUBELET-DROPINS-PRIVATE",
    "KUBELET-SETTINGS-PRIVATE", "CONTAINERD-SETTINGS-OWNED",
    "CONTAINERD-FOLDER-PRIVATE", "CONTAINERD-SOCKET-PRIVATE",
)  # fmt: skip
def test_a_local_user_reads_no_credential_and_changes_nothing(running: list[Host]) -> None:
    places = "/etc/rancher /var/lib/rancher/k3s /run/k3s /usr/local/bin/k3s /etc/systemd/system/k3s*.service"
    names = ("*token", "password", "*.key", "*.kubeconfig", "k3s.yaml", "*.yaml", "*.conf", "*.toml")
    secret = r"-type f \( " + " -o ".join(f"-name '{name}'" for name in names) + r" \)"
    as_nobody = f"find {places} -xdev -path '*/rootfs' -prune -o"
    for host in running:
        writable = host.run(f"runuser -u nobody -- {as_nobody} ! -type l -writable -print 2>/dev/null").stdout
        assert writable.split() == []
        readable = host.run(f"runuser -u nobody -- {as_nobody} {secret} -readable -print 2>/dev/null").stdout
        assert readable.split() == []
        found = host.check_output(f"find {places} -xdev {secret} -print 2>/dev/null | wc -l")
        assert int(found) > 3, "the attack looked at nothing"


@pytest.mark.control("NODE-UNIT-OWNED", "NODE-TOKEN-BY-FILE", "NODE-AGENT-TOKEN-BY-FILE", "NODE-CONFIG-LINTED")
def test_no_token_stands_in_arguments_environments_units_configurations_or_logs(running: list[Host]) -> None:
    for host in running:
        assert python_on(host, SEARCH, *TOKENS).strip() == ""


@pytest.mark.control(
    "KUBELET-STRANGER-REFUSED", "KUBELET-METRICS-REFUSED", "KUBELET-ANONYMOUS-NOT-FLAGGED",
    "KUBELET-AUTHORIZATION-NOT-FLAGGED", "CLUSTER-KUBELETS-GUARDED",
)  # fmt: skip
@pytest.mark.parametrize("path", ["/pods", "/metrics", "/configz", "/run/a/b/c", "/exec/a/b/c?command=id", "/logs/"])
def test_the_kubelet_knows_no_strangers(genuine: list[Host], path: str) -> None:
    for host in genuine:
        assert call(host, 10250, path)["status"] == 401


@pytest.mark.control("KUBELET-READONLY-CLOSED", "KUBELET-READONLY-OFF")
def test_the_kubelet_has_no_port_without_authentication(genuine: list[Host]) -> None:
    for host in genuine:
        assert "refused" in call(host, 10255, "/pods")["body"]


@pytest.mark.control(
    "KUBELET-HEALTH-LOOPBACK", "PROXY-METRICS-LOOPBACK", "PROXY-HEALTH-LOOPBACK", "CONTAINERD-STREAMS-LOOPBACK"
)
@pytest.mark.parametrize("port", [10248, 10249, 10256, 10010])
def test_ports_that_ask_nobody_answer_only_on_loopback(genuine: list[Host], port: int) -> None:
    for host in genuine:
        assert "refused" in call(host, port, "/")["body"]


@pytest.mark.control("KUBELET-TLS-MINIMUM", "KUBELET-CIPHERS-STRONG")
def test_the_kubelet_refuses_old_tls_and_weak_ciphers(genuine: list[Host]) -> None:
    for host in genuine:
        assert call(host, 10250, "/pods", tls="TLSv1_1")["status"] == 0
        assert call(host, 10250, "/pods", tls="TLSv1_2")["status"] == 401
        weak = "AES128-GCM-SHA256:AES256-SHA:ECDHE-RSA-AES128-SHA"
        offer = f"openssl s_client -connect {own_address(host)}:10250 -tls1_2 -cipher {weak}@SECLEVEL=0"
        said = host.run(f"sh -c 'echo | {offer} 2>&1'")
        assert "handshake failure" in said.stdout


@pytest.mark.control(
    "KUBELET-PIDS-LIMITED", "KUBELET-SECCOMP-DEFAULT", "KUBELET-STREAMS-END", "NODE-KERNEL-DEFAULTS-PROTECTED",
    "KUBELET-CONFIG-FOLDER-RUNNING", "NODE-RESOLVER-DECLARED", "KUBELET-FLAGS-DECLARED",
)  # fmt: skip
def test_every_kubelet_itself_says_that_it_runs_hardened(kubectl: Kubectl) -> None:
    for name in kubectl("get", "nodes", "--output=name").split():
        node = name.removeprefix("node/")
        has = json.loads(kubectl("get", f"--raw=/api/v1/nodes/{node}/proxy/configz"))["kubeletconfig"]
        assert has["authentication"]["anonymous"]["enabled"] is False
        assert has["authorization"]["mode"] == "Webhook"
        assert has.get("readOnlyPort", 0) == 0
        assert has["protectKernelDefaults"] is True
        assert 0 < has["podPidsLimit"] <= 16384
        assert has["streamingConnectionIdleTimeout"] in ("5m0s", "300s")
        assert has["tlsMinVersion"] == "VersionTLS12"
        assert all("ECDHE" in cipher for cipher in has["tlsCipherSuites"])
        assert has["resolvConf"].startswith("/")


@pytest.mark.control("NODE-RESOLVER-REACHABLE")
def test_no_pod_is_handed_a_resolver_on_its_own_loopback(running: list[Host]) -> None:
    """What a pod gets is a copy of this file: asked of the kubelet's settings, not of what Casemate wrote."""
    for host in running:
        settings = host.check_output("sh -c 'cat /var/lib/rancher/k3s/agent/etc/kubelet.conf.d/*.conf'")
        path = re.findall(r"(?m)^resolvConf: *(\S+)", settings)[-1].strip("\"'")
        addresses = re.findall(r"(?m)^\s*nameserver\s+(\S+)", host.check_output(f"cat {path}"))
        assert addresses
        assert not [one for one in addresses if one.startswith("127.") or one in ("::1", "0.0.0.0", "::")]


@pytest.mark.control("NODE-AGENT-TOKEN-SEPARATE", "NODE-IDENTITY-DECLARED")
def test_a_taken_agent_cannot_join_as_a_server(server: Host, api: Host, agent: Host) -> None:
    address = own_address(server)
    token = "/etc/rancher/k3s/token"
    assert call(agent, 6443, "/v1-k3s/config", address, token, "node")["status"] == 200, "the token itself is good"
    for user in ("server", "node"):
        answer = call(agent, 6443, "/v1-k3s/server-bootstrap", address, token, user)
        assert answer["status"] in (401, 403)
    own = call(api, 6443, "/v1-k3s/server-bootstrap", address, "/var/lib/rancher/k3s/server/token", "server")
    assert own["status"] == 200, "a server's token opens what the agent's does not"
    for path in ("/var/lib/rancher/k3s/server", "/etc/rancher/k3s/k3s.yaml", "/etc/rancher/k3s/agent-token"):
        assert not agent.file(path).exists


@pytest.mark.control("NODE-AGENT-TOKEN-SEPARATE", "KUBELET-CREDENTIALS-PRIVATE")
@pytest.mark.parametrize("what", ["secrets", "configmaps", "clusterrolebindings", "serviceaccounts"])
def test_a_taken_agent_s_identity_reads_nothing_of_others(api: Host, agent: Host, what: str) -> None:
    config = "--kubeconfig=/var/lib/rancher/k3s/agent/kubelet.kubeconfig"
    refused = agent.run(f"k3s kubectl {config} get {what} --all-namespaces")
    assert refused.rc != 0
    assert "forbidden" in refused.stderr.lower()


@pytest.mark.undisturbed
@pytest.mark.control("NODE-UNIT-RUNNING")
def test_k3s_comes_back_when_it_is_killed_and_its_pods_never_left(genuine: list[Host]) -> None:
    host = genuine[-1]
    name = unit(host)
    shims = "ps -e -o pid=,comm= | awk '$2 ~ /^containerd-shim/ { print $1 }' | sort"
    before = host.check_output(shims)
    pid = host.check_output("systemctl show --value -p MainPID %s", name)
    host.check_output("kill -9 %s", pid)
    again = f"n=$(systemctl show --value -p MainPID {name}); [ $n != 0 ] && [ $n != {pid} ]"
    wait = f"for i in $(seq 60); do sleep 1; {again} && systemctl is-active --quiet {name} && exit 0; done; exit 1"
    host.check_output("sh -c %s", wait)
    assert set(before.split()) <= set(host.check_output(shims).split())


@pytest.mark.control("NODE-KUBECTL-LINKED", "NODE-CRICTL-LINKED", "NODE-CTR-LINKED")
def test_what_people_and_scanners_call_is_the_verified_binary(running: list[Host]) -> None:
    for host in running:
        for command in ("kubectl", "crictl", "ctr"):
            found = host.check_output(f"sh -lc 'readlink -f $(command -v {command})'")
            assert found == "/usr/local/bin/k3s"
