"""What K3s makes of the manifests that it brings, and how an object differs from what its manifest says.

K3s writes these files anew at each start, with the settings of the node filled in, and applies them; what somebody
changes of an object afterwards stays. Sources: K3s, pkg/deploy (manifests and addons) and pkg/node (names of nodes in
CoreDNS' ConfigMap); Kubernetes, for what the API server fills in.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Dict, List, NamedTuple, Set

from ..core.flow import flow, plain
from ..core.verdict import Unavailable
from ..formats.yaml_documents import documents
from ..formats.yaml_subset import YamlError
from ..host.machine import Host
from ..host.text import split_lines, split_words
from .objects import EMPTY, further, missing

ADDONS = "/apis/k3s.cattle.io/v1/namespaces/kube-system/addons"
NODES = "/api/v1/nodes"
ABOUT = ("apiVersion", "kind", "metadata", "status")
"""Parts of an object that are not compared: what it is called, and how it is."""
NOTHING: tuple[Any, ...] = (None, "", 0, {}, [])  # False is 0
"""Values that the API server drops."""
NODE_HOSTS = ("ConfigMap/kube-system/coredns", "NodeHosts")
"""The object and the key below data in which K3s tells CoreDNS the names of nodes."""
Filled = Mapping[str, List[str]]
"""Dotted path -> patterns of what may stand there although no manifest says it; {name} is the field beside it."""


class Manifest(NamedTuple):
    """A file of K3s: what its addon is called, its digest as K3s notes it once it has applied it, and its objects."""

    path: str
    addon: str
    digest: str
    objects: List[Dict[str, Any]]


def read(patterns: Iterable[str], host: Host) -> Iterator[Manifest]:
    """The manifests that match. Raises Unavailable for one that is not of the YAML that is read here."""
    for path in dict.fromkeys(found for pattern in patterns for found in host.glob(pattern)):
        data = host.read(path)
        if data is None:
            continue
        try:
            objects = documents(data.decode())
        except (YamlError, UnicodeDecodeError) as fault:
            raise Unavailable("manifest", f"{path} cannot be read: {fault}") from None
        addon = os.path.basename(path).split(".", 1)[0]
        yield Manifest(path, addon, hashlib.sha256(data).hexdigest(), objects)


def faults(want: Mapping[str, Any], have: Mapping[str, Any], filled: Filled) -> List[str]:
    """How an object differs from its manifest, each as "path: words"; what the API server and K3s fill in does not."""
    said = {name: value for name, value in want.items() if name not in ABOUT}
    parts = {name: value for name, value in have.items() if name not in ABOUT}
    there = _in_lines(_without(said, parts, filled, ""))
    said = _in_lines(said)
    more = [f"{part}: is {flow(there[part])}, not absent" for part in sorted({*there} - {*said})]
    return more + [
        fault
        for part in sorted(said)
        for fault in (*missing(said[part], there.get(part), part), *further(said[part], there.get(part), part))
    ]


def _in_lines(value: Any) -> Any:
    """A value with texts of several lines as lists, so that the lines are told that differ."""
    if isinstance(value, dict):
        return {name: _in_lines(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_in_lines(inner) for inner in value]
    return split_lines(value) if isinstance(value, str) and "\n" in value else value


def put_back(want: Any, have: Any, filled: Filled, dotted: str = "") -> Any:
    """What a manifest says, with what is filled in as it is."""
    if isinstance(want, dict) and isinstance(have, dict):
        unsaid = [name for name in have if name not in want and _is_filled(name, have, filled, dotted)]
        said = {name: put_back(value, have.get(name), filled, _at(dotted, name)) for name, value in want.items()}
        return {**{name: have[name] for name in unsaid}, **said}
    if isinstance(want, list) and isinstance(have, list) and len(want) == len(have):
        return [put_back(one, other, filled, dotted) for one, other in zip(want, have)]
    return want


def _without(want: Any, have: Any, filled: Filled, dotted: str) -> Any:
    """A value without what is filled in; and with what is nothing where its manifest says so, as nobody keeps it."""
    if isinstance(have, dict):
        said = want if isinstance(want, dict) else {}
        made = {name: value for name, value in said.items() if value in NOTHING and name not in have}
        for name, value in have.items():
            inner = _without(said.get(name), value, filled, _at(dotted, name))
            if name in said or not (inner in EMPTY or _is_filled(name, have, filled, dotted)):
                made[name] = inner
        return made
    if isinstance(want, list) and isinstance(have, list):
        said = {one.get("name"): one for one in want if isinstance(one, dict)}
        alike = want if len(want) == len(have) else [said.get(one.get("name")) for one in have if isinstance(one, dict)]
        return [_without(one, other, filled, dotted) for one, other in zip(alike, have)] if alike else have
    return have


def _at(dotted: str, name: str) -> str:
    """The dotted path of a field; a dot in its name is written as kubectl does it."""
    escaped = name.replace(".", "\\.")
    return f"{dotted}.{escaped}" if dotted else escaped


def _is_filled(name: str, beside: Mapping[str, Any], filled: Filled, dotted: str) -> bool:
    patterns = filled.get(_at(dotted, name), ())
    written = [re.sub(r"\{(\w+)\}", lambda field: plain(beside.get(field[1])), pattern) for pattern in patterns]
    return any(fnmatch.fnmatchcase(plain(beside[name]), pattern) for pattern in written)


def of_nodes(text: str, nodes: Iterable[Mapping[str, Any]]) -> str:
    """The lines of NodeHosts that say nothing but what a node is called.

    K3s adds its nodes and leaves what others wrote, and CoreDNS answers by that before anything else.
    """
    known: Dict[str, Set[str]] = {}
    for node in nodes:
        of_status = (node.get("status") or {}).get("addresses") or ()
        names = {node["metadata"]["name"], *(one["address"] for one in of_status if one.get("type") == "Hostname")}
        for one in of_status:
            known.setdefault(one["address"], set()).update(names)
    lines = [(line, split_words(line.partition("#")[0])) for line in split_lines(text)]
    return "".join(f"{line}\n" for line, words in lines if not words or {*words[1:]} <= known.get(words[0], set()))
