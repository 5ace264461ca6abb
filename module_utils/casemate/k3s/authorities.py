"""The authorities and keys by which the cluster knows who somebody is, and which of them K3s does not hold itself.

K3s has the private half of each of its authorities beside the certificate, and signs tokens of service accounts with
one key; whatever else stands in these files was given to it, or put there. An agent has no such half: there an
authority is the cluster's that signed what the node's own kubelet proves itself by, as no other one can have. The API
server and the kubelet read the files anew whenever they change. Sources: K3s documentation, `k3s certificate`;
kube-apiserver's --client-ca-file and --service-account-key-file; the kubelet's authentication.x509.clientCAFile.
"""

from __future__ import annotations

import hashlib
from typing import Callable, Iterable, Iterator

from ..core.vouched_for import Stranger
from ..formats import der
from ..host.machine import Host
from . import signed

SERVER, AGENT = "/var/lib/rancher/k3s/server/tls", signed.AGENT
NAMES = ("client", "server", "request-header", "etcd/peer", "etcd/server")
SIGNED = {f"{AGENT}/client-ca.crt": signed.CLIENT, f"{AGENT}/server-ca.crt": signed.SERVING}
"""File of authorities on every node -> what of the kubelet's its own one signed."""
HELD = {
    **{f"{SERVER}/{name}-ca.crt": f"{SERVER}/{name}-ca.key" for name in NAMES},
    **{f"{AGENT}/{name}-ca.crt": f"{SERVER}/{name}-ca.key" for name in ("client", "server")},
}
"""File of authorities -> the key that its own one has, on a server."""
TOKENS, SIGNING = f"{SERVER}/service.key", f"{SERVER}/service.current.key"
BY_HAND = "by hand: delete that block of the file, which is read anew at once"
FETCHED = "by hand: delete the file and restart K3s, which fetches its own"


def strangers(paths: Iterable[str], host: Host) -> Iterator[Stranger]:
    """By path and line: authorities that are not K3s' own, and keys by which tokens count and none is signed."""
    for path in paths:
        key = HELD.get(path, SIGNING)
        if path == TOKENS:
            why = f"tokens of that key count, and none is signed but with {SIGNING}; {BY_HAND}"
            yield from _of_others(path, der.of_key, key, why, host)
        elif path in SIGNED and host.read(key) is None:
            yield from _of_no_use(path, SIGNED[path], host)
        else:
            by_hand = FETCHED if path in SIGNED else BY_HAND
            why = f"the authority is not of the key {key}; {by_hand}"
            yield from _of_others(path, der.of_certificate, key, why, host)


def _of_others(path: str, half: Callable[[bytes], bytes], key: str, why: str, host: Host) -> Iterator[Stranger]:
    """What stands in a file and has another public half than a key."""
    data = host.read(path) or b""
    own = [der.public(der.of_key, block) for _, block in der.blocks(host.read(key) or b"")]
    for line, block in der.blocks(data):
        public = der.public(half, block)
        if not public or public not in own:
            yield _stranger(path, line, public, why)


def _of_no_use(path: str, name: str, host: Host) -> Iterator[Stranger]:
    """Authorities that did not sign a certificate of this node."""
    for line, block in der.blocks(host.read(path) or b""):
        public = der.public(der.of_certificate, block)
        if not public or not signed.by(block, name, host):
            yield _stranger(path, line, public, f"the authority did not sign {name}.crt; {FETCHED}")


def _stranger(path: str, line: int, public: bytes, why: str) -> Stranger:
    return Stranger(f"{path}:{line}", why, "sha256:" + hashlib.sha256(public).hexdigest())
