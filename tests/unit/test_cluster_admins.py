"""Who may hold cluster-admin and who must hold nothing, as the role k3s_cluster declares it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from casemate import ROOT, catalogue
from module_utils.casemate.kinds import k8s_object as kind

CONTROLS = catalogue.load()
GIVEN = {"k3s_cluster_admins": ["alice", "Group/ops", "ServiceAccount/ci/deployer", "https://id.example.org#bob"]}


def holders() -> list[str]:
    """Who may hold cluster-admin, with the variables of the role."""
    internal = yaml.safe_load((ROOT / "roles/k3s_cluster/vars/main/internal.yml").read_text())
    variables = {key: trust_as_template(v) if isinstance(v, str) else v for key, v in internal.items()}
    allowed = trust_as_template(CONTROLS["CLUSTER-ADMIN-LIMITED"]["setting"]["only"]["allowed"])
    return list(Templar(loader=DataLoader(), variables={**variables, **GIVEN}).template(allowed))


@pytest.mark.parametrize(
    ("subject", "ok"),
    [
        ({"kind": "Group", "name": "system:masters"}, True),
        ({"kind": "ServiceAccount", "namespace": "kube-system", "name": "helm-traefik"}, True),
        ({"kind": "ServiceAccount", "namespace": "evil", "name": "helm-traefik"}, False),
        ({"kind": "User", "name": "alice"}, True),
        ({"kind": "Group", "name": "alice"}, False),
        ({"kind": "ServiceAccount", "namespace": "default", "name": "alice"}, False),
        ({"kind": "User", "name": "https://id.example.org#bob"}, True),
        ({"kind": "Group", "name": "ops"}, True),
        ({"kind": "User", "name": "ops"}, False),
        ({"kind": "ServiceAccount", "namespace": "ci", "name": "deployer"}, True),
    ],
)
def test_a_holder_of_cluster_admin_is_its_kind_its_namespace_and_its_name(subject: Any, ok: bool) -> None:
    declared = CONTROLS["CLUSTER-ADMIN-LIMITED"]["setting"]
    setting: Any = {**declared, "only": {**declared["only"], "allowed": holders()}}
    items: Any = {"items": [{"roleRef": {"name": "cluster-admin"}, "subjects": [subject]}]}
    assert kind.assess(setting, {"objects": {setting["path"]: items}}).ok is ok


@pytest.mark.parametrize("who", ["anonymous", "unauthenticated", "authenticated"])
def test_nobody_binds_a_role_of_a_namespace_to_everybody(who: str) -> None:
    setting = CONTROLS[f"CLUSTER-{who.upper()}-ROLE-UNBOUND"]["setting"]
    assert setting["path"] == "/apis/rbac.authorization.k8s.io/v1/rolebindings"
    binding = {"roleRef": {"name": "view"}, "subjects": [{"kind": "Group", "name": f"system:{who}"}]}
    other = {"roleRef": {"name": "view"}, "subjects": [{"kind": "User", "name": "alice"}]}
    assert not kind.assess(setting, {"objects": {"x": {"items": [other, binding]}}}).ok
    assert kind.assess(setting, {"objects": {"x": {"items": [other]}}}).ok
