"""Debian's security tracker: which faults of source packages are known, and which version fixes each. Pure.

It is had as its own JSON, or in the form of OSV. Sources: https://security-tracker.debian.org/tracker/data/json, and
https://security-team.debian.org/security_tracker.html for what its fields mean; the OSV schema (ecosystems, upstream).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from casemate.supply import osv
from module_utils.casemate.formats import deb_version

UNIMPORTANT = "unimportant"
"""What the tracker calls a fault that is none for whoever uses the package as Debian ships it."""
SEVERITIES = {"low": "low", "medium": "medium", "high": "high", UNIMPORTANT: UNIMPORTANT}
"""Urgency -> severity; "not yet assigned" and "end-of-life" say nothing of it."""
NEVER = "0"
"""The fixed version of a fault that the release never had."""
ECOSYSTEM = "Debian:"
"""How OSV calls Debian, before the number of a release, such as 12."""
RENAMED = "DEBIAN-"
"""What OSV writes before the id of a CVE that it has from the tracker."""


@dataclass(frozen=True)
class Fault:
    """A fault of a source package in one release; `fixed` is its version there without it, "" for none yet."""

    id: str
    fixed: str
    severity: str
    summary: str


def _compare(version: str, event: str) -> int:
    mine, other = deb_version.key(version), deb_version.key(event)
    return (mine > other) - (mine < other)


ORDER = osv.Order(deb_version.key, _compare)
"""The order in which ranges of Debian's versions are read."""


def is_of_osv(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of OSV is about any release of Debian. Raises osv.OsvError."""
    return any(one.startswith(ECOSYSTEM) for one in osv.ecosystems(entry))


def of_osv(entry: Mapping[str, Any], number: str) -> list[osv.Advisory]:
    """What an entry of OSV says of source packages of a release such as "12": an advisory for each, since each has an
    urgency of its own.

    A CVE is known by its plain name, too. Raises osv.OsvError.
    """
    ecosystem = ECOSYSTEM + number
    found = []
    for affected in entry["affected"] if ecosystem in osv.ecosystems(entry) else ():
        ours = (affected.get("package") or {}).get("ecosystem") == ecosystem
        made = osv.advisory({**entry, "affected": [affected]}, ecosystem) if ours else None
        if made is None:
            continue
        urgency = str((affected.get("ecosystem_specific") or {}).get("urgency") or "").rstrip("*")
        named = {made.id.removeprefix(RENAMED)} - {made.id}
        aliases = tuple(sorted({*made.aliases, *named}))
        found.append(replace(made, aliases=aliases, severity=SEVERITIES.get(urgency, made.severity)))
    return found


def is_tracker(raw: Any) -> bool:
    """Whether what was read from JSON has the form of the tracker's data: source package -> id -> releases."""
    if not isinstance(raw, Mapping) or "id" in raw or not raw:
        return False
    first = next(iter(raw.values()))
    return isinstance(first, Mapping) and all(isinstance(one, Mapping) and "releases" in one for one in first.values())


def faults(raw: Mapping[str, Any], release: str) -> Iterator[tuple[str, Fault]]:
    """(source package, fault) for all that a release such as "bookworm" has, or had before a version of it.

    What is not yet looked into ("undetermined") is none. Raises ValueError for data of another shape.
    """
    try:
        for source, known in raw.items():
            for name, about in known.items():
                here = about["releases"].get(release) or {}
                status, fixed = here.get("status"), str(here.get("fixed_version") or "")
                if status not in ("open", "resolved") or (status == "resolved" and fixed in ("", NEVER)):
                    continue
                severity = SEVERITIES.get(str(here.get("urgency") or "").rstrip("*"), "")
                summary = " ".join(str(about.get("description") or "").split())
                yield source, Fault(name, fixed if status == "resolved" else "", severity, summary)
    except (AttributeError, KeyError, TypeError) as odd:
        raise ValueError(f"it is not as Debian's security tracker writes it: {odd!r}") from odd
