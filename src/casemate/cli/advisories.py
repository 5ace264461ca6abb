"""`casemate advisories`: which advisories are about what hosts are made of, or about programs of this machine.

Programs are read, never run, and the data lies on this machine: no network is used but that to the hosts.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from casemate import ROOT
from casemate.cli import app
from casemate.cli.sbom import asked_of_hosts
from casemate.supply import advisories as supply
from casemate.supply import advisory_policy, artifact_lock, osv, release_contents
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
@click.option("--release", "folders", type=click.Path(exists=True, file_okay=False, path_type=Path), multiple=True,
              help="A folder with another K3s of the artifact lock: say what it fixes (repeatable).")  # fmt: skip
@click.option("--all", "every", is_flag=True, help="Name those of other modules and packages one by one, too.")
@click.option("--format", "shape", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("-v", "--verbose", count=True, help="Show Ansible's own output; repeat for more.")
@click.option("--limit", help="Only these hosts or groups (an Ansible pattern).")
@app.inventory_option
def advisories(
    paths: tuple[Path, ...],
    folders: tuple[Path, ...],
    every: bool,
    shape: str,
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
    if paths:
        if not given["data"]:
            raise click.UsageError("there is no data to compare with: give --data PATH")
        lock = artifact_lock.load(ROOT / "roles/k3s_node/files/artifacts.lock.json")
        seen = [Seen.of(HERE, programs(paths), overruled({}, given), folders, lock)]
        codes: list[int] = []
    else:
        seen, codes = of_hosts(folders, given, verbose, limit, inventories)
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
class Seen:
    """What came of one host, or of this machine: see Judged. `fixes`: id of an advisory -> the release without it."""

    name: str
    judged: Judged
    fixes: Mapping[str, str]
    unread: Mapping[str, str]

    @classmethod
    def of(
        cls,
        name: str,
        installed: Installed,
        asked: Policy,
        folders: Iterable[Path],
        lock: artifact_lock.Lock,
        unread: Mapping[str, str] | None = None,
    ) -> Seen:
        """Compare one. Raises ClickException."""
        now = datetime.datetime.now(datetime.UTC)
        machine = installed.machine
        try:
            seen = judged(installed, asked, now)
            others = [release_contents.at_hand(folder, lock, machine or "amd64") for folder in folders]
            newer = {
                version: judged(Installed(tuple(components), {}, machine, version), asked, now)
                for version, components in sorted(others, key=lambda one: osv.key(one[0]))
                if osv.key(version) > osv.key(installed.k3s)
            }
        except (DataError, release_contents.ContentsError) as refused:
            raise click.ClickException(str(refused)) from None
        found = [one for one in (*seen.open, *seen.told) if one.ecosystem == "go" and installed.k3s]
        fixes = {
            one.id: next((version for version, other in newer.items() if not other.names(one.module) & one.names), "")
            for one in found
        }
        return cls(name, seen, {known: version for known, version in fixes.items() if version}, unread or {})

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
        lines += [f"too old: {why}" for why in seen.stale]
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
    app.out.print(legible(text), style=style, markup=False)


def of_hosts(
    folders: tuple[Path, ...], given: Mapping[str, Any], verbose: int, limit: str | None, inventories: tuple[str, ...]
) -> tuple[list[Seen], list[int]]:
    """What came of each host, and the exit codes of what went wrong on the way."""
    run = asked_of_hosts(verbose, limit, inventories)
    codes, seen = [app.exit_code(run)], []
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
        if not asked.data:
            raise click.UsageError("there is no data to compare with: set casemate_advisory_data, or give --data PATH")
        seen.append(Seen.of(host.name, installed, asked, beside, lock, unread))
    return seen, codes
