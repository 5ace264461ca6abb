"""Attacks from inside the cluster: pods that ask for too much, tokens, foreign secrets, the network."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

from .conftest import Kubectl, python_on
from .listeners import reach
from .planted import STORY, planted
from .test_access import where

IMAGE = "docker.io/library/busybox:1.36"
SAFE: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": 65534,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(name: str, security: dict[str, Any] | None = None, command: str = "sleep 300", **spec: Any) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", command],
        "securityContext": SAFE if security is None else security,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        # It ends by itself where nobody deletes it.
        "spec": {
            "containers": [container],
            "terminationGracePeriodSeconds": 0,
            "activeDeadlineSeconds": STORY,
            **spec,
        },
    }


def deleted(kind: str, name: str, namespace: str = "") -> str:
    """What deletes an object, where it is there."""
    where_it_is = f" -n {namespace}" if namespace else ""
    return f"k3s kubectl delete {kind} {name}{where_it_is} --wait=false --ignore-not-found"


TOKEN_CALL = """
import base64, http.client, ssl, sys
context = ssl.create_default_context(cafile="/var/lib/rancher/k3s/agent/server-ca.crt")
with open(sys.argv[2]) as file:
    user, _, password = file.read().strip().partition("::")[2].partition(":")
caller = http.client.HTTPSConnection(sys.argv[1], 6443, timeout=10, context=context)
for name, secret, path in ((user, password, "/v1-k3s/server-bootstrap"),
                           ("server", password, "/v1-k3s/server-bootstrap"),
                           (user, "guessed", "/v1-k3s/config"),
                           (user, password, "/v1-k3s/server-ca.crt")):
    code = base64.b64encode(f"{name}:{secret}".encode()).decode()
    caller.request("GET", path, headers={"Authorization": f"Basic {code}"})
    answer = caller.getresponse()
    answer.read()
    print(answer.status)
