"""Which advisories are about what is installed: their data on the controller, and the comparison. No network is used.

The data is a folder of entries in the form of OSV, as `data/osv` of the Go module golang.org/x/vulndb, one file of it,
or a zip archive of such files.
"""

from __future__ import annotations

import datetime
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from casemate.supply import osv
from casemate.supply.component import UNKNOWN, Component

OWN_FORK = re.compile(r"github\.com/(k3s-io|rancher)/")
FORK = re.compile(r"(v\d+\.\d+\.\d+(?:-[0-9A-Za-z.]+?)?)-k3s\d+")
STAGING = "github.com/k3s-io/kubernetes/staging/src/"
K3S = "github.com/k3s-io/k3s"
PARTS = {
    "k3s": (K3S,),
    "kubernetes": ("k8s.io/kubernetes", "github.com/k3s-io/kubernetes"),
    "containerd": ("github.com/containerd/containerd", "github.com/k3s-io/containerd"),
    "runc": ("github.com/opencontainers/runc",),
    "etcd": ("go.etcd.io/etcd", "github.com/k3s-io/etcd"),
    "flannel": ("github.com/flannel-io/flannel", "github.com/coreos/flannel"),
    "kine": ("github.com/k3s-io/kine",),
}
"""What K3s is made of, by the modules that each is; those below them belong to it, too."""
LARGEST = 64 * 1024 * 1024
"""Bytes of one file that are read as advisories."""
STAMPED = re.compile(r"@v0\.0\.0-(\d{14})-[0-9a-f]{12}(?:/|$)")
"""How Go names the folder of a module at a commit, with its date in UTC."""
NO_DATE = "0001-01-01"
"""The date of entries in golang.org/x/vulndb, which get theirs when the database is published."""


class DataError(Exception):
    """The data of advisories cannot be read, or is something else; the message names the file and what to do."""


@dataclass(frozen=True)
class Data:
    """Advisories, and the moment in UTC up to which their data tells, with what says so; None where nothing does."""

    advisories: tuple[osv.Advisory, ...]
    told: datetime.datetime | None
    told_by: str = ""


@dataclass(frozen=True, order=True)
class Match:
    """An advisory that is about a component.

    `part` is which part of K3s that is, "" for any other module. `module` and `version` are those by which the advisory
    knows it: with `of_fork`, those of what K3s' own fork is made of. `fixed` is the oldest version without the fault,
    "" where none is known.
    """

    id: str
    aliases: tuple[str, ...]
    part: str
    module: str
    version: str
    fixed: str
    severity: str
    summary: str
    where: tuple[str, ...]
    of_fork: bool


def load(path: Path) -> Data:
    """The advisories of a folder, file or zip archive. Raises DataError."""
    found: list[osv.Advisory] = []
    newest = ""
    for name, raw in _texts(path):
        try:
            entries = json.loads(raw)
            for entry in entries if isinstance(entries, list) else [entries]:
                made = osv.advisory(entry)
                newest = max(newest, str(entry.get("modified") or ""))
                found += [made] if made else []
        except ValueError as odd:  # what is no JSON, no UTF-8 and no OSV
            raise DataError(f"{name} is no advisory in the form of OSV: {odd}. Remove it, or fetch it again") from odd
    if not newest:
        raise DataError(f"{path} holds no advisory. Name a folder of OSV's JSON files, one such file, or a zip of them")
    stamp = STAMPED.search(str(path.resolve()))
    try:
        if newest[:10] > NO_DATE:
            return Data(tuple(found), _utc(newest), "the newest entry")
        if stamp:
            return Data(tuple(found), _utc(stamp[1]), "the name of its folder")
    except ValueError as odd:
        raise DataError(f"{path} has an entry with a date that is none: {odd}. Fetch it again") from odd
    return Data(tuple(found), None)


