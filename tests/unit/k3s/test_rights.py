"""What the rules of roles allow, and what of it is power."""

from __future__ import annotations

from typing import Any

import pytest
from lab.shipped import compact, shipped

from casemate.catalogue import declarations
from module_utils.casemate.k3s import rights

READS, RUNS = {"reads Secrets": ["get,list secrets"]}, {"runs commands": ["create pods/exec"]}


def rule(verbs: str, resources: str, groups: str = "", **more: Any) -> dict[str, Any]:
    return {"verbs": verbs.split(","), "resources": resources.split(","), "apiGroups": groups.split(","), **more}


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        (rule("get,list", "secrets"), {"get secrets", "list secrets"}),
        (rule("update", "deployments/scale", "apps"), {"update deployments.apps/scale"}),
        (rule("get", "configmaps", resourceNames=["one", "two"]), {"get configmaps one", "get configmaps two"}),
        (rule("*", "*", "*"), {"* *.*"}),
        ({"verbs": ["get"], "nonResourceURLs": ["/metrics", "*"]}, {"get /metrics", "get /*"}),
        ({"verbs": ["get"]}, set()),
    ],
)
def test_a_right_is_written_and_read_again(given: dict[str, Any], texts: set[str]) -> None:
    made = rights.of_rules([given])
    assert {str(one) for one in made} == texts
    assert {right for text in texts for right in rights.written(text)} == made


@pytest.mark.parametrize("nothing", [None, [], [{}]])
def test_a_role_without_rules_allows_nothing(nothing: Any) -> None:
    assert rights.of_rules(nothing) == set()


@pytest.mark.parametrize(
    ("given", "listed", "powers"),
    [
        (rule("get", "secrets"), READS, ["reads Secrets"]),
        (rule("watch", "secrets"), READS, []),
        (rule("get", "secrets", "apps"), READS, []),
        (rule("get", "secrets", resourceNames=["one"]), READS, ["reads Secrets"]),
        (rule("*", "secrets"), READS, [rights.WILDCARD, "reads Secrets"]),
        (rule("get", "*"), READS, [rights.WILDCARD, "reads Secrets"]),
        (rule("get", "secrets", "*"), READS, [rights.WILDCARD, "reads Secrets"]),
        (rule("create", "pods"), RUNS, []),
        (rule("create", "pods/exec"), RUNS, ["runs commands"]),
        (rule("create", "*/exec"), RUNS, ["runs commands"]),
        (rule("*", "things", "example.org"), RUNS, [rights.WILDCARD]),
        ({"verbs": ["get"], "nonResourceURLs": ["*"]}, RUNS, [rights.WILDCARD]),
        ({"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]}, RUNS, []),
    ],
)
def test_power_is_what_is_listed_however_it_is_given(given: Any, listed: Any, powers: list[str]) -> None:
    assert rights.powers(rights.of_rules([given]), listed) == powers


def test_what_ships_is_printed_as_it_is_kept() -> None:
    """So that a new version of Kubernetes shows in a diff as what it changes."""
    for texts in declarations.variables()[1]["__k3s_cluster_shipped_roles"]["1.36"].values():
        made = {right for text in texts for right in rights.written(text)}
        assert {right for text in compact(made) for right in rights.written(text)} == made


def test_objects_of_a_cluster_are_printed_by_what_they_are_called() -> None:
    ref = {"kind": "Role", "name": "x"}
    bound = {"kind": "RoleBinding", "metadata": {"name": "b", "namespace": "web"}, "roleRef": ref}
    role = {"kind": "ClusterRole", "metadata": {"name": "a"}, "rules": [rule("list,get", "pods,nodes")]}
    assert shipped([bound, role]) == {"ClusterRole/a": ["get,list nodes,pods"], "RoleBinding/web/b": ["Role/web/x"]}
