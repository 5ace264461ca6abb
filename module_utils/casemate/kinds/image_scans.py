"""Whether images were scanned, and nothing was found that the operator's policy counts. Observe-only.

What is known of scans lies on the controller, by digest, and comes with the setting; what runs is asked of the node.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection
from typing import Annotated, Any, Dict, List, Literal, Tuple, TypedDict

from ..core import waiver
from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Unasked, Unavailable, Verdict
from ..host.machine import Host
from ..k3s.image_verifier import Refused, read
from ..k3s.images import Image, running
from ..k3s.services import UNITS
from .kind import Kind, each


class Needed(TypedDict):
    """What every setting of this kind says."""

    of: Annotated[Literal["running", "listed"], Key("the images that run on the node, or those of the signed list")]
    scans: Annotated[
        Dict[str, Any],
        Key("digest of an image -> platform -> its state (passed, vulnerable, outdated), why, of which configuration"),
    ]
    wanted: Annotated[bool, Key("whether the operator has a scanner")]


class Setting(Needed, total=False):
    """What a control of this kind demands."""

    list: Annotated[str, Key("listed: path of the signed list on the controller; empty for none")]


PASSED, VULNERABLE = "passed", "vulnerable"
ORDER = {VULNERABLE: 0, PASSED: 1}
"""Of several scans of one image what was found comes first, and then that nothing was found."""
NO_SCANNER = "casemate_image_scans is not set, so no scanner of the operator's has looked at any image"
NO_LIST = "casemate_image_list is not set, so no list lets an image in"
UNSCANNED = {"state": "unscanned", "why": "it was not scanned"}
TODO = {
    "unscanned": "casemate images scan scans what runs",
    "outdated": "casemate images scan scans it again",
    "vulnerable": "take an image without them, or waive one by its id in casemate_advisory_waivers",
    "unreadable": "remove that file and scan again",
}
"""State -> what to do."""
Standing = Dict[str, str]
"""`state` and `why`."""


def identity(setting: Setting) -> str:
    """One control for what runs, and one for the list."""
    return setting["of"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """For each setting: digest of an image that did not pass -> what is known of it; and how many images there are."""
    return each(settings, lambda setting: _look(setting, host))


def _look(setting: Setting, host: Host) -> Observation:
    if not setting["wanted"]:
        raise Unasked(NO_SCANNER)
    return _running(setting, host) if setting["of"] == "running" else _listed(setting, host)


def _running(setting: Setting, host: Host) -> Observation:
    found = running(host)
    stands = {one.digest: (one, _of_image(one, setting["scans"])) for one in found}
    return {
        "count": len(found),
        "faults": {
            digest: {
                "image": one.repository,
                "config": one.id,
                "platform": one.platform,
                "pods": one.pods,
                "state": stand["state"],
                "why": stand["why"],
            }
            for digest, (one, stand) in stands.items()
            if stand["state"] != PASSED
        },
    }


def _of_image(image: Image, scans: Dict[str, Any]) -> Standing:
    """How an image stands that the store knows by several digests: all of them are of the same configuration.

    An index may lead to several for one platform, of which a scanner takes one, and the runtime another one.
    """
    known = [scans.get(digest, {}).get(image.platform) for digest in [*image.digests, image.id]]
    same = [one for one in known if one and one.get("of", "") in ("", image.id)]
    return min(same, key=lambda one: ORDER.get(one["state"], len(ORDER)), default=UNSCANNED)


def _listed(setting: Setting, host: Host) -> Observation:
    path = setting.get("list", "")
    if not path:
        raise Unasked(NO_LIST)
    try:
        listed = read(host.text(path) or "")
    except Refused as broken:
        raise Unavailable("image_list", f"{path} cannot be taken for a list: {broken}") from broken
    today: datetime.date = waiver.day(host.context)
    faults: Dict[str, Any] = {}
    allowed = [entry for entry in listed.entries if entry.until >= today]
    for entry in allowed:
        stands = setting["scans"].get(entry.digest) or {"": UNSCANNED}
        failing = [{"platform": name, **one} for name, one in stands.items() if one["state"] != PASSED]
        if failing:
            worst = min(failing, key=lambda one: ORDER.get(one["state"], len(ORDER)))
            told = {name: worst[name] for name in ("platform", "state", "why")}
            faults[entry.digest] = {"image": entry.image, "config": "", "pods": [], **told}
    return {"count": len(allowed), "faults": faults}


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that a scan that counts let each image pass.

    Of an image that runs without one nothing is known, so it is not evaluated; on the list it must not stand.
    """
    faults: Dict[str, Any] = seen["faults"]
    states = {one["state"] for one in faults.values()}
    said = [_words(digest, one) for digest, one in sorted(faults.items(), key=lambda item: _place(*item))]
    todo = [TODO[state] for state in TODO if state in states]
    if faults and VULNERABLE not in states and setting["of"] == "running":
        raise Unavailable("unscanned", "; ".join([several(said), *todo]), faults)
    return Verdict(
        ok=not faults,
        expected=f"{seen['count']} images, each with a scan that counts and passed",
        observed=faults or f"{seen['count']} images, each with a scan that counts and passed",
        reason="; ".join([several(said), *todo]) if faults else "",
        evidence="crictl ps, ctr images list" if setting["of"] == "running" else setting.get("list", ""),
        where=tuple(sorted({f"pod {pod}" for one in faults.values() for pod in one["pods"]})),
    )


def _place(digest: str, one: Dict[str, Any]) -> Tuple[bool, str]:
    """What is vulnerable is told first: only a few of many are told."""
    return one["state"] != VULNERABLE, digest


def _words(digest: str, one: Dict[str, Any]) -> str:
    pods = f" in {several(one['pods'], 3, ', ')}" if one["pods"] else ""
    return f"{one['image']}@{digest}{pods}: {one['why']}".lstrip("@")


def places(setting: Setting) -> List[str]:
    """The list, or the runtime's images."""
    if setting["of"] == "listed":
        return [setting.get("list") or "casemate_image_list"]
    return ["containerd"]


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, units=lambda setting: UNITS, places=places)
