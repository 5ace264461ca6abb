"""What K3s really does with Secrets, told from its encryption configuration and what servers wrote down of it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.k3s import encryption as k3s_encryption
from module_utils.casemate.k3s.api import Api
from module_utils.casemate.kinds import k8s_object as kind

SECRET = "c2VjcmV0LWNhbmFyeS1zZWNyZXQtY2FuYXJ5LXNlY3I="
AESCBC: Any = {"aescbc": {"keys": [{"name": "aescbckey", "secret": SECRET}]}}
SECRETBOX: Any = {"secretbox": {"keys": [{"name": "secretboxkey", "secret": SECRET}]}}
IDENTITY: Any = {"identity": {}}


def config(*providers: Any, resource: str = "secrets") -> bytes:
    return json.dumps({"resources": [{"resources": [resource], "providers": providers}]}).encode()


def node(name: str, raw: bytes, stage: str = "start") -> Any:
    mark = f"{stage}-{hashlib.sha256(raw).hexdigest()}"
    return {"metadata": {"name": name, "annotations": {k3s_encryption.ANNOTATION: mark}}}


@pytest.mark.parametrize(
    ("providers", "active", "cipher"),
    [
        ([AESCBC, IDENTITY], "", ""),
        ([AESCBC, SECRETBOX, IDENTITY], "", ""),
        ([SECRETBOX, AESCBC, IDENTITY], "", "encrypted with secretbox, aescbc, not aescbc; apply, then run"),
        (
            [SECRETBOX, IDENTITY],
            "",
            "encrypted with secretbox, not aescbc; apply, then run `k3s secrets-encrypt rotate",
        ),
        ([IDENTITY, AESCBC], "in the clear: the providers are identity, aescbc; run `k3s secrets-encrypt enable`", ""),
    ],
)
def test_the_first_provider_decides(providers: list[Any], active: str, cipher: str) -> None:
    raw = config(*providers)
    seen = k3s_encryption.look(raw, [node("s1", raw)])
    for demand, said in ((k3s_encryption.ACTIVE, active), ("aescbc", cipher)):
        verdict = k3s_encryption.judge(demand, seen)
        assert verdict.ok is (said == "")
        assert said in verdict.reason
        assert bool(verdict.blocked_by) is not verdict.ok  # blocked: no setting and no restart mends it
        assert SECRET not in str(verdict)
    assert SECRET not in str(seen)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (config(IDENTITY), "in the clear: the providers are identity"),
        (config(), "in the clear: the providers are none"),
        (None, "K3s has no encryption configuration"),
        (b"", "in the clear: the providers are none"),
        (b"\xff{", "in the clear: the providers are none"),
        (b"[]", "in the clear: the providers are none"),
        (b'{"resources": null}', "in the clear: the providers are none"),
        (b'{"resources": [{"resources": ["secrets"], "providers": [7]}]}', "in the clear: the providers are none"),
        (config(AESCBC, resource="configmaps"), "in the clear: the providers are none"),
    ],
)
def test_a_file_that_says_nothing_encrypts_nothing(raw: bytes | None, said: str) -> None:
    seen = k3s_encryption.look(raw, [])
    verdict = k3s_encryption.judge(k3s_encryption.ACTIVE, seen)
    assert not verdict.ok
    assert said in verdict.reason
    with pytest.raises(Unavailable, match="encrypts no Secrets"):  # one fault, one finding
        k3s_encryption.judge("aescbc", seen)


def test_servers_with_other_keys_and_a_file_changed_by_hand_are_named() -> None:
    raw, other = config(AESCBC, IDENTITY), config(AESCBC, SECRETBOX, IDENTITY)
    unmarked: Any = {"metadata": {"name": "s3"}}  # it has just joined

    def said(*nodes: Any) -> str:
        return k3s_encryption.judge(k3s_encryption.ACTIVE, k3s_encryption.look(raw, nodes)).reason

    assert said(node("s1", raw), node("s2", raw, "reencrypt_finished"), unmarked) == ""
    assert "not the one of s2: start-" in said(node("s1", raw), node("s2", other), unmarked)
    assert "not the one of s1: reencrypt_active-" in said(node("s1", other, "reencrypt_active"))


def test_in_the_midst_of_a_rotation_the_advice_is_to_end_it() -> None:
    raw, rotated = config(AESCBC, IDENTITY), config(SECRETBOX, IDENTITY)
    seen = k3s_encryption.look(raw, [node("s1", rotated, "reencrypt_finished"), node("s2", raw)])
    for demand in ("active", "secretbox"):
        assert "after a rotation restart K3s on each server" in k3s_encryption.judge(demand, seen).reason
        assert "rotate-keys" not in k3s_encryption.judge(demand, seen).reason


def test_after_encryption_was_switched_off_what_was_stored_meanwhile_is_rewritten() -> None:
    raw = config(IDENTITY, AESCBC)

    def todo(*names: str) -> list[str]:
        seen = k3s_encryption.look(raw, [node(name, raw) for name in names])
        return re.findall("`([^`]*)`", k3s_encryption.judge(k3s_encryption.ACTIVE, seen).reason)

    enable, rotate, restart = "k3s secrets-encrypt enable", "k3s secrets-encrypt rotate-keys", "systemctl restart k3s"
    assert todo("s1") == [enable, rotate, restart]  # right after a restart K3s takes no rotation yet
    assert todo("s1", "s2") == [enable, restart, rotate]  # and none while servers differ


@pytest.mark.parametrize(("providers", "ok"), [([AESCBC, IDENTITY], True), ([IDENTITY, AESCBC], False)])
def test_the_file_of_this_server_and_the_nodes_of_all_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, providers: list[Any], ok: bool
) -> None:
    raw = config(*providers)
    answers = {"/api/v1/namespaces": {"items": []}, "/api/v1/nodes?x": {"items": [node("s1", raw)]}}

    class Answering(Api):
        def __init__(self, host: object) -> None:
            """Take any host."""

        def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
            assert method == "GET"
            return 200, answers[path]

    monkeypatch.setattr(kind, "Api", Answering)
    setting: Any = {"path": "/api/v1/nodes?x", "encryption": "active"}
    host = FakeHost(tmp_path, files={k3s_encryption.CONFIG: raw.decode()})
    assert kind.assess(setting, kind.observe([setting], host)[0]).ok is ok
    kind.enforce([setting], {0}, host)
    assert host.changes == []
