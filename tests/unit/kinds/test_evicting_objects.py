"""Of the cluster's objects, what an operator names goes and is kept; what would come back says who brings it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.host.evicted import HOME
from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.k3s.listed import path_of
from module_utils.casemate.kinds import evicting_objects as kind

HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
DAEMONS = "/apis/apps/v1/daemonsets"
HOOK, DAEMON = f"{HOOKS}/evil", "/apis/apps/v1/namespaces/web/daemonsets/evil"


def made(name: str = "evil", namespace: str = "", **meta: Any) -> dict[str, Any]:
    within = {"namespace": namespace} if namespace else {}
    return {"metadata": {"name": name, **within, "uid": f"uid-{name}", "resourceVersion": "7", **meta}}


class FakeApi:
    """Objects by path, and what was asked to be deleted."""

    there: ClassVar[dict[str, Any]] = {}
    deleted: ClassVar[dict[str, Any]] = {}
    refuses: ClassVar[set[str]] = set()
    kept_by_finalizers: ClassVar[set[str]] = set()

    def __init__(self, host: object) -> None:
        """Take any host."""

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        if path not in self.there:
            return 404, {}
        if method == "GET":
            return 200, self.there[path]
        assert method == "DELETE"
        if path in self.refuses:
            return 409, {"message": "the object has been modified"}
        self.deleted[path] = body
        if path not in self.kept_by_finalizers:
            del self.there[path]
        return 200, {}


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    FakeApi.there = {HOOK: {"kind": "MutatingWebhookConfiguration", **made(managedFields=[]), "webhooks": [1]}}
    FakeApi.there[DAEMON] = {"kind": "DaemonSet", **made(namespace="web"), "status": {"ready": 1}}
    FakeApi.deleted, FakeApi.refuses, FakeApi.kept_by_finalizers = {}, set(), set()
    monkeypatch.setattr(kind, "Api", FakeApi)
    monkeypatch.setattr(kind, "GOING", 0.0)
    return FakeApi


def kept(host: FakeHost, path: str) -> Any:
    (folder,) = os.listdir(host.path(HOME))
    return json.loads(Path(host.path(f"{HOME}/{folder}{path}.json")).read_text())


def test_what_goes_is_kept_without_what_the_server_added(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    kind.evict([HOOK, DAEMON, f"{HOOKS}/gone-meanwhile"], host)
    assert set(FakeApi.deleted) == {HOOK, DAEMON}
    assert FakeApi.deleted[HOOK]["preconditions"] == {"uid": "uid-evil", "resourceVersion": "7"}
    assert kept(host, HOOK) == {"kind": "MutatingWebhookConfiguration", "metadata": {"name": "evil"}, "webhooks": [1]}
    assert kept(host, DAEMON) == {"kind": "DaemonSet", "metadata": {"name": "evil", "namespace": "web"}}
    assert [one["path"] for one in host.changes] == [HOOK, DAEMON]
    assert os.stat(host.path(HOME)).st_mode & 0o777 == 0o700


def test_no_copy_has_what_a_secret_holds(tmp_path: Path) -> None:
    host, path = FakeHost(tmp_path), "/api/v1/namespaces/web/secrets/token"
    FakeApi.there[path] = {"kind": "Secret", "type": "x", **made("token", "web"), "data": {"token": "CANARY"}}
    kind.evict([path], host)
    assert kept(host, path) == {"kind": "Secret", "type": "x", "metadata": {"name": "token", "namespace": "web"}}


def test_one_refusal_does_not_stop_the_others(tmp_path: Path, cluster: type[FakeApi]) -> None:
    cluster.refuses = {HOOK}
    with pytest.raises(EnforceError, match=f"{HOOK} is not removed: HTTP 409: the object has been modified; by hand"):
        kind.evict([HOOK, DAEMON], FakeHost(tmp_path))
    assert set(cluster.deleted) == {DAEMON}


def test_what_a_finalizer_keeps_is_told(tmp_path: Path, cluster: type[FakeApi]) -> None:
    cluster.kept_by_finalizers = {DAEMON}
    with pytest.raises(EnforceError, match=f"{DAEMON} is deleted and has not gone"):
        kind.evict([DAEMON], FakeHost(tmp_path))


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (made(), ""),
        (made(ownerReferences=[{"kind": "ReplicaSet", "name": "web"}]), ""),
        (made(ownerReferences=[{"kind": "ReplicaSet", "name": "web", "controller": True}]), "ReplicaSet web makes it"),
        (
            made(annotations={kind.OWNER + "gvk": kind.ADDON, kind.OWNER + "name": "coredns"}),
            "K3s makes it again of coredns",
        ),
        (made(annotations={kind.OWNER + "gvk": "other", kind.OWNER + "name": "coredns"}), ""),
        (made(annotations={kind.CHART: "grafana"}), "helm uninstall grafana"),
        (made(annotations={kind.STATIC: "file"}), "it is of a file on its node"),
        (made(annotations={kind.STATIC: "api"}), ""),
    ],
)
def test_what_somebody_makes_again_stays_and_says_who(item: Any, says: str) -> None:
    found = kind.outlook(["DaemonSet/evil"], {"DaemonSet/evil": (DAEMONS, item)}, ())
    assert says in found["left"].get("DaemonSet/evil", "") if says else found["left"] == {}, found


def test_what_k3s_ships_is_edited_by_hand() -> None:
    items = {"ClusterRole/view": ("/apis/r/v1/clusterroles", made("view")), "Role/a/b": ("/x/roles", made("b", "a"))}
    left = kind.outlook(items, items, items)["left"]
    assert left["ClusterRole/view"].endswith(": kubectl edit clusterrole view")
    assert left["Role/a/b"].endswith(": kubectl edit -n a role b")


@pytest.mark.parametrize(
    ("listed", "item", "path"),
    [
        (HOOKS, made(), HOOK),
        (f"{DAEMONS}?fieldSelector=x%3D1", made(namespace="web"), DAEMON),
        ("/api/v1/namespaces/web/configmaps?x=1", made(namespace="web"), "/api/v1/namespaces/web/configmaps/evil"),
        ("/apis/r/v1/clusterroles", made("system:a"), "/apis/r/v1/clusterroles/system:a"),
    ],
)
def test_each_has_its_path(listed: str, item: Any, path: str) -> None:
    assert path_of(listed, item) == path
