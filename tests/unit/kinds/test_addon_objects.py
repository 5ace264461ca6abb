"""What K3s makes of its own manifests is as they say; what is filled in by itself or every day is no fault."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from unit.fake_host import FakeHost
from unit.kinds.test_vouched_objects import UNTIL, VERSION, FakeApi, cluster

from casemate.catalogue import declarations, load
from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.k3s.manifests import ADDONS
from module_utils.casemate.kinds import addon_objects as kind

__all__ = ["cluster"]
VARIABLES = declarations.variables()[1]
FOLDER = "/var/lib/rancher/k3s/server/manifests"
DNS, CHART = f"{FOLDER}/coredns.yaml", f"{FOLDER}/traefik.yaml"
MANIFESTS = {
    DNS: """\
apiVersion: v1
kind: ServiceAccount
metadata:
  name: coredns
  namespace: kube-system
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: coredns
  namespace: kube-system
data:
  Corefile: |
    .:53 {
        errors
        forward . /etc/resolv.conf
    }
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: coredns
  namespace: kube-system
spec:
  revisionHistoryLimit: 0
  strategy:
    rollingUpdate:
      maxUnavailable: 1
  template:
    metadata:
      labels:
        k8s-app: kube-dns
    spec:
      serviceAccountName: coredns
      containers:
      - name: coredns
        image: "coredns:1"
        args: [ "-conf", "/etc/coredns/Corefile" ]
        readinessProbe:
          initialDelaySeconds: 0
          periodSeconds: 2
      volumes:
        - name: config
          configMap:
            name: coredns
---
apiVersion: v1
kind: Service
metadata:
  name: kube-dns
  namespace: kube-system
spec:
  selector:
    k8s-app: kube-dns
  clusterIP: 10.43.0.10
  clusterIPs: [10.43.0.10]
  ports:
  - name: dns
    port: 53
    protocol: UDP
""",
    CHART: """\
apiVersion: helm.cattle.io/v1
kind: HelmChart
metadata:
  name: traefik
  namespace: kube-system
spec:
  chart: traefik.tgz
  set:
    registry: ""
