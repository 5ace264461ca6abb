"""A proxy reaches apt, the download and K3s, never the cluster's own addresses, and no password gets into a unit."""

from __future__ import annotations

from typing import Any

import pytest
from unit.resolving import rendered, resolved

from casemate import ROOT
from casemate.catalogue import declarations
from casemate.preflight import inputs

PROXY = "http://proxy.example.org:3128"
BOTH = {"casemate_http_proxy": PROXY, "casemate_https_proxy": PROXY}
NODES = {"one": "192.0.2.1,2001:db8::1", "two": "192.0.2.2"}
UNIT = (ROOT / "roles/k3s_node/templates/etc/systemd/system/k3s.service.j2").read_text()


def unit(given: dict[str, Any]) -> list[str]:
    """The lines of K3s' unit."""
    return str(rendered(UNIT, given=given, **NODES)).splitlines()


def test_without_a_proxy_nothing_is_set() -> None:
    assert resolved("__casemate_proxy_environment", given={}, **NODES) == {}
    assert [line for line in unit({}) if "Environment" in line or not line] == ["", ""]  # between the sections only


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (BOTH, ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"]),
        ({"casemate_http_proxy": PROXY}, ["HTTP_PROXY", "NO_PROXY"]),
        ({"casemate_https_proxy": PROXY}, ["HTTPS_PROXY", "NO_PROXY"]),
        ({"casemate_no_proxy": ["a"]}, []),
    ],
)
def test_k3s_apt_and_the_download_get_what_is_given(given: dict[str, Any], names: list[str]) -> None:
    assert list(resolved("__casemate_proxy", given=given, **NODES)) == names
    assert list(resolved("__casemate_proxy_environment", given=given, **NODES)) == [name.lower() for name in names]
    variables = [line.partition("=")[2].strip('"').partition("=")[0] for line in unit(given) if "Environment=" in line]
    assert variables == names


def test_the_clusters_own_addresses_are_reached_past_it() -> None:
    given = {**BOTH, "casemate_no_proxy": [".example.org"], "k3s_node_config": {"cluster-domain": "k8s.example"}}
    past = resolved("__casemate_proxy", given=given, **NODES)["NO_PROXY"].split(",")
    nodes = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "one", "two"]
    wanted = ["localhost", "127.0.0.0/8", "::1", ".svc", ".k8s.example", *nodes, "10.42.0.0/16", "10.43.0.0/16"]
    assert sorted(past) == sorted([*wanted, ".example.org"])
    assert ".cluster.local" in resolved("__casemate_proxy", given=BOTH, **NODES)["NO_PROXY"].split(",")


def test_every_task_that_fetches_gets_it() -> None:
    tasks = [task for path in sorted(ROOT.glob("roles/*/tasks/*.yml")) for task in declarations.read(path) or []]
    fetching = [task for task in tasks if {"ansible.builtin.apt", "k3s_artifact"} & set(task)]
    assert len(fetching) >= 4
    assert {task.get("environment") for task in fetching} == {"{{ __casemate_proxy_environment }}"}


@pytest.mark.parametrize("name", ["casemate_http_proxy", "casemate_https_proxy"])
def test_a_password_is_refused_and_not_repeated(name: str) -> None:
    spec = inputs.known_inputs()[name]
    (problem,) = inputs.value_problems(name, "http://ops:canary@proxy:3128", spec)
    assert "canary" not in problem
    assert "no account or password" in problem


def test_a_percent_sign_is_no_specifier_of_systemd() -> None:
    assert any("a%%20b" in line for line in unit({"casemate_https_proxy": "http://a%20b"}))
