"""Ask the API server of a node for pods, and make none: which of many it would admit, and what it says.

Runs as root on a server: it gets {"objects": {path: object, made for as long as it takes}, "pods": [pod, ...]} on its
standard input, and prints a list of [admitted, message]. Standard library only, Python 3.9.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import time
from typing import Any

TLS = "/var/lib/rancher/k3s/server/tls"
PODS = "/api/v1/namespaces/default/pods?dryRun=All"


def main() -> None:
    """Make the objects, ask for each pod, and take the objects away."""
    given = json.load(sys.stdin)
    context = ssl.create_default_context(cafile=f"{TLS}/server-ca.crt")
    context.load_cert_chain(f"{TLS}/client-admin.crt", f"{TLS}/client-admin.key")
    connection = http.client.HTTPSConnection("127.0.0.1", 6443, context=context, timeout=30)

    def call(method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    for path, made in given["objects"].items():
        status, said = call("POST", path, made)
        if status != 201:
            raise SystemExit(f"{path}: {said}")
    try:
        time.sleep(5)  # until the API server goes by them
        found = [call("POST", PODS, pod) for pod in given["pods"]]
    finally:
        for path, made in given["objects"].items():
            call("DELETE", f"{path}/{made['metadata']['name']}")
    print(json.dumps([[status == 201, said.get("message", "")] for status, said in found]))


if __name__ == "__main__":
    main()
