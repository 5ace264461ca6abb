"""Advisories in the form of OSV: which versions each is about. Pure.

Sources: the OSV schema (https://ossf.github.io/osv-schema/, evaluation of ranges), https://go.dev/ref/mod#versions for
the order of Go's versions, and `golang.org/x/vuln` for what the Go vulnerability database means by what it leaves out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from casemate.supply import severities

Event = tuple[str, str]
"""("introduced", "fixed", "last_affected" or "limit"; version)."""
EVENTS = ("introduced", "fixed", "last_affected", "limit")
NUMBER = r"(?:0|[1-9]\d*)"
VERSION = re.compile(
    rf"(?:v|go)?({NUMBER})(?:\.({NUMBER})(?:\.({NUMBER})(?:-([0-9A-Za-z.-]+))?(?:\+([0-9A-Za-z.-]+))?)?)?"
)
BUILD_OF_K3S = re.compile(r"k3s(\d+)")


class OsvError(ValueError):
    """An entry is not what the schema of OSV says; the message says where."""


@dataclass(frozen=True)
class Range:
    """Events of one range. `of_project`: it is about the project's own versions, not those that Go knows."""

    events: tuple[Event, ...]
    of_project: bool = False


@dataclass(frozen=True)
class Affected:
    """What an advisory says of one package: ranges, and versions that it names one by one.

    `systems` are pairs of GOOS and GOARCH, each "" for any, on which it counts; empty for all.
    """

    name: str
    ranges: tuple[Range, ...]
    versions: frozenset[str]
    systems: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Advisory:
    """One advisory. `aliases` are its other names, `severity` a word of severity.py, or "" where that is unknown."""

    id: str
    aliases: tuple[str, ...]
    summary: str
    severity: str
    affected: tuple[Affected, ...]


@functools.cache
def key(version: str) -> tuple[Any, ...]:
    """What puts versions into the order of SemVer; what is none sorts before all that are, as in golang.org/x/mod.

    Metadata after + does not count, but for the build of K3s (k3s1), which is a release of its own.
    """
    found = VERSION.fullmatch(version)
    if found is None:
        return (-1,)
    *numbers, candidate, metadata = found.groups()
    parts = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in (candidate or "").split(".") if p)
    build = BUILD_OF_K3S.fullmatch(metadata or "")
    return (0, *(int(n or 0) for n in numbers), not candidate, parts, int(build[1]) if build else 0)


def compare(version: str, event: str) -> int:
    """Less than, equal to or more than 0, as a version is older than, the same as or newer than that of an event.

    An event that names no build of K3s is about all builds of its version.
    """
    mine, other = key(version), key(event)
    if "+k3s" not in event:
        mine, other = mine[:-1] or mine, other[:-1] or other
    return (mine > other) - (mine < other)


def in_range(version: str, events: Iterable[Event]) -> bool:
    """Whether a version is within a range, as the schema evaluates its events."""
    events = list(events)
    limits = [at for what, at in events if what == "limit"]
    if limits and not any(at == "*" or compare(version, at) < 0 for at in limits):
        return False
    ordered = sorted(
        (event for event in events if event[0] != "limit"),
        key=lambda e: ((-2,), 0) if e == ("introduced", "0") else (key(e[1]), e[0] == "introduced"),
    )
    affected = False
    for what, at in ordered:
        if what == "introduced":
            affected = affected or at == "0" or compare(version, at) >= 0
        elif what == "fixed":
            affected = affected and compare(version, at) < 0
        else:
            affected = affected and compare(version, at) <= 0
    return affected


def fixed_in(version: str, events: Iterable[Event]) -> str:
    """The oldest version that ends the range around this one, or "" where none does."""
    later = [at for what, at in events if what == "fixed" and compare(version, at) < 0]
    return min(later, key=key, default="")


def holding(affected: Affected, version: str, project: bool) -> Range | None:
    """The range that has a version, None where none has. What names neither ranges nor versions is about all.

    `project`: it is a version of the project itself. Then ranges of such versions count, too, and where there are any,
    a range of Go's that never ends says no more than that Go does not know these versions.
    """
    if version in affected.versions or version.removeprefix("v") in affected.versions:
        return Range(())
    known = [one for one in affected.ranges if not one.of_project]
    own = [one for one in affected.ranges if one.of_project]
    if project and own:
        known = [one for one in known if one.events != (("introduced", "0"),)] + own
    if not known:
        return None if affected.versions else Range(())
    return next((one for one in known if in_range(version, one.events)), None)


def advisory(entry: Any, ecosystem: str = "Go") -> Advisory | None:
    """An entry, with what it says of packages of an ecosystem; None where it says nothing of them, or was withdrawn.

    Raises OsvError.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str) or not entry["id"]:
        raise OsvError("it has no id, so it is no advisory in the form of OSV")
    if entry.get("withdrawn"):
        return None
    try:
        ours = [one for one in entry.get("affected") or () if one.get("package", {}).get("ecosystem") == ecosystem]
        every = [_affected(one) for one in ours]
        aliases = tuple(sorted({str(alias) for alias in entry.get("aliases") or ()} - {entry["id"]}))
        vectors = [*(entry.get("severity") or ()), *(one for has in ours for one in has.get("severity") or ())]
        severity = severities.of((entry.get("database_specific") or {}).get("severity"), vectors)
        summary = str(entry.get("summary") or "")
    except (AttributeError, KeyError, TypeError) as odd:
        raise OsvError(f"{entry['id']} is not as the schema of OSV says: {odd!r}") from odd
    return Advisory(entry["id"], aliases, summary, severity, tuple(every)) if every else None


def advisory_of(plain: tuple[Any, ...]) -> Advisory:
    """An advisory of what dataclasses.astuple made of one."""
    name, aliases, summary, severity, affected = plain
    made = [
        Affected(module, tuple(Range(*one) for one in ranges), versions, systems)
        for module, ranges, versions, systems in affected
    ]
    return Advisory(name, aliases, summary, severity, tuple(made))


def _affected(raw: Mapping[str, Any]) -> Affected:
    specific = raw.get("ecosystem_specific") or {}
    ranges = [Range(_events(one)) for one in raw.get("ranges") or () if one["type"] in ("SEMVER", "ECOSYSTEM")]
    ranges += [Range(_events(one), of_project=True) for one in specific.get("custom_ranges") or ()]
    imports = specific.get("imports") or ()
    systems = {
        (system, machine)
        for one in imports
        for system in one.get("goos") or [""]
        for machine in one.get("goarch") or [""]
    }
    return Affected(
        raw["package"]["name"], tuple(ranges), frozenset(map(str, raw.get("versions") or ())), tuple(sorted(systems))
    )


def _events(raw: Mapping[str, Any]) -> tuple[Event, ...]:
    found = tuple((what, str(at)) for one in raw["events"] for what, at in one.items() if what in EVENTS)
    if not any(what == "introduced" for what, _ in found):
        raise KeyError("introduced")
    return found
