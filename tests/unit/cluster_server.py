"""A server on loopback that answers as K3s' API server and supervisor do, with an authority of its own, for tests."""

from __future__ import annotations

import base64
import datetime
import http.server
import ipaddress
import json
import ssl
import threading
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = tuple[int, Any]


def certificate() -> tuple[bytes, bytes]:
    """(certificate, private key) of a new authority that is the server's certificate for 127.0.0.1 too, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"k3s-{id(key)}")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private


class ClusterServer:
    """Answers `answers[path]`, or 404; below /v1-k3s/ it asks for one of `passwords`, user:password, as K3s does."""

    def __init__(self, folder: Path) -> None:
        self.answers: dict[str, Answer] = {}
        self.passwords: set[str] = set()
        self.asked: list[tuple[str, str, Any]] = []
        self.authority, self.key = certificate()
        both = folder / f"server-{id(self)}.pem"
        both.write_bytes(self.key + self.authority)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(both)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def _answer(self, path: str, header: str) -> Answer:
        if path.startswith("/v1-k3s/") and path not in self.answers:
            return (
                (200, {}) if base64.b64decode(header.removeprefix("Basic ")).decode() in self.passwords else (401, {})
            )
        return self.answers.get(path, (200, {}) if path == "/ping" else (404, {"message": f"{path} not found"}))

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
                outer.asked.append((self.command, self.path, body))
                status, answer = outer._answer(self.path, self.headers.get("Authorization") or "")
                answer = answer(body) if callable(answer) else answer
                raw = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PATCH = do_PUT = reply  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler
