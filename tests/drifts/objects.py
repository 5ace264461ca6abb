"""The families of drifts in a cluster: objects that give power, open what is closed, or run with what a node has.

Nothing runs, and nobody is asked: no node fits the pods, and the webhooks are asked about an object that nobody makes.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from module_utils.casemate.host.machine import Host
from module_utils.casemate.k3s.api import Api

from .drift import Drift, Family, a_name
from .planting import LeftBehindError, Tree

Object = dict[str, Any]
RIGHTS, PODS = frozenset({"T2.1", "T2.2"}), frozenset({"T4.4", "T5.2", "T5.3"})
WEB = frozenset({"T2.1", "T2.2", "T4.4"})
NETWORK = frozenset({"T2.3", "T5.2"})
ADMISSION, RBAC = "admissionregistration.k8s.io/v1", "rbac.authorization.k8s.io/v1"
PLURALS = {
    "NetworkPolicy": "networkpolicies", "RuntimeClass": "runtimeclasses",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
}  # fmt: skip
SYSTEM = ("default", "kube-system", "kube-public")


def asked(method: str, path: str, body: Object | None = None, good: tuple[int, ...] = (200, 201, 202)) -> Object:
    status, answer = Api(Host()).call(method, path, body)
    if status not in good:
        raise OSError(f"{method} {path}: {status} {json.dumps(answer)[:300]}")
    return dict(answer)


def collection(body: Object) -> str:
    version, kind = body["apiVersion"], body["kind"]
    namespace = body["metadata"].get("namespace")
    base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    return f"{base}/{f'namespaces/{namespace}/' if namespace else ''}{PLURALS.get(kind, kind.lower() + 's')}"


def called(body: Object) -> tuple[str, str]:
    """What a finding may call an object: Kind/namespace/name, or its path in the API."""
    meta = body["metadata"]
    names = [body["kind"], *([meta["namespace"]] if meta.get("namespace") else []), meta["name"]]
    return "/".join(names), f"{collection(body)}/{meta['name']}"


@contextlib.contextmanager
def created(body: Object) -> Iterator[None]:
    path = called(body)[1]
    asked("POST", collection(body), copy.deepcopy(body))
    try:
        yield
    finally:
        asked("DELETE", f"{path}?gracePeriodSeconds=0")
        end = time.monotonic() + 60
        while Api(Host()).call("GET", path)[0] != 404:
            if time.monotonic() > end:
                raise LeftBehindError(path)
            time.sleep(0.2)


@contextlib.contextmanager
def edited(path: str, change: Callable[[Object], None]) -> Iterator[None]:
    """All of an object comes back but its version."""
    old = asked("GET", path)
    new = copy.deepcopy(old)
    change(new)
    asked("PUT", path, new)
    try:
        yield
    finally:
        # Of some resources nobody may replace one without naming the version that is replaced.
        old["metadata"]["resourceVersion"] = asked("GET", path)["metadata"]["resourceVersion"]
        asked("PUT", path, old)


def made(family: str, variant: str, body: Object) -> Drift:
    return Drift(family, variant, called(body), functools.partial(created, body))


def is_there(body: Object) -> bool:
    return Api(Host()).call("GET", called(body)[1])[0] == 200


def changed(family: str, variant: str, body: Object, change: Callable[[Object], None]) -> Drift:
    names = called(body)
    return Drift(family, variant, names, functools.partial(edited, names[1], change))


def thing(version: str, kind: str, name: str, namespace: str = "", **rest: Any) -> Object:
    where = {"namespace": namespace} if namespace else {}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **where}, **rest}


RULES = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["limitranges"]}]


def webhooks(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        for policy in ("Ignore", "Fail"):
            name = a_name(rng)
            client = rng.choice(({"url": "https://192.0.2.66/"}, {"service": {"namespace": "default", "name": name}}))
            hook: Object = {"name": f"{name}.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None"}
            hook |= {"rules": RULES, "failurePolicy": policy, "clientConfig": client}
            yield made("webhooks", f"{kind}, {policy}", thing(ADMISSION, kind, name, webhooks=[hook]))
    group = f"{a_name(rng)}.example.org"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [{"name": v, "served": True, "storage": v == "v1", "schema": schema} for v in ("v1", "v2")]
    conversion = {"conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://192.0.2.66/"}}
    spec: Object = {
        "group": group,
        "scope": "Cluster",
        "names": {"plural": "extras", "singular": "extra", "kind": "Extra"},
    }
    spec |= {"versions": versions, "conversion": {"strategy": "Webhook", "webhook": conversion}}
    body = thing("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"extras.{group}", spec=spec)
    yield made("webhooks", "of conversion", body)


def api_services(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    for skips in (True, False):
        group = f"{a_name(rng)}.example.org"
        spec: Object = {"group": group, "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}
        spec |= {"service": {"namespace": rng.choice(SYSTEM), "name": "extra"}, "insecureSkipTLSVerify": skips}
        body = thing("apiregistration.k8s.io/v1", "APIService", f"v1.{group}", spec=spec)
        yield made("API services", "skips TLS" if skips else "verified", body)


def policies(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    spec = {
        "matchConstraints": {"resourceRules": RULES},
        "failurePolicy": "Ignore",
        "validations": [{"expression": "true"}],
    }
    yield made("admission policies", "policy", thing(ADMISSION, "ValidatingAdmissionPolicy", a_name(rng), spec=spec))
    bound = {"policyName": a_name(rng), "validationActions": ["Audit"]}
    yield made(
        "admission policies", "binding", thing(ADMISSION, "ValidatingAdmissionPolicyBinding", a_name(rng), spec=bound)
    )


POWERS = (
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]},
    {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]},
    {"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get", "create"]},
    {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["escalate", "bind"]},
    {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["users", "groups"], "verbs": ["impersonate"]},
    {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["approve", "sign"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["update", "patch"]},
    {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["create", "delete"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
)


def roles(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    for power in rng.sample(POWERS, 6):
        what = "/".join((*power.get("resources", ()), *power.get("nonResourceURLs", ())))
        yield made("roles", f"ClusterRole, {what}", thing(RBAC, "ClusterRole", a_name(rng), rules=[power]))
    power = rng.choice([one for one in POWERS if "resources" in one])
    yield made("roles", "Role", thing(RBAC, "Role", a_name(rng), rng.choice(SYSTEM), rules=[power]))
    for own in ("system:discovery", "system:basic-user", "view"):
        power = rng.choice(POWERS)

        def change(body: Object, power: Object = power) -> None:
            body["rules"] = [*body["rules"], power]

        if own != "view":  # of which a controller writes the rules
            yield changed("roles", "edited", thing(RBAC, "ClusterRole", own), change)
    for into in ("view", "edit", "admin"):
        body = thing(RBAC, "ClusterRole", a_name(rng), rules=[POWERS[1]])
        body["metadata"]["labels"] = {f"rbac.authorization.k8s.io/aggregate-to-{into}": "true"}
        yield made("roles", f"aggregated into {into}", body)


SUBJECTS = (
    {"kind": "ServiceAccount", "namespace": "default", "name": "default"},
    {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:authenticated"},
    {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:serviceaccounts"},
    {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:unauthenticated"},
    {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "system:anonymous"},
    {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "eve"},
)


def bindings(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    for role in ("cluster-admin", "admin", "edit", "system:node-proxier", "system:kubelet-api-admin", "view"):
        who = rng.choice(SUBJECTS)
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        if role == "system:node-proxier" or role == "view":
            who = SUBJECTS[1]  # what counts is that it is everybody
        body = thing(RBAC, "ClusterRoleBinding", a_name(rng), roleRef=reference, subjects=[who])
        yield made("bindings", f"{role} for {who['name']}", body)
        if role in ("cluster-admin", "admin", "edit"):
            namespace = rng.choice(SYSTEM)
            body = thing(
                RBAC, "RoleBinding", a_name(rng), namespace, roleRef=reference, subjects=[rng.choice(SUBJECTS)]
            )
            yield made("bindings", f"{role} in {namespace} for {body['subjects'][0]['name']}", body)
    for own in ("cluster-admin", "system:node-proxier", "system:kube-dns", "system:monitoring"):

        def change(body: Object) -> None:
            body["subjects"] = [*body.get("subjects", []), SUBJECTS[5]]

        yield changed("bindings", "one more subject", thing(RBAC, "ClusterRoleBinding", own), change)


def tokens(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    for namespace in SYSTEM:
        body = thing("v1", "Secret", a_name(rng), namespace, type="kubernetes.io/service-account-token")
        body["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "default"}
        yield made("tokens", f"of a service account in {namespace}", body)
    code = "".join(rng.choice("abcdef0123456789") for _ in range(6))
    data = {"token-id": code, "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}
    body = thing(
        "v1", "Secret", f"bootstrap-token-{code}", "kube-system", type="bootstrap.kubernetes.io/token", stringData=data
    )
    yield made("tokens", "of a new node", body)


def network_policies(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    for namespace in SYSTEM:
        spec: Object = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}
        body = thing("networking.k8s.io/v1", "NetworkPolicy", a_name(rng), namespace, spec=spec)
        yield made("network policies", f"opens {namespace}", body)
    for namespace in ("default", "kube-public"):
        body = thing("networking.k8s.io/v1", "NetworkPolicy", "casemate-default-deny", namespace)

        def change(body: Object) -> None:
            body["spec"]["podSelector"] = {"matchLabels": {"no": "pod"}}

        def opened(body: Object) -> None:
            body["spec"]["egress"].append({})

        yield changed("network policies", f"of nothing in {namespace}", body, change)
        yield changed("network policies", f"opened in {namespace}", body, opened)


def pods(rng: random.Random) -> list[tuple[str, Object]]:
    """Specifications that share a node, each with what it shares."""
    container: Object = {"name": "main", "image": "docker.io/library/busybox:1.36"}
    privileged = {**container, "securityContext": {"privileged": True}}
    capable = {**container, "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}
    folder = rng.choice(("/", "/etc", "/var/lib/rancher", "/run/k3s/containerd", "/var/log"))
    shared: dict[str, Object] = {
        "privileged": {"containers": [privileged]},
        f"folder {folder}": {"containers": [container], "volumes": [{"name": "node", "hostPath": {"path": folder}}]},
        "processes": {"containers": [container], "hostPID": True},
        "network": {"containers": [container], "hostNetwork": True},
        "memory": {"containers": [container], "hostIPC": True},
        "capability": {"containers": [capable]},
        "port": {"containers": [{**container, "ports": [{"containerPort": 80, "hostPort": 8080}]}]},
        "first container": {"containers": [container], "initContainers": [{**privileged, "name": "first"}]},
    }
    return [(name, {**spec, "nodeSelector": {"no": "node"}}) for name, spec in shared.items()]


def workloads(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    for shared, spec in pods(rng):
        name = a_name(rng)
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": spec}
        chosen = {"selector": {"matchLabels": labels}, "template": template}
        once = {"suspend": True, "template": {"spec": {**spec, "restartPolicy": "Never"}}}
        kinds: dict[tuple[str, str], Object] = {
            ("v1", "Pod"): spec,
            ("apps/v1", "Deployment"): {**chosen, "replicas": 0},
            ("apps/v1", "DaemonSet"): chosen,
            ("apps/v1", "StatefulSet"): {**chosen, "replicas": 0, "serviceName": "x"},
            ("batch/v1", "Job"): once,
            ("batch/v1", "CronJob"): {"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": {"spec": once}},
        }
        version, kind = rng.choice(list(kinds))
        namespace = "kube-system" if kind == "Pod" else rng.choice(SYSTEM)  # no other admits such a pod
        body = thing(version, kind, name, namespace, spec=kinds[version, kind])
        yield made("workloads", f"{body['kind']}, {shared}", body)


def volumes(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    base = {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"]}
    folder = rng.choice(("/", "/etc", "/var/lib/rancher/k3s/server", "/root"))
    yield made(
        "volumes", folder, thing("v1", "PersistentVolume", a_name(rng), spec={**base, "hostPath": {"path": folder}})
    )
    term = {"matchExpressions": [{"key": "no", "operator": "In", "values": ["node"]}]}
    local = {"local": {"path": folder}, "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}
    yield made("volumes", f"local {folder}", thing("v1", "PersistentVolume", a_name(rng), spec={**base, **local}))


def namespaces(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    enforce = "pod-security.kubernetes.io/enforce"
    body = thing("v1", "Namespace", a_name(rng))
    body["metadata"]["labels"] = dict(
        (rng.choice(((enforce, "privileged"), (enforce, "baseline"), (f"{enforce}-version", "v1.25"))),)
    )
    yield made("namespaces", "new", body)
    for own in ("default", "kube-public", "kube-node-lease"):

        def weaker(body: Object) -> None:
            body["metadata"]["labels"][enforce] = "privileged"

        def unlabelled(body: Object) -> None:
            del body["metadata"]["labels"][enforce]

        yield changed("namespaces", "weaker", thing("v1", "Namespace", own), weaker)
        yield changed("namespaces", "without its label", thing("v1", "Namespace", own), unlabelled)


def accounts(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    def mounts(body: Object) -> None:
        body["automountServiceAccountToken"] = True

    for namespace in SYSTEM:
        yield changed("service accounts", "mounted", thing("v1", "ServiceAccount", "default", namespace), mounts)


def nodes(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    status = {"addresses": [{"type": "InternalIP", "address": "192.0.2.66"}]}
    yield made("nodes", "stranger", thing("v1", "Node", a_name(rng), status=status))


def names(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """CoreDNS imports what stands in coredns-custom: whoever writes it says where every name leads to."""
    data = {f"{a_name(rng)}.server": "example.org:53 { forward . 192.0.2.66 }"}
    yield made("names in the cluster", "custom", thing("v1", "ConfigMap", "coredns-custom", "kube-system", data=data))


def services(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """A service opens a port of every node. One that takes an address (CVE-2020-8554) is refused by admission."""
    spec: Object = {"ports": [{"port": 8443}], "selector": {"no": "pod"}}
    body = thing("v1", "Service", a_name(rng), rng.choice(SYSTEM), spec={**spec, "type": "NodePort"})
    yield made("services", "opens nodes", body)
    yield made("services", "among K3s' own", thing("v1", "Service", a_name(rng), "kube-system", spec=spec))


def endpoints(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """One more address for a service; it is said not to be ready, so that nobody is led there."""
    for service, namespace in {
        "kube-dns": "kube-system",
        "metrics-server": "kube-system",
        "kubernetes": "default",
    }.items():
        body = thing("discovery.k8s.io/v1", "EndpointSlice", a_name(rng), namespace)
        body["metadata"]["labels"] = {"kubernetes.io/service-name": service}
        point = {"addresses": [f"192.0.2.{rng.randrange(2, 250)}"], "conditions": {"ready": False}}
        body |= {"addressType": "IPv4", "ports": [{"name": "dns", "port": 53}], "endpoints": [point]}
        yield made("endpoints", f"of {service}", body)


def residents(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """Without power over a node, but in kube-system with the label of K3s' DNS, so that its pods would be asked."""
    labels = {"k8s-app": "kube-dns"}
    spec: Object = {"containers": [{"name": "main", "image": "docker.io/library/busybox:1.36"}]}
    spec["nodeSelector"] = {"no": "node"}
    pod = thing("v1", "Pod", a_name(rng), "kube-system", spec=spec)
    pod["metadata"]["labels"] = labels
    yield made("residents of kube-system", "pod", pod)
    labels = {**labels, "app": a_name(rng)}
    template = {"metadata": {"labels": labels}, "spec": spec}
    chosen = {"selector": {"matchLabels": labels}, "template": template, "replicas": 0}
    body = thing("apps/v1", "Deployment", labels["app"], "kube-system", spec=chosen)
    yield made("residents of kube-system", "deployment", body)


