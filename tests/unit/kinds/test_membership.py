"""Whether a host belongs to its cluster: judged on a server on loopback that answers as K3s does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from unit.cluster_server import ClusterServer, certificate
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable, Verdict
from module_utils.casemate.k3s.api import AGENT, TLS, Api, Kubelet
from module_utils.casemate.k3s.rejoin import DATABASE
from module_utils.casemate.kinds import membership as kind

MACHINE = "0123456789abcdef0123456789abcdef"
PATH = "/api/v1/nodes/a1"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterServer]:
    made = ClusterServer(tmp_path)
    made.answers[PATH] = (200, node())
    made.passwords = {"node:agents", "server:servers"}
    yield made
    made.close()


def node(ready: str = "True", address: str = "192.0.2.7", machine: str = MACHINE, **meta: str) -> Any:
    return {
        "metadata": {"name": "a1", **meta},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": "a1"}],
            "conditions": [{"type": "Ready", "status": ready, "message": "no network"}],
            "nodeInfo": {"machineID": machine},
        },
    }


def member(
    folder: Path, cluster: ClusterServer, authority: bytes = b"", files: Mapping[str, str] | None = None
) -> FakeHost:
    """A host with the credentials of this cluster, or with those of another authority."""
    text, key = (authority or cluster.authority).decode(), cluster.key.decode()
    pairs = {Kubelet.CLIENT: Kubelet.CA, Api.CLIENT: TLS + "server-ca.crt"}
    credentials = {
        name + end: what for name in pairs for end, what in ((".crt", cluster.authority.decode()), (".key", key))
    }
    return FakeHost(
        folder / "host",
        files={
            **credentials,
            **dict.fromkeys(pairs.values(), text),
            AGENT + "kubelet.kubeconfig": f"    server: {cluster.url}\n",
            "/etc/machine-id": MACHINE + "\n",
            **(files or {}),
        },
    )


def setting(cluster: ClusterServer, unit: str = "k3s-agent.service", **more: Any) -> Any:
    return {"aspect": "kubelet", "unit": unit, "server": cluster.url, "node": "a1", "address": "192.0.2.7", **more}


def judge(asked: Any, host: FakeHost) -> Verdict:
    return kind.assess(asked, kind.observe([asked], host)[0])


@pytest.mark.parametrize(
    ("answer", "said", "mended"),
    [
        ((200, node()), "", False),
        ((200, node(ready="False")), "node a1 is not Ready: no network", False),
        ((200, node(ready="Unknown")), "is not Ready", False),
        ((200, {"metadata": {}, "status": {}}), "its kubelet has not reported yet", False),
        ((200, node(address="192.0.2.8")), "has the address 192.0.2.8, not 192.0.2.7", False),
        ((200, node(machine="f" * 32)), "is another machine: ffff", False),
        ((200, node(deletionTimestamp="2026-01-01T00:00:00Z")), "is being deleted", False),
        ((404, {"message": "not found"}), "there is no such node; apply fetches the token and restarts K3s", True),
        ((401, {"message": "Unauthorized"}), "HTTP 401: Unauthorized", True),
        ((403, {"message": 'node "b" cannot read "a1"'}), 'HTTP 403: node "b" cannot read', True),
    ],
)
def test_a_node_is_this_host_and_ready(
    tmp_path: Path, cluster: ClusterServer, answer: tuple[int, Any], said: str, mended: bool
) -> None:
    cluster.answers[PATH] = answer
    verdict = judge(setting(cluster), member(tmp_path, cluster))
    assert verdict.ok is (said == "")
    assert said in verdict.reason
    assert verdict.stale == (("k3s-agent.service",) if mended else ())
    assert bool(verdict.blocked_by) is (not verdict.ok and not mended)


def test_a_server_that_was_removed_from_etcd_joins_again(tmp_path: Path, cluster: ClusterServer) -> None:
    host = member(tmp_path, cluster, files={DATABASE + "/tombstone": ""})
    verdict = judge(setting(cluster, "k3s.service"), host)
    assert "it was removed from etcd; apply fetches the token and restarts K3s" in verdict.reason
    assert (verdict.stale, verdict.blocked_by) == (("k3s.service",), "")
    assert judge(setting(cluster), host).ok  # an agent has none, but what it was before


def test_addresses_are_compared_whatever_their_spelling(tmp_path: Path, cluster: ClusterServer) -> None:
    cluster.answers[PATH] = 200, node(address="2001:db8::7")
    assert judge(setting(cluster, address="2001:DB8:0::7"), member(tmp_path, cluster)).ok
    assert not judge(setting(cluster, address="192.0.2.7,2001:db8::7"), member(tmp_path, cluster)).ok


def test_an_agent_whose_server_was_rebuilt_joins_again(tmp_path: Path, cluster: ClusterServer) -> None:
    """Its kubelet trusts the authority of a cluster that is no more, and so meets a stranger."""
    host = member(tmp_path, cluster, certificate()[0])
    verdict = judge(setting(cluster), host)
    assert not verdict.ok
    assert "not of the authority" in verdict.reason
    assert verdict.stale == ("k3s-agent.service",)
    with pytest.raises(Unavailable, match="another cluster's than this node") as raised:  # one fault, one finding
        judge(tokens(cluster), host)
    assert raised.value.code == "refused"


@pytest.mark.parametrize(("unit", "stale"), [("k3s-agent.service", True), ("k3s.service", False)])
def test_a_node_that_is_well_in_another_cluster_is_not_in_this_one(
    tmp_path: Path, cluster: ClusterServer, unit: str, stale: bool
) -> None:
    first = ClusterServer(tmp_path)
    verdict = judge(setting(cluster, unit) | {"server": first.url}, member(tmp_path, cluster))
    first.close()
    assert not verdict.ok
    assert "another cluster's" in verdict.reason
    assert bool(verdict.stale) is stale
    assert bool(verdict.blocked_by) is not stale  # a server's data is never thrown away
    assert not [asked for asked in first.asked if asked[1] != "/ping"]


def test_what_is_silent_is_not_judged(tmp_path: Path, cluster: ClusterServer) -> None:
    host = member(tmp_path, cluster)
    cluster.answers[PATH] = 503, {}
    with pytest.raises(Unavailable, match="k3s: the API server answers 503"):
        judge(setting(cluster), host)
    cluster.answers.update({PATH: (200, node()), "/ping": (503, {})})
    for asked in (setting(cluster), tokens(cluster)):
        with pytest.raises(Unavailable, match=r"k3s: .* answers 503"):
            judge(asked, host)
    empty = FakeHost(tmp_path / "empty")
    for asked in (setting(cluster), tokens(cluster), {"aspect": "administrator"}):
        with pytest.raises(Unavailable, match="k3s"):
            judge(asked, empty)


def tokens(cluster: ClusterServer, fetched: bool = True) -> Any:
    files = {"/etc/rancher/k3s/token": "server", "/etc/rancher/k3s/agent-token": "node"}
    return {"aspect": "tokens", "server": cluster.url, "files": files, "fetched": fetched}


def digest(pem: bytes) -> str:
    return hashlib.sha256(pem).hexdigest()


@pytest.mark.parametrize(
    ("joined", "state"),
    [
        ("K10{own}::server:servers", "accepted"),
        ("K10::server:servers", "accepted"),
        ("servers", "accepted"),
        ("K10{own}::server:older", "refused"),
        ("K10{own}::node:servers", "refused"),
        ("K10{other}::server:servers", "another cluster's"),
        ("", "missing"),
    ],
)
def test_a_token_is_the_clusters(tmp_path: Path, cluster: ClusterServer, joined: str, state: str) -> None:
    token = joined.format(own=digest(cluster.authority), other=digest(b"other"))
    files = {"/etc/rancher/k3s/token": token + "\n", "/etc/rancher/k3s/agent-token": "agents\n"}
    seen = kind.observe([tokens(cluster)], member(tmp_path, cluster, files=files))[0]
    assert seen == {"tokens": {"/etc/rancher/k3s/token": state, "/etc/rancher/k3s/agent-token": "accepted"}}
    verdict = kind.assess(tokens(cluster), seen)
    assert verdict.ok is (state == "accepted")
    assert (f"/etc/rancher/k3s/token is {state}; apply fetches it anew" in verdict.reason) is not verdict.ok
    assert not verdict.blocked_by
    assert "servers" not in str((verdict, seen)).replace("server's", "")


def test_the_first_server_fetches_its_token_nowhere(tmp_path: Path, cluster: ClusterServer) -> None:
    verdict = judge(tokens(cluster, fetched=False), member(tmp_path, cluster))
    assert not verdict.ok
    assert verdict.blocked_by
    assert "systemctl restart k3s" in verdict.reason


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((201, {"status": {"allowed": True}}), ""),
        ((201, {"status": {"allowed": False}}), "it may not do everything"),
        ((201, {"status": {}}), "it may not do everything"),
        ((401, {"message": "Unauthorized"}), "HTTP 401: Unauthorized"),
        ((403, {"message": "forbidden"}), "HTTP 403: forbidden"),
    ],
)
def test_an_administrator_may_do_everything(
    tmp_path: Path, cluster: ClusterServer, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, Any], said: str
) -> None:
    monkeypatch.setattr(Api.__init__, "__defaults__", ("127.0.0.1", cluster.port, 5.0))
    cluster.answers[kind.REVIEW] = answer
    verdict = judge({"aspect": "administrator"}, member(tmp_path, cluster))
    assert verdict.ok is (said == "")
    assert said in verdict.reason
    assert cluster.asked[0][0] == "POST"


def test_a_certificate_that_cannot_be_used_is_refused(tmp_path: Path, cluster: ClusterServer) -> None:
    host = member(tmp_path, cluster, files={Api.CLIENT + ".crt": certificate()[0].decode()})  # of another key
    verdict = judge({"aspect": "administrator"}, host)
    assert not verdict.ok
    assert "client-admin.crt" in verdict.reason
