"""Roles and bindings with power are Kubernetes' own as they ship, or somebody vouches for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.kinds.test_vouched_objects import UNTIL, FakeApi, cluster, observed

from casemate import catalogue
from casemate.catalogue import declarations
from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.k3s.rights import written
from module_utils.casemate.kinds import vouched_rights as kind

__all__ = ["cluster"]
VARIABLES = declarations.variables()[1]
SHIPPED_ROLES = VARIABLES["__k3s_cluster_shipped_roles"]["1.36"]
SHIPPED_BINDINGS = VARIABLES["__k3s_cluster_shipped_bindings"]["1.36"]
READS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
SEES = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
VIEWERS = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
GROUP = "rbac.authorization.k8s.io"


def named(key: str, **more: Any) -> tuple[str, dict[str, Any]]:
    kind_of, *where, name = key.split("/")
    meta = {"name": name, **({"namespace": where[0]} if where else {}), **more.pop("metadata", {})}
    return kind_of, {"metadata": meta, **more}


def role(key: str, *rules: Any, labels: Any = None, **more: Any) -> tuple[str, dict[str, Any]]:
    return named(key, rules=list(rules), metadata={"labels": labels or {}}, **more)


def shipped_role(key: str, *further: Any, **more: Any) -> tuple[str, dict[str, Any]]:
    """A role as it ships, with further rules."""
    rights = [right for text in SHIPPED_ROLES[key] for right in written(text)]
    rules = [
        {"verbs": [one.verb], "nonResourceURLs": [one.resource]}
        if one.resource.startswith("/")
        else {
            "verbs": [one.verb],
            "apiGroups": [one.group],
            "resources": [one.resource],
            "resourceNames": one.name and [one.name],
        }
        for one in rights
    ]
    return role(key, *rules, *further, **more)


def only(name: str) -> dict[str, Any]:
    return {"resourceNames": [name]} if name else {}


def binding(key: str, bound: str, *subjects: str) -> tuple[str, dict[str, Any]]:
    sort, name = bound.split("/", 1)
    made = []
    for one in subjects:
        kind_of, *where, who = one.split("/")
        made.append({"kind": kind_of, "name": who, **({"namespace": where[0]} if where else {"apiGroup": GROUP})})
    return named(key, roleRef={"apiGroup": GROUP, "kind": sort, "name": name}, subjects=made)


def seen(tmp_path: Path, judged: str, objects: list[tuple[str, Any]], declared: Any = None) -> Any:
    setting: Any = {
        **catalogue.load()[f"CLUSTER-{judged.upper()}-VOUCHED"]["setting"],
        "powers": VARIABLES["__k3s_cluster_powers"],
        "shipped": VARIABLES[f"__k3s_cluster_shipped_{judged}"],
        "declared": declared or {},
    }
    for sort, path in kind.PATHS.items():
        FakeApi.answers[path] = {"items": [item for of_kind, item in objects if of_kind == sort]}
    return observed(kind, setting, tmp_path)


def faults(tmp_path: Path, judged: str, *objects: tuple[str, Any], declared: Any = None) -> dict[str, str]:
    found: dict[str, str] = seen(tmp_path, judged, list(objects), declared)["faults"]
    return found


class TestRoles:
    def test_all_that_ships_is_known(self, tmp_path: Path) -> None:
        assert faults(tmp_path, "roles", *(shipped_role(key) for key in SHIPPED_ROLES)) == {}

    @pytest.mark.parametrize("key", ["ClusterRole/mine", "Role/web/mine"])
    def test_power_of_somebodys_own_is_named(self, tmp_path: Path, key: str) -> None:
        assert faults(tmp_path, "roles", role(key, READS)) == {key: "reads Secrets"}
        assert faults(tmp_path, "roles", role(key, SEES)) == {}

    @pytest.mark.parametrize("key", ["ClusterRole/system:mine", "ClusterRole/admin2"])
    def test_a_label_or_a_likely_name_makes_nobody_known(self, tmp_path: Path, key: str) -> None:
        labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
        assert list(faults(tmp_path, "roles", role(key, READS, labels=labels))) == [key]

    @pytest.mark.parametrize("key", ["ClusterRole/view", "ClusterRole/system:discovery", "ClusterRole/system:node"])
    def test_one_right_more_in_what_ships_is_named(self, tmp_path: Path, key: str) -> None:
        more = {"apiGroups": ["example.org"], "resources": ["things"], "verbs": ["list"]}
        reasons = faults(tmp_path, "roles", shipped_role(key, more))
        assert reasons == {key: "it does not ship with the right to list things.example.org"}

    def test_a_role_of_the_same_name_elsewhere_is_another(self, tmp_path: Path) -> None:
        assert list(faults(tmp_path, "roles", role("Role/web/admin", READS))) == ["Role/web/admin"]

    def test_less_than_what_ships_is_no_power(self, tmp_path: Path) -> None:
        assert faults(tmp_path, "roles", role("ClusterRole/admin", READS)) == {}

    def test_what_joins_a_known_role_is_named_with_it(self, tmp_path: Path) -> None:
        view = shipped_role("ClusterRole/view", SEES, aggregationRule={"clusterRoleSelectors": []})
        reasons = faults(tmp_path, "roles", view, role("ClusterRole/things", SEES, labels=VIEWERS))
        assert reasons == {
            "ClusterRole/things": "becomes part of view",
            "ClusterRole/view": "it does not ship with the right to get nodes",
        }

    def test_what_the_operator_lets_join_is_no_fault_of_the_known_role(self, tmp_path: Path) -> None:
        things = role("ClusterRole/things", SEES, labels=VIEWERS)
        view = shipped_role("ClusterRole/view", SEES, aggregationRule={"clusterRoleSelectors": []})
        digest = seen(tmp_path, "roles", [things])["contents"]["ClusterRole/things"]
        entry = {"ClusterRole/things": {"digest": digest, **UNTIL}}
        assert faults(tmp_path, "roles", view, things, declared=entry) == {}
        wider = role("ClusterRole/things", SEES, READS, labels=VIEWERS)
        reasons = faults(tmp_path, "roles", view, wider, declared=entry)
        assert set(reasons) == {"ClusterRole/things", "ClusterRole/view"}
        assert "ops vouched for sha256:" in reasons["ClusterRole/things"]

    def test_what_may_join_one_role_excuses_no_other(self, tmp_path: Path) -> None:
        things, known = role("ClusterRole/things", SEES, labels=VIEWERS), "ClusterRole/system:discovery"
        digest = seen(tmp_path, "roles", [things])["contents"]["ClusterRole/things"]
        entry = {"ClusterRole/things": {"digest": digest, **UNTIL}}
        assert list(faults(tmp_path, "roles", things, shipped_role(known, SEES), declared=entry)) == [known]

    def test_rules_in_another_order_are_the_same(self, tmp_path: Path) -> None:
        digests = [
            seen(tmp_path, "roles", [role("ClusterRole/x", *rules)])["contents"]["ClusterRole/x"]
            for rules in ([READS, SEES], [SEES, READS], [{**READS, "resources": ["nodes", "secrets"]}])
        ]
        assert len(set(digests)) == 1


class TestBindings:
    def test_all_that_ships_is_known(self, tmp_path: Path) -> None:
        roles = [shipped_role(key) for key in SHIPPED_ROLES]
        bound = []
        for key, (what, *subjects) in SHIPPED_BINDINGS.items():
            sort, _, name = what.rpartition("/")
            bound.append(binding(key, f"{sort.partition('/')[0]}/{name}", *subjects))
        assert faults(tmp_path, "bindings", *roles, *bound) == {}

    @pytest.mark.parametrize("key", ["ClusterRoleBinding/mine", "RoleBinding/web/mine"])
    def test_a_binding_to_a_role_with_power_is_named(self, tmp_path: Path, key: str) -> None:
        reasons = faults(
            tmp_path, "bindings", shipped_role("ClusterRole/edit"), binding(key, "ClusterRole/edit", "User/eve")
        )
        assert list(reasons) == [key]
        assert reasons[key].startswith("it gives ClusterRole/edit to User/eve, which reads Secrets")

    def test_a_role_of_the_bindings_namespace_is_meant(self, tmp_path: Path) -> None:
        roles = [role("Role/web/x", READS), role("Role/other/x", SEES)]
        bound = [binding(f"RoleBinding/{where}/b", "Role/x", "User/eve") for where in ("web", "other")]
        assert list(faults(tmp_path, "bindings", *roles, *bound)) == ["RoleBinding/web/b"]

    def test_a_binding_without_power_is_nobodys_business(self, tmp_path: Path) -> None:
        bound = [
            binding("ClusterRoleBinding/a", "ClusterRole/sees", "User/eve"),
            binding("ClusterRoleBinding/b", "ClusterRole/none", "User/eve"),
            binding("ClusterRoleBinding/c", "ClusterRole/reads"),
        ]
        roles = [role("ClusterRole/sees", SEES), role("ClusterRole/reads", READS)]
        assert faults(tmp_path, "bindings", *roles, *bound) == {}

    @pytest.mark.parametrize(
        "crowd", ["Group/system:serviceaccounts", "Group/system:serviceaccounts:web", "Group/system:masters"]
    )
    def test_any_role_of_a_crowd_is_named(self, tmp_path: Path, crowd: str) -> None:
        bound = binding("ClusterRoleBinding/a", "ClusterRole/sees", crowd)
        reasons = faults(tmp_path, "bindings", role("ClusterRole/sees", SEES), bound)
        assert reasons == {"ClusterRoleBinding/a": f"it gives ClusterRole/sees to {crowd}"}

    def test_what_other_controls_judge_is_left_to_them(self, tmp_path: Path) -> None:
        bound = [
            binding("ClusterRoleBinding/a", "ClusterRole/cluster-admin", "User/eve"),
            binding("ClusterRoleBinding/b", "ClusterRole/reads", "Group/system:authenticated"),
        ]
        roles = [shipped_role("ClusterRole/cluster-admin"), role("ClusterRole/reads", READS)]
        assert faults(tmp_path, "bindings", *roles, *bound) == {}
        inside = binding("RoleBinding/web/a", "ClusterRole/cluster-admin", "User/eve")
        both = binding("ClusterRoleBinding/b", "ClusterRole/reads", "Group/system:authenticated", "User/eve")
        assert set(faults(tmp_path, "bindings", *roles, inside, both)) == {"RoleBinding/web/a", "ClusterRoleBinding/b"}

    def test_one_subject_more_in_what_ships_is_named(self, tmp_path: Path) -> None:
        key = "ClusterRoleBinding/system:monitoring"
        what, *subjects = SHIPPED_BINDINGS[key]
        reasons = faults(tmp_path, "bindings", binding(key, what, *subjects, "User/eve"))
        assert reasons == {key: "it does not ship with User/eve"}
        reasons = faults(tmp_path, "bindings", binding(key, "ClusterRole/admin", *subjects))
        assert reasons == {key: "it does not ship with ClusterRole/admin"}

    def test_the_operator_vouches_until_it_changes(self, tmp_path: Path) -> None:
        edit, key = shipped_role("ClusterRole/edit"), "ClusterRoleBinding/mine"
        bound = binding(key, "ClusterRole/edit", "User/alice")
        entry = {key: {"digest": seen(tmp_path, "bindings", [edit, bound])["contents"][key], **UNTIL}}
        assert faults(tmp_path, "bindings", edit, bound, declared=entry) == {}
        wider = binding(key, "ClusterRole/edit", "User/alice", "User/eve")
        assert list(faults(tmp_path, "bindings", edit, wider, declared=entry)) == [key]


@pytest.mark.parametrize("judged", ["roles", "bindings"])
def test_an_unknown_version_is_not_evaluated(tmp_path: Path, judged: str) -> None:
    FakeApi.answers["/version"] = {"major": "1", "minor": "99"}
    with pytest.raises(Unavailable, match=r"1\.99"):
        faults(tmp_path, judged)


UNSHIPPED = {
    *written("create users,groups,podtemplates,pods/ephemeralcontainers"),
    *written("create nodes/attach,nodes/exec,nodes/portforward,nodes/run"),
    *written("create validatingwebhookconfigurations.admissionregistration.k8s.io"),
    *written("create validatingadmissionpolicybindings.admissionregistration.k8s.io"),
    *written("create mutatingwebhookconfigurations.admissionregistration.k8s.io"),
    *written("create mutatingadmissionpolicies.admissionregistration.k8s.io"),
    *written("create mutatingadmissionpolicybindings.admissionregistration.k8s.io"),
    *written("create apiservices.apiregistration.k8s.io,clusterrolebindings.rbac.authorization.k8s.io"),
    *written("create users.authentication.k8s.io,groups.authentication.k8s.io,uids.authentication.k8s.io"),
    *written("create serviceaccounts.authentication.k8s.io,nodes.authentication.k8s.io"),
    *written("create helmcharts.helm.cattle.io,helmchartconfigs.helm.cattle.io"),
}
"""Resources of powers on which nothing that ships has a right."""


def test_every_power_is_on_a_resource_that_is_known() -> None:
    """Nobody would ever hold one that is written wrongly."""
    ships = {right[1:3] for texts in SHIPPED_ROLES.values() for text in texts for right in written(text)}
    texts = [text for texts in VARIABLES["__k3s_cluster_powers"].values() for text in texts]
    listed = {right[1:3] for text in texts for right in written(text)}
    assert listed - ships == {right[1:3] for right in UNSHIPPED}