"""


@pytest.mark.control("CLUSTER-NODES-DECLARED", "CLUSTER-HOSTS-JOINED", "NODE-CLUSTER-JOINED")
def test_no_machine_but_those_of_the_inventory_is_in_the_cluster(kubectl: Kubectl, nodes: list[Host]) -> None:
    """Machines are told apart by what they cannot choose in passing: their own id, not a name or an address."""
    found = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    ready = {
        node["status"]["nodeInfo"]["machineID"]
        for node in found
        for one in node["status"]["conditions"]
        if one["type"] == "Ready" and one["status"] == "True"
    }
    own = {host.check_output("cat /etc/machine-id").strip() for host in nodes}
    assert own <= ready
    assert {node["status"]["nodeInfo"]["machineID"] for node in found} == own


@pytest.mark.control("NODE-TOKENS-CURRENT", "NODE-AGENT-TOKEN-SEPARATE")
def test_the_token_of_an_agent_is_good_for_an_agent_only(api: Host, agent: Host) -> None:
    """A thief of it asks for what a server gets, and a guesser for anything."""
    said = python_on(agent, TOKEN_CALL, where(api)[0], "/etc/rancher/k3s/token").split()
    assert said == ["403", "401", "401", "200"]


HOSTILE: dict[str, dict[str, Any]] = {
    "privileged": pod("x", {"privileged": True}),
    "root": pod("x", {**SAFE, "runAsNonRoot": False, "runAsUser": 0}),
    "escalation": pod("x", {**SAFE, "allowPrivilegeEscalation": True}),
    "capability": pod("x", {**SAFE, "capabilities": {"add": ["SYS_ADMIN"]}}),
    "unconfined": pod("x", {**SAFE, "seccompProfile": {"type": "Unconfined"}}),
    "host-path": pod("x", volumes=[{"name": "host", "hostPath": {"path": "/"}}]),
    "host-network": pod("x", hostNetwork=True),
    "host-pid": pod("x", hostPID=True),
    "host-ipc": pod("x", hostIPC=True),
}


@pytest.mark.control("API-ADMISSION-CONFIGURED", "API-ADMISSION-FILE-SET", "CLUSTER-DEFAULT-RESTRICTED")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_pod_that_could_take_the_node_is_refused(kubectl: Kubectl, name: str) -> None:
    answer = kubectl("create", "--dry-run=server", "-f", "-", stdin=HOSTILE[name], expect=False)
    assert answer.rc != 0
    assert "violates PodSecurity" in answer.stderr


@pytest.mark.control("API-ADMISSION-CONFIGURED", "API-ADMISSION-FILE-SET")
def test_a_namespace_without_labels_is_restricted_too(api: Host, kubectl: Kubectl) -> None:
    name = f"casemate-{secrets.token_hex(4)}"
    with planted(api, f"k3s kubectl create namespace {name}", deleted("namespace", name)):
        # Whoever asks sooner is refused for want of an account, which proves nothing.
        kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=60s")
        hostile = json.loads(json.dumps(HOSTILE["privileged"]))
        hostile["metadata"]["namespace"] = name
        answer = kubectl("create", "--dry-run=server", "-f", "-", stdin=hostile, expect=False)
    assert "violates PodSecurity" in answer.stderr


@pytest.fixture(scope="module")
def running(api: Host, kubectl: Kubectl) -> Iterator[str]:
    """A restricted pod that runs, as an ordinary user of the cluster would have one."""
    name = f"casemate-{secrets.token_hex(4)}"
    with planted(api, "true", deleted("pod", name, "default"), STORY):
        kubectl("create", "-f", "-", stdin=pod(name))
        kubectl("wait", "--for=condition=Ready", f"pod/{name}", "-n", "default", "--timeout=120s")
        yield name


@pytest.mark.control("CLUSTER-DEFAULT-RESTRICTED", "API-ADMISSION-CONFIGURED")
def test_a_restricted_pod_runs_confined(kubectl: Kubectl, running: str) -> None:
    status = kubectl("exec", "-n", "default", running, "--", "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Seccomp"].strip() == "2"
    assert fields["NoNewPrivs"].strip() == "1"
    assert int(fields["CapEff"], 16) == 0
    assert fields["Uid"].split()[0] == "65534"


@pytest.mark.control("SERVICE-APPARMOR-RUNNING", "BOOT-PROTECTION-KEPT")
def test_a_pod_is_confined_by_apparmor(kubectl: Kubectl, running: str, api: Host) -> None:
    if api.run("grep -q Y /sys/module/apparmor/parameters/enabled").rc != 0:
        pytest.skip("apparmor: the kernel of this node has none")
    profile = kubectl("exec", "-n", "default", running, "--", "cat", "/proc/1/attr/current").strip()
    assert profile == "cri-containerd.apparmor.d (enforce)"


@pytest.mark.control("CLUSTER-TOKENS-UNMOUNTED")
def test_a_pod_of_the_default_account_has_no_token(kubectl: Kubectl, running: str) -> None:
    answer = kubectl(
        "exec",
        "-n",
        "default",
        running,
        "--",
        "ls",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        expect=False,
    )
    assert answer.rc != 0


@pytest.mark.control("CLUSTER-DEFAULT-ISOLATED", "CLUSTER-POLICIES-VOUCHED")
def test_a_pod_reaches_nothing_that_no_policy_allows(kubectl: Kubectl, running: str, api: Host) -> None:
    """The API's service address answers a TCP connection from the node, and must not from the pod."""
    address = kubectl("get", "service", "kubernetes", "-n", "default", "-o", "jsonpath={.spec.clusterIP}").strip()
    probe = "import socket, sys; socket.create_connection((sys.argv[1], 443), 5)"
    assert api.run("python3 -c %s %s", probe, address).rc == 0
    answer = kubectl("exec", "-n", "default", running, "--", "nc", "-w", "3", address, "443", expect=False)
    assert answer.rc != 0


