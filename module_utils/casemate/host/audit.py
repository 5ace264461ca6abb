"""What the kernel's audit says of itself. Source: linux/audit.h (AUDIT_GET, struct audit_status), netlink(7)."""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

FAMILY, GET, ERROR = 9, 1000, 2
REQUEST = 0x01
"""NETLINK_AUDIT, AUDIT_GET, NLMSG_ERROR and NLM_F_REQUEST."""
HEADER = struct.Struct("=IHHII")
LOCKED = 2
"""Audit is on, and nothing of it can be changed before the next boot."""


class Status(NamedTuple):
    """Whether audit is on (1), off (0) or locked (2), and why it cannot be told ("" where it can)."""

    enabled: int = 0
    lacks: str = ""


def status() -> Status:
    """Ask the kernel. It answers neither in a container nor without the rights of root."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, FAMILY) as asking:
            asking.settimeout(5)
            asking.sendto(HEADER.pack(HEADER.size, GET, REQUEST, 1, 0), (0, 0))
            return answered(asking.recv(8192))
    except OSError as error:
        return Status(lacks=f"the kernel does not audit this machine: {error.strerror or error}")


def answered(message: bytes) -> Status:
    """What one answer of the kernel says. Pure."""
    sort, body = HEADER.unpack_from(message)[1], message[HEADER.size :]
    if sort == ERROR:
        fault = -struct.unpack_from("=i", body)[0]
        return Status(lacks=f"the kernel does not audit this machine: {os.strerror(fault)}")
    return Status(enabled=struct.unpack_from("=II", body)[1])