def matches(components: Iterable[Component], advisories: Iterable[osv.Advisory], machine: str = "") -> list[Match]:
    """Every advisory about one of these components; one fault of one component is told once.

    A module that go.mod replaced counts as what replaced it, as for govulncheck. A fork of K3s' own counts as what it
    forks, too: no database knows it by its own name. `machine` is a GOARCH such as amd64, "" for any.
    """
    by_name: dict[str, list[tuple[osv.Advisory, osv.Affected]]] = {}
    for one in advisories:
        for affected in one.affected:
            by_name.setdefault(affected.name, []).append((one, affected))
    found: list[Match] = []
    for component in components:
        if component.ecosystem != "go" or component.version in ("", UNKNOWN):
            continue
        for name, version, fork in _known_as(component):
            for one, affected in by_name.get(name, ()):
                within = osv.holding(affected, version, project=fork or name == K3S)
                if within is None or not _concerns(affected, machine):
                    continue
                fixed = osv.fixed_in(version, within.events)
                about = (part_of(name), name, version, fixed, one.severity, one.summary)
                found.append(Match(one.id, one.aliases, *about, component.where, fork))
    return together(found)


def unknown(components: Iterable[Component]) -> list[Component]:
    """Those modules of which the program does not say the version, so that no advisory can be compared."""
    return [one for one in components if one.ecosystem == "go" and one.version in ("", UNKNOWN)]


def part_of(module: str) -> str:
    """Which part of K3s a module is, or "": the module of its name and those below it, as of a major version."""
    for part, names in PARTS.items():
        if any(module == name or module.startswith(f"{name}/") for name in names):
            return part
    return ""


def _known_as(component: Component) -> Iterator[tuple[str, str, bool]]:
    """(name, version, whether it is what K3s' own fork stands for) by which advisories may know a component."""
    yield component.name, component.version, False
    fork = FORK.fullmatch(component.version)
    if not component.replaces or not fork or not OWN_FORK.match(component.name):
        return
    version = fork[1]
    if component.name.startswith(STAGING):  # k8s.io/api v0.36.3 is that of Kubernetes v1.36.3
        version = "v0" + version.removeprefix("v1")
    yield component.replaces, version, True


def _concerns(affected: osv.Affected, machine: str) -> bool:
    """Whether it is about Linux on this type of machine."""
    return not affected.systems or any(
        system in ("", "linux") and (not machine or name in ("", machine)) for system, name in affected.systems
    )


def together(found: Iterable[Match]) -> list[Match]:
    """The same with each fault of a module's version once, with all of its names and every place where it is."""
    told: list[Match] = []
    at: dict[tuple[str, str, str], int] = {}
    for one in sorted(found):
        names = {(name, one.module, one.version) for name in (one.id, *one.aliases)}
        place = min((at[name] for name in names if name in at), default=len(told))
        if place == len(told):
            told.append(one)
        else:
            first = told[place]
            aliases = tuple(sorted({*first.aliases, one.id, *one.aliases} - {first.id}))
            where = tuple(sorted({*first.where, *one.where}))
            told[place] = replace(first, aliases=aliases, where=where, severity=first.severity or one.severity)
        at.update(dict.fromkeys(names, place))
    return told


def _texts(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every file of advisories. The index of a published database is none. Raises DataError."""
    try:
        if path.is_dir():
            files = sorted(one for one in path.rglob("*.json") if one.parent.name != "index")
            for one in files:
                yield str(one), _read(one)
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if info.filename.endswith(".json") and Path(info.filename).parent.name != "index":
                        if info.file_size > LARGEST:
                            raise DataError(f"{info.filename} in {path} is larger than {LARGEST >> 20} MiB: refused")
                        yield f"{info.filename} in {path}", archive.read(info)
        else:
            yield str(path), _read(path)
    except (OSError, zipfile.BadZipFile) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {why}. Correct the path, or fetch it again") from error


def _read(path: Path) -> bytes:
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path} is larger than {LARGEST >> 20} MiB: refused")
    return path.read_bytes()


def _utc(text: str) -> datetime.datetime:
    if re.fullmatch(r"\d{14}", text):
        text = f"{text[:8]}T{text[8:]}Z"
    made = datetime.datetime.fromisoformat(text)
    return made if made.tzinfo else made.replace(tzinfo=datetime.UTC)
