"""Attacks on the network of a node: ports that strangers, administrators and neighbours may not reach."""

from __future__ import annotations

import secrets
import shlex
import socket
import time

import pytest
from testinfra.host import Host

from .conftest import python_on
from .test_access import variables, where

LISTEN = """
import socket, sys, threading
port, kind, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
one = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
one.bind(("0.0.0.0", port))
one.settimeout(seconds)
if kind == "tcp":
    one.listen(16)
try:
    while True:
        if kind == "tcp":
            one.accept()[0].close()
        else:
            print(one.recv(100).decode(), flush=True)
except OSError:
    pass
"""


def reach(address: str, port: int, source: str = "") -> str:
    """`open`, `refused` (the packet got there) or `dropped`."""
    try:
        socket.create_connection((address, port), timeout=2, source_address=(source, 0) if source else None).close()
    except TimeoutError:
        return "dropped"
    except ConnectionRefusedError:
        return "refused"
    return "open"


def listen(host: Host, port: int, kind: str = "tcp", seconds: int = 30) -> str:
    """Have something listen on a port, unless something does; return the file with what it hears."""
    heard = f"/run/casemate-{secrets.token_hex(6)}"
    output = f"file:{heard}" if kind == "udp" else "null"
    start = ["systemd-run", "--quiet", "--collect", f"--property=StandardOutput={output}"]
    host.check_output(shlex.join([*start, "python3", "-c", LISTEN, str(port), kind, str(seconds)]))
    for _ in range(20):
        if host.run(f"ss -H -l -{kind[0]} -n sport = :{port}").stdout.strip():
            return heard
        time.sleep(0.2)
    pytest.fail(f"nothing listens on {port}")


def on(host: Host, port: int) -> str:
    """What a connection from the node itself gets: the proof that the port is not just shut."""
    program = "import socket,sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2); print('open')"
    return python_on(host, program, str(port)).strip()


@pytest.mark.control("FW-KUBELET-NODES", "FW-ETCD-SERVERS", "FW-ETCD-SHUT", "FW-REST-CLOSED", "FW-INPUT-CLOSED",
                     "FW-RULES-LOADED")  # fmt: skip
@pytest.mark.parametrize("port", [2379, 2380, 10250, 29999, 31999])
def test_an_administrator_reaches_no_more_than_needed(nodes: list[Host], port: int) -> None:
    for host in nodes:
        if not host.run(f"ss -H -l -t -n sport = :{port}").stdout.strip():
            listen(host, port)
            assert on(host, port) == "open"
        assert reach(where(host)[0], port) == "dropped"


@pytest.mark.control("FW-SSH-LISTED")
def test_the_controller_reaches_ssh(nodes: list[Host]) -> None:
    for host in nodes:
        assert reach(*where(host)) == "open"


@pytest.mark.control("FW-SSH-LISTED", "FW-API-LISTED", "FW-REST-CLOSED", "FW-INPUT-CLOSED", "FW-UNIT-RUNNING")
@pytest.mark.parametrize("port", [0, 6443, 10250, 2379, 29999])
def test_a_stranger_reaches_nothing(nodes: list[Host], port: int) -> None:
    for host in nodes:
        stranger = str(variables(host).get("lab_stranger_address") or "")
        if not stranger:
            pytest.skip("vantage: this inventory names no second address to attack from")
        address, ssh = where(host)
        if port and not host.run(f"ss -H -l -t -n sport = :{port}").stdout.strip():
            listen(host, port)
        assert reach(address, port or ssh, stranger) == "dropped"


@pytest.mark.control("FW-OVERLAY-NODES", "FW-RESTUDP-CLOSED")
@pytest.mark.parametrize("port", [51821, 29998])
def test_no_packet_for_the_overlay_or_an_unknown_port_gets_in(nodes: list[Host], port: int) -> None:
    for host in nodes:
        heard = listen(host, port, "udp")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"outside", (where(host)[0], port))
        program = "import socket,sys; socket.socket(type=2).sendto(b'inside', ('127.0.0.1', int(sys.argv[1])))"
        python_on(host, program, str(port))
        time.sleep(0.5)
        got = host.check_output(f"cat {heard}; rm -f {heard}")
        assert got.split() == ["inside"]


@pytest.mark.control("FW-KUBELET-NODES")
def test_nodes_reach_each_others_kubelet(servers: list[Host], agents: list[Host]) -> None:
    if not servers or not agents:
        pytest.skip("vantage: it takes two nodes")
    target = agents[0]
    if not target.run("ss -H -l -t -n sport = :10250").stdout.strip():
        listen(target, 10250)
    program = "import socket,sys; socket.create_connection((sys.argv[1], 10250), 3); print('open')"
    assert python_on(servers[0], program, where(target)[0]).strip() == "open"


@pytest.mark.control("FW-ETCD-SERVERS")
def test_an_agent_does_not_reach_etcd(servers: list[Host], agents: list[Host]) -> None:
    if not servers or not agents:
        pytest.skip("vantage: it takes two nodes")
    target = servers[0]
    if not target.run("ss -H -l -t -n sport = :2379").stdout.strip():
        listen(target, 2379)
    program = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 2379), 2)
    print("open")
except TimeoutError:
    print("dropped")
"""
    assert python_on(agents[0], program, where(target)[0]).strip() == "dropped"


@pytest.mark.control("FW-UNIT-INSTALLED", "FW-FLUSHER-OFF")
def test_reloading_our_table_leaves_those_of_others(nodes: list[Host]) -> None:
    for host in nodes:
        table = f"inet casemate_foreign_{secrets.token_hex(4)}"
        host.check_output(f"nft add table {table}")
        try:
            for verb in ("reload", "restart"):
                host.check_output(f"systemctl {verb} casemate-firewall.service")
                host.run(f"systemctl {verb} nftables.service")
                assert host.run(f"nft list table {table}").rc == 0, verb
            assert reach(where(host)[0], 29999) == "dropped", "and ours is back"
        finally:
            host.run(f"nft delete table {table}")
