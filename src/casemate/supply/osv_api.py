"""OSV's API, asked which advisories there are about modules of Go. Nothing asks it but `casemate advisories --online`.

Modules are asked for by their name alone: which version of one is installed is told to nobody, and is compared here, as
with data of a folder. Source: https://google.github.io/osv.dev/api/ (querybatch, vulns, and what it says of pages).
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from casemate.supply import osv
from casemate.supply.address import SlowError, refusal, whole

ADDRESS = "https://api.osv.dev"
"""The public one."""
ECOSYSTEM = "Go"
BATCH = 1000
"""Questions of one batch: no more are answered."""
PAGES = 100
"""Rounds of further pages that are asked for."""
SECONDS = 30
"""How long one call may take for its whole answer."""
MOST = 32 * 1024 * 1024
"""Bytes of one answer that are read: the API gives no larger one."""
TRIES = 3
"""Calls that are made where nobody answers, or where the API is not able to for now."""
PAUSE = 1.0
"""Seconds before the second call; before the third twice as many."""
AT_ONCE = 8
"""Entries that are asked for at the same time."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
"""An id of an advisory. It becomes the name of a file."""
TODO = "or name data that lies here (--data)"
BUSY = http.HTTPStatus.TOO_MANY_REQUESTS


class ApiError(Exception):
    """OSV cannot be asked, or what answers is not OSV; the message says what to do. Nothing is known then."""


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the API has none, and urllib would make another question of what is sent on."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


class Api:
    """OSV's API at an address. The environment's proxy and this machine's authorities (TLS) count."""

    def __init__(self, address: str = ADDRESS) -> None:
        """Raises ApiError for an address that is not asked."""
        if refused := refusal(address):
            raise ApiError(f"OSV is not asked: {refused}")
        self.address = address.rstrip("/")
        self.opener = urllib.request.build_opener(_Straight())

    def entries(self, names: Collection[str]) -> dict[str, bytes]:
        """Every entry about one of these modules, by its id, as JSON. Raises ApiError.

        Where OSV has none about any module it is not believed: of the standard library alone it has dozens.
        """
        known = sorted(self._ids(sorted(names)))
        if not known:
            said = f"{self.address} knows no advisory about any of {len(names)} Go modules, which OSV does"
            raise ApiError(f"{said}. Correct --osv-api, or see to it that the data of Go is there")
        with ThreadPoolExecutor(AT_ONCE) as workers:
            return dict(zip(known, workers.map(self._entry, known), strict=True))

    def _ids(self, names: list[str]) -> set[str]:
        found: set[str] = set()
        waiting = [{"package": {"name": name, "ecosystem": ECOSYSTEM}} for name in names]
        for _ in range(PAGES):
            following: list[dict[str, Any]] = []
            for start in range(0, len(waiting), BATCH):
                batch = waiting[start : start + BATCH]
                for asked, (ids, token) in zip(batch, self._batch(batch), strict=True):
                    found.update(ids)
                    following += [{**asked, "page_token": token}] if token else []
            if not following:
                return found
            waiting = following
        raise ApiError(f"{self.address}/v1/querybatch has more than {PAGES} pages, and no end. Try it again later")

    def _batch(self, queries: list[dict[str, Any]]) -> list[tuple[list[str], str]]:
        """(ids, token of the next page or "") for each question."""
        url = f"{self.address}/v1/querybatch"
        answer = _parsed(url, self._call(url, json.dumps({"queries": queries}).encode()))
        try:
            results = list(answer["results"])
            if len(results) != len(queries):
                raise ValueError(f"{len(results)} results for {len(queries)} questions")
            return [_page(one) for one in results]
        except (AttributeError, KeyError, TypeError, ValueError) as odd:
            raise ApiError(_odd(url, odd)) from odd

    def _entry(self, name: str) -> bytes:
        url = f"{self.address}/v1/vulns/{urllib.parse.quote(name)}"
        data = self._call(url)
        entry = _parsed(url, data)
        try:
            if entry.get("id") != name:
                raise ValueError(f"it is about {entry.get('id')!r}")
            if not isinstance(entry.get("modified"), str):
                raise ValueError("it has no time of its last change")
            osv.advisory(entry, ECOSYSTEM)
        except ValueError as odd:
            raise ApiError(_odd(url, odd)) from odd
        return data

    def _call(self, url: str, body: bytes | None = None) -> bytes:
        """What an address answers. Raises ApiError where it answers nothing, or anything but success."""
        headers = {"Accept": "application/json", "User-Agent": "casemate"}
        headers |= {"Content-Type": "application/json"} if body is not None else {}
        asked = urllib.request.Request(url, body, headers)  # noqa: S310 - https, or http to this machine
        why = ""
        for attempt in range(TRIES):
            time.sleep(attempt * PAUSE)
            try:
                with self.opener.open(asked, timeout=SECONDS) as answer:
                    return _whole(url, answer)
            except urllib.error.HTTPError as refused:
                why = f"it answers {refused.code} {refused.reason}"
                refused.close()
                if refused.code != BUSY and refused.code < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                    break
            except SlowError:
                why = f"it has not answered whole within {SECONDS} s"
            except (OSError, http.client.HTTPException) as failed:
                why = str(getattr(failed, "reason", None) or failed or type(failed).__name__)
        unknown = f"{url} cannot be asked, so nobody knows which advisories there are: {why}"
        raise ApiError(f"{unknown}. Try it again, {TODO}")


def _whole(url: str, answer: Any) -> bytes:
    data = whole(answer, MOST, time.monotonic() + SECONDS)
    if len(data) > MOST:
        raise ApiError(_odd(url, f"it is larger than {MOST >> 20} MiB"))
    return data


def _parsed(url: str, data: bytes) -> Mapping[str, Any]:
    try:
        made = json.loads(data)
    except (RecursionError, ValueError) as odd:
        raise ApiError(_odd(url, odd)) from odd
    if not isinstance(made, dict):
        raise ApiError(_odd(url, "it is no JSON object"))
    return made


def _page(result: Any) -> tuple[list[str], str]:
    """(ids, token) of one result. Raises ValueError for what is none."""
    if not isinstance(result, dict):
        raise ValueError(f"{result!r} is no result")
    ids = [one["id"] for one in result.get("vulns") or ()]
    token = result.get("next_page_token") or ""
    for one in (*ids, token or "-"):
        if not isinstance(one, str):
            raise ValueError(f"{one!r} is no text")
    for one in ids:
        if not NAME.fullmatch(one):
            raise ValueError(f"{one!r} is no id of an advisory")
    return ids, token


def _odd(url: str, why: object) -> str:
    said = f"what {url} answers is not as OSV's API says: {why}. So nobody knows which advisories there are"
    return f"{said}: correct --osv-api, {TODO}"
