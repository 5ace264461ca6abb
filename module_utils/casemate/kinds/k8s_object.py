"""Kubernetes objects: the fields that are demanded, read from and server-side applied to the API.

Source: Kubernetes server-side apply. The admin client certificate that K3s keeps on a server is used over
loopback, on one connection for the whole batch; it never leaves the host. Kubelets of all nodes are asked through the
API server, since an agent has no credentials for it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Annotated, Any, Literal, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Left, Observation, Unasked, Unavailable, Verdict
from ..host.machine import EnforceError, Host
from ..k3s import encryption as k3s_encryption
from ..k3s import owned as k8s_owned
from ..k3s.api import REFUSALS, Api, unanswered
from ..k3s.objects import beyond, faults, kind_of, leaves, whole
from ..k3s.owned import MANAGER
from .kind import Enforceable, Kind, Owned, Pass


class Needed(TypedDict):
    """What every setting of this kind says."""

    path: Annotated[str, Key("API path; {namespace} or {node} stands for each", pattern=r"/(api|apis)/\S+")]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind may demand."""

    body: Annotated[dict[str, Any], Key("fields that must be there with these values; applied as they stand")]
    absent: Annotated[bool, Key("the object must not exist (never enforced)")]
    except_namespaces: Annotated[list[str], Key("namespaces that {namespace}, or a list of them, leaves out")]
    only: Annotated[
        dict[str, Any], Key("for a list path: {field: dotted path, allowed: [values], also: {item: [values]}}")
    ]
    select: Annotated[dict[str, Any], Key("for a list path: {dotted path: value} that picks the items to judge")]
    encryption: Annotated[Literal["active", "aescbc", "secretbox"], Key("for the path of servers")]
    advice: Annotated[str, Key("what to do, told where it fails")]
    unset: Annotated[str, Key("why nobody asks for the body, which then goes; empty where somebody does")]


def identity(setting: Setting) -> str:
    """One control per object and set of fields."""
    judged = [str(setting[name]) for name in ("select", "encryption") if name in setting]
    judged += [setting["only"]["field"]] if "only" in setting else []
    fields = ",".join(sorted(leaves(setting.get("body") or {}))) if "body" in setting else " ".join(judged)
    return f"{setting['path']}#{fields}"


def namespaces(api: Api) -> list[str]:
    """Names of the namespaces that stay."""
    items = api.get("/api/v1/namespaces")["items"]
    return [item["metadata"]["name"] for item in items if item["status"].get("phase") != "Terminating"]


def _nodes(api: Api) -> dict[str, bool]:
    """Node -> whether it is Ready. One without that condition never had a kubelet, so there is none to ask."""
    ready = {
        node["metadata"]["name"]: [c["status"] == "True" for c in conditions if c["type"] == "Ready"]
        for node in api.get("/api/v1/nodes")["items"]
        for conditions in [node.get("status", {}).get("conditions") or []]
    }
    return {name: found[0] for name, found in ready.items() if found}


def paths(setting: Setting, names: list[str], nodes: dict[str, bool]) -> list[str]:
    """The paths of a setting's objects, for the names of namespaces and node -> whether it is Ready."""
    if "{node}" in setting["path"]:
        return [setting["path"].replace("{node}", name) for name, ready in nodes.items() if ready]
    if "{namespace}" not in setting["path"]:
        return [setting["path"]]
    left_out = set(setting.get("except_namespaces") or ())
    return [setting["path"].replace("{namespace}", name) for name in names if name not in left_out]


def _left_out(setting: Setting, names: list[str], api: Api) -> list[tuple[str, Any]]:
    """(path, object) of namespaces that are left out now, in which we wrote before they were."""
    if "{namespace}" not in setting["path"] or "body" not in setting or setting.get("enforced") is False:
        return []
    out = [name for name in setting.get("except_namespaces") or () if name in names]
    return k8s_owned.managed([setting["path"].replace("{namespace}", name) for name in out], api)


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """Each setting's objects: path -> object, or None where there is none; what is silent; or why nothing is known."""
    try:
        return _look(settings, host, Api(host))
    except Unavailable as down:
        if down.code != "k3s":
            raise
        return [{"down": down.why} for _ in settings]


