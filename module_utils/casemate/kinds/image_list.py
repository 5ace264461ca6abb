"""The signed list of images on the controller: who signed it, and whether it still counts.

Nodes ask it at each pull by themselves; what is told here is that they would refuse everything, and from when on.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, List, TypedDict

from ..core import waiver
from ..core.schema import Key
from ..core.verdict import Observation, Unasked, Verdict
from ..host.machine import Host
from ..host.signature import SignatureError, signer
from ..k3s.image_verifier import NAMESPACE, Refused, over, read
from .kind import Kind

UNSET = "casemate_image_list is not set, so any image of any registry that is reached may run"


class Setting(TypedDict):
    """What a control of this kind demands."""

    list: Annotated[str, Key("path of the list on the controller; empty for none")]
    allowed_signers: Annotated[str, Key("path of the operator's allowed_signers on the controller")]
    revoked: Annotated[str, Key("path of the keys that count no more, on the controller; empty for none")]


def identity(setting: Setting) -> str:
    """One control for a list."""
    return setting["list"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """Who signed each list, its last day, how many images it allows today, and what is wrong with it."""
    return [_seen(setting, host) if setting["list"] else Unasked(UNSET) for setting in settings]


def _seen(setting: Setting, host: Host) -> Observation:
    today = waiver.day(host.context)
    try:
        known, revoked = setting["allowed_signers"], setting["revoked"]
        by = signer(host.run, setting["list"], known, namespace=NAMESPACE, revoked=revoked)
        with open(setting["list"], encoding="utf-8") as file:
            images = read(file.read())
    except (SignatureError, Refused, OSError, UnicodeDecodeError) as refusal:
        return {"signer": "", "why": str(refusal)}
    why = over(images, today)
    wrong = f"it {why}: nodes refuse every image" if why else ""
    allowed = sum(entry.until >= today for entry in images.entries)
    none = "" if wrong or allowed else "it allows no image today: nodes refuse every one"
    return {"signer": by, "why": wrong or none, "expires": images.expires.isoformat(), "allowed": allowed}


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is a list that an allowed signer signed, and that is not over."""
    shown = f"signed by {seen['signer']}, until {seen.get('expires')}, {seen.get('allowed')} images"
    return Verdict(
        ok=not seen["why"],
        expected="signed by an allowed signer, and not over",
        observed=shown if seen["signer"] else "nobody",
        reason=seen["why"],
        evidence=f"ssh-keygen -Y verify -n {NAMESPACE} {setting['list']}",
    )


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, places=lambda setting: [setting["list"] or "casemate_image_list"]
)
