"""Objects that K3s makes of its own manifests, and who vouches for what somebody changed of them since.

A manifest is what K3s wrote on this server at its start; another control judges that nobody changed it. What of an
object no manifest says counts too, but for what the API server, K3s and usual operations fill in, which is declared by
version of Kubernetes. An operator who names the control has it put back; else nothing is changed.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Collection
from typing import Annotated, Any, Dict, List, NamedTuple, Set, TypedDict

from ..core import vouched_for, waiver
from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..core.vouched_for import Stranger
from ..host import evicted
from ..host.machine import EnforceError, Host
from ..k3s import manifests
from ..k3s.api import Api
from ..k3s.listed import Lists, digest_of, key_of, path_of
from .kind import Enforceable, Kind, each


class Needed(TypedDict):
    """What every setting of this kind says."""

    manifests: Annotated[List[str], Key("patterns of the files that K3s writes and applies")]
    objects: Annotated[List[Any], Key("lists of objects that are compared: their kind and the API path")]
    used: Annotated[str, Key("what is wrong with an object that differs")]
    filled_in: Annotated[
        Dict[str, Any],
        Key("minor version of Kubernetes to kind to dotted path: patterns of what may stand there unsaid"),
    ]
    declared: Annotated[Dict[str, Any], Key("Kind/name, or Kind/namespace/name, to what the operator vouches for")]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind demands."""


UNIT = "k3s.service"
STARTING = 120.0
"""Seconds after its start in which K3s may not have applied its manifests yet."""
VEILED = ("HelmChart",)
"""Kinds of objects in which passwords may stand: of what differs no values are told."""


class Compared(NamedTuple):
    """An object: its API path, its manifest, how it is (None: it is not there), what may be filled in, and how
    it differs.
    """

    path: str
    want: Dict[str, Any]
    have: Dict[str, Any] | None
    filled: manifests.Filled
    faults: List[str]


def identity(setting: Setting) -> str:
    """One control for a set of manifests."""
    return str(setting["manifests"][0])


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """For each setting: which objects differ from their manifests and nobody vouches for it, and how."""
    lists = Lists(host)
    return each(settings, lambda setting: _look(setting, lists, host), (Unavailable,))


def _look(setting: Setting, lists: Lists, host: Host) -> Observation:
    found = _compared(setting, lists, host)
    differing = {key: one.faults for key, one in found.items() if one.faults}
    strangers = [Stranger(key, "; ".join(faults), digest_of(faults)) for key, faults in differing.items()]
    unvouched = vouched_for.unvouched(strangers, setting["declared"], waiver.day(host.context))
    where = [f"{key}:{fault.partition(': ')[0]}" for key in unvouched["faults"] for fault in differing[key]]
    return {**unvouched, "where": where, "evidence": f"objects of K3s' manifests: {len(found)}"}


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that every object is as its manifest says, or somebody vouches for it."""
    made = vouched_for.verdict(setting, seen, seen["evidence"])
    return dataclasses.replace(made, where=tuple(dict.fromkeys(seen["where"])))


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Keep a copy of what differs and nobody vouches for, and put back what its manifest says."""
    lists, api = Lists(host), Api(host)
    place, refused = evicted.folder(host), []
    for setting in (settings[index] for index in sorted(failing)):
        found = _compared(setting, lists, host)
        for key in _look(setting, lists, host)["faults"]:
            refused += _put_back(key, found[key], place, api, host)
    if refused:
        raise EnforceError("; ".join(refused))


def _put_back(key: str, one: Compared, place: str, api: Api, host: Host) -> List[str]:
    """Why it was refused; nothing where it is as its manifest says now."""
    method, path, body = "POST", one.path.rpartition("/")[0], one.want
    if one.have is not None:
        evicted.keep_text(f"{one.path}.json", json.dumps(one.have, indent=1), place, host)
        method, path, body = "PUT", one.path, manifests.put_back(one.want, one.have, one.filled)
        body["metadata"] = one.have["metadata"]
    status, answer = api.call(method, path, body)
    if status not in (200, 201):
        said = (answer or {}).get("message") or "without a reason"
        by_hand = "by hand: delete it, and restart K3s, which makes it again"
        return [f"{key} is not put back: HTTP {status}: {said}; {by_hand}"]
    host.changed(one.path, "".join(f"{fault}\n" for fault in one.faults), "")
    return []


def _compared(setting: Setting, lists: Lists, host: Host) -> Dict[str, Compared]:
    """By name each object of the manifests; without those that K3s has yet to make after its start."""
    places = {one["kind"]: one["path"] for one in setting["objects"]}
    read = list(manifests.read(setting["manifests"], host))
    addons = lists.items(manifests.ADDONS) if read else []
    applied = {one["metadata"]["name"]: (one.get("spec") or {}).get("checksum") for one in addons}
    started = host.started(UNIT)
    starting = started is not None and time.time() - started.now < STARTING
    found = {}
    for manifest in read:
        done = applied.get(manifest.addon) == manifest.digest
        for want in manifest.objects:
            kind = want["kind"]
            if kind not in places or (starting and not done):
                continue
            key = key_of(kind, want)
            have = next((one for one in lists.items(places[kind]) if key_of(kind, one) == key), None)
            if have is not None or done:
                filled = lists.shipped(setting["filled_in"]).get(kind, {})
                found[key] = _one(key, path_of(places[kind], want), want, have, filled, lists)
    return found


def _one(
    key: str, path: str, want: Dict[str, Any], have: Dict[str, Any] | None, filled: manifests.Filled, lists: Lists
) -> Compared:
    if have is None:
        return Compared(path, want, None, filled, ["object: is absent"])
    name, entry = manifests.NODE_HOSTS
    if key == name and entry in (have.get("data") or {}):
        hosts = manifests.of_nodes(have["data"][entry], lists.items(manifests.NODES))
        want = {**want, "data": {**want["data"], entry: hosts}}
    faults = manifests.faults(want, have, filled)
    if want["kind"] in VEILED:
        faults = [f"{fault.partition(': ')[0]}: is not what the manifest says" for fault in faults]
    return Compared(path, want, have, filled, faults)


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    evicts=True,
    units=lambda setting: [UNIT],
    places=lambda setting: setting["manifests"],
)
