"""What the rules of roles allow, and what of it is power."""

from __future__ import annotations

from typing import Any

import pytest

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
