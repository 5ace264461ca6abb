"""Reading this server's etcd by its JSON gateway, which K3s serves on loopback, with the API server's own certificate.

Source: etcd, api/etcdserverpb/rpc.proto (keys and values are base64) and K3s, pkg/etcd/etcd.go: port 2382.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Any

from ..core.verdict import Unavailable
from ..host.machine import Host
from .api import TIMEOUT, TLS

CA, CLIENT = TLS + "etcd/server-ca.crt", TLS + "etcd/client"
PORT = 2382
AT_GATEWAY = (
    f"--server https://127.0.0.1:{PORT} --certificate-authority {CA} "
    f"--client-certificate {CLIENT}.crt --client-key {CLIENT}.key"
)
"""Options of kubectl that have it ask etcd instead of the API server."""
PAGE = 100
"""Keys of one answer. A Secret holds 1 MiB at most, so an answer stays below 150 MiB, and is let go before the next."""


def removal(member: str) -> str:
    """The command that removes a member by its number, on a server: what K3s itself does only with a Node.

    It is of what K3s brings, since curl and etcdctl need not be there: kubectl posts a body to any path of any server.
    """
    return f'`echo \'{{"ID": "{member}"}}\' | k3s kubectl create --raw /v3/cluster/member/remove {AT_GATEWAY} -f -`'


class Etcd:
    """A connection to the member of etcd on this host."""

    def __init__(self, host: Host) -> None:
        """Connect lazily; raises Unavailable where no etcd of K3s has run."""
        if host.stat(CLIENT + ".key") is None:
            raise Unavailable("k3s", "there is no etcd on this host yet")
        context = ssl.create_default_context(cafile=host.path(CA))
        context.load_cert_chain(host.path(CLIENT + ".crt"), host.path(CLIENT + ".key"))
        self.connection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=TIMEOUT, context=context)

    def call(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to one request. Raises Unavailable where there is none, or it is none of success."""
        try:
            self.connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = self.connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException) as silent:
            self.connection.close()
            raise Unavailable("k3s", f"etcd does not answer: {silent}") from silent
        if answer.status != 200:
            raise Unavailable("k3s", f"etcd answers {answer.status} to {path}")
        return json.loads(raw)

    def members(self) -> list[dict[str, Any]]:
        """The members, as etcd tells them: `name`, `peerURLs`, and `isLearner` where it has no vote yet."""
        found: list[dict[str, Any]] = self.call("/v3/cluster/member/list", {}).get("members") or []
        return found

    def below(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Each key below a prefix with its value, page by page as they are at one revision."""
        key, end, revision = prefix, prefix[:-1] + bytes([prefix[-1] + 1]), 0
        while True:
            asked = {"key": _coded(key), "range_end": _coded(end), "limit": PAGE, "revision": revision}
            answer = self.call("/v3/kv/range", asked)
            revision = revision or int(answer["header"]["revision"])
            found = answer.get("kvs") or []
            for one in found:
                yield base64.b64decode(one["key"]), base64.b64decode(one.get("value") or "")
            if not answer.get("more") or not found:
                return
            key = base64.b64decode(found[-1]["key"]) + b"\0"


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode()