""",
}
PATHS = {one["kind"]: one["path"] for one in load()["CLUSTER-ADDONS-VOUCHED"]["setting"]["objects"]}
RUNNING = "ActiveState=active\nActiveEnterTimestamp=Wed 2020-01-01 08:00:00 UTC\n"
Object = dict[str, Any]


def named(name: str, kind_of: str, version: str = "v1", **more: Any) -> Object:
    meta = {"name": name, "namespace": "kube-system", "uid": "1", "resourceVersion": "7"}
    return {"apiVersion": version, "kind": kind_of, "metadata": meta, **more}


def live() -> dict[str, Object]:
    """The objects as the API server shows them when nobody has touched them; by what they are called."""
    pod = {
        "serviceAccountName": "coredns", "serviceAccount": "coredns", "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "securityContext": {},
        "containers": [{
            "name": "coredns", "image": "coredns:1", "args": ["-conf", "/etc/coredns/Corefile"], "resources": {},
            "imagePullPolicy": "IfNotPresent", "readinessProbe": {"periodSeconds": 2},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        }],
        "volumes": [{"name": "config", "configMap": {"name": "coredns", "defaultMode": 420}}],
    }  # fmt: skip
    template = {"metadata": {"labels": {"k8s-app": "kube-dns"}, "creationTimestamp": None}, "spec": pod}
    deployment = {
        "replicas": 1, "revisionHistoryLimit": 0, "progressDeadlineSeconds": 600, "template": template,
        "strategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": "25%"}},
    }  # fmt: skip
    service = {
        "selector": {"k8s-app": "kube-dns"}, "clusterIP": "10.43.0.10", "clusterIPs": ["10.43.0.10"],
        "type": "ClusterIP",
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53}], "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"], "sessionAffinity": "None",
    }  # fmt: skip
    text = ".:53 {\n    errors\n    forward . /etc/resolv.conf\n}\n"
    hosts = "192.0.2.11 server1\n192.0.2.12 server2 server2.example.org\n"
    return {
        "ServiceAccount": named("coredns", "ServiceAccount"),
        "ConfigMap": named("coredns", "ConfigMap", data={"Corefile": text, "NodeHosts": hosts}),
        "Deployment": named("coredns", "Deployment", "apps/v1", spec=deployment, status={"replicas": 1}),
        "Service": named("kube-dns", "Service", spec=service, status={"loadBalancer": {}}),
        "HelmChart": named(
            "traefik", "HelmChart", "helm.cattle.io/v1", spec={"chart": "traefik.tgz", "set": {"registry": ""}}
        ),
    }


def node(name: str, address: str, *others: str) -> Object:
    shown = [{"type": "InternalIP", "address": address}, *({"type": "Hostname", "address": other} for other in others)]
    return {"metadata": {"name": name}, "status": {"addresses": shown}}


NODES = [node("server1", "192.0.2.11", "server1"), node("server2", "192.0.2.12", "server2.example.org")]


def addons(**checksums: str) -> list[Object]:
    known = {Path(path).stem: hashlib.sha256(text.encode()).hexdigest() for path, text in MANIFESTS.items()}
    return [{"metadata": {"name": name}, "spec": {"checksum": made}} for name, made in {**known, **checksums}.items()]


def setting(**more: Any) -> Any:
    made = {**load()["CLUSTER-ADDONS-VOUCHED"]["setting"], "declared": {}, **more}
    made["manifests"], made["filled_in"] = VARIABLES["__k3s_cluster_manifests"], VARIABLES["__k3s_cluster_filled_in"]
    del made["kind"]
    return made


def host(tmp_path: Path, **files: str) -> FakeHost:
    commands = {"systemctl show k3s.service": (0, RUNNING, "")}
    return FakeHost(tmp_path, {**MANIFESTS, **files}, commands, {"today": "2026-12-01"})


def answer(objects: dict[str, Object | None], made: list[Object] | None = None) -> None:
    FakeApi.answers = {"/version": VERSION, "/api/v1/nodes": {"items": NODES}}
    FakeApi.answers[ADDONS] = {"items": addons() if made is None else made}
    for name, one in objects.items():
        FakeApi.answers[PATHS[name]] = {"items": [one] if one else []}


def seen(tmp_path: Path, objects: dict[str, Object | None], made: list[Object] | None = None, **more: Any) -> Any:
    answer(objects, made)
    asked = setting(**more)
    (found,) = kind.observe([asked], host(tmp_path))
    if isinstance(found, Exception):
        raise found
    verdict = kind.assess(asked, found)
    assert verdict.ok == (not found["faults"])
    return {**found, "where": list(verdict.where)}


def test_untouched_objects_are_no_finding(tmp_path: Path) -> None:
    found = seen(tmp_path, dict(live()))
    assert (found["faults"], found["evidence"]) == ({}, "objects of K3s' manifests: 5")


def usual(objects: dict[str, Object]) -> None:
    """What operators and K3s do to them every day."""
    spec = objects["Deployment"]["spec"]
    spec["replicas"] = 3
    spec["template"]["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "2026-12-01T08:00:00Z"}
    objects["Deployment"]["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "2"}
    objects["Deployment"]["metadata"]["labels"] = {"objectset.rio.cattle.io/hash": "x"}
    objects["ConfigMap"]["data"]["NodeHosts"] = "192.0.2.11 server1\n"


def test_what_is_done_to_them_every_day_is_none_either(tmp_path: Path) -> None:
    objects = live()
    usual(objects)
    assert seen(tmp_path, dict(objects))["faults"] == {}


def pod_of(objects: dict[str, Object]) -> Object:
    found: Object = objects["Deployment"]["spec"]["template"]["spec"]
    return found


EDITS: dict[str, tuple[Callable[[dict[str, Object]], Any], str]] = {
    "selector": (lambda o: o["Service"]["spec"]["selector"].update({"k8s-app": "evil"}),
                 "Service/kube-system/kube-dns:spec.selector.k8s-app"),
    "further selector": (lambda o: o["Service"]["spec"]["selector"].update({"app": "evil"}),
                         "Service/kube-system/kube-dns:spec.selector.app"),
    "target port": (lambda o: o["Service"]["spec"]["ports"][0].update({"targetPort": 5353}),
                    "Service/kube-system/kube-dns:spec.ports[0].targetPort"),
    "outer address": (lambda o: o["Service"]["spec"].update({"externalIPs": ["192.0.2.66"]}),
                      "Service/kube-system/kube-dns:spec.externalIPs"),
    "type": (lambda o: o["Service"]["spec"].update({"type": "NodePort"}), "Service/kube-system/kube-dns:spec.type"),
    "image": (lambda o: pod_of(o)["containers"][0].update({"image": "evil:1"}),
              "Deployment/kube-system/coredns:spec.template.spec.containers[0].image"),
    "arguments": (lambda o: pod_of(o)["containers"][0]["args"].append("-x"),
                  "Deployment/kube-system/coredns:spec.template.spec.containers[0].args"),
    "command": (lambda o: pod_of(o)["containers"][0].update({"command": ["sh"]}),
                "Deployment/kube-system/coredns:spec.template.spec.containers[0].command"),
    "environment": (lambda o: pod_of(o)["containers"][0].update({"env": [{"name": "A", "value": "B"}]}),
                    "Deployment/kube-system/coredns:spec.template.spec.containers[0].env"),
    "further container": (lambda o: pod_of(o)["containers"].append({"name": "x", "image": "evil:1"}),
                          "Deployment/kube-system/coredns:spec.template.spec.containers"),
    "first container": (lambda o: pod_of(o).update({"initContainers": [{"name": "x", "image": "evil:1"}]}),
                        "Deployment/kube-system/coredns:spec.template.spec.initContainers"),
    "volume": (lambda o: pod_of(o)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
               "Deployment/kube-system/coredns:spec.template.spec.volumes"),
    "network": (lambda o: pod_of(o).update({"hostNetwork": True}),
                "Deployment/kube-system/coredns:spec.template.spec.hostNetwork"),
    "account": (lambda o: pod_of(o).update({"serviceAccountName": "x", "serviceAccount": "x"}),
                "Deployment/kube-system/coredns:spec.template.spec.serviceAccountName"),
    "label of pods": (lambda o: o["Deployment"]["spec"]["template"]["metadata"]["labels"].update({"x": "y"}),
                      "Deployment/kube-system/coredns:spec.template.metadata.labels.x"),
    "probe": (lambda o: pod_of(o)["containers"][0]["readinessProbe"].update({"exec": {"command": ["sh"]}}),
              "Deployment/kube-system/coredns:spec.template.spec.containers[0].readinessProbe.exec"),
    "none of them": (lambda o: o["Deployment"]["spec"].update({"replicas": 0}),
                     "Deployment/kube-system/coredns:spec.replicas"),
    "token": (lambda o: o["ServiceAccount"].update({"automountServiceAccountToken": True}),
              "ServiceAccount/kube-system/coredns:automountServiceAccountToken"),
    "resolver": (lambda o: o["ConfigMap"]["data"].update(
                     {"Corefile": ".:53 {\n    errors\n    forward . 192.0.2.66\n}\n"}),
                 "ConfigMap/kube-system/coredns:data.Corefile[2]"),
    "further text": (lambda o: o["ConfigMap"]["data"].update({"more": "x"}), "ConfigMap/kube-system/coredns:data.more"),
    "name of somebody": (lambda o: o["ConfigMap"]["data"].update({"NodeHosts": "192.0.2.66 registry.example.org\n"}),
                         "ConfigMap/kube-system/coredns:data.NodeHosts"),
    "name behind another one": (
        lambda o: o["ConfigMap"]["data"].update({"NodeHosts": "192.0.2.11 server1 registry.example.org\n"}),
        "ConfigMap/kube-system/coredns:data.NodeHosts",
    ),
    "another node's address": (lambda o: o["ConfigMap"]["data"].update({"NodeHosts": "192.0.2.12 server1\n"}),
                               "ConfigMap/kube-system/coredns:data.NodeHosts"),
    "values": (lambda o: o["HelmChart"]["spec"].update({"valuesContent": "password: hidden"}),
               "HelmChart/kube-system/traefik:spec.valuesContent"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_named_with_its_field_and_nothing_else_is(tmp_path: Path, name: str) -> None:
    edit, place = EDITS[name]
    objects = live()
    usual(objects)
    edit(objects)
    found = seen(tmp_path, dict(objects))
    assert found["where"] == [place]
    assert "hidden" not in json.dumps(found)


def test_one_that_is_gone_is_named(tmp_path: Path) -> None:
    found = seen(tmp_path, {**live(), "Service": None})
    assert found["faults"] == {"Service/kube-system/kube-dns": "object: is absent"}


def test_what_k3s_has_never_applied_is_none(tmp_path: Path) -> None:
    found = seen(tmp_path, {**live(), "HelmChart": None}, addons(traefik=""))
    assert found["faults"] == {}
    edited = live()
    edited["HelmChart"]["spec"]["chart"] = "evil.tgz"  # whoever changes the note of K3s, too, hides nothing
    assert list(seen(tmp_path, dict(edited), addons(traefik=""))["faults"]) == ["HelmChart/kube-system/traefik"]


def test_k3s_has_a_moment_to_apply_a_new_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = live()
    pod_of(older)["containers"][0]["image"] = "coredns:0"
    answer(dict(older), addons(coredns="that of the release before"))
    at = 1577865600.0  # when K3s came up
    for seconds, expected in ((60, []), (180, ["Deployment/kube-system/coredns"])):
        monkeypatch.setattr("module_utils.casemate.kinds.addon_objects.time.time", lambda now=at + seconds: now)
        (found,) = kind.observe([setting()], host(tmp_path))
        assert list(found["faults"]) == expected


def test_the_operator_vouches_until_it_changes(tmp_path: Path) -> None:
    objects = live()
    objects["Service"]["spec"]["selector"] = {"app": "resolver"}
    (digest,) = seen(tmp_path, dict(objects))["contents"].values()
    entry = {"Service/kube-system/kube-dns": {"digest": digest, **UNTIL}}
    assert seen(tmp_path, dict(objects), declared=entry)["faults"] == {}
    objects["Service"]["spec"]["selector"] = {"app": "evil"}
    assert list(seen(tmp_path, dict(objects), declared=entry)["faults"]) == ["Service/kube-system/kube-dns"]


def test_a_manifest_that_cannot_be_read_is_not_evaluated(tmp_path: Path) -> None:
    answer(dict(live()))
    (found,) = kind.observe([setting()], host(tmp_path, **{DNS: "a: &b c\n"}))
    assert isinstance(found, Unavailable)
    assert "coredns.yaml cannot be read: line 1" in found.why


def test_without_manifests_there_is_nothing_to_compare(tmp_path: Path) -> None:
    FakeApi.answers = {"/version": VERSION}
    (found,) = kind.observe([setting()], FakeHost(tmp_path))
    assert found["faults"] == {}


class Writing(FakeApi):
    """Takes what is put back, or refuses it."""

    taken: ClassVar[list[tuple[str, str, Any]]] = []
    status = 200

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        if method == "GET":
            return super().call(method, path, body)
        Writing.taken.append((method, path, body))
        return Writing.status, {"message": "field is immutable"}


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> type[Writing]:
    Writing.taken, Writing.status = [], 200
    monkeypatch.setattr(kind, "Api", Writing)
    return Writing


def test_it_is_put_back_with_what_is_filled_in(tmp_path: Path, writing: type[Writing]) -> None:
    objects = live()
    usual(objects)
    good = copy.deepcopy(objects)
    EDITS["image"][0](objects)
    EDITS["network"][0](objects)
    EDITS["resolver"][0](objects)
    objects["ConfigMap"]["data"]["NodeHosts"] += "192.0.2.66 registry.example.org\n"
    answer({**objects, "Service": None})
    there = host(tmp_path)
    kind.enforce([setting()], {0}, there)
    made = {(method, path.rpartition("/")[2]): body for method, path, body in writing.taken}
    assert set(made) == {("PUT", "coredns"), ("POST", "services")} and len(writing.taken) == 3
    bodies = {body["kind"]: body for _, _, body in writing.taken}
    assert bodies["ConfigMap"]["data"] == good["ConfigMap"]["data"]
    back = bodies["Deployment"]["spec"]
    assert (back["replicas"], back["template"]["spec"]["containers"][0]["image"]) == (3, "coredns:1")
    assert "hostNetwork" not in back["template"]["spec"]
    answer({**good, **bodies})
    (found,) = kind.observe([setting()], host(tmp_path))
    assert found["faults"] == {}
    kept = list(tmp_path.glob("var/lib/casemate/evicted/*/apis/apps/v1/namespaces/kube-system/deployments/*.json"))
    assert json.loads(kept[0].read_text())["spec"]["template"]["spec"]["containers"][0]["image"] == "evil:1"


def test_what_is_refused_says_what_to_do(tmp_path: Path, writing: type[Writing]) -> None:
    objects = live()
    EDITS["selector"][0](objects)
    answer(dict(objects))
    writing.status = 422
    with pytest.raises(EnforceError, match="field is immutable; by hand: delete it, and restart K3s"):
        kind.enforce([setting()], {0}, host(tmp_path))
