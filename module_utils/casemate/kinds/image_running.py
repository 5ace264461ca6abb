"""Images that run without being on the signed list, nor of K3s' own release: imported by hand, or pulled unasked.

An import is no pull, so that no verifier sees it; what runs is asked of the container runtime, by digest. K3s' own are
those of the verified archive of its release, which K3s imports: they are known by their configurations.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Annotated, Any, Dict, FrozenSet, List, TypedDict

from ..core import waiver
from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Unasked, Verdict
from ..host.machine import Host
from ..k3s import image_verifier as program
from ..k3s.artifact import digest_of
from ..k3s.image_archive import configurations
from ..k3s.images import Image, running
from ..k3s.services import UNITS
from .image_list import UNSET
from .kind import Kind, each


class Setting(TypedDict):
    """What a control of this kind demands."""

    lists: Annotated[str, Key("the folder of the list on the node", pattern=r"/\S+")]
    archive: Annotated[str, Key("the archive of K3s' own images on the node", pattern=r"/\S+")]
    digests: Annotated[Dict[str, str], Key("machine type (x86_64, aarch64) -> its sha256 that the lock names")]
    wanted: Annotated[bool, Key("whether the operator has a list")]


def identity(setting: Setting) -> str:
    """One control for a list."""
    return setting["lists"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """Image -> why it should not run; and how many run."""
    return each(settings, lambda setting: _seen(setting, host))


def _seen(setting: Setting, host: Host) -> Observation:
    if not setting["wanted"]:
        raise Unasked(UNSET)
    found, listed, refusal = running(host), program.Images(waiver.day(host.context), ()), ""
    try:
        listed = program.read(program.signed(host.path(setting["lists"])))
    except program.Refused as why:
        refusal = f"{setting['lists']}: {why}"
    k3s_own, unread = _of_release(setting, host)
    faults = {one.name: _fault(one, listed, waiver.day(host.context)) for one in found if one.id not in k3s_own}
    return {
        "faults": {name: why for name, why in faults.items() if why},
        "pods": sorted({pod for one in found if faults.get(one.name) for pod in one.pods}),
        "count": len(found),
        "notes": [one for one in (refusal, unread) if one],
    }


def _of_release(setting: Setting, host: Host) -> tuple[FrozenSet[str], str]:
    """The configurations of K3s' own images, and why they are not known where they are not."""
    path, want = host.path(setting["archive"]), setting["digests"].get(os.uname().machine)
    if not want:
        return frozenset(), ""
    if host.cached(f"digest:{path}", lambda: digest_of(path)) != want:
        return frozenset(), f"{setting['archive']} is not that of the lock, so K3s' own images are not known"
    try:
        return host.cached(f"configurations:{path}", lambda: configurations(path)), ""
    except OSError as unread:
        return frozenset(), f"K3s' own images are not known: {unread}"


def _fault(image: Image, listed: program.Images, today: Any) -> str:
    """Why an image should not run, or nothing."""
    of = {program.parts(name)[0] for name in image.names}
    same = [entry for entry in listed.entries if entry.digest in image.digests]
    if any(entry.image in of and entry.until >= today for entry in same):
        return ""
    over = [f"it was allowed until {entry.until}" for entry in same if entry.image in of]
    elsewhere = [f"its digest is on the list for {entry.image} only" for entry in same]
    return [*over, *elsewhere, "it is not on the list of images"][0]


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that each image that runs is on the list for its repository, or K3s' own."""
    faults: Dict[str, str] = seen["faults"]
    said = [f"{name}: {why}" for name, why in sorted(faults.items())]
    advice = ["allow it (casemate images allow), or end what runs it"] if faults else []
    return Verdict(
        ok=not faults,
        expected="images of the list, or of K3s' release",
        observed=f"{seen['count']} images, {len(faults) or 'none'} of them others",
        reason="; ".join([several(said), *seen["notes"], *advice]) if faults else "",
        evidence="crictl ps, ctr images list",
        where=tuple(f"pod {pod}" for pod in seen["pods"]),
    )


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    units=lambda setting: UNITS,
    places=lambda setting: [f"{setting['lists']}/{program.LIST}"],
)
