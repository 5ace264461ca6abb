"""What in the cluster gives power has somebody who vouches for it: K3s, Casemate, or the operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from unit.fake_host import FakeHost

from casemate import catalogue
from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.k3s import api, listed
from module_utils.casemate.kinds import vouched_objects as kind

UNTIL = {"owner": "ops", "reason": "storage", "expires": "2027-01-31"}
VERSION = {"major": "1", "minor": "36"}


class FakeApi:
    """Answers by path; everything else is an empty list."""

    answers: ClassVar[dict[str, Any]] = {}
    asked: ClassVar[list[tuple[str, bool]]] = []

    def __init__(self, host: object) -> None:
        """Take any host."""

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        assert method == "GET"
        self.asked.append((path, isinstance(self, FakeNames)))
        answer = self.answers.get(path, {"items": []})
        return answer if isinstance(answer, tuple) else (200, answer)

    def get(self, path: str) -> Any:
        return self.call("GET", path)[1]


class FakeNames(FakeApi):
    """Tells of objects what their metadata tells."""


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    FakeApi.answers, FakeApi.asked = {"/version": VERSION}, []
    monkeypatch.setattr(listed, "Api", FakeApi)
    monkeypatch.setattr(listed, "Names", FakeNames)
    return FakeApi


def setting_of(cid: str, **more: Any) -> Any:
    """The setting of a control as it is declared, without what is a template."""
    text = json.dumps(catalogue.load()[cid]["setting"]).replace("{{ k3s_cluster_volume_folder }}", "/srv")
    made = {**json.loads(text), "declared": {}, "ours": [], **more}
    del made["kind"]
    return made


def observed(kind: Any, setting: Any, tmp_path: Path) -> Any:
    """What a kind sees of the cluster; its verdict fails where that has faults, and names where they are."""
    (found,) = kind.observe([setting], FakeHost(tmp_path, context={"today": "2026-12-01"}))
    if isinstance(found, Exception):
        raise found
    verdict = kind.assess(setting, found)
    assert verdict.ok == (not found["faults"])
    assert list(verdict.where) == list(found["faults"])
    return found


def seen(tmp_path: Path, cid: str, objects: dict[str, list[Any]], **more: Any) -> Any:
    """What a control sees where lists, by the end of their path, hold these objects."""
    setting = setting_of(cid, **more)
    for place in setting["objects"]:
        for end, items in objects.items():
            if place["path"].endswith(end):
                FakeApi.answers[place["path"]] = {"items": items}
    return observed(kind, setting, tmp_path)


def faults(tmp_path: Path, cid: str, objects: dict[str, list[Any]], **more: Any) -> dict[str, str]:
    found: dict[str, str] = seen(tmp_path, cid, objects, **more)["faults"]
    return found


def named(name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    where = {"namespace": namespace} if namespace else {}
    meta = {"name": name, **where, "uid": f"uid-{namespace}-{name}", **more.pop("metadata", {})}
    return {"metadata": meta, **more}


def pod(**spec: Any) -> dict[str, Any]:
    return {"containers": [{"name": "main", "image": "busybox"}], **spec}


def workload(name: str, namespace: str = "web", replicas: int = 1, **spec: Any) -> dict[str, Any]:
    return named(name, namespace, spec={"replicas": replicas, "template": {"spec": pod(**spec)}})


def owned(by: dict[str, Any]) -> dict[str, Any]:
    return {"ownerReferences": [{"uid": by["metadata"]["uid"], "controller": True}]}


HOOK = {"name": "x", "failurePolicy": "Fail", "clientConfig": {"service": {"namespace": "web", "name": "x"}}}
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "network": ({"hostNetwork": True}, "has its node's network"),
    "processes": ({"hostPID": True}, "has its node's processes"),
    "memory": ({"hostIPC": True}, "has its node's shared memory"),
    "files": ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "has of its node /"),
    "privileged": ({"containers": [{"securityContext": {"privileged": True}}]}, "is privileged"),
    "init": ({"initContainers": [{"securityContext": {"privileged": True}}]}, "is privileged"),
    "ephemeral": ({"ephemeralContainers": [{"securityContext": {"privileged": True}}]}, "is privileged"),
    "capability": (
        {"containers": [{"securityContext": {"capabilities": {"add": ["CHOWN", "SYS_ADMIN"]}}}]},
        "has the capability SYS_ADMIN",
    ),
}
HARMLESS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "said no": {"hostNetwork": False, "containers": [{"securityContext": {"privileged": False}}]},
    "other volumes": {"volumes": [{"name": "x", "emptyDir": {}}, {"name": "y", "configMap": {"name": "z"}}]},
    "usual capabilities": {"containers": [{"securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}}}]},
}


class TestServices:
    CID = "CLUSTER-SERVICES-VOUCHED"
    PORTS: ClassVar[list[dict[str, Any]]] = [{"port": 80, "nodePort": 30080}, {"port": 443, "nodePort": 30443}]

    @pytest.mark.parametrize(
        ("spec", "words"),
        [
            ({"type": "NodePort", "ports": PORTS}, "is of the type NodePort; opens a port of every node"),
            ({"type": "LoadBalancer", "ports": [{"port": 80}]}, "is of the type LoadBalancer"),
            ({"type": "ClusterIP", "externalIPs": ["192.0.2.66"]}, "takes the address 192.0.2.66"),
            (
                {"type": "ExternalName", "externalName": "example.org"},
                "is of the type ExternalName; is another name of example.org",
            ),
        ],
    )
    def test_one_that_is_reached_from_outside_or_leads_there_is_named(
        self, tmp_path: Path, spec: dict[str, Any], words: str
    ) -> None:
        lists = {f"/{name}/services": [named("web", name, spec=spec)] for name in ("default", "kube-system")}
        assert faults(tmp_path, self.CID, lists) == {
            f"Service/{name}/web": words for name in ("default", "kube-system")
        }

    def test_one_of_the_cluster_alone_and_k3s_own_are_nobodys_business(self, tmp_path: Path) -> None:
        spec = {"type": "ClusterIP", "ports": [{"port": 80}]}
        inner = [named(f"s{number}", "default", spec=spec) for number in range(9)]
        own = named("traefik", "kube-system", spec={"type": "LoadBalancer", "ports": self.PORTS})
        assert faults(tmp_path, self.CID, {"/default/services": inner, "/kube-system/services": [own]}) == {}
        own["spec"]["externalIPs"] = ["192.0.2.66"]
        assert list(faults(tmp_path, self.CID, {"/kube-system/services": [own]})) == ["Service/kube-system/traefik"]

    def test_in_kube_system_every_one_is_named_but_k3s_own(self, tmp_path: Path) -> None:
        spec = {"type": "ClusterIP", "clusterIP": "None", "ports": [{"port": 53}]}
        there = [named(name, "kube-system", spec=spec) for name in ("kube-dns", "metrics-server", "resolver")]
        found = faults(tmp_path, self.CID, {"/kube-system/services": there})
        assert found == {"Service/kube-system/resolver": "K3s does not bring it"}

    def test_the_api_servers_own_has_no_selector(self, tmp_path: Path) -> None:
        own = named("kubernetes", "default", spec={"type": "ClusterIP", "ports": [{"port": 443}]})
        assert faults(tmp_path, self.CID, {"metadata.name%3Dkubernetes": [own], "/default/services": [own]}) == {}
        own["spec"]["selector"] = {"app": "evil"}
        assert faults(tmp_path, self.CID, {"metadata.name%3Dkubernetes": [own], "/default/services": [own]}) == {
            "Service/default/kubernetes": "leads requests to the API server to pods that a selector chooses"
        }


class TestEndpoints:
    CID = "CLUSTER-ENDPOINTS-VOUCHED"

    @staticmethod
    def slice(name: str, namespace: str, service: str, by: str = "") -> dict[str, Any]:
        labels = {"kubernetes.io/service-name": service}
        labels |= {"endpointslice.kubernetes.io/managed-by": by} if by else {}
        points = [{"addresses": ["192.0.2.66"]}]
        return named(name, namespace, metadata={"labels": labels}, addressType="IPv4", endpoints=points)

    def test_those_of_kubernetes_itself_are_nobodys_business(self, tmp_path: Path) -> None:
        api = self.slice("kubernetes", "default", "kubernetes")
        dns = self.slice("kube-dns-x7k2p", "kube-system", "kube-dns", "endpointslice-controller.k8s.io")
        assert faults(tmp_path, self.CID, {"%3Dkubernetes": [api], "kube-system/endpointslices": [dns]}) == {}

    @pytest.mark.parametrize("by", ["", "kubectl", "endpointslicemirroring-controller.k8s.io"])
    def test_one_that_somebody_wrote_is_named(self, tmp_path: Path, by: str) -> None:
        dns = self.slice("more", "kube-system", "kube-dns", by)
        assert faults(tmp_path, self.CID, {"kube-system/endpointslices": [dns]}) == {
            "EndpointSlice/kube-system/more": "stands for the service kube-dns; leads to 192.0.2.66"
        }

    def test_nobody_else_answers_for_the_api_server(self, tmp_path: Path) -> None:
        for by in ("", "endpointslice-controller.k8s.io"):  # which writes none for a service without a selector
            more = self.slice("kubernetes-2", "default", "kubernetes", by)
            assert list(faults(tmp_path, self.CID, {"%3Dkubernetes": [more]})) == ["EndpointSlice/default/kubernetes-2"]


class TestWorkloads:
    CID = "CLUSTER-WORKLOADS-VOUCHED"

    @pytest.mark.parametrize("name", HOSTILE)
    def test_one_that_shares_its_node_is_named(self, tmp_path: Path, name: str) -> None:
        spec, words = HOSTILE[name]
        assert faults(tmp_path, self.CID, {"/pods": [named("p", "web", spec=pod(**spec))]}) == {"Pod/web/p": words}
        assert faults(tmp_path, self.CID, {"/daemonsets": [workload("d", **spec)]})["DaemonSet/web/d"] == words

    @pytest.mark.parametrize("name", HARMLESS)
    def test_any_other_is_nobodys_business(self, tmp_path: Path, name: str) -> None:
        many = [named(f"p{number}", "web", spec=pod(**HARMLESS[name])) for number in range(50)]
        assert faults(tmp_path, self.CID, {"/pods": many, "/deployments": [workload("d", **HARMLESS[name])]}) == {}

    def test_in_kube_system_every_one_is_named_but_k3s_own(self, tmp_path: Path) -> None:
        own, more = workload("coredns", "kube-system"), workload("resolver", "kube-system")
        replicas = workload("coredns-1", "kube-system")
        replicas["metadata"] |= owned(own)
        running = named("coredns-1-x", "kube-system", spec=pod(), metadata=owned(replicas))
        alone = named("resolver-2", "kube-system", spec=pod())
        installs = named("helm-install-traefik", "kube-system", spec={"template": {"spec": pod()}})
        found = {"/deployments": [own, more], "/replicasets": [replicas], "/pods": [running, alone]}
        found["/jobs"] = [installs]
        assert faults(tmp_path, self.CID, found) == dict.fromkeys(
            ("Deployment/kube-system/resolver", "Pod/kube-system/resolver-2"), "K3s does not bring it"
        )

    def test_a_job_that_has_not_run_yet_is_named(self, tmp_path: Path) -> None:
        job = {"spec": {"jobTemplate": {"spec": {"template": {"spec": pod(hostPID=True)}}}}}
        assert list(faults(tmp_path, self.CID, {"/cronjobs": [named("c", "web", **job)]})) == ["CronJob/web/c"]

    def test_whoever_made_it_stands_for_it(self, tmp_path: Path) -> None:
        deployment, replicas = workload("d", hostPID=True), workload("d-1", hostPID=True)
        replicas["metadata"] |= owned(deployment)
        pods = [named(f"d-1-{n}", "web", spec=pod(hostPID=True), metadata=owned(replicas)) for n in range(50)]
        found = {"/deployments": [deployment], "/replicasets": [replicas], "/pods": pods}
        assert list(faults(tmp_path, self.CID, found)) == ["Deployment/web/d"]

    def test_a_pod_that_got_more_than_whoever_made_it_is_named(self, tmp_path: Path) -> None:
        made = workload("d", hostPID=True)
        more = named("p", "web", spec=pod(hostPID=True, hostNetwork=True), metadata=owned(made))
        assert set(faults(tmp_path, self.CID, {"/daemonsets": [made], "/pods": [more]})) == {
            "DaemonSet/web/d", "Pod/web/p",
        }  # fmt: skip
        stranger = named("p", "web", spec=pod(hostPID=True), metadata=owned(named("gone", "web")))
        assert list(faults(tmp_path, self.CID, {"/pods": [stranger], "/daemonsets": []})) == ["Pod/web/p"]

    def test_what_runs_nothing_is_left_out(self, tmp_path: Path) -> None:
        mirror = {"annotations": {"kubernetes.io/config.mirror": "x"}}
        pods = [
            named("static", "kube-system", spec=pod(hostPID=True), metadata=mirror),
            named("done", "web", spec=pod(hostPID=True), status={"phase": "Succeeded"}),
        ]
        found = {"/pods": pods, "/replicasets": [workload("old", replicas=0, hostPID=True)]}
        assert faults(tmp_path, self.CID, found) == {}

    def test_k3s_own_may_have_what_they_ship_with_and_no_more(self, tmp_path: Path) -> None:
        admin: dict[str, Any] = {"containers": [{"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}]}
        balancer = workload("svclb-web-1", "kube-system", **admin)
        helper = named("helper-pod-1", "kube-system", spec=pod(volumes=[{"hostPath": {"path": "/srv"}}]))
        assert faults(tmp_path, self.CID, {"/daemonsets": [balancer], "/pods": [helper]}) == {}
        elsewhere = workload("svclb-web-1", "web", **admin)
        more = workload("svclb-web-2", "kube-system", hostNetwork=True, **admin)
        assert set(faults(tmp_path, self.CID, {"/daemonsets": [elsewhere, more], "/pods": []})) == {
            "DaemonSet/web/svclb-web-1", "DaemonSet/kube-system/svclb-web-2",
        }  # fmt: skip


class TestWhoVouches:
    CID = "CLUSTER-WORKLOADS-VOUCHED"

    def test_the_operator_until_it_changes_or_ends(self, tmp_path: Path) -> None:
        made = workload("agent", hostPID=True)
        (digest,) = seen(tmp_path, self.CID, {"/daemonsets": [made]})["contents"].values()
        entry = {"DaemonSet/web/agent": {"digest": digest, **UNTIL}}
        assert faults(tmp_path, self.CID, {"/daemonsets": [made]}, declared=entry) == {}
        made["metadata"]["labels"] = {"version": "2"}
        made["spec"]["replicas"] = 3
        assert faults(tmp_path, self.CID, {"/daemonsets": [made]}, declared=entry) == {}
        ended = {"DaemonSet/web/agent": {"digest": digest, **UNTIL, "expires": "2026-11-30"}}
        found = faults(tmp_path, self.CID, {"/daemonsets": [made]}, declared=ended)
        assert "ops vouched for it until 2026-11-30" in found["DaemonSet/web/agent"]
        made["spec"]["template"]["spec"]["containers"][0]["image"] = "evil"
        found = faults(tmp_path, self.CID, {"/daemonsets": [made]}, declared=entry)
        assert f"ops vouched for {digest}, and it is sha256:" in found["DaemonSet/web/agent"]

    def test_casemate_for_its_own(self, tmp_path: Path) -> None:
        own = [named("casemate-dns", "kube-system", spec={"ingress": [{}]})]
        cid, ours = "CLUSTER-POLICIES-VOUCHED", ["NetworkPolicy/kube-system/casemate-dns"]
        assert faults(tmp_path, cid, {"kube-system/networkpolicies": own}, ours=ours) == {}

    def test_every_policy_that_a_control_asks_for_is_known(self) -> None:
        paths = [str(control["setting"].get("path")) for control in catalogue.load().values()]
        parts = [path.split("/") for path in paths if "/networkpolicies/" in path]
        asked = {f"NetworkPolicy/{part[-3]}/{part[-1]}" for part in parts}
        assert asked == set(catalogue.declarations.variables()[1]["__k3s_cluster_policies"])

    def test_nobody_is_told_from_others_in_an_unknown_version(self, tmp_path: Path, cluster: type[FakeApi]) -> None:
        cluster.answers["/version"] = {"major": "1", "minor": "99+"}
        with pytest.raises(Unavailable, match=r"what Kubernetes 1\.99 brings") as unknown:
            faults(tmp_path, self.CID, {})
        assert unknown.value.code == "version"

    def test_an_answer_that_is_refused_is_no_empty_list(self, tmp_path: Path, cluster: type[FakeApi]) -> None:
        for status, code in ((403, "refused"), (404, "k3s")):
            cluster.answers["/api/v1/pods"] = (status, {"message": "no"})
            with pytest.raises(Unavailable) as lacking:
                faults(tmp_path, self.CID, {})
            assert lacking.value.code == code

    def test_a_resource_that_a_cluster_need_not_have_may_lack(self, tmp_path: Path, cluster: type[FakeApi]) -> None:
        cluster.answers["/apis/helm.cattle.io/v1/helmcharts"] = (404, {})
        assert faults(tmp_path, "CLUSTER-CHARTS-VOUCHED", {}) == {}


class TestWebhooks:
    CID = "CLUSTER-WEBHOOKS-VOUCHED"

    def test_every_one_is_named_and_what_it_does(self, tmp_path: Path) -> None:
        outside = {**HOOK, "failurePolicy": "Ignore", "clientConfig": {"url": "https://evil.example/x"}}
        found = {"/validatingwebhookconfigurations": [named("a", webhooks=[HOOK])],
                 "/mutatingwebhookconfigurations": [named("b", webhooks=[HOOK, outside])]}  # fmt: skip
        reasons = faults(tmp_path, self.CID, found)
        assert reasons["ValidatingWebhookConfiguration/a"] == "K3s does not bring it"
        assert "failurePolicy Ignore" in reasons["MutatingWebhookConfiguration/b"]
        assert "https://evil.example/x" in reasons["MutatingWebhookConfiguration/b"]


class TestOtherObjects:
    def test_an_api_service_that_is_local_is_nobodys_business(self, tmp_path: Path) -> None:
        assert faults(tmp_path, "CLUSTER-APISERVICES-VOUCHED", {"/apiservices": [named("v1.apps", spec={})]}) == {}

    def test_k3s_own_metrics_are_answered_where_they_ship(self, tmp_path: Path) -> None:
        spec = {"service": {"namespace": "kube-system", "name": "metrics-server"}, "insecureSkipTLSVerify": True}
        cid, name = "CLUSTER-APISERVICES-VOUCHED", "v1beta1.metrics.k8s.io"
        assert faults(tmp_path, cid, {"/apiservices": [named(name, spec=spec)]}) == {}
        for other in ({"namespace": "web"}, {"name": "evil"}):
            changed = {**spec, "service": {**spec["service"], **other}}  # type: ignore[dict-item]
            assert list(faults(tmp_path, cid, {"/apiservices": [named(name, spec=changed)]})) == [f"APIService/{name}"]
        skipping = faults(tmp_path, cid, {"/apiservices": [named("v1.evil", spec=spec)]})
        assert "insecureSkipTLSVerify" in skipping["APIService/v1.evil"]

    def test_of_secrets_only_metadata_is_asked_for(self, tmp_path: Path, cluster: type[FakeApi]) -> None:
        account = {"annotations": {"kubernetes.io/service-account.name": "deployer"}}
        token = named("t", "web", metadata=account)
        found = seen(tmp_path, "CLUSTER-TOKENS-VOUCHED", {"service-account-token": [token]})
        assert found["faults"] == {"Secret/web/t": "is a token without end of the service account deployer"}
        asked = [names for path, names in cluster.asked if "/secrets" in path]
        assert asked == [True, True]

    @pytest.mark.parametrize(
        ("namespace", "spec", "opens"),
        [
            ("default", {"ingress": [{}]}, True),
            ("default", {"egress": [{"to": []}]}, True),
            ("default", {"podSelector": {}, "policyTypes": ["Ingress"]}, False),
            ("kube-system", {"ingress": [{"from": []}]}, True),
            ("kube-system", {"egress": [{}]}, False),
        ],
    )
    def test_a_policy_counts_where_it_opens(
        self, tmp_path: Path, namespace: str, spec: dict[str, Any], opens: bool
    ) -> None:
        found = {f"{namespace}/networkpolicies": [named("more", namespace, spec=spec)]}
        reasons = faults(tmp_path, "CLUSTER-POLICIES-VOUCHED", found)
        assert list(reasons) == ([f"NetworkPolicy/{namespace}/more"] if opens else [])

    @pytest.mark.parametrize(
        ("name", "spec", "ok"),
        [
            ("pvc-1", {"hostPath": {"path": "/srv/pvc-1_web_data"}}, True),
            ("pvc-1", {"local": {"path": "/srv/pvc-1_web_data"}}, True),
            ("pvc-1", {"hostPath": {"path": "/etc"}}, False),
            ("root", {"local": {"path": "/"}}, False),
            ("remote", {"nfs": {"server": "x", "path": "/"}}, True),
        ],
    )
    def test_a_volume_that_is_a_folder_of_a_node(self, tmp_path: Path, name: str, spec: Any, ok: bool) -> None:
        reasons = faults(tmp_path, "CLUSTER-VOLUMES-VOUCHED", {"/persistentvolumes": [named(name, spec=spec)]})
        assert (reasons == {}) is ok

    def test_a_chart_tells_neither_its_values_nor_a_password(self, tmp_path: Path) -> None:
        spec = {"chart": "x", "repo": "https://me:hidden@charts.example/", "valuesContent": "password: hidden"}
        found = seen(tmp_path, "CLUSTER-CHARTS-VOUCHED", {"/helmcharts": [named("x", "web", spec=spec)]})
        assert found["faults"] == {"HelmChart/web/x": "is the chart x; of the repository https://charts.example/"}
        assert "hidden" not in json.dumps(found)

    def test_k3s_own_chart_comes_from_k3s(self, tmp_path: Path) -> None:
        chart, cid = "https://%{KUBERNETES_API}%/static/charts/traefik-40.1.4+up40.1.0.tgz", "CLUSTER-CHARTS-VOUCHED"
        assert faults(tmp_path, cid, {"/helmcharts": [named("traefik", "kube-system", spec={"chart": chart})]}) == {}
        for spec in ({"chart": "https://evil.example/traefik-1.tgz"}, {"chartContent": "eA=="}):
            reasons = faults(tmp_path, cid, {"/helmcharts": [named("traefik", "kube-system", spec=spec)]})
            assert list(reasons) == ["HelmChart/kube-system/traefik"]
        config = {
            "/helmcharts": [],
            "/helmchartconfigs": [named("traefik", "kube-system", spec={"valuesContent": "x"})],
        }
        assert list(faults(tmp_path, cid, config)) == ["HelmChartConfig/kube-system/traefik"]


def test_a_silent_api_server_is_not_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed, "Api", api.Api)
    with pytest.raises(Unavailable, match="there is no API server"):
        kind.observe([setting_of("CLUSTER-WEBHOOKS-VOUCHED")], FakeHost(tmp_path))
