"""`casemate advisories`: which advisories are about what hosts are made of, or about programs of this machine.

Programs are read, never run, and the data lies on this machine: no network is used but that to the hosts, unless OSV is
to be asked (--online).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from casemate import ROOT
from casemate.cli import app
from casemate.cli.sbom import asked_of_hosts
from casemate.supply import advisories as supply
from casemate.supply import advisory_policy, artifact_lock, osv, osv_api, osv_folder, release_contents
from casemate.supply.advisories import DataError, Match
from casemate.supply.advisory_policy import Installed, Judged, Policy, judged
from casemate.supply.component import Component, of_go
from module_utils.casemate.core.legible import legible
from module_utils.casemate.formats import go_build

HERE = "this machine"
"""What programs that are named on the command line are of."""
OTHERS = "others: of no part of K3s, not fixed in Debian, or of a lower severity; --all names them"


def programs(paths: Iterable[Path]) -> Installed:
    """The modules of the programs that Go built, of these and in these folders.

    Raises ClickException where a named one is another.
    """
    components: list[Component] = []
    machines: set[str] = set()
    for given in paths:
        for path in sorted(given.iterdir()) if given.is_dir() else [given]:
            if not path.is_file() or (path.is_symlink() and path != given):
                continue  # in K3s' folder the links are other names of what is there
            try:
                built = go_build.build(path.read_bytes())
            except ValueError as odd:
                raise click.ClickException(f"{path} cannot be judged: {odd}") from None
            if built is not None:
                components += of_go(built, str(path))
                machines.add(built.settings.get("GOARCH", ""))
            elif path == given:
                raise click.ClickException(f"{path} is no program that Go built")
    if not components:
        raise click.ClickException("there is no program that Go built in what you named")
    k3s = next((one.version for one in components if one.name == supply.K3S), "")
    return Installed(tuple(components), {}, machines.pop() if len(machines) == 1 else "", k3s)


@click.command()
@click.argument("paths", nargs=-1, metavar="[PROGRAM|FOLDER]...", type=click.Path(exists=True, path_type=Path))
@click.option("--data", type=click.Path(exists=True, path_type=Path), multiple=True,
              help="Advisories: a folder, JSON file or zip in the form of OSV, or Debian's security tracker as JSON "
                   "(repeatable). Default: casemate_advisory_data of the inventory.")  # fmt: skip
@click.option("--vex", type=click.Path(exists=True, dir_okay=False, path_type=Path), multiple=True,
              help="Statements in the form of OpenVEX (repeatable). Default: casemate_advisory_vex.")  # fmt: skip
@click.option("--severity", type=click.Choice(advisory_policy.SEVERITIES),
              help="The lowest severity that counts. Default: casemate_advisory_severity, or medium.")  # fmt: skip
@click.option("--max-age", type=click.IntRange(1, 3650), metavar="DAYS",
              help="Data that tells up to an earlier day is old. Default: that of the inventory, or 14.")  # fmt: skip
@click.option("--online", is_flag=True,
              help="Ask OSV about Go modules, too, by their names alone. Else no network is used.")  # fmt: skip
@click.option("--osv-api", "address", metavar="URL",
              help=f"Where OSV's API is asked by --online. Default: {osv_api.ADDRESS}.")  # fmt: skip
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Keep what --online is answered in a folder of its own, as data without a network.")  # fmt: skip
@click.option("--release", "folders", type=click.Path(exists=True, file_okay=False, path_type=Path), multiple=True,
              help="A folder with another K3s of the artifact lock: say what it fixes (repeatable).")  # fmt: skip
@click.option("--all", "every", is_flag=True, help="Name those of other modules and packages one by one, too.")
@click.option("--format", "shape", type=click.Choice(["text", "json"]), default="text", show_default=True)
@app.host_options
def advisories(
    paths: tuple[Path, ...],
    folders: tuple[Path, ...],
    every: bool,
    shape: str,
    online: bool,
    address: str | None,
    keep: Path | None,
    verbose: int,
    limit: str | None,
    inventories: tuple[str, ...],
    **given: Any,
) -> int:
    """Name the advisories about what hosts are made of, with what fixes each; or about PROGRAMs of this machine.

    Exit code 2 where one counts that nobody answers for: about K3s, Kubernetes, containerd, runc, etcd, flannel or
    kine, or about a Debian package or kernel whose release has a fixed version. So it is where such a part does not say
    its version, where something could not be read, and where the data is too old. Those of other modules are told.
    """
    if paths and (inventories or limit):
        raise click.UsageError("Name programs of this machine, or hosts by -i and --limit, not both.")
    if not online and (address or keep):
        raise click.UsageError("--osv-api and --keep say how OSV is asked: give --online, too, which does ask it.")
    codes: list[int] = []
    if paths:
        lock = artifact_lock.load(ROOT / "roles/k3s_node/files/artifacts.lock.json")
        asked = [Question.of(HERE, programs(paths), overruled({}, given), folders, lock)]
    else:
        asked, codes = of_hosts(folders, given, verbose, limit, inventories)
    with contextlib.ExitStack() as stack:
        answers = stack.enter_context(answered(asked, address or osv_api.ADDRESS, keep)) if online and asked else ()
        seen = [Seen.of(one, answers) for one in asked]
    if shape == "json":
        click.echo(json.dumps([one.plain() for one in seen], indent=2))
    else:
        for one in seen:
            one.show(every)
    codes += [one.code for one in seen]
    return next((code for code in (1, 3, 2) if code in codes), 0)


def overruled(asked: Mapping[str, Any], given: Mapping[str, Any]) -> Policy:
    """The policy of an inventory, with what the command line says in place of it."""
    return advisory_policy.policy({**asked, **{name: value for name, value in given.items() if value}})


@dataclasses.dataclass(frozen=True)
class Question:
    """What one host, or this machine, is made of, and what is asked about it. `others`: releases of K3s at hand."""

    name: str
    installed: Installed
    policy: Policy
    others: tuple[Installed, ...]
    unread: Mapping[str, str]

    @classmethod
    def of(
        cls,
        name: str,
        installed: Installed,
        policy: Policy,
        folders: Iterable[Path],
        lock: artifact_lock.Lock,
        unread: Mapping[str, str] | None = None,
    ) -> Question:
        """A question, with the newer releases in folders. Raises ClickException."""
        try:
            found = [release_contents.at_hand(folder, lock, installed.machine or "amd64") for folder in folders]
        except release_contents.ContentsError as refused:
            raise click.ClickException(str(refused)) from None
        newer = tuple(
            Installed(tuple(components), {}, installed.machine, version)
            for version, components in sorted(found, key=lambda one: osv.key(one[0]))
            if osv.key(version) > osv.key(installed.k3s)
        )
        return cls(name, installed, policy, newer, unread or {})

    @property
    def modules(self) -> frozenset[str]:
        """The names of all Go modules that it is about."""
        return supply.names(part for one in (self.installed, *self.others) for part in one.components)


@contextlib.contextmanager
def answered(asked: Iterable[Question], address: str, keep: Path | None) -> Iterator[tuple[Path, ...]]:
    """A folder with what OSV answers about all of them: the one to keep, or one for now. Raises ClickException."""
    names = frozenset(name for one in asked for name in one.modules)
    if not names:
        raise click.ClickException("OSV is asked about Go modules, and there are none: is K3s installed there?")
    with tempfile.TemporaryDirectory(prefix="casemate-osv-") as scratch:
        folder = keep or Path(scratch, "osv")
        try:
            now = datetime.datetime.now(datetime.UTC)
            entries = osv_api.Api(address).entries(names)
            osv_folder.keep(folder, names, entries, address, now)
        except (osv_api.ApiError, osv_folder.FolderError) as refused:
            raise click.ClickException(str(refused)) from None
        kept = f", kept in {keep}" if keep else ""
        click.echo(f"{address} has {len(entries)} advisories about {len(names)} Go modules{kept}", err=True)
        yield (folder,)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What came of one question: see Judged. `fixes`: id of an advisory -> the release without it."""

    name: str
    judged: Judged
    fixes: Mapping[str, str]
    unread: Mapping[str, str]

    @classmethod
    def of(cls, asked: Question, answers: Iterable[Path]) -> Seen:
        """Compare one with its data, and with what OSV answered. Raises ClickException."""
        now = datetime.datetime.now(datetime.UTC)
        data = {one.resolve(): one for one in (*asked.policy.data, *answers)}
        if not data:
            known = "set casemate_advisory_data, give --data PATH, or ask OSV with --online"
            raise click.UsageError(f"there is no data to compare with: {known}")
        wanted, installed = dataclasses.replace(asked.policy, data=tuple(data.values())), asked.installed
        try:
            seen = judged(installed, wanted, now)
            newer = {other.k3s: judged(other, wanted, now) for other in asked.others}
        except DataError as refused:
            raise click.ClickException(str(refused)) from None
        found = [one for one in (*seen.open, *seen.told) if one.ecosystem == "go" and installed.k3s]
        fixes = {
            one.id: next((version for version, other in newer.items() if not other.names(one.module) & one.names), "")
            for one in found
        }
        return cls(asked.name, seen, {known: version for known, version in fixes.items() if version}, asked.unread)

    @property
    def code(self) -> int:
        """2 where something is open or unknown."""
        return 2 if self.judged.open or self.judged.silent or self.judged.stale or self.unread else 0

    def plain(self) -> dict[str, Any]:
        """For a reader of JSON."""
        seen = self.judged
        return {
            "name": self.name,
            "open": [self._plain(one) for one in seen.open],
            "answered": [{**self._plain(one), "answer": why} for one, why in seen.answered],
            "told": [self._plain(one) for one in seen.told],
            "unknown_versions": [{"name": one.name, "where": one.where} for one in seen.silent],
            "stale": seen.stale,
            "unread": dict(self.unread),
        }

    def _plain(self, one: Match) -> dict[str, Any]:
        return {**asdict(one), "fixed_in_k3s": self.fixes.get(one.id, "")}

    def show(self, every: bool) -> None:
        """Print it for people; those that do not count one by one with `every` alone."""
        seen = self.judged
        counts = f"{len(seen.open)} to answer for, {len(seen.answered)} answered, {len(seen.told)} others"
        say(f"{self.name}: {counts}", "bold")
        lines = list(self._lines(seen.open))
        lines += [f"answered: {supply.in_words([one])[0]} [{why}]" for one, why in seen.answered]
        lines += [f"other: {line}" for line in self._lines(seen.told)] if every else [OTHERS] if seen.told else []
        for part in seen.silent:
            where = f" in {', '.join(part.where)}" if part.where else ""
            lines.append(f"not evaluated: {part.name} {part.version}{where} does not say its version as advisories do")
        lines += [f"not read: {place}: {why}" for place, why in self.unread.items()]
        lines += [f"too little data: {why}" for why in seen.stale]
        for line in lines:
            say(f"  {line}")

    def _lines(self, found: tuple[Match, ...]) -> Iterator[str]:
        """A line for each, those of Debian by source package, with the release of K3s at hand that fixes it."""
        for one in (one for one in found if one.ecosystem == "go"):
            there = f"; K3s {self.fixes[one.id]} is without it" if one.id in self.fixes else ""
            yield f"{supply.in_words([one])[0]} [{', '.join(one.where)}]{there}"
        yield from supply.in_words(one for one in found if one.ecosystem != "go")


