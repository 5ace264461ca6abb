"""Ports: what listens is read from /proc/net, what can be reached is tried on loopback only."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.kinds import port

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
ANY, LOOP, LOOP6, MAPPED = "00000000", "0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F"


def line(address: str, number: int, state: str = "0A") -> str:
    return f"   0: {address}:{number:04X} 00000000:0000 {state} 00000000:00000000\n"


@pytest.mark.parametrize(
    ("tcp", "tcp6", "state", "ok"),
    [
        ("", "", "closed", True),
        (line(LOOP, 2381), "", "closed", False),
        (line(LOOP, 2381), line(LOOP6, 2381), "loopback", True),
        ("", line(MAPPED, 2381), "loopback", True),
        (line(ANY, 2381), "", "loopback", False),
        (line(LOOP, 2381) + line(ANY, 2381), "", "loopback", False),
        (line(ANY, 2381, state="01"), "", "closed", True),
        (line(ANY, 2381), "", "open", True),
        (line(LOOP, 2381), "", "open", False),
        ("nonsense\n", "", "closed", True),
    ],
)
def test_listening_addresses_decide(tmp_path: Path, tcp: str, tcp6: str, state: str, ok: bool) -> None:
    host = FakeHost(tmp_path, {"/proc/net/tcp": HEAD + tcp, "/proc/net/tcp6": HEAD + tcp6})
    setting: Any = {"port": 2381, "state": state}
    assert port.assess(setting, port.observe([setting], host)[0]).ok is ok


def test_udp_is_not_tcp(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/proc/net/udp": HEAD + line(ANY, 53, "07")})
    tcp: port.Setting = {"port": 53, "state": "closed"}
    udp: port.Setting = {"port": 53, "proto": "udp", "state": "closed"}
    seen = port.observe([tcp, udp], host)
    assert port.assess(tcp, seen[0]).ok
    assert not port.assess(udp, seen[1]).ok


def test_a_probe_tells_open_from_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ssh:
        beside = ssh.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            number = listener.getsockname()[1]
            setting: Any = {"port": number, "state": "closed", "probe": "127.0.0.1", "answers": beside}
            verdict = port.assess(setting, port.observe([setting], FakeHost(tmp_path))[0])
            assert (verdict.ok, verdict.observed) == (False, "open")
        verdict = port.assess(setting, port.observe([setting], FakeHost(tmp_path))[0])
        assert (verdict.ok, verdict.observed) == (True, "refused")


@pytest.mark.parametrize(
    ("met", "observed"), [(["filtered", "open", "filtered"], "open"), (["filtered"] * 3, "filtered")]
)
def test_one_answer_among_lost_packets_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, met: list[str], observed: str
) -> None:
    left = [*met]
    monkeypatch.setattr(port, "_reach", lambda _, number, __: "open" if number == 22 else left.pop())
    setting: Any = {"port": 2379, "state": "closed", "probe": "192.0.2.1"}
    assert port.observe([setting], FakeHost(tmp_path)) == [{"probe": observed}]


def test_silence_of_a_machine_that_cannot_be_reached_at_all_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "_reach", lambda *_: "filtered")
    settings: Any = [{"port": 2379, "state": "closed", "probe": "192.0.2.1"}, {"port": 1, "state": "closed"}]
    probed, read = port.observe(settings, FakeHost(tmp_path))
    assert isinstance(probed, Unavailable)
    assert probed.code == "vantage"
    assert read == {"addresses": []}


def test_a_silent_udp_port_is_not_called_closed() -> None:
    with pytest.raises(Unavailable, match="vantage"):
        port.assess({"port": 8472, "proto": "udp", "state": "closed", "probe": "127.0.0.1"}, {"probe": "filtered"})
