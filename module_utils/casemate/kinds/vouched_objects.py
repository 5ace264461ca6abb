"""Objects of the cluster that give power or run with it, and who vouches for them: K3s, Casemate, or the operator.

What of an object gives power is declared as dotted paths; an object without any of it is nobody's business. Nothing is
deleted unless an operator names the control. Of Secrets nothing but the metadata is asked for.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Dict, List, NamedTuple, Set, TypedDict

from ..core import vouched_for, waiver
from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..core.vouched_for import Stranger
from ..host.machine import Host
from ..k3s.listed import Lists, digest_of, key_of
from ..k3s.objects import dig
from . import evicting_objects
from .kind import Enforceable, Kind, each


class Needed(TypedDict):
    """What every setting of this kind says."""

    objects: Annotated[
        List[Any],
        Key(
            "lists of objects: their kind and the API path, where in each the paths below begin (at), which are left "
            "out (but), whether there may be no such resource (optional), and whether only metadata is read (metadata)"
        ),
    ]
    used: Annotated[str, Key("what such an object does")]
    matters: Annotated[List[str], Key("dotted paths of what an operator vouches for")]
    declared: Annotated[Dict[str, Any], Key("Kind/name, or Kind/namespace/name, to what the operator vouches for")]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind demands."""

    gives: Annotated[Dict[str, str], Key("dotted path to what a value there gives, in words")]
    harmless: Annotated[Dict[str, Any], Key("dotted path to values that give nothing")]
    every: Annotated[bool, Key("whether an object counts that gives nothing of that, too")]
    every_in: Annotated[List[str], Key("namespaces in which it counts")]
    ours: Annotated[List[str], Key("objects of Casemate: other controls judge them")]
    shipped: Annotated[Dict[str, Any], Key("minor version of Kubernetes to objects of its own, and what they may give")]


LONG = 300
"""Characters of a value that is told no more."""
ACCOUNT = re.compile(r"(?<=://)[^/@]*@")
"""A name and a password in an address."""
Powers = Dict[str, List[str]]
"""uid of an object -> what it gives."""


def identity(setting: Setting) -> str:
    """One control for a set of lists."""
    return str(setting["objects"][0]["path"])


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """For each setting: for which objects nobody vouches, why, and what they are."""
    lists = Lists(host)
    return each(settings, lambda setting: _look(setting, lists, host), (Unavailable,))


def _look(setting: Setting, lists: Lists, host: Host) -> Observation:
    shipped = lists.shipped(setting["shipped"]) if "shipped" in setting else {}
    listed = list(_listed(setting, lists))
    given = {one.item["metadata"].get("uid", ""): one.powers for one in listed}
    strangers = [
        Stranger(one.key, "; ".join(one.powers), digest_of([dig(one.base, dotted) for dotted in setting["matters"]]))
        for one in listed
        if one.key not in setting.get("ours", ())
        and not _is_owned(one.item, one.powers, given)
        and not _ships(one.key, one.powers, shipped)
    ]
    found = vouched_for.unvouched(strangers, setting["declared"], waiver.day(host.context))
    faults = {key: why or "K3s does not bring it" for key, why in found["faults"].items()}
    items = {one.key: (one.path, one.item) for one in listed}
    named_as_ours = [key for key in faults if _matches([key], list(shipped))]
    return {
        **found,
        **evicting_objects.outlook(faults, items, named_as_ours),
        "faults": faults,
        "evidence": f"objects that count: {len(listed)}",
    }


class Listed(NamedTuple):
    """An object that counts: the list that it is of, what it is called, the whole, the part that paths begin at, and
    what that gives.
    """

    path: str
    key: str
    item: Dict[str, Any]
    base: Dict[str, Any]
    powers: List[str]


def _listed(setting: Setting, lists: Lists) -> Iterator[Listed]:
    for place in setting["objects"]:
        gives = place.get("gives", setting.get("gives", {}))
        for item in lists.items(place["path"], place.get("metadata", False), place.get("optional", False)):
            if any(_matches(dig(item, dotted), patterns) for dotted, patterns in place.get("but", {}).items()):
                continue
            base = next(iter(dig(item, place["at"])), {}) if "at" in place else item
            powers = _powers(base, gives, setting.get("harmless", {}))
            counts = setting.get("every") or item["metadata"].get("namespace") in setting.get("every_in", ())
            if powers or counts:
                yield Listed(place["path"], key_of(place["kind"], item), item, base, powers)


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that somebody vouches for everything."""
    return vouched_for.verdict(setting, seen, seen["evidence"])


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Remove what nobody vouches for, as far as it can go."""
    evicting_objects.enforce(observe([settings[i] for i in sorted(failing)], host), host)


def _matches(values: List[Any], patterns: List[str]) -> bool:
    return any(fnmatch.fnmatchcase(str(value), pattern) for value in values for pattern in patterns)


def _powers(base: Mapping[str, Any], gives: Mapping[str, str], harmless: Mapping[str, Any]) -> List[str]:
    """What an object gives, in words. A rule without any field admits everything, so it counts."""
    found = []
    for dotted, words in gives.items():
        for value in dig(base, dotted):
            if value in (False, "") or value in harmless.get(dotted, ()):
                continue
            shown = ACCOUNT.sub("", value) if isinstance(value, str) and len(value) < LONG else ""
            found.append(f"{words} {shown}".rstrip())
    return list(dict.fromkeys(found))


def _is_owned(item: Mapping[str, Any], powers: List[str], given: Powers) -> bool:
    """Whether a controller made it that is judged here itself, and gives as much: a pod of a DaemonSet."""
    owners = item["metadata"].get("ownerReferences") or ()
    controllers = [one.get("uid") for one in owners if one.get("controller")]
    return any(uid in given and set(powers) <= set(given[uid]) for uid in controllers)


def _ships(key: str, powers: List[str], shipped: Mapping[str, List[str]]) -> bool:
    """Whether an object is K3s' own, and gives nothing beyond what that does."""
    known = [allowed for pattern, allowed in shipped.items() if fnmatch.fnmatchcase(key, pattern)]
    return any(all(_matches([power], allowed) for power in powers) for allowed in known)


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    evicts=True,
    places=lambda setting: [place["path"] for place in setting["objects"]],
)
