"""Attacks on the API server and on etcd: what a stranger, a forged identity and a thief of the database get."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from .conftest import Kubectl, python_on
from .planted import folder, planted

TLS = "/var/lib/rancher/k3s/server/tls"
ETCD_HTTP = 2382  # K3s serves etcd's JSON gateway on a loopback port of its own
CALL = """
import http.client, json, ssl, sys
port, path, certificate, key = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
if certificate:
    context.load_cert_chain(certificate, key)
caller = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
try:
    caller.connect()
    if not certificate:  # in TLS 1.3 the refusal is an alert on the first read
        caller.sock.settimeout(1)
        try:
            caller.sock.recv(1)
        except TimeoutError:
            caller.sock.settimeout(10)
    body = sys.argv[5] if len(sys.argv) > 5 and sys.argv[5] else None
    caller.request("POST" if body else "GET", path, body, {"Content-Type": "application/json"})
    answer = caller.getresponse()
    print(json.dumps({"status": answer.status, "body": answer.read().decode("utf-8", "replace")[:200000]}))
except (OSError, http.client.HTTPException) as refused:
    print(json.dumps({"status": 0, "body": str(refused)}))
"""


def call(host: Host, port: int, path: str, certificate: str = "", key: str = "", body: str = "") -> tuple[int, str]:
    answer = json.loads(python_on(host, CALL, str(port), path, certificate, key, body))
    return answer["status"], answer["body"]


@pytest.mark.control("API-STRANGER-REFUSED", "API-ANONYMOUS-OFF", "API-METRICS-REFUSED")
@pytest.mark.parametrize("path", ["/api", "/api/v1/secrets", "/apis", "/metrics", "/version", "/openapi/v2"])
def test_an_anonymous_caller_learns_nothing(server: Host, path: str) -> None:
    assert call(server, 6443, path)[0] == 401


@pytest.mark.control("API-STRANGER-REFUSED", "API-ANONYMOUS-OFF")
def test_a_certificate_of_a_foreign_authority_is_nobody(server: Host) -> None:
    with folder(server) as made:
        server.check_output(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
            "-subj /O=system:masters/CN=admin -keyout %s/key -out %s/crt",
            made,
            made,
        )
        status, body = call(server, 6443, "/api/v1/namespaces", f"{made}/crt", f"{made}/key")
    assert status == 401 or "certificate" in body.lower()
    assert "kube-system" not in body


@pytest.mark.control("ETCD-STRANGER-REFUSED", "API-ETCD-CLIENT-CERTIFICATE", "API-ETCD-CA-VERIFIED")
@pytest.mark.parametrize("path", ["/version", "/v3/kv/range"])
def test_etcd_refuses_a_caller_without_a_certificate(server: Host, path: str) -> None:
    status, body = call(server, 2379, path)
    assert status == 0
    assert "certificate" in body.lower()


@pytest.mark.control("ETCD-PEER-REFUSED")
def test_etcd_refuses_a_peer_without_a_certificate(server: Host) -> None:
    status, body = call(server, 2380, "/members")
    assert status == 0
    assert "certificate" in body.lower()


@pytest.mark.control(
    "API-KUBECONFIG-PRIVATE", "API-KUBECONFIG-MODE-SET", "API-SERVER-TOKEN-PRIVATE", "API-KEYS-PRIVATE",
    "API-CREDENTIALS-PRIVATE", "ETCD-KEYS-PRIVATE", "ETCD-DATA-PRIVATE", "ETCD-ENCRYPTION-KEY-PRIVATE",
    "API-CERTIFICATES-PRIVATE", "API-MANIFESTS-PRIVATE", "ETCD-SNAPSHOTS-PRIVATE", "API-AUDIT-FOLDER-PRIVATE",
)  # fmt: skip
def test_an_ordinary_account_reads_no_credential(server: Host) -> None:
    """Log in as nobody in particular and try: reading is the proof, not the mode."""
    readable = server.run(
        "setpriv --reuid=65534 --regid=65534 --clear-groups -- sh -c %s",
        "cat /etc/rancher/k3s/k3s.yaml /etc/rancher/k3s/config.yaml.d/* /etc/rancher/k3s/agent-token "
        f"/var/lib/rancher/k3s/server/token {TLS}/*.key {TLS}/etcd/*.key /var/lib/rancher/k3s/server/cred/* "
        "/var/lib/rancher/k3s/server/db/etcd/member/snap/db /var/log/k3s/audit.log 2>/dev/null | head -c 100",
    )
    assert readable.stdout == ""
    loose = server.check_output(
        "sh -c %s",
        "find /etc/rancher/k3s /var/lib/rancher/k3s/server/cred /var/lib/rancher/k3s/server/tls "
        "/var/lib/rancher/k3s/server/token -type f -perm /077 ! -path '*/tls/*/*.crt' 2>/dev/null || true",
    )
    assert loose == ""


@pytest.fixture
def secret(api: Host, kubectl: Kubectl) -> Iterator[tuple[str, str]]:
    """(name, file with the canary) of a Secret. The canary is made on the host: sudo logs command lines."""
    name = f"casemate-{secrets.token_hex(4)}"
    gone = f"k3s kubectl delete secret {name} -n default --ignore-not-found"
    with folder(api) as made, planted(api, "true", gone):
        path = f"{made}/canary"
        api.check_output("sh -c %s", f"od -An -tx1 -N16 /dev/urandom | tr -d ' \\n' > {path}")
        kubectl("create", "secret", "generic", name, "-n", "default", f"--from-file=canary={path}")
        yield name, path


@pytest.mark.control("ETCD-SECRETS-ENCRYPTED", "ETCD-CIPHER-STRONG", "ETCD-ENCRYPTION-ACTIVE", "API-ENCRYPTION-RUNNING")
def test_a_secret_is_unreadable_in_raw_etcd(api: Host, secret: tuple[str, str]) -> None:
    name, path = secret
    key = base64.b64encode(f"/registry/secrets/default/{name}".encode()).decode()
    certificate, private = f"{TLS}/etcd/client.crt", f"{TLS}/etcd/client.key"
    status, body = call(api, ETCD_HTTP, "/v3/kv/range", certificate, private, json.dumps({"key": key}))
    assert status == 200, body
    raw = base64.b64decode(json.loads(body)["kvs"][0]["value"])
    canary = api.file(path).content
    assert raw.startswith(b"k8s:enc:")
    assert canary not in raw
    assert base64.b64encode(canary) not in raw


@pytest.mark.control("ETCD-SECRETS-REWRITTEN")
def test_no_secret_at_all_is_readable_in_raw_etcd(api: Host, secret: tuple[str, str]) -> None:
    """Also those from before encryption: whoever has the database has them all."""
    certificate, private = f"{TLS}/etcd/client.crt", f"{TLS}/etcd/client.key"
    first, end = (base64.b64encode(key).decode() for key in (b"/registry/secrets/", b"/registry/secrets0"))
    body = {"key": first, "range_end": end, "keys_only": True}
    status, said = call(api, ETCD_HTTP, "/v3/kv/range", certificate, private, json.dumps(body))
    assert status == 200, said
    keys = [one["key"] for one in json.loads(said)["kvs"]]
    assert any(base64.b64decode(key).decode().endswith(secret[0]) for key in keys)
    clear = []
    for key in keys:
        _, said = call(api, ETCD_HTTP, "/v3/kv/range", certificate, private, json.dumps({"key": key}))
        if not base64.b64decode(json.loads(said)["kvs"][0]["value"][:16]).startswith(b"k8s:enc:"):
            clear.append(base64.b64decode(key).decode())
    assert clear == []


@pytest.mark.control("ETCD-COPIES-ENCRYPTED", "ETCD-SNAPSHOTS-ENCRYPTED")
def test_a_thief_of_a_copy_of_the_database_reads_no_secret(api: Host) -> None:
    """What lies beside the database is what a backup of the disk takes along."""
    program = (
        "import glob, re\n"
        "for path in glob.glob('/var/lib/rancher/k3s/server/db/**', recursive=True):\n"
        "    if '/db/etcd/' in path: continue\n"
        "    try: data = open(path, 'rb').read()\n"
        "    except OSError: continue\n"
        "    if re.search(rb'/registry/secrets/[^\\n]{1,300}k8s\\x00\\n', data): print(path)\n"
    )
    assert python_on(api, program) == ""


@pytest.mark.control("API-AUDIT-POLICY-PRESENT", "API-AUDIT-POLICY-SET", "API-AUDIT-LOG-SET")
def test_an_action_is_audited_and_a_secret_value_never_is(api: Host, kubectl: Kubectl, secret: tuple[str, str]) -> None:
    name, path = secret
    kubectl("get", "secret", name, "-n", "default", "-o", "json")
    kubectl("delete", "secret", name, "-n", "default")
    assert int(api.check_output("grep -c %s /var/log/k3s/audit.log", name)) >= 3
    search = f"base64 -w0 {path} > {path}.64; for f in {path} {path}.64; do grep -rqsf $f /var/log && exit 1; done; "
    search += f"journalctl -b -o cat | grep -qf {path} -f {path}.64 && exit 2; true"
    assert api.run("sh -c %s", search).rc == 0


@pytest.mark.control("API-TLS-MINIMUM-SET")
def test_an_old_tls_version_is_refused(server: Host) -> None:
    program = (
        "import socket, ssl, warnings; warnings.simplefilter('ignore'); c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT);"
        "c.check_hostname = False; c.verify_mode = ssl.CERT_NONE; c.set_ciphers('ALL:@SECLEVEL=0');"
        "c.minimum_version = ssl.TLSVersion.TLSv1; c.maximum_version = ssl.TLSVersion.TLSv1_1\n"
        "try:\n    c.wrap_socket(socket.create_connection(('127.0.0.1', 6443), 5)); print('in')\n"
        "except ssl.SSLError: print('refused')"
    )
    assert python_on(server, program).strip() == "refused"
