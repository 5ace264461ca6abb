"""Which advisories are about what is installed: their data on the controller, and the comparison. No network is used.

The data is a folder of entries in the form of OSV, as `data/osv` of the Go module golang.org/x/vulndb, one file of it,
a zip archive of such files, Debian's security tracker as its own file or in the form of OSV, or what OSV's API answered
(osv_folder.py).
"""

from __future__ import annotations

import datetime
import json
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

from casemate import kept
from casemate.supply import debian, osv, osv_folder, severities
from casemate.supply.component import UNKNOWN, Component
from module_utils.casemate.formats import deb_version

OWN_FORK = re.compile(r"github\.com/(k3s-io|rancher)/")
FORK = re.compile(r"(v\d+\.\d+\.\d+(?:-[0-9A-Za-z.]+?)?)-k3s\d+(?:\.\d+)*")
"""Such as v2.3.2-k3s2, or v2.0.5-k3s1.32 of a branch for a minor version of K3s."""
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
LARGEST = 512 * 1024 * 1024
"""Bytes of one file that are read as advisories. That of Debian's security tracker had 70 MiB in 2025."""
STAMPED = re.compile(r"@v0\.0\.0-(\d{14})-[0-9a-f]{12}(?:/|$)")
"""How Go names the folder of a module at a commit, with its date in UTC."""
SHOWN = 5
"""Faults of one source package that are named in words."""
KERNEL = "linux"
"""The source package of Debian's kernel."""
AGAIN = "ask again, by casemate advisories --online --keep FOLDER"
NO_DATE = "0001-01-01"
"""The date of entries in golang.org/x/vulndb, which get theirs when the database is published."""


class DataError(Exception):
    """The data of advisories cannot be read, or is something else; the message names the file and what to do."""


@dataclass(frozen=True)
class Data:
    """What one source knows: advisories of OSV, and faults by Debian's source packages, of one release.

    `told` is the moment in UTC up to which it tells, None where nothing says so; `told_by` is what says it. `tracks`:
    it is about Debian, whether it has that release or not. `asked`: the only Go modules that it knows of, where OSV was
    asked for these; None where it knows of all. `on_debian` are advisories of OSV about source packages of the release.
    """

    advisories: tuple[osv.Advisory, ...]
    told: datetime.datetime | None
    told_by: str = ""
    faults: Mapping[str, tuple[debian.Fault, ...]] = field(default_factory=dict)
    tracks: bool = False
    asked: frozenset[str] | None = None
    on_debian: tuple[osv.Advisory, ...] = ()

    @property
    def has_release(self) -> bool:
        """Whether it knows that release of Debian."""
        return bool(self.faults or self.on_debian)


