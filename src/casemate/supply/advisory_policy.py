"""What an operator wants to be asked about advisories, and which of those about what is installed are left open."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from casemate.supply import advisories, debian, inventory, severities
from casemate.supply.advisories import Data, DataError, Match
from casemate.supply.artifact_lock import ARCHITECTURES
from casemate.supply.component import Component
from module_utils.casemate.core import waiver

SEVERITIES = severities.WORDS
DEFAULT_SEVERITY, DEFAULT_AGE = "medium", 14
AHEAD = datetime.timedelta(days=1)
"""How far a date of data may lie in the future: clocks and time zones differ."""
SHOWN = 5
"""Modules that are named of those which OSV was not asked for."""


@dataclass(frozen=True)
class Policy:
    """The inputs on advisories: their data, who answers for which, and what counts.

    `severity`: an advisory whose data names a lower one is told alone; `days`: data that tells up to an earlier day
    counts as old. `waivers` are by the id or any other name of an advisory.
    """

    data: tuple[Path, ...] = ()
    vex: tuple[Path, ...] = ()
    severity: str = DEFAULT_SEVERITY
    days: int = DEFAULT_AGE
    waivers: Mapping[str, waiver.Waiver] = field(default_factory=dict)


@dataclass(frozen=True)
class Installed:
    """What there is: components, os-release(5) of their system, a GOARCH ("" for any), and K3s' version where known."""

    components: tuple[Component, ...]
    system: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    k3s: str = ""


@dataclass(frozen=True)
class Judged:
    """What came of it.

    `open` are the advisories that count and that nobody answers for; `answered` those with an answer, and who gives it;
    `told` those that do not count; `silent` are parts of K3s, or a kernel, that do not say their version, so that
    nobody knows; `stale` says in words which data is old, or does not know of all modules. `has_go` and `has_debian`:
    what the data is about; `has_release`: whether it knows the release of that Debian.
    """

    open: tuple[Match, ...]
    answered: tuple[tuple[Match, str], ...]
    told: tuple[Match, ...]
    silent: tuple[Component, ...]
    stale: tuple[str, ...]
    has_go: bool
    has_debian: bool
    has_release: bool

    def names(self, module: str) -> frozenset[str]:
        """All names of all advisories about a module, whether they count or not."""
        every = [*self.open, *self.told, *(one for one, _ in self.answered)]
        return frozenset(name for one in every if one.module == module for name in one.names)


def of_host(told: Mapping[str, Any]) -> Installed:
    """What k3s/components.py gathers on a host. Raises ValueError for an answer of another shape."""
    components = tuple(inventory.components(told))
    system = {str(name): str(value) for name, value in told["os"].items()}
    return Installed(components, system, ARCHITECTURES.get(str(told["machine"]), ""), str(told["k3s"]))


def policy(given: Mapping[str, Any]) -> Policy:
    """The policy of inputs: `data`, `vex`, `severity`, `max_age` and `waivers`, each absent or None for its default."""
    return Policy(
        tuple(Path(str(one)).expanduser() for one in given.get("data") or ()),
        tuple(Path(str(one)).expanduser() for one in given.get("vex") or ()),
        str(given.get("severity") or DEFAULT_SEVERITY),
        int(given.get("max_age") or DEFAULT_AGE),
        dict(given.get("waivers") or {}),
    )


def judged(installed: Installed, asked: Policy, now: datetime.datetime) -> Judged:
    """Which advisories are about what is installed, and which of them nobody answers for. Raises DataError.

    Of K3s' own parts every advisory counts; of other modules none does, since most are not reachable and every K3s has
    dozens. Of Debian's packages those count for which the release has a fixed version.
    """
    release = [installed.system.get(name, "") for name in ("VERSION_CODENAME", "VERSION_ID")]
    read = {path: advisories.load(path, *release) for path in asked.data}
    known = [one for data in read.values() for one in data.advisories]
    found = advisories.matches(installed.components, known, installed.machine)
    for data in read.values():
        found += advisories.matches_on_debian(installed.components, data)
    found = advisories.together(found)
    answers = _answers(installed, asked, now.date(), found)
    counts = {one for one in found if counted(one, asked.severity)}
    tracked = any(data.tracks for data in read.values())
    unknown = advisories.unknown(installed.components)
    silent = [one for one in unknown if advisories.part_of(one.name) or advisories.part_of(one.replaces)]
    silent += [one for one in installed.components if one.ecosystem == "kernel" and not one.source and tracked]
    return Judged(
        tuple(one for one in found if one in counts and one not in answers),
        tuple((one, answers[one]) for one in found if one in answers),
        tuple(one for one in found if one not in counts and one not in answers),
        tuple(silent),
        (
            *(why for path, data in read.items() if (why := old(data, path, asked.days, now))),
            *unasked(installed.components, read),
        ),
        bool(known),
        tracked,
        any(data.has_release for data in read.values()),
    )


