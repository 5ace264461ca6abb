"""A registry is asked by TLS to what a tag leads, and whatever it answers is taken for that only where it can be."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.cluster_server import certificate

from casemate.supply import registry
from casemate.supply.registry import Answer, Asker, Unanswered

CONFIG = f"sha256:{'c' * 64}"
PLATFORM = "linux/amd64"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry:
    """Answers with what it `has` by path, or sends elsewhere; it may demand what it accepts as a login."""

    def __init__(self, folder: Path) -> None:
        self.has: dict[str, bytes] = {}
        self.sends: dict[str, str] = {}
        self.demands, self.accepts = "", ""
        self.asked: list[tuple[str, str]] = []
        authority, key = certificate()
        self.authority, both = folder / "ca.pem", folder / "both.pem"
        self.authority.write_bytes(authority)
        both.write_bytes(key + authority)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(both)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.entry = {"host": self.host, "ca_file": str(self.authority)}
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                login = self.headers.get("Authorization") or ""
                outer.asked.append((self.path, login))
                data = outer.has.get(self.path)
                closed = bool(outer.demands) and login != outer.accepts and self.path.startswith("/v2/")
                code = 401 if closed else 307 if self.path in outer.sends else 404 if data is None else 200
                self.send_response(code)
                if closed:
                    self.send_header("WWW-Authenticate", outer.demands)
                if code == 307:
                    self.send_header("Location", outer.sends[self.path])
                body = data if code == 200 and data is not None else b"{}"
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler

    def manifest(self, name: str, config: str = CONFIG) -> str:
        """Have a manifest by a tag, and by its digest, which is returned."""
        data = json.dumps({"schemaVersion": 2, "config": {"digest": config}, "layers": []}).encode()
        for one in (name, sha256(data)):
            self.has[f"/v2/org/app/manifests/{one}"] = data
        return sha256(data)

    def index(self, name: str, **of: str) -> str:
        """Have an index by a tag: architecture -> digest of a manifest."""
        listed = [
            {"digest": digest, "platform": {"os": "linux", "architecture": architecture}}
            for architecture, digest in of.items()
        ]
        data = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
        self.has[f"/v2/org/app/manifests/{name}"] = data
        return sha256(data)

    def leads_to(self, tag: str = "1", platform: str = PLATFORM, **more: Any) -> Answer:
        return Asker([{**self.entry, **more}], {}).leads_to(f"{self.host}/org/app:{tag}", platform)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_tag_leads_to_a_manifest_or_by_an_index_to_that_of_a_platform(one: Registry) -> None:
    manifest = one.manifest("1")
    assert one.leads_to() == Answer((manifest,), CONFIG)
    other = one.manifest("arm", f"sha256:{'d' * 64}")
    index = one.index("2", amd64=manifest, arm64=other)
    assert one.leads_to("2") == Answer((index, manifest), CONFIG)
    assert one.leads_to("2", "linux/arm64") == Answer((index, other), f"sha256:{'d' * 64}")
    with pytest.raises(Unanswered, match="is not for linux/s390x"):
        one.leads_to("2", "linux/s390x")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<html>", "no manifest"),
        (b"[]", "no manifest"),
        (b"[" * 100_000, "no manifest"),
        (b'{"config": 5}', "no manifest"),
        (b'{"manifests": [5]}', "no manifest"),
        (b'{"config": {"digest": "latest"}}', "no manifest"),
        (b"{}", "no manifest"),
        (b" " * (registry.MOST + 1), "more than 4 MiB"),
    ],
)
def test_what_is_no_manifest_is_no_answer(one: Registry, data: bytes, said: str) -> None:
    one.has["/v2/org/app/manifests/1"] = data
    with pytest.raises(Unanswered, match=said):
        one.leads_to()


def test_a_manifest_that_is_not_what_its_index_names_is_no_answer(one: Registry) -> None:
    manifest = one.manifest("1")
    one.index("2", amd64=manifest)
    one.has[f"/v2/org/app/manifests/{manifest}"] = b'{"config": {"digest": "%s"}}' % CONFIG.encode()
    with pytest.raises(Unanswered, match=f"what it has as {manifest} is sha256:"):
        one.leads_to("2")


def test_an_index_that_leads_back_to_itself_ends(one: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "DEPTH", 1)
    inner = one.index("inner", amd64=one.manifest("1"))
    one.has[f"/v2/org/app/manifests/{inner}"] = one.has["/v2/org/app/manifests/inner"]
    one.index("2", amd64=inner)
    with pytest.raises(Unanswered, match="lead nowhere"):
        one.leads_to("2")


def test_a_tag_that_is_gone_and_a_registry_that_is_closed_say_so(one: Registry) -> None:
    with pytest.raises(Unanswered, match=f"{one.host}: it has no such name"):
        one.leads_to()
    one.demands, one.accepts = 'Basic realm="r"', "a login"
    with pytest.raises(Unanswered, match="demands a login"):
        one.leads_to()


def test_a_registry_of_another_authority_or_of_none_is_not_believed(one: Registry) -> None:
    one.manifest("1")
    with pytest.raises(Unanswered, match="it is not reached"):
        Asker([], {}).leads_to(f"{one.host}/org/app:1", PLATFORM)
    assert one.asked == []


def test_who_is_not_reached_is_asked_once(one: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def unreached(_: Any, url: str, authorization: str) -> bytes:
        tried.append(url)
        raise TimeoutError("timed out")

    monkeypatch.setattr(registry, "_read", unreached)
    asker = Asker([one.entry], {})
    for tag in ("1", "2"):
        with pytest.raises(Unanswered, match="it is not reached"):
            asker.leads_to(f"{one.host}/org/app:{tag}", PLATFORM)
    assert len(tried) == 1


def test_mirrors_are_asked_in_their_order_instead_of_the_host(one: Registry) -> None:
    data = json.dumps({"config": {"digest": CONFIG}}).encode()
    one.has["/v2/hub/org/app/manifests/1"] = data
    entry = {"host": "registry.example.org", "mirrors": [f"https://{one.host}", f"https://{one.host}/v2/hub"]}
    asker = Asker([{**entry, "ca_file": str(one.authority)}], {})
    assert asker.leads_to("registry.example.org/org/app:1", PLATFORM) == Answer((sha256(data),), CONFIG)
    assert [path for path, _ in one.asked] == ["/v2/org/app/manifests/1", "/v2/hub/org/app/manifests/1"]


@pytest.mark.parametrize("of", ["casemate_registries", "docker"])
def test_a_token_is_fetched_with_the_login_and_shown_to_the_registry_alone(
    one: Registry, tmp_path: Path, of: str
) -> None:
    one.manifest("1")
    one.demands = f'Bearer realm="https://{one.host}/token?a=b",service="r",scope="repository:org/app:pull"'
    one.accepts = "Bearer t0ken"
    one.has["/token?a=b&service=r&scope=repository%3Aorg%2Fapp%3Apull"] = b'{"token": "t0ken"}'
    basic = base64.b64encode(b"ci:canary").decode()
    (tmp_path / "login").write_text("ci:canary\n")
    (tmp_path / "login").chmod(0o600)
    (tmp_path / "config.json").write_text(json.dumps({"auths": {one.host: {"auth": basic}}}))
    entry = {**one.entry, **({"credentials_file": str(tmp_path / "login")} if of != "docker" else {})}
    asker = Asker([entry], {"DOCKER_CONFIG": str(tmp_path)} if of == "docker" else {})
    for _ in range(2):
        assert asker.leads_to(f"{one.host}/org/app:1", PLATFORM).config == CONFIG
    logins = [login for _, login in one.asked]
    assert logins == ["", f"Basic {basic}", "Bearer t0ken", "Bearer t0ken"]


def test_no_login_goes_where_a_registry_sends_to_nor_anywhere_without_tls(one: Registry, tmp_path: Path) -> None:
    (tmp_path / "login").write_text("ci:canary\n")
    (tmp_path / "login").chmod(0o600)
    login = {"credentials_file": str(tmp_path / "login")}
    one.manifest("1")
    one.demands, one.accepts = 'Basic realm="r"', f"Basic {base64.b64encode(b'ci:canary').decode()}"
    one.sends["/v2/org/app/manifests/1"] = f"https://{one.host}/elsewhere"
    one.has["/elsewhere"] = json.dumps({"config": {"digest": CONFIG}}).encode()
    assert one.leads_to(**login).config == CONFIG
    assert one.asked[-1] == ("/elsewhere", "")
    one.sends["/v2/org/app/manifests/1"] = f"http://{one.host}/elsewhere"
    with pytest.raises(Unanswered, match="without TLS") as refused:
        one.leads_to(**login)
    one.demands = f'Bearer realm="http://{one.host}/token"'
    with pytest.raises(Unanswered, match="without TLS"):
        one.leads_to(**login)
    assert "canary" not in str(refused.value)
