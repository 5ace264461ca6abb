"""What lets into the cluster, and files elsewhere that hold a copy of it. Nothing of a secret is ever told.

Sources: K3s documentation, `k3s server` and `k3s token`; kubectl's kubeconfig; bbolt's page.go (magic of a database);
kine's schema for SQLite.
"""

from __future__ import annotations

import base64
import contextlib
import mmap
import os
import re
import zipfile
from typing import IO, Dict, List

from ..host.machine import Host

K3S = "/var/lib/rancher/k3s"
TOKENS = (f"{K3S}/server/token", f"{K3S}/server/agent-token", "/etc/rancher/k3s/token", "/etc/rancher/k3s/agent-token")
KEYS = (f"{K3S}/server/tls/*.key", f"{K3S}/server/tls/etcd/*.key", f"{K3S}/agent/*.key")
ENCRYPTION = f"{K3S}/server/cred/encryption-config.json"
AUTHORITIES = (f"{K3S}/server/tls/server-ca.crt", f"{K3S}/agent/server-ca.crt")
SHORTEST = 16
"""Characters of a token below which it may stand anywhere by chance."""
LARGEST = 1 << 20
"""Bytes of a file that is looked through; what is larger can be a database only."""
LETS_IN = re.compile(rb"client-key-data|\btoken[\"']?\s*:")
COPY = "a copy of the cluster's database, with every Secret"
BOLT, SQLITE = b"\xed\xda\x0c\xed", b"SQLite format 3\0"
WITHIN = 1 << 16
"""Bytes within which SQLite says what its tables are."""
Needles = Dict[bytes, str]
"""Bytes of a secret that stand in every copy of it -> what it is."""


def needles(host: Host) -> Needles:
    """Those of all secrets that this machine has."""
    found: Needles = {}
    for path in TOKENS:
        secret = (host.text(path) or "").strip().rpartition(":")[2].encode()
        if len(secret) >= SHORTEST:
            found[secret] = "a token by which machines join the cluster"
    for path in (path for pattern in KEYS for path in host.glob(pattern)):
        data = (host.read(path) or b"").strip()
        lines = data.split(b"\n")
        if len(lines) > 2 and lines[0].startswith(b"-----BEGIN"):
            found[lines[1]] = found[base64.b64encode(data)[48:112]] = f"the key of {path}"
    for secret in re.findall(rb'"secret":\s*"([^"]+)"', host.read(ENCRYPTION) or b""):
        found[secret] = "a key with which Secrets are stored"
    return found


def marks(host: Host) -> List[bytes]:
    """What stands in every kubeconfig of this cluster: its authority, of which the middle is like no other's."""
    whole = [base64.b64encode(host.read(path) or b"") for path in AUTHORITIES]
    return [one[len(one) // 2 :][:64] for one in whole if one]


def held(path: str, size: int, found: Needles, ours: List[bytes], host: Host) -> str:
    """What of the cluster's a file holds; nothing where it holds nothing."""
    data = (host.read(path) or b"") if size <= LARGEST else b""
    for needle, what in found.items():
        if needle in data:
            return what
    if LETS_IN.search(data) and any(mark in data for mark in ours):
        return "a key or token of somebody in this cluster"
    return _database(host.path(path))


def _database(real: str) -> str:
    """A database as such, or the first file in an archive, as K3s packs its snapshots."""
    with open(real, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        head = file.read(WITHIN)
        if head.startswith(b"PK"):
            return COPY if _unpacked(file)[16:20] == BOLT else ""
        if head[16:20] == BOLT:
            with contextlib.closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as whole:
                return COPY if whole.find(b"members_removed") >= 0 else ""
    return COPY if head.startswith(SQLITE) and b"kine" in head else ""


def _unpacked(file: IO[bytes]) -> bytes:
    try:
        with zipfile.ZipFile(file) as archive, archive.open(archive.infolist()[0]) as inner:
            return inner.read(WITHIN)
    except (zipfile.BadZipFile, IndexError, RuntimeError, NotImplementedError):
        return b""