@pytest.mark.control("API-ADMISSION-PLUGINS-SET", "API-AUTHORIZATION-RBAC")
def test_a_stolen_kubelet_credential_reads_no_foreign_secret(api: Host, agent: Host, kubectl: Kubectl) -> None:
    """The agent's own credential, used from the agent: no Secret, no other node, no label of another role."""
    config = "/var/lib/rancher/k3s/agent/kubelet.kubeconfig"
    other = kubectl("get", "nodes", "-l", "node-role.kubernetes.io/control-plane", "-o", "name").split()[0]
    for verb in (
        ["get", "secrets", "-A"],
        ["get", "secret", "k3s-serving", "-n", "kube-system"],
        ["annotate", other, "casemate-attack=1"],
        ["create", "clusterrolebinding", "x", "--clusterrole=cluster-admin", "--user=x", "--dry-run=server"],
    ):
        answer = agent.run("k3s kubectl --kubeconfig %s " + " ".join(["%s"] * len(verb)), config, *verb)
        assert answer.rc != 0, verb
        assert "forbidden" in answer.stderr.lower(), answer.stderr


@pytest.mark.control("API-ADMISSION-PLUGINS-SET")
def test_a_service_cannot_claim_a_foreign_address(kubectl: Kubectl) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "casemate-thief", "namespace": "default"},
        "spec": {"ports": [{"port": 80}], "externalIPs": ["198.51.100.7"]},
    }
    answer = kubectl("create", "--dry-run=server", "-f", "-", stdin=service, expect=False)
    assert answer.rc != 0


@pytest.mark.control("CLUSTER-ANONYMOUS-UNBOUND", "CLUSTER-UNAUTHENTICATED-LIMITED", "CLUSTER-AUTHENTICATED-LIMITED")
@pytest.mark.control("CLUSTER-ANONYMOUS-ROLE-UNBOUND", "CLUSTER-UNAUTHENTICATED-ROLE-UNBOUND")
@pytest.mark.control("CLUSTER-AUTHENTICATED-ROLE-UNBOUND")
@pytest.mark.parametrize("caller", ["system:anonymous", "system:serviceaccount:default:default"])
def test_a_caller_without_a_role_may_do_nothing(kubectl: Kubectl, caller: str) -> None:
    for verb, thing in (("get", "secrets"), ("create", "pods"), ("list", "nodes"), ("create", "pods/exec")):
        answer = kubectl("auth", "can-i", verb, thing, "-A", f"--as={caller}", expect=False)
        assert answer.rc != 0, (verb, thing)
        assert answer.stdout.strip() == "no" or "forbidden" in answer.stderr.lower(), (verb, thing, answer.stderr)


POWERS = {
    "": {
        "secrets": {"get", "list", "watch", "create"}, "pods": {"create"}, "pods/exec": {"get", "create"},
        "nodes/proxy": {"get", "create"}, "serviceaccounts/token": {"create"}, "namespaces": {"patch", "update"},
        "persistentvolumes": {"create"}, "users": {"impersonate"}, "groups": {"impersonate"},
    },
    "apps": {"daemonsets": {"create"}, "deployments": {"create"}},
    "rbac.authorization.k8s.io": {"clusterroles": {"escalate", "bind"}, "clusterrolebindings": {"create"}},
    "networking.k8s.io": {"networkpolicies": {"create", "delete"}},
    "admissionregistration.k8s.io": {"mutatingwebhookconfigurations": {"create"}},
    "certificates.k8s.io": {"certificatesigningrequests/approval": {"update"}, "signers": {"approve", "sign"}},
}  # fmt: skip
"""Group of the API -> resource -> verbs by which a thief of a pod's token would get on."""


def gives(rule: dict[str, Any]) -> list[str]:
    """What of these powers a rule gives, as `kubectl auth can-i` would be asked for it."""
    groups, resources, verbs = (set(rule.get(name) or ()) for name in ("apiGroups", "resources", "verbs"))
    return [
        f"{verb} {resource}"
        for group, known in POWERS.items()
        for resource, asked in known.items()
        for verb in sorted(asked)
        if groups & {group, "*"} and resources & {resource, "*"} and verbs & {verb, "*"}
    ]