@dataclass(frozen=True, order=True)
class Match:
    """An advisory that is about a component.

    `part` is which part of K3s that is, "" for any other. `module` and `version` are those by which the advisory knows
    it: with `of_fork`, those of what K3s' own fork is made of; of a Debian package, those of its source. `fixed` is the
    oldest version without the fault, "" where none is known. `where` are paths of programs, or Debian packages.
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
    ecosystem: str = "go"

    @property
    def names(self) -> frozenset[str]:
        """Its id and its other names."""
        return frozenset((self.id, *self.aliases))


def load(path: Path, release: str = "", number: str = "") -> Data:
    """The advisories of a folder, file or zip archive. Raises DataError.

    `release` is a release of Debian, such as "bookworm", and `number` the same one as "12", of which the data of its
    tracker is taken. What was read once is kept for the next run, as long as the files are the same by name, size and
    time.
    """
    asked = [release, number, str(path), *map(str, _seen(path))]
    readers = (__file__, osv.__file__, osv_folder.__file__, severities.__file__, debian.__file__)
    code = [Path(str(one)).read_bytes() for one in readers]
    made_of = [*(one.encode() for one in asked), *code]
    plain = kept.value("advisories", made_of, lambda: _plain(_load(path, release, number)))
    entries, told, told_by, faults, tracks, modules, on_debian = plain
    return Data(
        tuple(osv.advisory_of(one) for one in entries),
        datetime.datetime.fromisoformat(told) if told else None,
        told_by,
        {source: tuple(debian.Fault(*one) for one in known) for source, known in faults.items()},
        tracks,
        modules,
        tuple(osv.advisory_of(one) for one in on_debian),
    )


def _seen(path: Path) -> list[tuple[str, int, int]]:
    """(path, size, time) of the files that would be read. Raises DataError."""
    try:
        files = _files(path) if path.is_dir() else [path]
        return [(str(one), (found := one.stat()).st_size, found.st_mtime_ns) for one in files]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Correct the path, or fetch it again") from error


def _plain(data: Data) -> tuple[Any, ...]:
    """Data in the values that can be kept."""
    faults = {source: tuple(astuple(one) for one in known) for source, known in data.faults.items()}
    entries, on_debian = (tuple(map(astuple, each)) for each in (data.advisories, data.on_debian))
    told = data.told.isoformat() if data.told else ""
    return entries, told, data.told_by, faults, data.tracks, data.asked, on_debian


def _load(path: Path, release: str, number: str) -> Data:
    found: list[osv.Advisory] = []
    on_debian: list[osv.Advisory] = []
    faults: dict[str, list[debian.Fault]] = {}
    newest, tracked = dict[bool, str](), list[str]()
    record: osv_folder.Record | None = None
    ids = set()
    for name, raw in _texts(path):
        try:
            entries = json.loads(raw)
            if osv_folder.is_record(entries):
                record = osv_folder.record(entries)
                continue
            if debian.is_tracker(entries):
                tracked.append(name)
                for source, fault in debian.faults(entries, release):
                    faults.setdefault(source, []).append(fault)
                continue
            for entry in entries if isinstance(entries, list) else [entries]:
                made = osv.advisory(entry)
                ids.add(entry["id"])
                of_debian = debian.is_of_osv(entry)
                newest[of_debian] = max(newest.get(of_debian, ""), str(entry.get("modified") or NO_DATE))
                found += [made] if made else []
                on_debian += debian.of_osv(entry, number)
        except (ValueError, RecursionError) as odd:  # what is no JSON, no UTF-8, no OSV and no tracker
            why = f"{odd}. Remove it, or fetch it again"
            raise DataError(f"{name} holds no advisories of OSV or of Debian's security tracker: {why}") from odd
    if not newest and not tracked and record is None:
        known = (
            "Name a folder of OSV's JSON files, one such file, a zip of them, or the JSON of Debian's security tracker"
        )
        raise DataError(f"{path} holds no advisory. {known}")
    if record is None:
        told, told_by = _told(path, newest.values(), tracked)
    else:
        if lost := sorted(record.entries - ids):
            raise DataError(f"{path} lacks {len(lost)} of what OSV answered, such as {lost[0]}: {AGAIN}")
        told, told_by = record.asked, "when OSV was asked"
    by_source = {source: tuple(known) for source, known in faults.items()}
    names = record.names if record else None
    tracks = bool(tracked) or True in newest
    return Data(tuple(found), told, told_by, by_source, tracks, names, tuple(on_debian))


def _told(path: Path, newest: Iterable[str], tracked: list[str]) -> tuple[datetime.datetime | None, str]:
    """The moment up to which data tells, and what says so: of several sorts in one folder that of the oldest.

    `newest` is the date of the newest entry of each sort, those about Debian and all others; `tracked` are trackers.
    None where nothing says so of one of them. Raises DataError. The tracker's own file has no date but the one that it
    was fetched with.
    """
    stamp = STAMPED.search(str(path.resolve()))
    try:
        by_name = (_utc(stamp[1]), "the name of its folder") if stamp else None
        told = [by_name or _of_file(Path(one) if path.is_dir() else path) for one in tracked]
        for one in newest:
            dated = (_utc(one), "the newest entry") if one[:10] > NO_DATE else by_name
            if dated is None:
                return None, ""
            told.append(dated)
    except ValueError as odd:
        raise DataError(f"{path} has an entry with a date that is none: {odd}. Fetch it again") from odd
    return min(told)


def _of_file(path: Path) -> tuple[datetime.datetime, str]:
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC), f"the time of {path.name}"


def matches(components: Iterable[Component], advisories: Iterable[osv.Advisory], machine: str = "") -> list[Match]:
    """Every advisory about one of these Go modules; one fault of one module is told once.

    A module that go.mod replaced counts as what replaced it, as for govulncheck. A fork of K3s' own counts as what it
    forks, too: no database knows it by its own name. `machine` is a GOARCH such as amd64, "" for any.
    """
    by_name = _by_name(advisories)
    found: list[Match] = []
    for component in components:
        if component.ecosystem != "go" or _says_no_version(component):
            continue
        for name, version, fork in _known_as(component):
            for one, affected in by_name.get(name, ()):
                within = osv.holding(affected, version, project=fork or name == K3S)
                if within is None or not _concerns(affected, machine):
                    continue
                fixed = osv.fixed_in(version, within.events)
                part = part_of(name) or (part_of(component.name) if fork else "")  # a staging module is Kubernetes
                about = (part, name, version, fixed, one.severity, one.summary)
                found.append(Match(one.id, one.aliases, *about, component.where, fork))
    return together(found)


def matches_on_debian(components: Iterable[Component], data: Data) -> list[Match]:
    """Every fault of the tracker that an installed package or the running kernel has, by the source it was built from.

    Of the kernel's source, what runs counts, and no package: those of older kernels stay installed.
    """
    found = []
    by_name = _by_name(data.on_debian)
    for one in components:
        if (
            one.ecosystem not in ("deb", "kernel")
            or not one.source
            or (one.ecosystem == "deb" and one.source == KERNEL)
        ):
            continue
        installed = deb_version.key(one.source_version)
        where = (one.name,) if one.ecosystem == "deb" else ("the running kernel",)
        for fault in data.faults.get(one.source, ()):
            if not fault.fixed or installed < deb_version.key(fault.fixed):
                about = (fault.fixed, fault.severity, fault.summary, where, False, "deb")
                found.append(Match(fault.id, (), "", one.source, one.source_version, *about))
        for known, affected in by_name.get(one.source, ()):
            if within := osv.holding(affected, one.source_version, order=debian.ORDER):
                fixed = osv.fixed_in(one.source_version, within.events, debian.ORDER)
                about = (fixed, known.severity, known.summary, where, False, "deb")
                found.append(Match(known.id, known.aliases, "", one.source, one.source_version, *about))
    return together(found)


def _by_name(known: Iterable[osv.Advisory]) -> dict[str, list[tuple[osv.Advisory, osv.Affected]]]:
    """Advisories, each with what it says of a package, by the name of that."""
    found: dict[str, list[tuple[osv.Advisory, osv.Affected]]] = {}
    for one in known:
        for affected in one.affected:
            found.setdefault(affected.name, []).append((one, affected))
    return found


def names(components: Iterable[Component]) -> frozenset[str]:
    """Every name by which advisories may know the Go modules among these components, as `matches` looks them up."""
    return frozenset(name for one in components if one.ecosystem == "go" for name, _, _ in _known_as(one))


def unknown(components: Iterable[Component]) -> list[Component]:
    """Those modules with which no advisory can be compared, as the program does not say a version that one knows.

    So it is of a part of K3s that a fork took the place of, whose version does not say which one it was made of.
    """
    modules = [one for one in components if one.ecosystem == "go"]
    return [one for one in modules if _says_no_version(one) or _is_strange_fork(one)]


def _says_no_version(one: Component) -> bool:
    """Whether its version is none that has a place in an order, as that of a toolchain built from a commit."""
    return one.version in ("", UNKNOWN) or osv.key(one.version) == osv.NO_VERSION


def _is_strange_fork(one: Component) -> bool:
    if one.replaces in ("", one.name) or not (part_of(one.replaces) or part_of(one.name)):
        return False
    return not (OWN_FORK.match(one.name) and FORK.fullmatch(one.version))


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


def in_words(found: Iterable[Match]) -> list[str]:
    """A line for each module that an advisory is about, or for each source package, whose faults may be many."""
    lines, of_sources = [], dict[tuple[str, str], list[Match]]()
    for one in found:
        if one.ecosystem == "deb":
            of_sources.setdefault((one.module, one.version), []).append(one)
            continue
        names = f"{one.id} ({', '.join(one.aliases)})" if one.aliases else one.id
        of = f", as K3s' own fork of {one.module}" if one.of_fork else ""
        severity = f"severity {one.severity}, " if one.severity else ""
        fixed = f"fixed in {one.fixed}" if one.fixed else "no fixed version is known"
        lines.append(f"{names}: {one.module} {one.version}{of}, {severity}{fixed}: {one.summary}".rstrip(": "))
    for (source, version), every in of_sources.items():
        names = ", ".join(one.id for one in every[:SHOWN])
        more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
        fixed = max((one.fixed for one in every if one.fixed), key=deb_version.key, default="")
        lines.append(f"{source} {version}: {names}{more}, " + (f"fixed in {fixed}" if fixed else "not fixed yet"))
    return lines


def together(found: Iterable[Match]) -> list[Match]:
    """The same with each fault of a module's version once, with all of its names and every place where it is."""
    groups: dict[int, list[Match]] = {}
    at: dict[tuple[str, str, str], int] = {}
    for number, one in enumerate(sorted(found)):
        same = {at[name] for name in _names_of(one) if name in at}  # of several, which then are one by its names
        groups[number] = [*(other for place in sorted(same) for other in groups.pop(place)), one]
        at.update({name: number for other in groups[number] for name in _names_of(other)})
    return sorted(_one_of(group) for group in groups.values())


