"""A server on this machine that speaks OSV's API, page by page, and may be made to answer wrongly."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from casemate.supply import osv_api

PAGE = 2
"""Ids of one page."""


def entry(name: str, module: str, *events: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """An entry about a module, by the events of its one range."""
    ranges = [{"type": "SEMVER", "events": list(events)}]
    affected = [{"package": {"name": module, "ecosystem": "Go"}, "ranges": ranges}]
    made = {"id": name, "modified": "2026-01-02T03:04:05Z", "summary": f"hole in {module}", "affected": affected}
    return {**made, **more}


class OsvServer:
    """Knows `entries`, and keeps what was `asked`: (path, body). `wrong` may answer (code, bytes) in place of it."""

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self.entries = {one["id"]: one for one in entries}
        self.asked: list[tuple[str, Any]] = []
        self.wrong: Callable[[str, Any], tuple[int, bytes] | None] = lambda *_: None
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """End it."""
        self.server.shutdown()
        self.server.server_close()

    def page(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """One result of querybatch."""
        name, start = query["package"]["name"], int(query.get("page_token") or 0)
        about = sorted(one for one, has in self.entries.items() if has["affected"][0]["package"]["name"] == name)
        shown = [{"id": one, "modified": self.entries[one]["modified"]} for one in about[start : start + PAGE]]
        made: dict[str, Any] = {"vulns": shown} if shown else {}
        return {**made, "next_page_token": str(start + PAGE)} if len(about) > start + PAGE else made

    def answer(self, path: str, body: Any) -> tuple[int, bytes]:
        """(code, bytes) by the API."""
        self.asked.append((path, body))
        if wrong := self.wrong(path, body):
            return wrong
        if path == "/v1/querybatch":
            return 200, json.dumps({"results": [self.page(one) for one in body["queries"]]}).encode()
        known = self.entries.get(path.removeprefix("/v1/vulns/"))
        return (200, json.dumps(known).encode()) if known else (404, b'{"code": 5, "message": "Bug not found."}')

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        """What http.server calls."""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(None)

            def do_POST(self) -> None:
                self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def reply(self, body: Any) -> None:
                code, data = outer.answer(self.path, body)
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", data.decode())
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler


@contextlib.contextmanager
def serving(entries: Sequence[Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Iterator[OsvServer]:
    """A server of these entries, which is asked without pauses and by no proxy."""
    monkeypatch.setattr(osv_api, "PAUSE", 0)
    monkeypatch.delenv("http_proxy", raising=False)
    made = OsvServer(entries)
    try:
        yield made
    finally:
        made.close()