def counted(one: Match, least: str) -> bool:
    """Whether an advisory asks for an answer."""
    if one.severity == debian.UNIMPORTANT or one.severity in SEVERITIES[: SEVERITIES.index(least)]:
        return False
    return bool(one.part or (one.ecosystem == "deb" and one.fixed))


def old(data: Data, path: Path, most: int, now: datetime.datetime) -> str:
    """Why data tells too little of today, or "". `most`: days. What says that it is of a later day tells nothing."""
    if data.told is None:
        return f"nobody can say how old {path} is: it has no dates. Name it as Go's module cache does, or fetch another"
    days = (now - data.told).days
    by = f"{data.told:%Y-%m-%d}, by {data.told_by}"
    if data.told > now + AHEAD:
        return f"{path} tells up to {by}, and today is {now:%Y-%m-%d}: set the clock of this machine, or fetch it again"
    return f"{path} tells up to {by}: {days} days are more than {most}. Fetch it again" if days > most else ""


def unasked(components: Iterable[Component], read: Mapping[Path, Data]) -> list[str]:
    """Why what OSV once answered tells too little: it was asked for other modules, and no other data knows of all."""
    answers = {path: data.asked for path, data in read.items() if data.asked is not None}
    if not answers or any(data.advisories and data.asked is None for data in read.values()):
        return []
    lacking = sorted(advisories.names(components).difference(*answers.values()))
    if not lacking:
        return []
    shown = ", ".join(lacking[:SHOWN]) + (f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else "")
    where = ", ".join(map(str, answers))
    return [f"{where}: OSV was asked for other modules, and not for {shown}. {advisories.AGAIN.capitalize()}"]


def _answers(installed: Installed, asked: Policy, today: datetime.date, found: Iterable[Match]) -> dict[Match, str]:
    """Advisory -> who answers for it, by a waiver that holds or a statement of OpenVEX. Raises DataError."""
    holding = waiver.holding(asked.waivers, today)
    said = _statements(asked.vex)
    made = {}
    for one in found:
        waived = next((holding[name] for name in sorted(one.names & holding.keys())), None)
        if waived is not None:
            made[one] = f"waived by {waived.get('owner')} until {waived['expires']}: {waived.get('reason')}"
        elif said:
            told = _by_vex(installed, said, one)
            if told:
                made[one] = told
    return made


def _statements(files: Collection[Path]) -> list[Any]:
    if not files:
        return []
    # Here, since a collection is also read where what this needs is not installed.
    from casemate.supply import openvex

    try:
        return [one for path in files for one in openvex.load(path)]
    except openvex.VexError as refused:
        raise DataError(str(refused)) from refused


def _by_vex(installed: Installed, said: list[Any], one: Match) -> str:
    from casemate.supply import openvex
    from casemate.supply.package_url import purl

    mine = Component(one.ecosystem, one.module, one.version)
    urls = [url for part in (mine, *_found_as(installed, one)) if (url := purl(part, installed.system))]
    k3s = [Component("release", "k3s", installed.k3s), Component("go", advisories.K3S, installed.k3s)]
    of_k3s = one.ecosystem == "go" and installed.k3s
    product = [url for part in k3s if of_k3s and (url := purl(part, installed.system))]
    statement = openvex.answer(said, one.names, urls, product)
    return f"{statement.status} by OpenVEX: {statement.why}" if statement else ""


def _found_as(installed: Installed, one: Match) -> list[Component]:
    """The installed components that an advisory was found on: a fork has two names, a source has several packages."""
    if one.ecosystem == "deb":
        return [
            part
            for part in installed.components
            if part.ecosystem == "deb" and (part.source, part.source_version) == (one.module, one.version)
        ]
    return [part for part in installed.components if part.ecosystem == "go" and part.replaces == one.module]
