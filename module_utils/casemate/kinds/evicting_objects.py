"""What of the cluster's objects is removed once an operator names their control, and how.

A copy is kept of each, without what the API server adds, so that `kubectl create -f` brings it back; of a Secret
without what it holds. What somebody would make again is not removed: whoever makes it is told. Sources: Kubernetes, API
concepts (preconditions of a deletion); K3s, pkg/deploy (an addon is applied again from its manifest).
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..core.verdict import Observation, Unavailable
from ..host import evicted
from ..host.machine import EnforceError, Host
from ..k3s.api import Api
from ..k3s.listed import path_of

GOING, PAUSE = 30.0, 0.5
"""Seconds that objects may take to go, for finalizers; and between two looks."""
OWNER = "objectset.rio.cattle.io/owner-"
ADDON, CHART = "k3s.cattle.io/v1, Kind=Addon", "meta.helm.sh/release-name"
STATIC = "kubernetes.io/config.source"
"""Annotations that say who makes an object: a manifest of K3s, a chart, or a file of its node."""
ADDED = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink")


def outlook(faults: Iterable[str], items: Mapping[str, tuple[str, Any]], shipped: Collection[str]) -> Observation:
    """Of what nobody vouches for, by name: the API `paths`, and in `left` why some of it stays.

    `items` has for each name the API path of its list, and the object; `shipped` are the names of K3s' own.
    """
    paths = {key: path_of(*items[key]) for key in faults}
    left = {key: _stays(key, items[key][1], key in shipped) for key in paths}
    return {"paths": paths, "left": {key: why for key, why in left.items() if why}}


def _stays(key: str, item: Mapping[str, Any], shipped: bool) -> str:
    """Why an object is not removed, with what to do by hand; nothing where it can go."""
    meta = item["metadata"]
    notes, (kind, *namespace, name) = meta.get("annotations") or {}, key.split("/")
    maker = next((one for one in meta.get("ownerReferences") or () if one.get("controller")), None)
    if shipped:
        within = f"-n {namespace[0]} " if namespace else ""
        return f"by hand, since the cluster needs one of that name: kubectl edit {within}{kind.lower()} {name}"
    if maker:
        owner = " ".join(filter(None, (maker.get("kind"), maker.get("name")))) or "its owner"
        return f"{owner} makes it again: remove that"
    if notes.get(OWNER + "gvk") == ADDON:
        return f"K3s makes it again of {notes.get(OWNER + 'name')} in its folder of manifests: remove that file"
    if notes.get(CHART):
        return f"it is of a chart: helm uninstall {notes[CHART]}"
    return "it is of a file on its node: remove that" if notes.get(STATIC, "api") != "api" else ""


def evict(paths: Iterable[str], host: Host) -> None:
    """Keep a copy of each object and delete it, and wait until it has gone.

    One refusal does not stop the others. Raises EnforceError with all of them.
    """
    api, place, refused, deleted = Api(host), evicted.folder(host), [], []
    for path in paths:
        try:
            deleted += [path] if _delete(path, place, api, host) else []
        except (EnforceError, Unavailable, OSError) as error:
            refused.append(str(error))
    until = time.monotonic() + GOING
    while (left := [path for path in deleted if api.call("GET", path)[0] == 200]) and time.monotonic() < until:
        time.sleep(PAUSE)
    refused += [f"{path} is deleted and has not gone in {GOING:.0f} s: a finalizer keeps it" for path in left]
    if refused:
        raise EnforceError("; ".join(refused))


def _delete(path: str, place: str, api: Api, host: Host) -> bool:
    """Whether it was there. What took its place since it was looked at is not deleted."""
    status, item = api.call("GET", path)
    if status == 404:
        return False
    if status == 200:
        conditions = {name: item["metadata"][name] for name in ("uid", "resourceVersion")}
        text = json.dumps(_copy(item), indent=1)
        evicted.keep_text(f"{path}.json", text, place, host)
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": conditions}
        status, item = api.call("DELETE", path, {**body, "propagationPolicy": "Background"})
    if status not in (200, 202):
        said = (item or {}).get("message") or "without a reason"
        raise EnforceError(f"{path} is not removed: HTTP {status}: {said}; by hand: kubectl delete --raw {path}")
    host.changed(path, "there\n", "")
    return True


def _copy(item: Mapping[str, Any]) -> dict[str, Any]:
    meta = {name: value for name, value in item["metadata"].items() if name not in ADDED}
    left_out = {"status"} | ({"data", "stringData"} if item.get("kind") == "Secret" else set())
    return {**{name: value for name, value in item.items() if name not in left_out}, "metadata": meta}


def enforce(seen: Iterable[Any], host: Host) -> None:
    """Remove what nobody vouches for, as far as it can go, as it is observed now."""
    found = [one for one in seen if not isinstance(one, Exception)]
    goes = {path: None for one in found for key, path in one["paths"].items() if key not in one["left"]}
    if goes:
        evict(goes, host)
