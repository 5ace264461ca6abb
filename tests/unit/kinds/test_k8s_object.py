"""Kubernetes objects: the comparison is pure; the connection is replaced by canned answers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.k3s import objects as k8s_fields
from module_utils.casemate.k3s.api import Api
from module_utils.casemate.kinds import k8s_object as kind

NAMESPACES: Any = {"items": [{"metadata": {"name": n}, "status": {"phase": "Active"}} for n in ("default", "web")]}
ACCOUNT = "/api/v1/namespaces/{namespace}/serviceaccounts/default"
WANT: Any = {"metadata": {"name": "default"}, "automountServiceAccountToken": False}


class FakeApi(Api):
    """Answers by (method, path), and remembers what was patched."""

    answers: ClassVar[Any] = {}
    patched: ClassVar[list[str]] = []
    put: ClassVar[Any] = {}
    refuse = False

    def __init__(self, host: object) -> None:
        """Take any host."""

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        if method == "PATCH":
            plain = path.split("?")[0]
            if self.refuse:
                return 422, {"message": "invalid"}
            self.patched.append(plain)
            self.answers[plain] = body
            return 200, body
        if method == "PUT":
            self.put[path] = body
            self.answers[path.split("?")[0]] = body
            return 200, body
        if path == "/api/v1/namespaces":
            return 200, NAMESPACES
        return (200, self.answers[path]) if path in self.answers else (404, {})


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    FakeApi.answers, FakeApi.patched, FakeApi.put, FakeApi.refuse = {}, [], {}, False
    monkeypatch.setattr(kind, "Api", FakeApi)
    return FakeApi


@pytest.mark.parametrize(
    ("want", "have", "faults"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, 0),
        ({"a": 1}, {"a": 2}, 1),
        ({"a": {"b": 1}}, {}, 1),
        ({"a": [1, 2]}, {"a": [1, 2]}, 0),
        ({"a": [1]}, {"a": [1, 2]}, 1),
        ({"a": []}, {}, 0),
        ({"a": {}}, {"a": None}, 0),
        ({"a": False}, {}, 1),
        ({"a": {"b": 1}}, {"a": "x"}, 1),
        ({"a": {}}, {"a": {"matchLabels": {"x": "y"}}}, 1),
        ({"a": []}, {"a": [1]}, 1),
        ({"a": [{}]}, {"a": [{"b": 1}]}, 1),
        ({"a": []}, {"a": 0}, 1),
    ],
)
def test_demanded_fields_are_a_subset(want: Any, have: Any, faults: int) -> None:
    assert len(k8s_fields.missing(want, have)) == faults


def test_every_namespace_is_judged_and_only_what_differs_is_applied(tmp_path: Path, api: type[FakeApi]) -> None:
    setting: Any = {"path": ACCOUNT, "body": WANT}
    api.answers[ACCOUNT.format(namespace="default")] = dict(WANT)
    api.answers[ACCOUNT.format(namespace="web")] = {"metadata": {"name": "default"}}
    host = FakeHost(tmp_path)
    verdict = kind.assess(setting, kind.observe([setting], host)[0])
    assert not verdict.ok
    assert "web" in verdict.reason
    assert "namespaces/default/" not in verdict.reason
    kind.enforce([setting], {0}, host)
    assert api.patched == [ACCOUNT.format(namespace="web")]
    assert kind.assess(setting, kind.observe([setting], host)[0]).ok
    kind.enforce([setting], {0}, host)
    assert len(api.patched) == 1


def test_an_excepted_namespace_is_left_alone(tmp_path: Path) -> None:
    setting: Any = {"path": ACCOUNT, "body": WANT, "except_namespaces": ["default", "web"]}
    assert kind.observe([setting], FakeHost(tmp_path))[0] == {"objects": {}, "silent": []}


BINDINGS: Any = {
    "items": [
        {"roleRef": {"name": "cluster-admin"}, "subjects": [{"name": "system:masters"}]},
        {"roleRef": {"name": "view"}, "subjects": [{"name": "bob"}]},
    ]
}


@pytest.mark.parametrize(("extra", "ok"), [([], True), ([{"name": "mallory"}], False)])
def test_a_list_holds_only_what_is_allowed(tmp_path: Path, api: type[FakeApi], extra: list[Any], ok: bool) -> None:
    planted = [{"roleRef": {"name": "cluster-admin"}, "subjects": extra}] if extra else []
    api.answers["/apis/b"] = {"items": BINDINGS["items"] + planted}
    setting: Any = {
        "path": "/apis/b",
        "select": {"roleRef.name": "cluster-admin"},
        "only": {"field": "subjects.name", "allowed": ["system:masters"]},
    }
    verdict = kind.assess(setting, kind.observe([setting], FakeHost(tmp_path))[0])
    assert verdict.ok is ok
    assert ("mallory" in str(verdict.observed)) is not ok


LABEL = "pod-security.kubernetes.io/enforce"
LEVELS: Any = {"web": None, "default": "privileged", "shop": "privileged", "exempt": "privileged", "safe": "restricted"}


@pytest.mark.parametrize(
    ("also", "label", "reason"),
    [
        ({}, None, "privileged (shop); declare it"),
        ({}, "baseline", "baseline (web); privileged (shop); declare it"),
        ({"shop": ["baseline", "privileged"]}, "restricted", ""),
        ({"shop": ["baseline"]}, "restricted", "privileged (shop); declare it"),
        ({"web": ["privileged"]}, "restricted", "privileged (shop); declare it"),
    ],
)
def test_an_item_is_named_unless_it_is_left_out_or_has_a_value_of_its_own(
    tmp_path: Path, api: type[FakeApi], also: Any, label: str | None, reason: str
) -> None:
    levels: Any = {**LEVELS, "web": label}
    api.answers["/api/v1/n"] = {
        "kind": "NamespaceList",
        "items": [{"metadata": {"name": n, "labels": {LABEL: level}}} for n, level in levels.items()]
        + [{"metadata": {"name": "bare"}}],
    }
    only: Any = {
        "field": r"metadata.labels.pod-security\.kubernetes\.io/enforce",
        "allowed": ["restricted"],
        "also": also,
    }
    left_out = ["default", "exempt"]
    setting: Any = {"path": "/api/v1/n", "only": only, "except_namespaces": left_out, "advice": "declare it"}
    verdict = kind.assess(setting, kind.observe([setting], FakeHost(tmp_path))[0])
    assert verdict.ok is (reason == "")
    assert verdict.reason == reason
    assert verdict.where == tuple(f"Namespace/{name}" for name in ("web", "shop") if f"({name})" in reason)


def test_a_finding_about_a_large_cluster_stays_one_line(tmp_path: Path, api: type[FakeApi]) -> None:
    items = [{"metadata": {"namespace": f"n{n}", "name": "x"}, "roleRef": {"name": "admin"}} for n in range(9)]
    api.answers["/apis/b"] = {"items": items}
    setting: Any = {"path": "/apis/b", "only": {"field": "roleRef.name", "allowed": []}}
    verdict = kind.assess(setting, kind.observe([setting], FakeHost(tmp_path))[0])
    assert verdict.reason.startswith("admin (n0/x); admin (n1/x); ")
    assert verdict.reason.endswith("; and 4 more")
    assert len(verdict.observed["roleRef.name"]) == 9


CONFIGZ = "/api/v1/nodes/{node}/proxy/configz"
GUARDED: Any = {"kubeletconfig": {"authorization": {"mode": "Webhook"}}}


def ready(name: str, status: str | None) -> Any:
    others = [{"type": "DiskPressure", "status": "False"}]
    conditions = [*others, {"type": "Ready", "status": status}] if status else None
    return {"metadata": {"name": name}, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("modes", "said"),
    [
        ({"s1": "Webhook", "a1": "Webhook"}, ""),
        ({"s1": "Webhook", "a1": "AlwaysAllow"}, 'a1/proxy/configz kubeletconfig.authorization.mode: is "AlwaysAllow"'),
        ({"s1": "Webhook", "a1": "off"}, "node a1 is not Ready"),
        ({"s1": "Webhook", "a1": "silent"}, "a1/proxy/configz: k3s: no answer"),
        ({"s1": "Webhook", "a1": "502"}, "a1/proxy/configz: HTTP 502"),
        ({"s1": "AlwaysAllow", "a1": "off"}, 's1/proxy/configz kubeletconfig.authorization.mode: is "AlwaysAllow"'),
        ({"s1": "Webhook", "a1": "no kubelet"}, ""),
        ({"s1": "no kubelet", "a1": "no kubelet"}, "no node has a kubelet"),
        ({"s1": "Webhook", "a1": "403"}, "a1/proxy/configz: HTTP 403"),
        ({"s1": "Webhook", "a1": "404"}, "a1/proxy/configz: missing"),
    ],
)
def test_every_kubelet_is_asked_and_one_that_cannot_be_never_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modes: dict[str, str], said: str
) -> None:
    states: Any = {"off": "Unknown", "no kubelet": None}

    class Answering(FakeApi):
        def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
            if path == "/api/v1/nodes":
                return 200, {"items": [ready(name, states.get(mode, "True")) for name, mode in modes.items()]}
            if "/proxy/" not in path:
                return super().call(method, path, body)
            mode = modes[path.split("/")[4]]
            assert mode not in states, "asked in vain"
            if mode == "silent":
                raise Unavailable("k3s", "no answer")
            return (int(mode), {}) if mode.isdigit() else (200, {"kubeletconfig": {"authorization": {"mode": mode}}})

    monkeypatch.setattr(kind, "Api", Answering)
    Answering.answers["/api/v1/x"] = {"a": 1}
    setting: Any = {"path": CONFIGZ, "body": GUARDED, "enforced": False}
    seen, other = kind.observe([setting, {"path": "/api/v1/x", "body": {"a": 1}}], FakeHost(tmp_path))
    assert kind.assess({"path": "/api/v1/x", "body": {"a": 1}}, other).ok  # whatever a node does
    unknown = modes["a1"] in ("off", "silent", "502", "403") and modes["s1"] == "Webhook"
    unknown = unknown or modes["s1"] == "no kubelet"
    if unknown:
        with pytest.raises(Unavailable, match=said.split(":")[0]):
            kind.assess(setting, seen)
    else:
        verdict = kind.assess(setting, seen)
        assert verdict.ok is (said == "")
        assert said in verdict.reason


@pytest.mark.parametrize(
    ("setting", "identity"),
    [
        ({"path": "/x", "body": {"a": {"b": 1}, "c": 2}}, "/x#.a.b,.c"),
        ({"path": "/x", "only": {"field": "a.b"}}, "/x#a.b"),
        ({"path": "/x", "only": {"field": "a"}, "select": {"c": 1}}, "/x#{'c': 1} a"),
        ({"path": "/x", "encryption": "active"}, "/x#active"),
        ({"path": "/x", "absent": True}, "/x#"),
    ],
)
def test_what_two_controls_may_not_share(setting: Any, identity: str) -> None:
    assert kind.identity(setting) == identity


HOLDERS = ["Group/system:masters", "ServiceAccount/kube-system/helm-traefik", "User/alice"]


@pytest.mark.parametrize(
    ("subject", "ok"),
    [
        ({"kind": "ServiceAccount", "namespace": "kube-system", "name": "helm-traefik"}, True),
        ({"kind": "ServiceAccount", "namespace": "evil", "name": "helm-traefik"}, False),
        ({"kind": "ServiceAccount", "name": "helm-traefik"}, False),
        ({"kind": "User", "name": "helm-traefik"}, False),
        ({"kind": "User", "namespace": "kube-system", "name": "mallory"}, False),
        ({"kind": "User", "name": "alice"}, True),
        ({"kind": "Group", "name": "alice"}, False),
        ({"kind": "Group", "name": "system:masters"}, True),
        ({"kind": "User", "name": "system:masters"}, False),
    ],
)
def test_a_subject_is_its_kind_its_namespace_and_its_name(
    tmp_path: Path, api: type[FakeApi], subject: Any, ok: bool
) -> None:
    api.answers["/apis/b"] = {"items": [{"roleRef": {"name": "cluster-admin"}, "subjects": [subject]}]}
    only: Any = {"field": "subjects", "allowed": HOLDERS}
    setting: Any = {"path": "/apis/b", "select": {"roleRef.name": "cluster-admin"}, "only": only}
    verdict = kind.assess(setting, kind.observe([setting], FakeHost(tmp_path))[0])
    assert verdict.ok is ok
    assert ok or verdict.reason.startswith(f"{subject['kind']}/")


POLICY = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/deny"
DNS = {"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
DENY: Any = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny", "namespace": "default"},
    "spec": {"podSelector": {}, "egress": [{"to": [DNS], "ports": [{"port": 53, "protocol": "UDP"}]}]},
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"policyTypes": ["Ingress", "Egress"]}, ""),  # nobody demands them here: the API server fills them in
        ({"podSelector": None}, ""),
        ({"podSelector": {"matchLabels": {"no": "pod"}}}, "spec.podSelector: is"),
        ({"ingress": [{}]}, "spec.ingress: is [{}], not absent"),
        ({"ingress": []}, "spec.ingress: is [], not absent"),
        ({"egress": [{}]}, "spec.egress[0]"),
        (
            {"egress": [{"to": [DNS], "ports": [{"port": 53, "protocol": "UDP", "endPort": 65535}]}]},
            "spec.egress[0].ports[0].endPort: is 65535, not absent",
        ),
        (
            {"egress": [{"to": [{**DNS, "namespaceSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}]}]},
            "spec.egress[0].to[0].namespaceSelector: is {}, not absent",
        ),
    ],
)
def test_the_spec_of_a_network_policy_is_judged_whole_and_replaced(
    tmp_path: Path, api: type[FakeApi], change: Any, reason: str
) -> None:
    host = FakeHost(tmp_path)
    setting: Any = {"path": POLICY, "body": DENY}
    meta: Any = {**DENY["metadata"], "resourceVersion": "41", "labels": {"of": "others"}}
    api.answers[POLICY] = {**DENY, "metadata": meta, "spec": {**DENY["spec"], **change}}
    verdict = kind.assess(setting, kind.observe([setting], host)[0])
    assert verdict.ok is (reason == "")
    assert reason in verdict.reason
    kind.enforce([setting], {0}, host)
    assert kind.assess(setting, kind.observe([setting], host)[0]).ok
    demanded: Any = {**DENY, "metadata": {**DENY["metadata"], "resourceVersion": "41"}}
    assert api.put == ({f"{POLICY}?fieldManager=casemate": demanded} if reason else {})
    assert not api.patched


ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
LIMITED: Any = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "p"},
    "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [RULE]},
        "validations": [{"expression": "false"}],
    },
}
BOUND: Any = {**LIMITED, "kind": "ValidatingAdmissionPolicyBinding", "spec": {"policyName": "p"}}
EVERY = {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}}
NONE = {"matchLabels": {"no": "namespace"}}


@pytest.mark.parametrize(
    ("body", "change", "reason"),
    [
        (LIMITED, {"matchConstraints": {**EVERY, "resourceRules": [{**RULE, "scope": "*"}]}}, ""),
        (LIMITED, {"matchConditions": [{"name": "never", "expression": "false"}]}, "spec.matchConditions: is"),
        (
            LIMITED,
            {"matchConstraints": {**EVERY, "namespaceSelector": NONE, "resourceRules": [RULE]}},
            "spec.matchConstraints.namespaceSelector: is",
        ),
        (
            LIMITED,
            {"matchConstraints": {"resourceRules": [RULE], "excludeResourceRules": [RULE]}},
            "spec.matchConstraints.excludeResourceRules: is",
        ),
        (
            LIMITED,
            {"matchConstraints": {"resourceRules": [{**RULE, "resourceNames": ["x"]}]}},
            "spec.matchConstraints.resourceRules[0].resourceNames: is",
        ),
        (
            LIMITED,
            {"matchConstraints": {"resourceRules": [{**RULE, "scope": "Cluster"}]}},
            "spec.matchConstraints.resourceRules[0].scope: is",
        ),
        (BOUND, {}, ""),
        (BOUND, {"matchResources": {"namespaceSelector": NONE}}, "spec.matchResources: is"),
    ],
)
def test_the_spec_of_a_policy_of_admission_is_judged_whole_and_replaced(
    tmp_path: Path, api: type[FakeApi], body: Any, change: Any, reason: str
) -> None:
    host, path = FakeHost(tmp_path), f"{ADMISSION}/x"
    setting: Any = {"path": path, "body": body}
    meta: Any = {**body["metadata"], "resourceVersion": "41"}
    api.answers[path] = {**body, "metadata": meta, "spec": {**body["spec"], **change}}
    verdict = kind.assess(setting, kind.observe([setting], host)[0])
    assert verdict.ok is (reason == "") and reason in verdict.reason
    kind.enforce([setting], {0}, host)
    assert kind.assess(setting, kind.observe([setting], host)[0]).ok
    assert list(api.put) == ([f"{path}?fieldManager=casemate"] if reason else [])


def test_a_network_policy_that_is_not_there_is_applied(tmp_path: Path, api: type[FakeApi]) -> None:
    kind.enforce([{"path": POLICY, "body": DENY}], {0}, FakeHost(tmp_path))
    assert (api.patched, api.put) == ([POLICY], {})


@pytest.mark.parametrize(
    ("method", "content"), [("PUT", "application/json"), ("PATCH", "application/apply-patch+yaml")]
)
def test_a_replacement_is_sent_as_json(monkeypatch: pytest.MonkeyPatch, method: str, content: str) -> None:
    monkeypatch.undo()
    asked: list[Any] = []

    class Connection:
        def request(self, *what: Any) -> None:
            asked.append(what)

        def getresponse(self) -> Any:
            return SimpleNamespace(status=200, read=lambda: b"{}")

    api = object.__new__(Api)
    api.connection = Connection()  # type: ignore[assignment]
    api.call(method, "/x", {})
    assert asked[0][3]["Content-Type"] == content


def test_a_refused_apply_is_an_enforce_error(tmp_path: Path, api: type[FakeApi]) -> None:
    api.refuse = True
    with pytest.raises(EnforceError, match="422"):
        kind.enforce([{"path": "/api/v1/x", "body": {"a": 1}}], {0}, FakeHost(tmp_path))


@pytest.mark.parametrize("enforced", [True, False])
def test_a_cluster_that_is_down_is_due_where_apply_brings_the_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enforced: bool
) -> None:
    monkeypatch.undo()
    setting: Any = {"path": "/api/v1/x", "body": {"a": 1}, "enforced": enforced}
    seen = kind.observe([setting], FakeHost(tmp_path))[0]
    if enforced:
        assert not kind.assess(setting, seen).ok
    else:
        with pytest.raises(Unavailable, match="k3s"):
            kind.assess(setting, seen)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_starts_is_down_and_not_without_semantics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.undo()

    class Connection:
        def request(self, *_: Any) -> None: ...

        def getresponse(self) -> Any:
            return SimpleNamespace(status=status, read=lambda: b"{}")

    monkeypatch.setattr(Api, "__init__", lambda self, _: setattr(self, "connection", Connection()))
    setting: Any = {"path": "/api/v1/x", "body": {"a": 1}}
    verdict = kind.assess(setting, kind.observe([setting], FakeHost(tmp_path))[0])
    assert (verdict.ok, verdict.reason) == (False, f"the API server answers {status}")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("of", ["/api/v1/namespaces", "/api/v1/nodes", "/api/v1/x"])
def test_an_api_server_that_refuses_its_administrator_is_no_double(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str, status: int
) -> None:
    class Answering(FakeApi):
        def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
            if path == of:
                return status, {"message": "User mallory cannot get this"}
            return super().call(method, path, body) if path != "/api/v1/nodes" else (200, {"items": []})

    monkeypatch.setattr(kind, "Api", Answering)
    settings: list[Any] = [
        {"path": "/api/v1/x", "body": {"a": 1}},
        {"path": CONFIGZ, "body": GUARDED, "enforced": False},
    ]
    with pytest.raises(Unavailable, match=f"HTTP {status}: User mallory cannot get this") as refused:
        for setting, seen in zip(settings, kind.observe(settings, FakeHost(tmp_path)), strict=True):
            kind.assess(setting, seen)
    assert refused.value.code == "refused"


def test_what_one_refusal_hides_does_not_hide_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Answering(FakeApi):
        def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
            return (403, {}) if path == "/api/v1/x" else super().call(method, path, body)

    monkeypatch.setattr(kind, "Api", Answering)
    Answering.answers["/api/v1/y"] = {"a": 1}
    settings: list[Any] = [{"path": f"/api/v1/{name}", "body": {"a": 1}} for name in "xy"]
    seen = kind.observe(settings, FakeHost(tmp_path))
    assert kind.assess(settings[1], seen[1]).ok
    with pytest.raises(Unavailable, match="refused"):
        kind.assess(settings[0], seen[0])


RULES = [{"apiGroups": [""], "resources": [f"thing-{n}"], "verbs": ["get", "list", "watch"]} for n in range(9)]
PLANTED = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}


@pytest.mark.parametrize(
    ("want", "have", "said"),
    [
        (["a", "b"], ["a"], '/x spec: is ["a"], not ["a", "b"]'),
        (["a"], None, '/x spec: is absent, not ["a"]'),
        (True, False, "/x spec: is false, not true"),
        ("x", None, '/x spec: is absent, not "x"'),
        ("é", "e", '/x spec: is "e", not "é"'),
        ({"a": {"b": 1}}, {"a": {"b": None}}, "/x spec.a.b: is absent, not 1"),
        (RULES, [*RULES, PLANTED],
         '/x spec: has, not demanded, {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}'),
        (RULES, [PLANTED, *RULES[1:], PLANTED],
         ('/x spec: lacks {"apiGroups": [""], "resources": ["thing-0"], "verbs": ["get", "list", "watch"]}; '
         '/x spec: has, not demanded, {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, '
         '{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}')),
        # what the server adds to each item counts for none of them
        (RULES, [{**rule, "nonResourceURLs": []} for rule in RULES[1:]],
         '/x spec: lacks {"apiGroups": [""], "resources": ["thing-0"], "verbs": ["get", "list", "watch"]}'),
        (RULES, [*RULES[:4], {**RULES[4], "verbs": ["*"]}, *RULES[5:]],
         '/x spec[4].verbs: is ["*"], not ["get", "list", "watch"]'),
        ({"rules": RULES, "x": {}}, None, "/x spec.rules: lacks " + ", ".join(
            json.dumps(rule, sort_keys=True) for rule in RULES[:5]) + " and 4 more"),
        (RULES, "y" * 300, None),
    ],
)  # fmt: skip
def test_a_difference_is_told_whole_or_by_what_differs_in_it(
    tmp_path: Path, api: type[FakeApi], want: Any, have: Any, said: str | None
) -> None:
    api.answers["/x"] = {"spec": have} if have is not None else {"kind": "X"}
    setting: Any = {"path": "/x", "body": {"spec": want}}
    verdict = kind.assess(setting, kind.observe([setting], FakeHost(tmp_path))[0])
    assert not verdict.ok
    assert said is None or verdict.reason == said
    assert "..." not in verdict.reason


@pytest.mark.parametrize(("manager", "ours"), [("casemate", True), ("kubectl", False), ("", False)])
def test_what_was_written_in_a_namespace_that_is_left_out_later_is_taken_back(
    tmp_path: Path, api: type[FakeApi], manager: str, ours: bool
) -> None:
    body = {"apiVersion": "v1", "kind": "ServiceAccount", **WANT}
    setting: Any = {"path": ACCOUNT, "body": body, "except_namespaces": ["web", "not-there"]}
    managers = [{"manager": "kube-controller-manager"}, *([{"manager": manager}] if manager else [])]
    meta: Any = {"name": "default", "namespace": "web", "uid": "1", "managedFields": managers}
    api.answers[ACCOUNT.format(namespace="default")] = body
    api.answers[ACCOUNT.format(namespace="web")] = {**body, "metadata": meta}
    host = FakeHost(tmp_path)
    verdict = kind.assess(setting, kind.observe([setting], host)[0])
    assert verdict.ok is not ours
    assert ("namespaces/web/serviceaccounts/default still holds our fields" in verdict.reason) is ours
    kind.enforce([setting], {0}, host)
    assert api.patched == [ACCOUNT.format(namespace="web")] * ours
    assert kind.assess(setting, kind.observe([setting], host)[0]).ok
    given = api.answers[ACCOUNT.format(namespace="web")]
    assert ("automountServiceAccountToken" in given) is not ours
    kind.enforce([setting], {0}, host)
    assert api.patched == [ACCOUNT.format(namespace="web")] * ours
