"""`casemate advisories`: which advisories are about programs that Go built, such as those that K3s is made of.

The programs lie on this machine and are read, never run; no host is contacted, and no network is used.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click

from casemate.cli import app
from casemate.supply import advisories as supply
from casemate.supply.advisories import Data, DataError, Match
from casemate.supply.component import Component, of_go
from module_utils.casemate.core.legible import legible
from module_utils.casemate.formats import go_build


def programs(paths: Iterable[Path]) -> dict[Path, go_build.Build]:
    """The programs that Go built, of these and in these folders. Raises ClickException where a named one is another."""
    found = {}
    for given in paths:
        for path in sorted(given.iterdir()) if given.is_dir() else [given]:
            if not path.is_file() or (path.is_symlink() and path != given):
                continue  # in K3s' folder the links are other names of what is there
            try:
                built = go_build.build(path.read_bytes())
            except ValueError as odd:
                raise click.ClickException(f"{path} cannot be judged: {odd}") from None
            if built is not None:
                found[path] = built
            elif path == given:
                raise click.ClickException(f"{path} is no program that Go built")
    if not found:
        raise click.ClickException("there is no program that Go built in what you named")
    return found


def old(data: Data, path: Path, most: int, now: datetime.datetime) -> str:
    """Why data tells too little of today, or "". `most`: days."""
    if data.told is None:
        return f"nobody can say how old {path} is: it has no dates. Name it as Go's module cache does, or fetch another"
    days = (now - data.told).days
    by = f"{data.told:%Y-%m-%d}, by {data.told_by}"
    return f"{path} tells up to {by}: {days} days are more than {most}. Fetch it again" if days > most else ""


def line(one: Match) -> str:
    """An advisory in one line."""
    names = f"{one.id} ({', '.join(one.aliases)})" if one.aliases else one.id
    of = f", as K3s' own fork of {one.module}" if one.of_fork else ""
    fixed = f"fixed in {one.fixed}" if one.fixed else "no fixed version is known"
    severity = f"{one.severity}, " if one.severity else ""
    return f"{names}: {one.module} {one.version}{of}, {severity}{fixed}: {one.summary} [{', '.join(one.where)}]"


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, metavar="PROGRAM|FOLDER...", type=click.Path(exists=True, path_type=Path)
)
@click.option("--data", "sources", multiple=True, required=True, type=click.Path(exists=True, path_type=Path),
              help="Advisories in the form of OSV: a folder, a JSON file or a zip (repeatable).")  # fmt: skip
@click.option("--max-age", "most", type=click.IntRange(1, 3650), default=14, show_default=True, metavar="DAYS",
              help="Data that tells up to an earlier day is a finding.")  # fmt: skip
@click.option("--format", "shape", type=click.Choice(["text", "json"]), default="text", show_default=True)
def advisories(paths: tuple[Path, ...], sources: tuple[Path, ...], most: int, shape: str) -> int:
    """Name the advisories about PROGRAMs of this machine that Go built, such as those that K3s unpacks.

    Exit code 2 where one is about K3s, Kubernetes, containerd, runc, etcd, flannel or kine, where such a part does not
    say its version, and where the data is too old. Those of other modules are told alone.
    """
    now = datetime.datetime.now(datetime.UTC)
    try:
        read = {path: supply.load(path) for path in sources}
    except DataError as refused:
        raise click.ClickException(str(refused)) from None
    known = [one for data in read.values() for one in data.advisories]
    stale = [why for path, data in read.items() if (why := old(data, path, most, now))]
    components: list[Component] = []
    found: list[Match] = []
    for path, built in programs(paths).items():
        mine = list(of_go(built, str(path)))
        components += mine
        found += supply.matches(mine, known, built.settings.get("GOARCH", ""))
    found = supply.together(found)
    silent = [one for one in supply.unknown(components) if supply.part_of(one.name)]
    parts = [one for one in found if one.part]
    if shape == "json":
        said = {
            "advisories": [asdict(one) for one in found],
            "unknown_versions": [{"module": one.name, "where": one.where} for one in silent],
            "data": [
                {"path": str(path), "advisories": len(data.advisories), "told": data.told and data.told.isoformat()}
                for path, data in read.items()
            ],
            "stale": stale,
        }
        click.echo(json.dumps(said, indent=2))
    else:
        for heading, group in (("K3s and its parts", parts), ("Other modules", [one for one in found if not one.part])):
            app.out.print(f"{heading}: {len(group)}", style="bold")
            for one in group:
                app.out.print(legible(f"  {line(one)}"), markup=False)
        for component in silent:
            said_of = f"{component.name} in {', '.join(component.where)} does not say its version: nobody knows"
            app.out.print(legible(f"not evaluated: {said_of}"), markup=False)
        for why in stale:
            app.out.print(legible(f"too old: {why}"), markup=False)
    return 2 if parts or silent or stale else 0
