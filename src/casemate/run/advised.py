"""What the controller finds of advisories about a host, in the plain form that the kind `advisories` judges."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

from casemate.supply import advisories
from casemate.supply.advisories import DataError, Match
from casemate.supply.advisory_policy import Judged, judged, of_host, policy
from casemate.supply.component import Component
from module_utils.casemate.core.verdict import UNASKED


def found(told: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """For each `of` of kinds/advisories.py what came of comparing a host with the data.

    `told` is what k3s/components.py says of the host, as JSON; `asked` the inputs, as advisory_policy takes them.
    """
    try:
        gathered = json.loads(told)
        installed = of_host(gathered)
        seen = judged(installed, policy(asked), datetime.datetime.now(datetime.UTC))
        unread = {str(place): str(why) for place, why in gathered["unread"].items()}
    except DataError as refused:
        return _lacking("advisories", str(refused))
    except (AttributeError, KeyError, TypeError, ValueError) as odd:
        return _lacking("advisories", f"what the host says it is made of has another shape: {odd!r}")
    return {
        "k3s": _of([one for one in seen.open if one.ecosystem == "go"], seen, _k3s_lacks(seen, unread)),
        "system": _of([one for one in seen.open if one.ecosystem == "deb"], seen, _system_lacks(seen, unread)),
    }


def _of(every: list[Match], seen: Judged, lacks: list[str]) -> dict[str, Any]:
    places = sorted({place for one in every for place in one.where})
    return {"open": advisories.in_words(every), "places": places, "stale": list(seen.stale), "lacks": lacks}


def _k3s_lacks(seen: Judged, unread: Mapping[str, str]) -> list[str]:
    """[code, reason] where nobody can say that K3s has no advisory."""
    if not seen.has_go:
        return [UNASKED, "casemate_advisory_data holds nothing in the form of OSV about Go modules"]
    missing = {place: why for place, why in unread.items() if place not in ("packages", "images")}
    if missing:
        return ["k3s", "; ".join(why if place == "k3s" else f"{place}: {why}" for place, why in missing.items())]
    return _silent([one for one in seen.silent if one.ecosystem == "go"], "version")


def _system_lacks(seen: Judged, unread: Mapping[str, str]) -> list[str]:
    if not seen.has_debian:
        return [UNASKED, "casemate_advisory_data holds nothing of Debian's security tracker"]
    if not seen.has_release:
        return ["advisories", "the data of Debian's security tracker has nothing on the release of this host"]
    if "packages" in unread:
        return ["package_index", unread["packages"]]
    return _silent([one for one in seen.silent if one.ecosystem == "kernel"], "kernel")


def _silent(parts: list[Component], code: str) -> list[str]:
    if not parts:
        return []
    names = ", ".join(
        f"{one.name} in {', '.join(one.where)}" if one.where else f"{one.name} {one.version}" for one in parts
    )
    return [code, f"{names} does not say its version as advisories do, so nobody knows"]


def _lacking(code: str, why: str) -> dict[str, Any]:
    nothing: dict[str, Any] = {"open": [], "places": [], "stale": [], "lacks": [code, why]}
    return {"k3s": nothing, "system": nothing}