def say(text: str, style: str | None = None) -> None:
    """Print a line, in which a host may have had its say."""
    app.out.print(legible(text), style=style)


def of_hosts(
    folders: tuple[Path, ...], given: Mapping[str, Any], verbose: int, limit: str | None, inventories: tuple[str, ...]
) -> tuple[list[Question], list[int]]:
    """What is asked about each host, and the exit codes of what went wrong on the way."""
    run = asked_of_hosts(verbose, limit, inventories)
    codes, questions = [app.exit_code(run)], []
    for host in run.hosts.values() if not run.errors else ():
        if host.status != "ok":
            continue
        try:
            told = host.gathered
            asked = overruled(told["asked"], given)
            lock = artifact_lock.load(told["asked"]["lock"])
            own = told["asked"]["artifact_dir"]
            beside = folders or ((Path(own).expanduser(),) if own else ())
            unread = {str(place): str(why) for place, why in told["unread"].items() if place != "images"}
            installed = advisory_policy.of_host(told)
        except (AttributeError, KeyError, TypeError, ValueError, artifact_lock.LockError) as odd:
            app.tell([], [(f"nothing is compared: {odd!r}; is that host what you take it for?", [host.name])])
            codes.append(1)
            continue
        questions.append(Question.of(host.name, installed, asked, beside, lock, unread))
    return questions, codes
