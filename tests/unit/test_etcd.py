"""Reading etcd by its JSON gateway: pages at one revision, and what counts as silence."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.cluster_server import ClusterServer
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.k3s import etcd

KEYS = [f"/registry/secrets/ns/{n:03}".encode() for n in range(7)]


def code(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterServer]:
    made = ClusterServer(tmp_path)
    monkeypatch.setattr(etcd, "PORT", made.port)
    monkeypatch.setattr(etcd, "PAGE", 3)

    def pages(asked: dict[str, Any]) -> Any:
        start, end = (base64.b64decode(asked[part]) for part in ("key", "range_end"))
        found = [key for key in [b"/registry/secret", *KEYS, b"/registry/secrets0"] if start <= key < end]
        kvs = [{"key": code(key), **({} if key == KEYS[0] else {"value": code(b"v")})} for key in found]
        return {"header": {"revision": "41"}, "kvs": kvs[: asked["limit"]], "more": len(kvs) > asked["limit"]}

    made.answers = {
        "/v3/kv/range": (200, pages),
        "/v3/cluster/member/list": (200, {"members": [{"ID": "7", "name": "one-1a2b"}]}),
    }
    yield made
    made.close()


@pytest.fixture
def host(tmp_path: Path, gateway: ClusterServer) -> FakeHost:
    text, key = gateway.authority.decode(), gateway.key.decode()
    return FakeHost(tmp_path / "h", files={etcd.CA: text, etcd.CLIENT + ".crt": text, etcd.CLIENT + ".key": key})


def test_everything_below_a_prefix_is_read_at_one_revision(host: FakeHost, gateway: ClusterServer) -> None:
    found = list(etcd.Etcd(host).below(b"/registry/secrets/"))
    assert found == [(KEYS[0], b""), *((key, b"v") for key in KEYS[1:])]
    assert [body["revision"] for _, _, body in gateway.asked] == [0, 41, 41]


def test_members_and_silence(host: FakeHost, gateway: ClusterServer, tmp_path: Path) -> None:
    assert etcd.Etcd(host).members() == [{"ID": "7", "name": "one-1a2b"}]
    gateway.answers["/v3/cluster/member/list"] = 503, {}
    with pytest.raises(Unavailable, match="k3s: etcd answers 503"):
        etcd.Etcd(host).members()
    with pytest.raises(Unavailable, match="k3s: there is no etcd on this host yet"):
        etcd.Etcd(FakeHost(tmp_path / "none"))