def _look(settings: list[Setting], host: Host, api: Api) -> list[Observation]:
    names = namespaces(api)
    nodes = _nodes(api) if any("{node}" in setting["path"] for setting in settings) else {}
    answers: dict[str, tuple[int, Any]] = {}
    seen: list[Observation] = []
    for setting in settings:
        of_nodes = "{node}" in setting["path"]
        silent = [f"node {name} is not Ready" for name, ready in nodes.items() if of_nodes and not ready]
        silent += ["no node has a kubelet"] if of_nodes and not nodes else []
        objects: dict[str, Any] = {}
        refused: list[str] = []
        for path in paths(setting, names, nodes):
            try:
                answers[path] = answers.get(path) or api.call("GET", path)
            except Unavailable as unheard:
                if not of_nodes:
                    raise
                answers[path] = 0, unheard.why
            status, answer = answers[path]
            if status in (200, 404):
                objects[path] = answer if status == 200 else None
            elif status in REFUSALS:
                refused.append(unanswered(path, status, answer).why)
            elif of_nodes:
                silent.append(f"GET {path}: HTTP {status}" if status else f"GET {path}: {answer}")
            else:
                raise unanswered(path, status, answer)
        seen.append({"objects": objects, "silent": silent, **({"refused": refused} if refused else {})})
        if left := [path for path, _ in _left_out(setting, names, api)]:
            seen[-1]["left"] = left
        if "encryption" in setting:
            servers = [node for found in objects.values() for node in (found or {}).get("items", [])]
            seen[-1]["encryption"] = k3s_encryption.look(host.read(k3s_encryption.CONFIG), servers)
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Every object has the demanded fields; or none is there; or a list's items have only allowed values."""
    evidence = f"GET {setting['path']}"
    if "down" in seen:
        if "body" not in setting or setting.get("enforced") is False or setting.get("unset"):
            raise Unavailable("k3s", seen["down"])
        return Verdict(
            ok=False, expected=setting["body"], observed="no answer", reason=seen["down"], evidence=evidence
        )  # apply brings it
    if setting.get("unset"):
        ours = [path for path, found in seen["objects"].items() if found and k8s_owned.ours(found)]
        if ours:
            return Verdict(
                ok=False, expected="absent", observed=ours, reason="nobody asks for it any more", evidence=evidence
            )
        raise Unasked(setting["unset"])
    made = _judge(setting, seen, evidence)
    for code, places in (("refused", seen.get("refused")), ("k3s", seen.get("silent"))):
        if places and (made.ok or not seen["objects"]):  # what could be seen and is wrong counts all the same
            raise Unavailable(code, several(places))
    return made if made.ok or "advice" not in setting else replace(made, reason=f"{made.reason}; {setting['advice']}")


def _judge(setting: Setting, seen: Observation, evidence: str) -> Verdict:
    objects: dict[str, Any] = seen["objects"]
    if "encryption" in setting:
        return k3s_encryption.judge(setting["encryption"], seen["encryption"])
    if setting.get("absent"):
        there = sorted(path for path, found in objects.items() if found is not None)
        return Verdict(
            ok=not there,
            expected="absent",
            observed=there or "absent",
            reason="it exists" if there else "",
            evidence=evidence,
        )
    if "only" in setting:
        only = setting["only"]
        select, left_out = setting.get("select") or {}, setting.get("except_namespaces") or ()
        lists = [found for found in objects.values() if found]
        extras = [
            (kind_of(found), *one) for found in lists for one in beyond(found.get("items", []), only, select, left_out)
        ]
        told = [f"{value} ({name})" if name else value for _, value, name in extras]
        good = {only["field"]: only["allowed"], **({"also": only["also"]} if only.get("also") else {})}
        return Verdict(
            ok=not told,
            expected=good,
            observed={only["field"]: told} if told else "only allowed",
            reason=several(told),
            evidence=evidence,
            where=tuple(dict.fromkeys(f"{kind}{name}" for kind, _, name in extras)),
        )
    wrong, left = [], seen.get("left", [])
    where = list(left)
    for path, found in sorted(objects.items()):
        faulty = [f"{path}: missing"] if found is None else [f"{path} {f}" for f in faults(setting["body"], found)]
        wrong += faulty
        where += [path] if faulty else []
    wrong += [f"{path} still holds our fields, though it is left out now; apply takes them back" for path in left]
    return Verdict(
        ok=not wrong,
        expected=setting["body"],
        observed=wrong or setting["body"],
        reason=several(wrong),
        evidence=evidence,
        where=tuple(where),
    )


def enforce(settings: list[Setting], failing: set[int], host: Host) -> None:
    """Server-side apply of what differs, owned by the field manager `casemate`; a NetworkPolicy is replaced."""
    api = Api(host)
    names = namespaces(api)
    for setting in (settings[i] for i in sorted(failing)):
        if "body" not in setting or setting.get("enforced") is False:
            continue
        for path, item in _left_out(setting, names, api):
            k8s_owned.give_up(setting, path, item, api, host)
        if setting.get("unset"):
            take_back([setting], [], host)
            continue
        for path in paths(setting, names, {}):
            status, found = api.call("GET", path)
            if status == 200 and not faults(setting["body"], found):
                continue
            there, body, method, query = status == 200, setting["body"], "PATCH", f"fieldManager={MANAGER}&force=true"
            if there and whole(body):  # what another manager owns goes only with the whole
                version = {"resourceVersion": found["metadata"]["resourceVersion"]}
                body, method = {**body, "metadata": {**body["metadata"], **version}}, "PUT"
                query = f"fieldManager={MANAGER}"
            status, answer = api.call(method, f"{path}?{query}", body)
            if status not in (200, 201):
                raise EnforceError(f"{method} {path}: HTTP {status}: {str(answer.get('message', ''))[:300]}")
            host.changed(path, _pretty(found if there else {}), _pretty(setting["body"]))


def _managed(setting: Setting, api: Api) -> list[tuple[str, Any]]:
    """(path, object) of each object of which the field manager casemate holds fields."""
    return k8s_owned.managed(paths(setting, namespaces(api), {}), api)


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """Objects of which our field manager holds fields; nothing is known where the API server does not answer."""
    if "body" not in setting:
        return Left()
    try:
        found = [path for path, _ in _managed(setting, Api(host))]
    except Unavailable:
        return Left()
    more = " and others" if len(found) > 3 else ""
    return Left(f"{', '.join(found[:3])}{more}: fields of the manager {MANAGER}" if found else "")


def take_back(waived: list[Setting], wanted: list[Setting], host: Host) -> None:
    """Give up our fields of each object."""
    api = Api(host)
    for setting in waived:
        for path, item in _managed(setting, api):
            k8s_owned.give_up(setting, path, item, api, host)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, enforced_by="engine", enforce=enforce, owned=Owned(left, take_back)
)
