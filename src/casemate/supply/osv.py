"""Advisories in the form of OSV: which versions each is about. Pure.

Sources: the OSV schema (https://ossf.github.io/osv-schema/, evaluation of ranges), https://go.dev/ref/mod#versions for
the order of Go's versions, and `golang.org/x/vuln` for what the Go vulnerability database means by what it leaves out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from casemate.supply import severities

Event = tuple[str, str]
"""("introduced", "fixed", "last_affected" or "limit"; version)."""
EVENTS = ("introduced", "fixed", "last_affected", "limit")
ENDS = ("fixed", "introduced", "last_affected")
"""In which order events of one version are taken: it may end one line and begin the next, or be affected alone."""
NUMBER = r"(?:0|[1-9]\d*)"
VERSION = re.compile(
    rf"(?:v|go)?({NUMBER})(?:\.({NUMBER})(?:\.({NUMBER})(?:-([0-9A-Za-z.-]+))?(?:\+([0-9A-Za-z.-]+))?)?)?"
)
BUILD_OF_K3S = re.compile(r"k3s(\d+)")
NO_VERSION = (-1,)
"""The key of what is no version."""


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
        return NO_VERSION
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


class Order(NamedTuple):
    """The order of an ecosystem's versions: what sorts them, and how one is compared with that of an event."""

    key: Callable[[str], tuple[Any, ...]]
    compare: Callable[[str, str], int]


GO = Order(key, compare)


def in_range(version: str, events: Iterable[Event], order: Order = GO) -> bool:
    """Whether a version is within a range, as the schema evaluates its events."""
    events = list(events)
    limits = [at for what, at in events if what == "limit"]
    if limits and not any(at == "*" or order.compare(version, at) < 0 for at in limits):
        return False
    affected = ("introduced", "0") in events
    rest = [event for event in events if event[0] != "limit" and event != ("introduced", "0")]
    for what, at in sorted(rest, key=lambda event: (order.key(event[1]), ENDS.index(event[0]))):
        if what == "introduced":
            affected = affected or order.compare(version, at) >= 0
        elif what == "fixed":
            affected = affected and order.compare(version, at) < 0
        else:
            affected = affected and order.compare(version, at) <= 0
    return affected


def fixed_in(version: str, events: Iterable[Event], order: Order = GO) -> str:
    """The oldest version that ends the range around this one, or "" where none does."""
    later = [at for what, at in events if what == "fixed" and order.compare(version, at) < 0]
    return min(later, key=order.key, default="")


def holding(affected: Affected, version: str, project: bool = False, order: Order = GO) -> Range | None:
    """The range that has a version, None where none has. What names neither ranges nor versions is about all.

    `project`: it is a version of the project itself. Then ranges of such versions count, too, and where there are any,
    a range of Go's that never ends says no more than that Go does not know these versions.
    """
    known = [one for one in affected.ranges if not one.of_project]
    own = [one for one in affected.ranges if one.of_project]
    if project and own:
        known = [one for one in known if one.events != (("introduced", "0"),)] + own
    found = next((one for one in known if in_range(version, one.events, order)), None)
    named = version in affected.versions or (
        order.key(version) != NO_VERSION and any(order.compare(version, one) == 0 for one in affected.versions)
    )
    if found is None and (named or not (known or affected.versions)):
        return Range(())
    return found


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
        if not every:
            return None
        aliases = tuple(sorted({str(alias) for alias in entry.get("aliases") or ()} - {entry["id"]}))
        vectors = [*(entry.get("severity") or ()), *(one for has in ours for one in has.get("severity") or ())]
        severity = severities.of((entry.get("database_specific") or {}).get("severity"), vectors)
        summary = str(entry.get("summary") or "")
    except (AttributeError, KeyError, TypeError) as odd:
        raise OsvError(f"{entry['id']} is not as the schema of OSV says: {odd!r}") from odd
    return Advisory(entry["id"], aliases, summary, severity, tuple(every))


def ecosystems(entry: Mapping[str, Any]) -> set[str]:
    """The ecosystems, such as "Go" or "Debian:12", of whose packages an entry says something. Raises OsvError."""
    try:
        return {str(one["package"]["ecosystem"]) for one in entry.get("affected") or () if one.get("package")}
    except (AttributeError, KeyError, TypeError) as odd:
        raise OsvError(f"{entry['id']} is not as the schema of OSV says: {odd!r}") from odd


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
