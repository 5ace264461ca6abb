"""Images that run although their tag leads to another one by now, or their base to a newer one. Observe-only.

What registries say lies on the controller, which has asked them, and comes with the setting; what runs, and what it
says of its base, is asked of the node. Source: OCI image specification 1.1, annotations.md.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Dict, Iterator, List, Literal, Tuple, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Unasked, Unavailable, Verdict
from ..formats.image_reference import tagged
from ..host.machine import Host
from ..k3s.images import Image, running
from ..k3s.services import UNITS
from .kind import Kind


class Setting(TypedDict):
    """What a control of this kind demands."""

    of: Annotated[Literal["tags", "bases"], Key("the tags by which images run, or the images that they are built on")]
    answers: Annotated[
        Dict[str, Any],
        Key("HOST/PATH:TAG -> platform such as linux/amd64 -> digests and configuration to which it leads, or why not"),
    ]
    wanted: Annotated[bool, Key("whether the operator has registries asked")]


BASE_NAME, BASE_DIGEST = "org.opencontainers.image.base.name", "org.opencontainers.image.base.digest"
NOTHING = "scratch"
"""The base of an image that is built on none."""
UNSET = "casemate_image_updates is not set, so no registry was asked"
CURRENT, NEWER, UNKNOWN, UNDECLARED = "current", "newer", "unknown", "undeclared"
NOT_ASKED = "it was not asked for lately: casemate images scan does"
TODO = {
    "tags": "roll out what it leads to now, or name the image by digest alone",
    "bases": "build it again on that, and roll it out",
}


def identity(setting: Setting) -> str:
    """One control for tags, and one for bases."""
    return setting["of"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """For each setting: reference -> platform -> images -> how they stand to it."""
    if not any(setting["wanted"] for setting in settings):
        raise Unasked(UNSET)
    return [{"images": list(_images(setting, running(host)))} for setting in settings]


def _images(setting: Setting, found: List[Image]) -> Iterator[Dict[str, Any]]:
    """How each image stands to each tag that it runs by, or to its base."""
    for one in found:
        about = {"image": one.name, "platform": one.platform, "pods": one.pods}
        for reference, has in _asked_for(setting, one):
            yield {**about, "reference": reference, **_standing(setting, one, reference, has)}


def _asked_for(setting: Setting, image: Image) -> Iterator[Tuple[str, str]]:
    """(a tag, what is to be compared with that to which it leads)."""
    if setting["of"] == "tags":
        yield from ((tag, "") for tag in sorted({tagged(name) for name in [*image.names, *image.asked]} - {""}))
        return
    name, digest = (image.annotations.get(key, "") for key in (BASE_NAME, BASE_DIGEST))
    if name != NOTHING:
        yield (tagged(name) if digest else ""), digest


def _standing(setting: Setting, image: Image, reference: str, has: str) -> Dict[str, Any]:
    if not reference:
        return {"state": UNDECLARED, "now": "", "why": "it does not say what it is built on"}
    answer = setting["answers"].get(reference, {}).get(image.platform)
    if not answer or answer["why"]:
        return {"state": UNKNOWN, "now": "", "why": answer["why"] if answer else NOT_ASKED}
    same = has in answer["digests"] if has else answer["config"] == image.id
    return {"state": CURRENT if same else NEWER, "now": answer["digests"][0], "why": ""}


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that each leads to what runs. One of which that is not known is not evaluated."""
    images: List[Dict[str, Any]] = seen["images"]
    by = {state: [one for one in images if one["state"] == state] for state in (NEWER, UNKNOWN, UNDECLARED)}
    if by[UNKNOWN] and not by[NEWER]:
        said = several(sorted({f"{one['reference']}: {one['why']}" for one in by[UNKNOWN]}))
        raise Unavailable("registry", said, _by_name(by[UNKNOWN]))
    if by[UNDECLARED] and not by[NEWER]:
        said = several(sorted({one["image"] for one in by[UNDECLARED]}), between=", ")
        raise Unavailable(
            "undeclared", f"no annotation {BASE_NAME} and {BASE_DIGEST}: {said}", _by_name(by[UNDECLARED])
        )
    told_of = _by_name([*by[NEWER], *by[UNKNOWN]])
    what = "its tag" if setting["of"] == "tags" else "its base"
    told = [
        f"{one['image']} in {several(one['pods'], 3, ', ')}: {what} {one['reference']} is {one['now']} now"
        for one in by[NEWER]
    ]
    return Verdict(
        ok=not told,
        expected="each is what its registry has by that name",
        observed=told_of or f"{len(images)} images, each what its registry has by that name",
        reason="; ".join([several(told), TODO[setting["of"]]]) if told else "",
        evidence="crictl ps, ctr images list, and what registries answered to the controller",
        where=tuple(sorted({f"pod {pod}" for one in by[NEWER] for pod in one["pods"]})),
    )


def _by_name(images: List[Dict[str, Any]]) -> Dict[str, Any]:
    """The same by tag, or by the annotation that lacks, and image."""
    return {f"{one['reference'] or BASE_NAME} of {one['image']}": one for one in images}


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, units=lambda setting: UNITS, places=lambda setting: ["containerd"]
)
