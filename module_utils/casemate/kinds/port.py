"""TCP and UDP ports: what listens here, or what can be reached from elsewhere.

From the host itself (vantage self) only the listening addresses tell anything, so /proc/net is read: a probe
would pass by loopback. From the controller a TCP connection is tried. A port that is shut is known by silence, and
silence proves nothing unless the same machine answers on another port: on that one the waiting time is measured.
"""

from __future__ import annotations

import concurrent.futures
import ipaddress
import socket
import time
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..host.machine import Host
from ..host.text import split_lines
from .kind import Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    port: Annotated[int, Key("1 to 65535")]
    state: Annotated[Literal["closed", "loopback", "open"], Key("closed: nothing beyond what is named")]


class Setting(Needed, total=False):
    """What a control of this kind may demand."""

    proto: Annotated[Literal["tcp", "udp"], Key("default: tcp")]
    probe: Annotated[str, Key("address to connect to instead of reading what listens (vantage controller)")]
    answers: Annotated[int, Key("with probe: a port that answers from there, such as that of SSH")]


LISTEN = "0A"
TIMEOUT = 5.0
"""Seconds in which the port that answers has to."""
KNOCKS = 3
"""Connections tried at once: three lost packets are less likely than a lost one and its only retransmission."""


def identity(setting: Setting) -> str:
    """A port as seen from the host and the same port probed from outside are two settings."""
    return f"{setting.get('proto', 'tcp')}/{setting['port']}" + ("@probe" if "probe" in setting else "")


def listeners(table: str, tcp: bool) -> list[tuple[str, int]]:
    """Parse /proc/net/{tcp,udp}{,6} (proc(5)): (address, port) of each listening or bound socket."""
    found = []
    for line in split_lines(table)[1:]:
        parts = line.split()
        if len(parts) < 4 or (tcp and parts[3] != LISTEN):
            continue
        text, port = parts[1].split(":")
        words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
        found.append((str(ipaddress.ip_address(b"".join(words))), int(port, 16)))
    return found


def _reach(address: str, port: int, wait: float) -> str:
    """Connect once: open, refused (an answer says no), or filtered (silence or an ICMP error)."""
    try:
        with socket.create_connection((address, port), wait):
            return "open"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "filtered"


def _patience(address: str, port: int) -> float:
    """Seconds after which silence of this machine means that nothing will come. Raises Unavailable."""
    start = time.monotonic()
    if _reach(address, port, TIMEOUT) == "filtered":
        raise Unavailable("vantage", f"{address} does not even answer on {port} from here, so silence proves nothing")
    return 0.25 + 10 * (time.monotonic() - start)


def _probe(setting: Setting) -> Observation:
    """What the most telling of some connections at once met."""
    wait = _patience(setting["probe"], setting.get("answers", 22))
    with concurrent.futures.ThreadPoolExecutor(max_workers=KNOCKS) as pool:
        met = set(pool.map(lambda _: _reach(setting["probe"], setting["port"], wait), range(KNOCKS)))
    return {"probe": next(one for one in ("open", "refused", "filtered") if one in met)}


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Any]:
    """Listening addresses of each port, or the outcome of connecting; probes run side by side."""
    bound: set[tuple[str, str, int]] = set()
    for proto in ("tcp", "udp"):
        for suffix in ("", "6"):
            table = host.text(f"/proc/net/{proto}{suffix}") or ""
            bound |= {(proto, address, port) for address, port in listeners(table, proto == "tcp")}
    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
        probes = [pool.submit(_probe, s) if s.get("probe") else None for s in settings]
    seen: list[Any] = []
    for setting, probe in zip(settings, probes):
        if probe is None:
            mine = (setting.get("proto", "tcp"), setting["port"])
            seen.append({"addresses": sorted(a for p, a, n in bound if (p, n) == mine)})
        else:
            error = probe.exception()
            seen.append(error if isinstance(error, Unavailable) else probe.result())
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Closed means no listener (or no connection); loopback means no listener beyond 127.0.0.0/8 and ::1."""
    want, where = setting["state"], f"{setting.get('proto', 'tcp')}/{setting['port']}"
    if "probe" in seen:
        if setting.get("proto", "tcp") != "tcp":
            raise Unavailable("vantage", "a closed UDP port cannot be told from a silent one")
        reached = seen["probe"]
        return Verdict(
            ok=(reached == "open") == (want == "open"),
            expected=want,
            observed=reached,
            evidence=f"connect {where} from here",
        )
    outside = [a for a in seen["addresses"] if not _loopback(a)]
    if want == "open":
        ok = bool(outside)
    elif want == "loopback":
        ok = not outside
    else:
        ok = not seen["addresses"]
    shown = ", ".join(seen["addresses"]) or "nothing listens"
    reason = "" if ok else f"listening on {shown}"
    return Verdict(
        ok=ok,
        expected=want,
        observed=shown if seen["addresses"] else "closed",
        reason=reason,
        evidence=f"/proc/net/{where.replace('/', ':')}",
    )


def _loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, places=lambda setting: [identity(setting)])
