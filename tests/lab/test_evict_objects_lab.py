"""Objects of the cluster that an operator names go and are kept, and nothing else; what comes back says who brings it.

Runs on an applied lab with a real K3s, as a part of the drift story.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from lab.applied import Lab, failing
from lab.test_baseline_lab import named

pytestmark = pytest.mark.lab

BINDINGS, HOOKS, WORKLOADS = "CLUSTER-BINDINGS-VOUCHED", "CLUSTER-WEBHOOKS-VOUCHED", "CLUSTER-WORKLOADS-VOUCHED"
EVICTED = "/var/lib/casemate/evicted"
HOOK = {
    "name": "evil.example.org", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
    "clientConfig": {"url": "https://192.0.2.66/"},
    "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "none-of-this-name"}},
}  # fmt: skip
POD = {
    "metadata": {"labels": {"app": "evil"}},
    "spec": {"hostPID": True, "containers": [{"name": "x", "image": "example.org/none:1"}]},
}
OBJECTS: list[dict[str, Any]] = [
    {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "evil"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "eve"}],
    },
    {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "evil"}, "webhooks": [HOOK],
    },
    {
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "evil", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "evil"}}, "template": POD},
    },
]  # fmt: skip
WHERE = {
    BINDINGS: ["ClusterRoleBinding/evil"], HOOKS: ["ValidatingWebhookConfiguration/evil"],
    WORKLOADS: ["DaemonSet/default/evil"],
}  # fmt: skip
GONE = f"""
k3s kubectl delete --ignore-not-found clusterrolebinding/evil validatingwebhookconfiguration/evil daemonset/evil
rm -rf {EVICTED}
"""


@pytest.fixture
def lab(lab: Lab) -> Iterator[Lab]:
    if not lab.has_api():
        pytest.skip("api_semantics: the installed release is a double without a real API server")
    for one in OBJECTS:
        lab.root(lab.server, f"k3s kubectl create -f - <<'END'\n{json.dumps(one)}\nEND\n")
    yield lab
    lab.root(lab.server, GONE)
    lab.ends(0, "check")


def test_what_is_named_goes_and_is_kept(lab: Lab) -> None:
    def is_there(*objects: str) -> str:
        return lab.root(lab.server, f"k3s kubectl get --ignore-not-found -o name {' '.join(objects)}")

    code, report = lab.casemate("check")
    assert (code, named(report)[lab.server]) == (2, WHERE), failing(report)

    code, report = lab.casemate("apply", "--evict", f"{BINDINGS},{HOOKS}")
    assert (code, named(report)[lab.server]) == (2, {WORKLOADS: WHERE[WORKLOADS]}), failing(report)
    assert is_there("clusterrolebinding/evil", "validatingwebhookconfiguration/evil") == ""
    assert is_there("daemonset/evil") == "daemonset.apps/evil\n"
    code, report = lab.casemate("apply", "--evict", WORKLOADS)
    assert (code, report["summary"]["changed"]) == (0, 1), failing(report)
    assert is_there("daemonset/evil") == ""

    copies = f"$(find {EVICTED} -name evil.json -path '*/clusterrolebindings/*')"
    lab.root(lab.server, f"k3s kubectl create -f {copies}")
    code, report = lab.casemate("check")
    assert (code, named(report)[lab.server]) == (2, {BINDINGS: WHERE[BINDINGS]}), failing(report)
