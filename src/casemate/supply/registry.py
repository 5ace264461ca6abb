"""Registries of images, asked from the controller to what a tag leads now. They are only read, by TLS.

Source: OCI distribution specification 1.1 (pulling manifests); distribution, docs/content/spec/auth/token.md.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from casemate.supply import registries
from casemate.supply.scan_report import DIGEST
from module_utils.casemate.k3s import registries as of_k3s

KINDS = (
    *("oci.image.index.v1", "oci.image.manifest.v1"),
    *("docker.distribution.manifest.list.v2", "docker.distribution.manifest.v2"),
)
ACCEPT = ", ".join(f"application/vnd.{kind}+json" for kind in KINDS)
SECONDS = 20.0
"""For how long an answer is waited for."""
MOST = 4 * 2**20
"""Bytes of a manifest that are read: the specification has registries take as many."""
DEPTH = 3
"""Levels of indexes within each other that are followed."""
DOCKERS_HUB = "https://index.docker.io/v1/"
"""By what docker knows its own registry."""


class Unanswered(Exception):  # noqa: N818 - not an error but an answer
    """A registry does not say to what a name leads; the message says why, and never has a login."""


class Answer(NamedTuple):
    """To what a tag leads for a platform: the digests of its index, if it has one, and of the manifest below it, and
    that of the configuration, by which a node knows an image however it came there.
    """

    digests: tuple[str, ...]
    config: str


class _Securely(urllib.request.HTTPRedirectHandler):
    """Follows no redirect that leaves TLS."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith("https://"):
            raise urllib.error.URLError("it sends on to an address without TLS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Asker:
    """The questions of one run. A registry that is not reached is asked once, so that it holds a run up once."""

    def __init__(self, entries: Sequence[Mapping[str, Any]], environment: Mapping[str, str] = os.environ) -> None:
        """Ask those of `casemate_registries` with its mirrors, authorities and logins, and others as they are named."""
        self.entries = sorted(entries, key=lambda entry: len(registries.prefix(entry)), reverse=True)
        self.environment = environment
        self.silent: dict[str, str] = {}
        self.tokens: dict[str, str] = {}

    def leads_to(self, reference: str, platform: str) -> Answer:
        """To what `HOST/PATH:TAG` leads for a platform such as linux/amd64. Raises Unanswered."""
        repository, _, tag = reference.rpartition(":")
        host, _, path = repository.partition("/")
        entry = next((one for one in self.entries if repository.startswith(registries.prefix(one))), {"host": host})
        why = ""
        for endpoint in registries.endpoints(entry):
            try:
                return self._resolved(entry, f"{of_k3s.url(endpoint)}/{path}/manifests", tag, platform)
            except Unanswered as refused:
                why = f"{urllib.parse.urlsplit(endpoint).netloc}: {refused}"
            except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
                why = f"{urllib.parse.urlsplit(endpoint).netloc}: it answers what is no manifest of an image"
        raise Unanswered(why)

    def _resolved(self, entry: Mapping[str, Any], manifests: str, name: str, platform: str) -> Answer:
        digests: list[str] = []
        for _ in range(DEPTH + 1):
            data = self._get(entry, f"{manifests}/{name}")
            digests.append(f"sha256:{hashlib.sha256(data).hexdigest()}")
            if name.startswith("sha256:") and digests[-1] != name:
                raise Unanswered(f"what it has as {name} is {digests[-1]}")
            made = _mapping(data)
            if "manifests" not in made:
                config = str(made["config"]["digest"])
                if not DIGEST.fullmatch(config):
                    raise ValueError(config)
                return Answer(tuple(digests), config)
            name = _of_platform(made, platform)
        raise Unanswered("its indexes lead nowhere")

    def _get(self, entry: Mapping[str, Any], url: str) -> bytes:
        """A manifest; asked again with what the registry demands for it. Raises Unanswered."""
        netloc = urllib.parse.urlsplit(url).netloc
        if netloc in self.silent:
            raise Unanswered(self.silent[netloc])
        place = url.rpartition("/manifests/")[0]
        try:
            opener = self._opener(entry)
            try:
                return _read(opener, url, self.tokens.get(place, ""))
            except urllib.error.HTTPError as refused:
                challenge = refused.headers.get("WWW-Authenticate") or ""
                if refused.code != http.HTTPStatus.UNAUTHORIZED or not challenge:
                    raise
            self.tokens[place] = self._authorization(opener, challenge, self._login(entry, netloc))
            return _read(opener, url, self.tokens[place])
        except urllib.error.HTTPError as refused:
            raise Unanswered(_said(refused.code)) from None
        except (OSError, http.client.HTTPException, ValueError) as unreached:
            reason = getattr(unreached, "reason", None) or getattr(unreached, "strerror", None) or unreached
            self.silent[netloc] = f"it is not reached ({reason})"
            raise Unanswered(self.silent[netloc]) from None

    def _opener(self, entry: Mapping[str, Any]) -> urllib.request.OpenerDirector:
        own = registries.authority(entry)
        context = ssl.create_default_context(cadata=own) if own else ssl.create_default_context()
        return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _Securely())

    def _login(self, entry: Mapping[str, Any], netloc: str) -> str:
        """User, colon and password in base64: those of `casemate_registries`, else docker's; "" for none."""
        known = registries.login(entry)
        if known:
            return base64.b64encode(":".join(known).encode()).decode()
        folder = self.environment.get("DOCKER_CONFIG") or Path(self.environment.get("HOME", "/"), ".docker")
        try:
            logins = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))["auths"]
            name = DOCKERS_HUB if netloc == of_k3s.HUBS_HOST else netloc
            return str(logins[name]["auth"])
        except (KeyError, OSError, TypeError, ValueError):
            return ""

    def _authorization(self, opener: urllib.request.OpenerDirector, challenge: str, login: str) -> str:
        """What a registry demands to be shown: the login, or a token that its service of tokens gives for it."""
        basic = f"Basic {login}" if login else ""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() != "bearer":
            return basic
        asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        realm = asked.get("realm", "")
        if not realm.startswith("https://"):
            raise urllib.error.URLError("it gives tokens at an address without TLS")
        query = urllib.parse.urlencode({name: asked[name] for name in ("service", "scope") if name in asked})
        made = _mapping(_read(opener, f"{realm}{'&' if '?' in realm else '?'}{query}", basic))
        return f"Bearer {made.get('token') or made.get('access_token') or ''}"


