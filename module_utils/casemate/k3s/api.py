"""Connections to the API server and to K3s' supervisor, with the credentials that K3s keeps on the host.

On a server that is the administrator's client certificate, over loopback; an agent has what its kubelet has, and its
token. Source for the supervisor: K3s, pkg/server/auth/auth.go.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
from typing import Any
from urllib.parse import urlsplit

from ..core.verdict import Unavailable
from ..host.machine import Host

TLS = "/var/lib/rancher/k3s/server/tls/"
AGENT = "/var/lib/rancher/k3s/agent/"
TIMEOUT = 10.0
REFUSALS = (401, 403)
"""The API server is there, and refuses the caller: nothing that would become better by waiting."""


class Api:
    """A connection to an API server of the cluster, this host's own by default, as its administrator."""

    CA, CLIENT, LACKING = TLS + "server-ca.crt", TLS + "client-admin", "there is no API server on this host yet"
    ACCEPT = "application/json"

    def __init__(self, host: Host, address: str = "127.0.0.1", port: int = 6443, timeout: float = TIMEOUT) -> None:
        """Connect lazily; raises Unavailable where the certificate is not there, since no server has run."""
        if host.stat(self.CLIENT + ".key") is None:
            raise Unavailable("k3s", self.LACKING)
        try:
            context = ssl.create_default_context(cafile=host.path(self.CA))
            context.load_cert_chain(host.path(self.CLIENT + ".crt"), host.path(self.CLIENT + ".key"))
        except ssl.SSLError as broken:
            what = f"{self.CLIENT}.crt, its key or {self.CA} cannot be used: {broken.reason or broken}"
            raise Unavailable("refused", what) from broken
        self.connection = http.client.HTTPSConnection(address, port, timeout=timeout, context=context)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """(status, parsed answer). Raises Unavailable when the API server does not answer.

        Its code is `refused` where the server has another authority than this host trusts: it is another cluster's.
        """
        content = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        headers = {"Accept": self.ACCEPT, "Content-Type": content}
        try:
            self.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = self.connection.getresponse()
            raw = answer.read()
        except ssl.SSLCertVerificationError as untrusted:
            self.connection.close()
            why = f"the API server's certificate is not of the authority {self.CA}: {untrusted.verify_message}"
            raise Unavailable("refused", why) from untrusted
        except (OSError, http.client.HTTPException) as silent:
            self.connection.close()
            raise Unavailable("k3s", f"the API server does not answer: {silent}") from silent
        if answer.status == 429 or answer.status >= 500:  # it starts, or its etcd has no majority
            raise Unavailable("k3s", f"the API server answers {answer.status}")
        try:
            return answer.status, json.loads(raw)
        except ValueError:
            return answer.status, {}

    def get(self, path: str) -> Any:
        """The object at a path. Raises Unavailable for any answer but success, with `refused` for a refusal."""
        status, answer = self.call("GET", path)
        if status != 200:
            raise unanswered(path, status, answer)
        return answer


class Names(Api):
    """A connection that gets the metadata of a list's objects and nothing else of them: not what a Secret holds."""

    ACCEPT = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


class Kubelet(Api):
    """The API server as the kubelet of this host reaches it: all that an agent has."""

    CA, CLIENT = AGENT + "server-ca.crt", AGENT + "client-kubelet"
    LACKING = "the kubelet has no credentials yet"

    def __init__(self, host: Host) -> None:
        """Take the address from the kubelet's own configuration; raises Unavailable while there is none."""
        found = re.search(r"server: https://([^\s/]+):(\d+)", host.text(AGENT + "kubelet.kubeconfig") or "")
        if found is None:
            raise Unavailable("k3s", self.LACKING)
        super().__init__(host, found[1].strip("[]"), int(found[2]), 5.0)


def takes(host: Host, server: str, credentials: str = "") -> bool:
    """Whether K3s' supervisor at `server` (a URL) takes credentials, `user:password`; with none, whether it is there.

    It answers 401 to a wrong password, and 403 to a right one without the right. Nothing is sent to a server of another
    authority than this node's. Raises Unavailable: `refused` for such a server, `k3s` for one that is silent.
    """
    if host.stat(Kubelet.CA) is None:
        raise Unavailable("k3s", "this node has not joined a cluster yet")
    where, context = urlsplit(server), ssl.create_default_context(cafile=host.path(Kubelet.CA))
    connection = http.client.HTTPSConnection(where.hostname or "", where.port, timeout=TIMEOUT, context=context)
    coded = base64.b64encode(credentials.encode("utf-8", "surrogateescape")).decode()
    headers = {"Authorization": f"Basic {coded}"} if credentials else {}
    try:
        connection.request("GET", "/v1-k3s/server-ca.crt" if credentials else "/ping", headers=headers)
        status = connection.getresponse().status
    except ssl.SSLCertVerificationError as untrusted:
        why = f"{server} is another cluster's than this node: its certificate is not of the authority {Kubelet.CA}"
        raise Unavailable("refused", why) from untrusted
    except (OSError, http.client.HTTPException) as silent:
        raise Unavailable("k3s", f"{server} does not answer: {silent}") from silent
    finally:
        connection.close()
    if status == 429 or status >= 500:
        raise Unavailable("k3s", f"{server} answers {status}")
    return status != 401


def unanswered(path: str, status: int, answer: Any) -> Unavailable:
    """What an answer other than success means: that the caller is refused, or that K3s is not up to it."""
    said = answer.get("message") if isinstance(answer, dict) else ""
    why = f"GET {path}: HTTP {status}" + (f": {str(said)[:200]}" if said else "")
    return Unavailable("refused" if status in REFUSALS else "k3s", why)
