"""Lists of the cluster's objects, each asked for once, and which of them are known by the version of Kubernetes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ..core.verdict import Unavailable
from ..host.machine import Host
from .api import Api, Names, unanswered
from .objects import named


class Lists:
    """The lists of one cluster."""

    def __init__(self, host: Host) -> None:
        """Raises Unavailable where there is no API server."""
        self.api, self.names = Api(host), Names(host)
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.version = ""

    def items(self, path: str, metadata: bool = False, optional: bool = False) -> list[dict[str, Any]]:
        """The objects of a list; none where the cluster has no such resource and it is `optional`."""
        if path not in self.answers:
            status, answer = (self.names if metadata else self.api).call("GET", path)
            if status != 200 and not (optional and status == 404):
                raise unanswered(path, status, answer)
            self.answers[path] = answer.get("items") or [] if status == 200 else []
        return self.answers[path]

    def shipped(self, by_version: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
        """What the running version of Kubernetes brings, of what is known by minor version, such as 1.36.

        Raises Unavailable for a version of which nothing is known: its own could not be told from anybody else's.
        """
        if not self.version:
            said = self.api.get("/version")
            self.version = f"{said.get('major')}.{str(said.get('minor')).rstrip('+')}"
        if self.version not in by_version:
            raise Unavailable("version", f"what Kubernetes {self.version} brings itself is not known to this Casemate")
        return by_version[self.version]


def key_of(kind: str, item: Mapping[str, Any]) -> str:
    """How an object is called: Kind/name or Kind/namespace/name."""
    return f"{kind}/{named(dict(item))}"


def path_of(path: str, item: Mapping[str, Any]) -> str:
    """The API path of an item of the list at `path`, which may be that of one namespace or of all."""
    meta = item["metadata"]
    above, _, resource = path.partition("?")[0].rpartition("/")
    namespace = f"/namespaces/{meta['namespace']}" if meta.get("namespace") and "/namespaces/" not in above else ""
    return f"{above}{namespace}/{resource}/{quote(meta['name'], safe=':')}"


def digest_of(matter: Any) -> str:
    """What stands for the part of an object that matters."""
    text = json.dumps(matter, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
