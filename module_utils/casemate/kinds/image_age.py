"""How long ago the images that run here were built. Observe-only.

What nobody builds again misses the fixes of its base.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection
from typing import Annotated, Any, Dict, List, Optional, TypedDict

from ..core import waiver
from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Unasked, Unavailable, Verdict
from ..host.machine import Host
from ..k3s.images import running
from ..k3s.services import UNITS
from .kind import Kind


class Setting(TypedDict):
    """What a control of this kind demands."""

    days: Annotated[int, Key("how many days after it was built an image may run; 0: any number")]


FIRST = datetime.date(2013, 1, 1)
"""No image is older. Builds that give the same bytes each time say 1970 or 1980, which tells nothing."""
ANY = "casemate_image_max_age_days is not set, so images of any age may run"


def identity(setting: Setting) -> str:
    """There is one limit."""
    return "running"


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """Each image that runs: its name, when it was built ("" where it does not say), and where it runs."""
    if not any(setting["days"] for setting in settings):
        raise Unasked(ANY)
    images: Dict[str, Any] = {}
    for one in running(host):
        built = day(one.created)
        images[one.name] = {"built": built.isoformat() if built else "", "pods": one.pods}
    return [{"images": images, "today": waiver.day(host.context).isoformat()} for _ in settings]


def day(created: str) -> Optional[datetime.date]:
    """The day of a time of RFC 3339, as configurations of images have it; None where it tells nothing."""
    found = re.match(r"\d{4}-\d\d-\d\d(?=T)", created)
    try:
        made = datetime.date.fromisoformat(found[0]) if found else None
    except ValueError:
        return None
    return made if made and made >= FIRST else None


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that each image was built no longer ago than that. One of which it is not known is not evaluated."""
    today, images = datetime.date.fromisoformat(seen["today"]), seen["images"]
    ages = {n: (today - datetime.date.fromisoformat(one["built"])).days for n, one in images.items() if one["built"]}
    old = {name: age for name, age in sorted(ages.items()) if age > setting["days"]}
    ahead = {name: age for name, age in sorted(ages.items()) if age < -1}
    undated = sorted(images.keys() - ages.keys())
    if undated and not old and not ahead:
        why = "nothing says when it was built, as of builds that give the same bytes each time"
        raise Unavailable("undated", f"{several(undated, between=', ')}: {why}", undated)
    where = {name: several(images[name]["pods"], 3, ", ") for name in images}
    said_of = [f"{name} in {where[name]}: built {images[name]['built']}, {age} days ago" for name, age in old.items()]
    said_of += [f"{name} in {where[name]}: built {images[name]['built']}, in the future" for name in ahead]
    todo = "build it again on a base of today, or take a newer one; K3s' own come with a newer K3s"
    return Verdict(
        ok=not said_of,
        expected=f"built {setting['days']} days ago at most",
        observed={name: images[name] for name in sorted({*old, *ahead})} or f"{len(images)} images, none older",
        reason="; ".join([several(said_of), todo]) if said_of else "",
        evidence="created of the configurations in containerd's content store",
        where=tuple(sorted({f"pod {pod}" for name in {*old, *ahead} for pod in images[name]["pods"]})),
    )


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, units=lambda setting: UNITS, places=lambda setting: ["containerd"]
)
