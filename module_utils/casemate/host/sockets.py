"""Sockets of this network namespace that wait for somebody, as the kernel lists them.

Sources: proc_pid_net(5): the state of a listening socket of TCP is 0A, that of others without a peer 07; packet(7).
"""

from __future__ import annotations

import ipaddress
import struct
import sys
from typing import Iterator, NamedTuple

from .machine import Host
from .text import split_lines

TABLES = ("tcp", "udp", "udplite", "raw")
WAITING = {"tcp": "0A"}


class Socket(NamedTuple):
    """One socket. The port is the protocol for `raw`, and the type of frames for `packet`; "" has no program."""

    proto: str
    address: str
    port: int
    inode: str

    @property
    def name(self) -> str:
        """What the operator calls it."""
        return f"{self.proto}/{self.port}"

    @property
    def is_reachable(self) -> bool:
        """Whether something comes in by it from other hosts."""
        if self.proto == "packet":
            return True
        address = ipaddress.ip_address(self.address)
        return not (getattr(address, "ipv4_mapped", None) or address).is_loopback


def waiting(host: Host) -> Iterator[Socket]:
    """All that listen, or take what nobody in particular sends."""
    for proto in TABLES:
        for table in (proto, f"{proto}6"):
            for line in split_lines(host.text(f"/proc/self/net/{table}") or "")[1:]:
                fields = line.split()
                if len(fields) > 9 and fields[3] == WAITING.get(proto, "07"):
                    address, _, port = fields[1].partition(":")
                    yield Socket(proto, _address(address), int(port, 16), fields[9].lstrip("0"))
    for line in split_lines(host.text("/proc/self/net/packet") or "")[1:]:
        fields = line.split()
        if len(fields) > 8:
            yield Socket("packet", "*", int(fields[3], 16), fields[8])


def _address(coded: str) -> str:
    """An address as the kernel writes it: words of 32 bits, each in the order of this machine's bytes."""
    words = [int(coded[begin : begin + 8], 16) for begin in range(0, len(coded), 8)]
    order = "<" if sys.byteorder == "little" else ">"
    return str(ipaddress.ip_address(b"".join(struct.pack(f"{order}I", word) for word in words)))
