"""Whether an authority signed what a node proves itself by, as TLS itself answers it: a handshake within this process.

The kubelet's two certificates talk to each other, and one of them trusts nobody but the authority in question. Nothing
leaves the process. Sources: RFC 8446; OpenSSL, X509_VERIFY_PARAM_set_flags(3); K3s, pkg/agent/config, for what an agent
has.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from typing import Iterator

from ..formats import der
from ..host.machine import Host

AGENT = "/var/lib/rancher/k3s/agent"
CLIENT, SERVING = f"{AGENT}/client-kubelet", f"{AGENT}/serving-kubelet"
"""The certificate and key with which a kubelet asks the API server, and those with which it answers it."""
DIRECT, ANY_DAY = 0x80000, 0x200000
"""X509_V_FLAG_PARTIAL_CHAIN: an authority below others is enough; X509_V_FLAG_NO_CHECK_TIME: and may have ended."""
TURNS = 8
"""More than a handshake takes."""


def by(authority: bytes, name: str, host: Host) -> bool:
    """Whether an authority (DER) signed the certificate CLIENT or SERVING itself, without one in between."""
    try:
        asking, answering = _context(CLIENT, host), _context(SERVING, host)
        doubting = answering if name == CLIENT else asking
        doubting.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(authority))
        doubting.verify_mode = ssl.CERT_REQUIRED
        doubting.verify_flags |= DIRECT | ANY_DAY
        return _meet(asking, answering)
    except (OSError, ValueError):  # ssl's own errors are such, too
        return False


def _context(name: str, host: Host) -> ssl.SSLContext:
    """One end of the connection, which trusts whomever it meets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if name == CLIENT else ssl.PROTOCOL_TLS_SERVER)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with _first_of(host.read(f"{name}.crt") or b"") as path:
        context.load_cert_chain(path, host.path(f"{name}.key"))
    return context


@contextlib.contextmanager
def _first_of(data: bytes) -> Iterator[str]:
    """A file in memory with the first certificate alone: those after it would stand in between."""
    memory = os.memfd_create("certificate")
    try:
        for _, block in der.blocks(data)[:1]:
            os.write(memory, ssl.DER_cert_to_PEM_cert(block).encode())
        yield f"/proc/self/fd/{memory}"
    finally:
        os.close(memory)


def _meet(asking: ssl.SSLContext, answering: ssl.SSLContext) -> bool:
    """Whether a handshake succeeds. Raises SSLError where an end refuses the other."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = [asking.wrap_bio(back, there), answering.wrap_bio(there, back, server_side=True)]
    for _ in range(TURNS):
        for end in list(left):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                left.remove(end)
    return not left
