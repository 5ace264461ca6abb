"""What a caller without credentials gets: judged on a real server on loopback."""

from __future__ import annotations

import errno
import http.client
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from unit import cluster_server
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.kinds import http as kind


class Handler(http.server.BaseHTTPRequestHandler):
    """401 but for /open."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/open" else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, key = cluster_server.certificate()
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(key + made)
    return path


@contextmanager
def serving(certificate: Path, client_required: bool) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if client_required:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("path", "ok"), [("/api", True), ("/open", False)])
def test_the_status_decides(tmp_path: Path, certificate: Path, path: str, ok: bool) -> None:
    with serving(certificate, client_required=False) as port:
        setting: Any = {"address": "127.0.0.1", "port": port, "path": path, "status": [401, 403]}
        assert kind.assess(setting, kind.observe([setting], FakeHost(tmp_path))[0]).ok is ok


@pytest.mark.parametrize("required", [True, False])
def test_a_handshake_must_fail_for_want_of_a_certificate(tmp_path: Path, certificate: Path, required: bool) -> None:
    with serving(certificate, client_required=required) as port:
        setting: Any = {"address": "127.0.0.1", "port": port, "tls": "refused"}
        assert kind.assess(setting, kind.observe([setting], FakeHost(tmp_path))[0]).ok is required


def test_another_tls_failure_is_not_a_refusal() -> None:
    assert not kind.assess(
        {"address": "a", "port": 1, "tls": "refused"}, {"tls": "refused", "why": "WRONG_VERSION_NUMBER"}
    ).ok


def test_silence_is_not_evaluated_unless_declared(tmp_path: Path) -> None:
    setting: Any = {"address": "127.0.0.1", "port": 1, "status": [401]}
    seen = kind.observe([setting], FakeHost(tmp_path))[0]
    with pytest.raises(Unavailable, match="k3s"):
        kind.assess(setting, seen)
    setting["may_be_unreachable"] = True
    assert kind.assess(setting, seen).ok


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "k3s"),
        (TimeoutError("timed out"), "vantage"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "vantage"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "vantage"),
        (socket.gaierror(-2, "Name or service not known"), "vantage"),
    ],
)
def test_what_cannot_be_reached_from_here_is_told_from_what_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: OSError, code: str
) -> None:
    def connect(_: object) -> None:
        raise raised

    monkeypatch.setattr(http.client.HTTPSConnection, "connect", connect)
    setting: Any = {"address": "192.0.2.1", "port": 6443, "status": [401]}
    with pytest.raises(Unavailable) as why:
        kind.assess(setting, kind.observe([setting], FakeHost(tmp_path))[0])
    assert why.value.code == code


def test_a_connection_that_breaks_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_: object) -> None:
        raise ConnectionResetError(errno.ECONNRESET, "reset by peer")

    monkeypatch.setattr(http.client.HTTPSConnection, "connect", connect)
    setting: Any = {"address": "192.0.2.1", "port": 6443, "status": [401]}
    verdict = kind.assess(setting, kind.observe([setting], FakeHost(tmp_path))[0])
    assert (verdict.ok, "broke" in verdict.reason) == (False, True)


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        ({"status": 404}, "it answers 404"),
        ({"status": 200}, "a caller without credentials gets through"),
        ({"status": 302}, "a caller without credentials gets through"),
        ({"tls": "refused", "why": "WRONG_VERSION_NUMBER"}, "the connection broke: WRONG_VERSION_NUMBER"),
    ],
)
def test_what_is_wrong_is_told_as_it_is(seen: dict[str, object], says: str) -> None:
    verdict = kind.assess({"address": "a", "port": 6443, "status": [401]}, seen)
    assert (verdict.ok, verdict.reason) == (False, says)


def test_a_server_that_starts_is_not_open() -> None:
    with pytest.raises(Unavailable, match="answers 503: it is starting"):
        kind.assess({"address": "a", "port": 6443, "status": [401]}, {"status": 503})
    assert not kind.assess({"address": "a", "port": 2379, "tls": "refused"}, {"status": 503}).ok