def _read(opener: urllib.request.OpenerDirector, url: str, authorization: str) -> bytes:
    asked = urllib.request.Request(url, headers={"Accept": ACCEPT})  # noqa: S310 - it begins with https://
    if authorization:
        asked.add_unredirected_header("Authorization", authorization)  # not for whom a redirect leads to
    with opener.open(asked, timeout=SECONDS) as answer:
        data: bytes = answer.read(MOST + 1)
    if len(data) > MOST:
        raise ValueError(f"it answers more than {MOST >> 20} MiB")
    return data


def _mapping(data: bytes) -> dict[str, Any]:
    made = json.loads(data)
    if not isinstance(made, dict):
        raise ValueError("no mapping")
    return made


def _of_platform(index: Mapping[str, Any], platform: str) -> str:
    """The digest of the manifest for a platform. Raises Unanswered where the index has none."""
    wanted = platform.split("/")
    for one in index["manifests"]:
        has = one.get("platform") or {}
        found = [str(has.get(part) or "") for part in ("os", "architecture", "variant")]
        if found[:2] == wanted[:2] and (len(wanted) < 3 or found[2] in ("", wanted[2])):
            return str(one.get("digest"))
    raise Unanswered(f"what it has there is not for {platform}")


def _said(code: int) -> str:
    if code in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return f"it demands a login ({code}): give one by credentials_file in {registries.VARIABLE}, or docker login"
    return "it has no such name (any more)" if code == http.HTTPStatus.NOT_FOUND else f"it answers {code}"