def addons(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """Objects that K3s makes of its own manifests, edited in place; paused, so that no pod is made anew."""
    system, address = "kube-system", f"192.0.2.{rng.randrange(2, 250)}"

    def forwarded(body: Object) -> None:
        body["data"]["Corefile"] = body["data"]["Corefile"].replace("/etc/resolv.conf", address)

    def named_by_hand(body: Object) -> None:
        body["data"]["NodeHosts"] = f"{body['data'].get('NodeHosts', '')}{address} registry.example.org\n"

    def selected(body: Object) -> None:
        body["spec"]["selector"] = {"app": a_name(rng)}

    def led_elsewhere(body: Object) -> None:
        body["spec"]["ports"][0]["targetPort"] = 5353

    def image(body: Object) -> None:
        body["spec"]["paused"] = True
        body["spec"]["template"]["spec"]["containers"][0]["image"] = "docker.io/library/busybox:1.36"

    def command(body: Object) -> None:
        body["spec"]["paused"] = True
        body["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh"]

    def variable(body: Object) -> None:
        body["spec"]["paused"] = True
        body["spec"]["template"]["spec"]["containers"][0].setdefault("env", []).append({"name": "A", "value": "b"})

    def helper(body: Object) -> None:
        body["data"]["helperPod.yaml"] = body["data"]["helperPod.yaml"].replace("busybox", a_name(rng))

    def bound(body: Object) -> None:
        body["scheduling"] = {"nodeSelector": {"kubernetes.io/hostname": a_name(rng)}}

    dns, volumes = thing("v1", "ConfigMap", "coredns", system), thing("v1", "ConfigMap", "local-path-config", system)
    services = [thing("v1", "Service", own, system) for own in ("kube-dns", "metrics-server")]
    names = ("coredns", "metrics-server", "local-path-provisioner")
    deployments = [thing("apps/v1", "Deployment", own, system) for own in names]
    runtimes = [thing("node.k8s.io/v1", "RuntimeClass", own) for own in ("crun", "spin", "wasmtime")]
    edits: list[tuple[str, list[Object], Callable[[Object], None]]] = [
        ("resolver", [dns], forwarded), ("names of nodes", [dns], named_by_hand), ("pod of volumes", [volumes], helper),
        ("selector", services, selected), ("port", services, led_elsewhere),
        ("image", deployments, image), ("command", deployments, command), ("environment", deployments, variable),
        ("nodes of a runtime", runtimes, bound),
    ]  # fmt: skip
    for variant, bodies, change in edits:
        for body in filter(is_there, bodies):  # which of K3s' add-ons are on is the operator's
            yield changed("K3s' own objects", variant, body, change)


CLUSTER = {
    "webhooks": (webhooks, WEB), "API services": (api_services, WEB), "admission policies": (policies, WEB),
    "roles": (roles, RIGHTS), "bindings": (bindings, RIGHTS), "tokens": (tokens, RIGHTS),
    "network policies": (network_policies, NETWORK), "workloads": (workloads, PODS), "volumes": (volumes, PODS),
    "namespaces": (namespaces, PODS), "service accounts": (accounts, RIGHTS | PODS),
    "nodes": (nodes, RIGHTS | NETWORK | {"T4.1", "T4.3"}), "names in the cluster": (names, NETWORK | RIGHTS),
    "services": (services, NETWORK), "endpoints": (endpoints, NETWORK), "residents of kube-system": (residents, PODS),
    "K3s' own objects": (addons, RIGHTS | NETWORK),
}  # fmt: skip


def cluster_families() -> list[Family]:
    return [Family(name, undermines, every) for name, (every, undermines) in CLUSTER.items()]
