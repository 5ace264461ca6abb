"""Which namespaces may have which level and version of Pod Security, as the role k3s_cluster declares it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from casemate import ROOT, catalogue
from casemate.catalogue import declarations
from module_utils.casemate.kinds import k8s_object as kind

CONTROLS = catalogue.load()
GIVEN = {
    "k3s_cluster_psa_levels": {"storage": "privileged", "shop": "baseline"},
    "k3s_control_plane_psa_exempt_namespaces": ["kube-system", "vendor"],
    "__casemate_context": {"version": "v1.36.3+k3s1"},
}


def setting(cid: str) -> Any:
    """The setting of a control, with the variables of the role."""
    internal = yaml.safe_load((ROOT / "roles/k3s_cluster/vars/main/internal.yml").read_text())
    known = declarations.each(internal, trust_as_template)
    templar = Templar(loader=DataLoader(), variables={**known, **GIVEN})
    return dict(declarations.each(CONTROLS[cid]["setting"], lambda text: templar.template(trust_as_template(text))))


def judged(cid: str, name: str, labels: dict[str, str]) -> str:
    made = setting(cid)
    metadata = {"name": name, "labels": {f"pod-security.kubernetes.io/{key}": value for key, value in labels.items()}}
    verdict = kind.assess(made, {"objects": {made["path"]: {"items": [{"metadata": metadata}]}}})
    assert verdict.ok is (verdict.reason == "")
    return verdict.reason.split(";")[0]


@pytest.mark.parametrize(
    ("name", "level", "named"),
    [
        ("web", "privileged", True),
        ("web", "baseline", True),
        ("web", "restricted", False),
        ("shop", "baseline", False),
        ("shop", "privileged", True),
        ("storage", "privileged", False),
        ("storage", "baseline", False),
        ("vendor", "privileged", False),  # admission does not even look at it
        ("kube-system", "privileged", False),  # these two have controls of their own
        ("default", "privileged", False),
        ("kube-system-2", "privileged", True),
    ],
)
def test_a_namespace_with_a_weaker_level_is_named_unless_it_is_declared(name: str, level: str, named: bool) -> None:
    assert judged("CLUSTER-NAMESPACES-RESTRICTED", name, {"enforce": level}) == (f"{level} ({name})" if named else "")


@pytest.mark.parametrize(
    ("name", "version", "named"),
    [
        ("web", "latest", False),
        ("web", "v1.36", False),
        ("web", "v1.3", True),
        ("web", "v1.22", True),
        ("storage", "v1.22", True),
        ("vendor", "v1.22", False),
        ("default", "v1.22", False),
    ],
)
def test_a_namespace_with_an_old_version_is_named(name: str, version: str, named: bool) -> None:
    said = judged("CLUSTER-NAMESPACES-CURRENT", name, {"enforce-version": version})
    assert said == (f"{version} ({name})" if named else "")


def test_a_namespace_without_labels_has_the_default_of_the_cluster() -> None:
    assert judged("CLUSTER-NAMESPACES-RESTRICTED", "web", {}) == judged("CLUSTER-NAMESPACES-CURRENT", "web", {}) == ""


@pytest.mark.parametrize("name", ["default", "public", "leases"])
def test_a_namespace_of_kubernetes_has_level_and_version_by_its_own_control(name: str) -> None:
    labels = CONTROLS[f"CLUSTER-{name.upper()}-RESTRICTED"]["setting"]["body"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert labels["pod-security.kubernetes.io/enforce-version"] == "latest"
