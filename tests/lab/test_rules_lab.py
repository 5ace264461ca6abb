"""Which rules beside ours let somebody in whom ours refuse: exactly those are named.

Runs on an applied lab as a part of the drift story, with the double as well. Each rule is loaded by hand, and a
stranger knocks.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from lab.applied import Lab
from lab.test_baseline_lab import named

pytestmark = pytest.mark.lab

PORT, CONTROL = 9999, "FW-PACKETS-UNCHANGED"
SERVE = f"""
cat >/run/serve.py <<'END'
import socket
served = socket.create_server(("0.0.0.0", {PORT}))
while True:
    served.accept()[0].sendall(b"in")
END
python3 /run/serve.py >/dev/null 2>&1 & echo $! >/run/serve.pid
sleep 1
"""
BACK = "type filter hook postrouting priority 400; ip daddr 10.42.9.9 tcp sport {port} ip daddr set {stranger};"
OPENING = {
    "inet as_a_pod": {
        "to": "type filter hook prerouting priority -400; ip saddr {stranger} tcp dport {port} ip saddr set 10.42.9.9;",
        "back": BACK,
    },
    "netdev moved": {
        "to": "type filter hook ingress device host0 priority 0; ip saddr {stranger} tcp dport {port} "
        "ether daddr set 00:00:00:00:00:00 fwd to lo;"
    },
    "inet expected": {
        "out": 'type filter hook output priority 0; ip daddr {stranger} tcp dport 7777 ct expectation set "e";'
    },
}
"""Tables by which a stranger comes in, and their chains."""
CLOSED = {
    "inet earlier": {
        "first": "type filter hook prerouting priority -400; tcp dport {port} accept;",
        "second": "type filter hook input priority -300; tcp dport {port} accept;",
    },
    "inet untracked": {
        "to": "type filter hook prerouting priority -400; tcp dport {port} notrack;",
        "back": "type filter hook output priority -400; tcp sport {port} notrack;",
    },
    "inet forwarded": {"through": "type filter hook forward priority -300; tcp dport {port} accept;"},
    "inet labelled": {"to": "type filter hook prerouting priority -300; tcp dport {port} meta mark set 0x20000;"},
}
"""Tables that look as if a stranger came in by them."""
CALL = """
cat >/run/call.py <<'END'
import socket, time
kept = socket.create_connection(("{stranger}", 7777))
time.sleep(20)
END
python3 /run/call.py >/dev/null 2>&1 &
"""


def loaded(lab: Lab, name: str, chains: dict[str, str]) -> None:
    given = {"port": PORT, "stranger": lab.known["lab_stranger_address"]}
    said = "".join(f"chain {chain} {{ {rules.format(**given)} }}; " for chain, rules in chains.items())
    extra = f"ct expectation e {{ protocol tcp; dport {PORT}; timeout 1m; size 9; l3proto ip; }}; "
    lab.root(lab.server, f"nft 'table {name} {{ {extra if name.endswith('expected') else ''}{said} }}'")


def comes_in(lab: Lab) -> bool:
    """Whether a stranger is served; one whom ours refuse hears nothing."""
    stranger = lab.known["lab_stranger_address"]
    with socket.socket() as caller, socket.create_server((stranger, 7777)) as called:
        called.settimeout(30)
        lab.root(lab.server, CALL.format(stranger=stranger))
        called.accept()
        caller.settimeout(2)
        caller.bind((stranger, 0))
        try:
            caller.connect((lab.hosts[lab.server], PORT))
            return caller.recv(2) == b"in"
        except OSError:
            return False


@pytest.fixture
def lab(lab: Lab) -> Iterator[Lab]:
    lab.root(lab.server, SERVE)
    yield lab
    gone = "; ".join(f"nft delete table {name} 2>/dev/null || true" for name in (*OPENING, *CLOSED))
    lab.root(lab.server, f"kill $(cat /run/serve.pid); rm /run/serve.* /run/call.py; {gone}")
    lab.ends(0, "check")


def test_what_lets_a_stranger_in_is_named_and_nothing_else(lab: Lab) -> None:
    assert not comes_in(lab)
    for name, chains in {**OPENING, **CLOSED}.items():
        loaded(lab, name, chains)
        assert (name, comes_in(lab)) == (name, name in OPENING)
        lab.root(lab.server, f"nft delete table {name}")
    for name, chains in {**OPENING, **CLOSED}.items():
        loaded(lab, name, chains)
    where = named(lab.casemate("check")[1])[lab.server][CONTROL]
    assert {place.split(":")[0] for place in where} == {f"table {name}" for name in OPENING}