@pytest.mark.control("CLUSTER-BINDINGS-VOUCHED", "CLUSTER-ROLES-VOUCHED")
def test_the_account_of_a_new_pod_has_no_power_over_others(kubectl: Kubectl) -> None:
    """It belongs to the crowds alone: what a binding gives these, or what was slipped into a role that these have."""
    account = f"system:serviceaccount:casemate-{secrets.token_hex(4)}:default"
    for namespace in ("default", "kube-system"):
        asked: dict[str, Any] = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
        asked["spec"] = {"namespace": namespace}
        # Not validated by kubectl, which would ask for resources that such an account may not list.
        said = kubectl("create", "--validate=false", "-f", "-", "-o", "json", f"--as={account}", stdin=asked)
        rules = json.loads(said)["status"]["resourceRules"]
        assert rules, "it may ask what it may do, so there are rules"
        assert [power for rule in rules for power in gives(rule)] == [], namespace


@pytest.mark.control("CLUSTER-WEBHOOKS-VOUCHED", "CLUSTER-ADMISSION-VOUCHED")
def test_nobody_adds_to_a_pod_on_its_way_into_the_cluster(kubectl: Kubectl) -> None:
    """Whoever changes objects as they are made puts a container or a volume of theirs into every pod."""
    sent = pod(f"casemate-{secrets.token_hex(4)}")
    made = json.loads(kubectl("create", "--dry-run=server", "-f", "-", "-o", "json", stdin=sent))["spec"]
    (container,), (asked,) = made["containers"], sent["spec"]["containers"]
    assert {name: container[name] for name in ("name", "image", "command")} == {
        name: asked[name] for name in ("name", "image", "command")
    }
    assert not made.get("initContainers")
    foreign = [one["name"] for one in made.get("volumes", ()) if not one["name"].startswith("kube-api-access-")]
    assert foreign == []


@pytest.fixture(scope="module")
def served(api: Host, kubectl: Kubectl) -> Iterator[dict[str, int]]:
    """How a pod takes a port of its node -> that port, on which it serves."""
    name = f"casemate-{secrets.token_hex(4)}"
    spec = pod(name, command="echo served > /dev/shm/index.html; httpd -f -p 8080 -h /dev/shm")
    # In kube-system, since elsewhere Pod Security refuses the port, and a policy what comes in.
    spec["metadata"] |= {"namespace": "kube-system", "labels": {"app": name}}
    spec["spec"]["nodeName"] = api.check_output("uname -n")
    spec["spec"]["containers"][0]["ports"] = [{"containerPort": 8080, "hostPort": 38080}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "kube-system"}}
    leads = {"type": "NodePort", "selector": {"app": name}, "ports": [{"port": 8080}]}
    gone = " && ".join(deleted(thing, name, "kube-system") for thing in ("service", "pod"))
    with planted(api, "true", gone, STORY):
        kubectl("create", "-f", "-", stdin=spec)
        made = kubectl("create", "-f", "-", "-o", "json", stdin={**service, "spec": leads})
        kubectl("wait", "--for=condition=Ready", f"pod/{name}", "-n", "kube-system", "--timeout=120s")
        yield {"hostPort": 38080, "nodePort": json.loads(made)["spec"]["ports"][0]["nodePort"]}


FETCH = """
import sys, time, urllib.request
end = time.monotonic() + 30
while True:
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
        break
    except OSError:
        if time.monotonic() > end:
            raise
        time.sleep(0.5)
"""
"""What a service leads to is known to a node a moment after its pod is ready."""


@pytest.mark.control("FW-REST-CLOSED", "FW-RULES-LOADED")
@pytest.mark.parametrize("how", ["hostPort", "nodePort"])
def test_a_port_that_a_pod_takes_of_its_node_is_reached_by_nobody_outside(
    api: Host, served: dict[str, int], how: str
) -> None:
    """Its packets are translated before the input chain sees them, and the rules of CNI and Kubernetes accept them."""
    own = where(api)[0]
    assert python_on(api, FETCH, f"http://{own}:{served[how]}/").strip() == "served"
    assert reach(own, served[how]) == "dropped"