def _names_of(one: Match) -> list[tuple[str, str, str]]:
    """What makes two matches one: a name in common, of the same version of a module."""
    return [(name, one.module, one.version) for name in one.names]


def _one_of(group: list[Match]) -> Match:
    """One fault by all that is known of it: the worst severity, and the newest of the versions that fix it."""
    first = min(group)
    order = deb_version.key if first.ecosystem == "deb" else osv.key
    return replace(
        first,
        aliases=tuple(sorted({name for one in group for name in one.names} - {first.id})),
        where=tuple(sorted({place for one in group for place in one.where})),
        severity=severities.worst(one.severity for one in group),
        fixed=max((one.fixed for one in group if one.fixed), key=order, default=""),
    )


def _texts(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every file of advisories. The index of a published database is none. Raises DataError."""
    try:
        if path.is_dir():
            for one in _files(path):
                yield str(one), _read(one)
        elif path.is_file() and zipfile.is_zipfile(path):
            yield from _zipped(path)
        else:
            yield str(path), _read(path)
    except OSError as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {why}. Correct the path, or fetch it again") from error


def _zipped(path: Path) -> Iterator[tuple[str, bytes]]:
    """The same of a zip archive. Raises DataError, and OSError."""
    name = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = f"{info.filename} in "
                if info.filename.endswith(".json") and Path(info.filename).parent.name != "index":
                    if info.file_size > LARGEST:
                        raise DataError(f"{info.filename} in {path} is larger than {LARGEST >> 20} MiB: refused")
                    yield f"{info.filename} in {path}", archive.read(info)
    except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error) as error:  # broken, encrypted, of another method
        raise DataError(f"{name}{path} cannot be read: {error}. Make it anew, or name a folder of its files") from error


def _files(folder: Path) -> list[Path]:
    """The files of advisories in a folder and those below it, links to such too, each once. Raises OSError."""
    found: list[Path] = []
    been: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        if (real := os.path.realpath(parent)) in been:
            folders.clear()  # a link leads back
            continue
        been.add(real)
        if os.path.basename(parent) != "index":
            found += [Path(parent, name) for name in names if name.endswith(".json")]
    return sorted(found, key=str)


def _refuse(unread: OSError) -> None:
    """A folder that nobody can look into may hold what matters."""
    raise unread


def _read(path: Path) -> bytes:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is no regular file. Remove it")
    if found.st_size > LARGEST:
        raise DataError(f"{path} is larger than {LARGEST >> 20} MiB: refused")
    return path.read_bytes()


def _utc(text: str) -> datetime.datetime:
    if re.fullmatch(r"\d{14}", text):
        text = f"{text[:8]}T{text[8:]}Z"
    made = datetime.datetime.fromisoformat(text)
    return made if made.tzinfo else made.replace(tzinfo=datetime.UTC)
