"""Kubernetes objects: the comparison is pure; the connection is replaced by canned answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.base import EnforceError, Unavailable
from module_utils.casemate.kinds import k8s_object as kind

NAMESPACES = {"items": [{"metadata": {"name": n}, "status": {"phase": "Active"}} for n in ("default", "web")]}
ACCOUNT = "/api/v1/namespaces/{namespace}/serviceaccounts/default"
WANT = {"metadata": {"name": "default"}, "automountServiceAccountToken": False}


class FakeApi:
    """Answers by (method, path), and remembers what was patched."""

    answers: ClassVar[dict[str, Any]] = {}
    patched: ClassVar[list[str]] = []
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
        if path == "/api/v1/namespaces":
            return 200, NAMESPACES
        return (200, self.answers[path]) if path in self.answers else (404, {})


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    FakeApi.answers, FakeApi.patched, FakeApi.refuse = {}, [], False
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
    ],
)
def test_demanded_fields_are_a_subset(want: Any, have: Any, faults: int) -> None:
    assert len(kind.missing(want, have)) == faults


def test_every_namespace_is_judged_and_only_what_differs_is_applied(tmp_path: Path, api: type[FakeApi]) -> None:
    setting = {"path": ACCOUNT, "body": WANT}
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
    setting = {"path": ACCOUNT, "body": WANT, "except_namespaces": ["default", "web"]}
    assert kind.observe([setting], FakeHost(tmp_path))[0] == {"objects": {}}


BINDINGS = {
    "items": [
        {"roleRef": {"name": "cluster-admin"}, "subjects": [{"name": "system:masters"}]},
        {"roleRef": {"name": "view"}, "subjects": [{"name": "bob"}]},
    ]
}


@pytest.mark.parametrize(("extra", "ok"), [([], True), ([{"name": "mallory"}], False)])
def test_a_list_holds_only_what_is_allowed(tmp_path: Path, api: type[FakeApi], extra: list[Any], ok: bool) -> None:
    planted = [{"roleRef": {"name": "cluster-admin"}, "subjects": extra}] if extra else []
    api.answers["/apis/b"] = {"items": BINDINGS["items"] + planted}
    setting = {
        "path": "/apis/b",
        "select": {"roleRef.name": "cluster-admin"},
        "only": {"field": "subjects.name", "allowed": ["system:masters"]},
    }
    verdict = kind.assess(setting, kind.observe([setting], FakeHost(tmp_path))[0])
    assert verdict.ok is ok
    assert ("mallory" in str(verdict.observed)) is not ok


def test_a_refused_apply_is_an_enforce_error(tmp_path: Path, api: type[FakeApi]) -> None:
    api.refuse = True
    with pytest.raises(EnforceError, match="422"):
        kind.enforce([{"path": "/api/v1/x", "body": {"a": 1}}], {0}, FakeHost(tmp_path))


@pytest.mark.parametrize("enforced", [True, False])
def test_a_cluster_that_is_down_is_due_where_apply_brings_the_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enforced: bool
) -> None:
    monkeypatch.undo()
    setting = {"path": "/api/v1/x", "body": {"a": 1}, "enforced": enforced}
    seen = kind.observe([setting], FakeHost(tmp_path))[0]
    if enforced:
        assert not kind.assess(setting, seen).ok
    else:
        with pytest.raises(Unavailable, match="k3s"):
            kind.assess(setting, seen)
