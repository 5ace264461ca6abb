"""The authorities and keys by which the cluster knows who somebody is, and which of them K3s does not hold itself.

K3s has the private half of each of its authorities beside the certificate, and signs tokens of service accounts with
one key; whatever else stands in these files was given to it, or put there. The API server reads the files anew whenever
they change. Sources: K3s documentation, `k3s certificate`; kube-apiserver's --client-ca-file and
--service-account-key-file.
"""

from __future__ import annotations

import hashlib
from typing import Callable, Iterator

from ..core.vouched_for import Stranger
from ..formats import der
from ..host.machine import Host

SERVER, AGENT = "/var/lib/rancher/k3s/server/tls", "/var/lib/rancher/k3s/agent"
NAMES = ("client", "server", "request-header", "etcd/peer", "etcd/server")
HELD = {
    **{f"{SERVER}/{name}-ca.crt": f"{SERVER}/{name}-ca.key" for name in NAMES},
    **{f"{AGENT}/{name}-ca.crt": f"{SERVER}/{name}-ca.key" for name in ("client", "server")},
}
"""File of authorities -> the key that its own one has."""
TOKENS, SIGNING = f"{SERVER}/service.key", f"{SERVER}/service.current.key"


def strangers(host: Host) -> Iterator[Stranger]:
    """By path and line: authorities of another key than K3s', and keys by which tokens count and none is signed."""
    for path, key in HELD.items():
        yield from _of_others(path, der.of_certificate, key, "the authority is not of the key", host)
    yield from _of_others(TOKENS, der.of_key, SIGNING, "tokens of that key count, and none is signed but with", host)


def _of_others(path: str, half: Callable[[bytes], bytes], key: str, why: str, host: Host) -> Iterator[Stranger]:
    """What stands in a file and has another public half than a key."""
    data = host.read(path) or b""
    own = [der.public(der.of_key, block) for _, block in der.blocks(host.read(key) or b"")]
    for line, block in der.blocks(data):
        public = der.public(half, block)
        if not public or public not in own:
            yield Stranger(f"{path}:{line}", f"{why} {key}", "sha256:" + hashlib.sha256(public).hexdigest())
