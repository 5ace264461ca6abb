"""Objects of Kubernetes of which our field manager holds fields, and how those are given up.

Source: Kubernetes server-side apply. An apply that names fewer fields than the one before removes those left out.
"""

from __future__ import annotations

from typing import Any

from ..core.verdict import Setting
from ..host.machine import EnforceError, Host
from .api import Api

MANAGER = "casemate"


def ours(item: Any) -> bool:
    """Whether we hold fields of an object."""
    return any(one.get("manager") == MANAGER for one in _managers(item))


def managed(paths: list[str], api: Api) -> list[tuple[str, Any]]:
    """(path, object) of each object at these paths of which we hold fields."""
    answers = ((path, api.call("GET", path)) for path in paths)
    return [(path, item) for path, (status, item) in answers if status == 200 and ours(item)]


def _managers(item: Any) -> list[dict[str, Any]]:
    managers = (item.get("metadata") or {}).get("managedFields") or ()
    return [one for one in managers if not one.get("subresource")]


def give_up(setting: Setting, path: str, item: Any, api: Api, host: Host) -> None:
    """Take back our fields by a server-side apply of none; an object that is nobody else's goes."""
    meta = {key: item["metadata"][key] for key in ("name", "namespace") if key in item["metadata"]}
    if all(one.get("manager") == MANAGER for one in _managers(item)):
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": item["metadata"]["uid"]}}
        status, answer = api.call("DELETE", path, body)
        by_hand = f"kubectl delete --raw {path}"
    else:
        body = {**{key: setting["body"][key] for key in ("apiVersion", "kind")}, "metadata": meta}
        status, answer = api.call("PATCH", f"{path}?fieldManager={MANAGER}&force=true", body)
        by_hand = f"kubectl edit the object at {path}"
    if status not in (200, 202):
        said = (answer or {}).get("message") or "without a reason"
        raise EnforceError(f"{path} still holds our fields: HTTP {status}: {said}; by hand: {by_hand}")
    host.changed(path, f"fields of the manager {MANAGER}\n", "")
