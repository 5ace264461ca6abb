"""Attacks on the network of a node: ports that strangers, administrators and neighbours may not reach."""

from __future__ import annotations

import secrets

import pytest
from testinfra.host import Host

from .conftest import python_on
from .listeners import Crossings, knock, listening, reach
from .planted import planted
from .test_access import variables, where

ADMINISTRATOR = [2379, 2380, 10250, 29999, 31999]
STRANGER = [6443, 10250, 2379, 29999]
UDP = [51821, 29998]


@pytest.fixture(scope="module")
def crossings(nodes: list[Host]) -> list[Crossings]:
    """What came of each knock at each node."""
    return [knock(host, ADMINISTRATOR, STRANGER, UDP) for host in nodes]


@pytest.mark.control("FW-KUBELET-NODES", "FW-ETCD-SERVERS", "FW-ETCD-SHUT", "FW-REST-CLOSED", "FW-INPUT-CLOSED",
                     "FW-RULES-LOADED")  # fmt: skip
@pytest.mark.parametrize("port", ADMINISTRATOR)
def test_an_administrator_reaches_no_more_than_needed(crossings: list[Crossings], port: int) -> None:
    for seen in crossings:
        assert port not in seen.opened or port in seen.answering, "nothing answers there, so silence proves nothing"
        assert seen.administrator[port] == "dropped"


@pytest.mark.control("FW-SSH-LISTED")
def test_the_controller_reaches_ssh(nodes: list[Host]) -> None:
    for host in nodes:
        assert reach(*where(host)) == "open"


@pytest.mark.control("FW-SSH-LISTED", "FW-API-LISTED", "FW-REST-CLOSED", "FW-INPUT-CLOSED", "FW-UNIT-RUNNING")
@pytest.mark.parametrize("port", [0, *STRANGER])
def test_a_stranger_reaches_nothing(nodes: list[Host], crossings: list[Crossings], port: int) -> None:
    for host, seen in zip(nodes, crossings, strict=True):
        if not variables(host).get("lab_stranger_address"):
            pytest.skip("vantage: this inventory names no second address to attack from")
        assert seen.stranger[port or where(host)[1]] == "dropped"


@pytest.mark.control("FW-OVERLAY-NODES", "FW-RESTUDP-CLOSED")
@pytest.mark.parametrize("port", UDP)
def test_no_packet_for_the_overlay_or_an_unknown_port_gets_in(crossings: list[Crossings], port: int) -> None:
    for seen in crossings:
        assert seen.heard[port] == ["inside"]


@pytest.mark.control("FW-KUBELET-NODES")
def test_nodes_reach_each_others_kubelet(servers: list[Host], agents: list[Host]) -> None:
    if not servers or not agents:
        pytest.skip("vantage: it takes two nodes")
    program = "import socket,sys; socket.create_connection((sys.argv[1], 10250), 3); print('open')"
    with listening(agents[0], [10250]):
        assert python_on(servers[0], program, where(agents[0])[0]).strip() == "open"


@pytest.mark.control("FW-ETCD-SERVERS")
def test_an_agent_does_not_reach_etcd(servers: list[Host], agents: list[Host]) -> None:
    if not servers or not agents:
        pytest.skip("vantage: it takes two nodes")
    program = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 2379), 2)
    print("open")
except TimeoutError:
    print("dropped")
"""
    with listening(servers[0], [2379]):
        assert python_on(agents[0], program, where(servers[0])[0]).strip() == "dropped"


@pytest.mark.control("FW-UNIT-INSTALLED", "FW-FLUSHER-OFF")
def test_reloading_our_table_leaves_those_of_others(nodes: list[Host]) -> None:
    for host in nodes:
        table = f"inet casemate_foreign_{secrets.token_hex(4)}"
        with planted(host, f"nft add table {table}", f"nft delete table {table}; ! nft list table {table}"):
            for verb in ("reload", "restart"):
                host.check_output(f"systemctl {verb} casemate-firewall.service")
                host.run(f"systemctl {verb} nftables.service")
                assert host.run(f"nft list table {table}").rc == 0, verb
            assert reach(where(host)[0], 29999) == "dropped", "and ours is back"
