"""A registry of images that is only read: what is in an archive of images, by TLS, under any names.

    registry.py ADDRESS PORT CERTIFICATE KEY ARCHIVE TAGS

ARCHIVE is what `ctr images export` writes (an OCI layout in a tar). TAGS is a file of JSON, read anew at each request,
so that a tag moves once the file says so: {"org/app": {"1": "sha256:…"}}. A digest is served in each repository that
is named there, and in no other. Who asks, and for what, is told on standard error. Standard library only.
"""

from __future__ import annotations

import http.server
import json
import re
import ssl
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

API = r"/v2/(.+)/(manifests|blobs)/([^/?]+)(\?.*)?"


def blobs(archive: str) -> dict[str, bytes]:
    """Digest -> what an archive has of it."""
    with tarfile.open(archive) as opened:
        files = [one for one in opened if one.isfile() and one.name.startswith("blobs/sha256/")]
        return {f"sha256:{one.name[-64:]}": opened.extractfile(one).read() for one in files}  # type: ignore[union-attr]


def server(address: str, port: int, certificate: str, key: str, archive: str, tags: str) -> http.server.HTTPServer:
    """The registry, not yet serving."""
    held = blobs(archive)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = re.fullmatch(API, self.path)
            known: dict[str, Any] = json.loads(Path(tags).read_text())
            repository, what, name = asked.group(1, 2, 3) if asked else ("", "", "")
            data = held.get(known.get(repository, {}).get(name, name), b"") if repository in known else b""
            if self.path == "/v2/":
                data = b"{}"
            self.send_response(200 if data else 404)
            if what == "manifests" and data:
                self.send_header("Content-Type", json.loads(data).get("mediaType", "application/octet-stream"))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815

    made = http.server.ThreadingHTTPServer((address, port), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    made.socket = context.wrap_socket(made.socket, server_side=True)
    return made


def certify(folder: Path, names: list[str], address: str) -> None:
    """Make an authority (ca.pem), and a certificate of it for a registry (server.pem, server.key)."""
    about = ",".join([f"DNS:{name}" for name in names] + [f"IP:{address}"])
    (folder / "about").write_text(f"subjectAltName={about}\n")
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    ca = ["-x509", "-days", "9", "-subj", "/CN=the story's authority", "-keyout", "ca.key", "-out", "ca.pem"]
    asks = ["-subj", "/CN=registry", "-keyout", "server.key", "-out", "server.csr"]
    sign = ["openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    sign += ["-days", "9", "-extfile", "about", "-out", "server.pem"]
    for argv in ([*new, *ca], [*new, *asks], sign):
        subprocess.run(argv, cwd=folder, check=True, capture_output=True)


if __name__ == "__main__":
    where, at, *files = sys.argv[1:]
    server(where, int(at), *files).serve_forever()
