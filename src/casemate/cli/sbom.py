"""`casemate sbom`: the bill of materials of each host, as CycloneDX has it."""

from __future__ import annotations

import urllib.parse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from casemate.cli import app
from casemate.report import render
from casemate.run import runner
from casemate.supply.component import Component
from module_utils.casemate.core.legible import legible

NAMES = {
    "go": "Go modules",
    "deb": "Debian packages",
    "image": "images",
    "file": "files of K3s",
    "kernel": "kernel",
    "release": "release",
}


@click.command()
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("sbom"),
              show_default=True, help="The folder to write into: HOST.cdx.json for each host.")  # fmt: skip
@app.host_options
def sbom(output: Path, verbose: int, limit: str | None, inventories: tuple[str, ...]) -> int:
    """Write the bill of materials of each host, and change nothing on it.

    It has the Go modules of K3s' programs, the files that K3s unpacked, Debian packages, the kernel, and the images
    that run: CycloneDX 1.6 in JSON, validated. What could not be read is said, and makes the exit code 2.
    """
    app.demand_places([output / "HOST.cdx.json"])
    run = asked_of_hosts(verbose, limit, inventories)
    codes = [app.exit_code(run)]
    for host in run.hosts.values():
        if host.status == "ok" and not run.errors:
            codes.append(write(host, output / f"{urllib.parse.quote(host.name, safe='')}.cdx.json"))
    return next((code for code in (1, 3, 2) if code in codes), 0)


def asked_of_hosts(verbose: int, limit: str | None, inventories: tuple[str, ...]) -> runner.Run:
    """The run that asked hosts what they are made of; what went wrong is said."""
    run = app.played("components.yml", inventories, limit, None, verbose)
    app.tell(run.errors, run.failures())
    return run


def write(host: runner.Host, path: Path) -> int:
    """Write the bill of materials of a host; return 0, 2 where a part of it could not be read, 1 where none is had."""
    from casemate.supply import bill, inventory  # here because it takes half a second, which other verbs need not pay

    told = host.gathered
    if not told:
        app.tell(["it said nothing of what it is made of: run it again with -v, which shows Ansible's own output"], [])
        return 1
    app.err.print(f"writing and validating {path} …", style="dim")
    try:
        components = inventory.components(told)
        subject = bill.host(host.name, told["os"], told["machine"], told["unread"])
        text = bill.document(subject, components, told["os"])
    except (AttributeError, KeyError, TypeError, ValueError) as odd:
        app.tell([], [(f"no bill of materials is written: {odd}; is that host what you take it for?", [host.name])])
        return 1
    render.write(path, text)
    app.out.print(legible(f"{host.name}: {path}: {counted(components)}"))
    for place, why in told["unread"].items():
        app.out.print("not read ", style="yellow", end="")
        app.out.print(legible(f"{host.name}: {place}: {why}"))
    return 2 if told["unread"] else 0


def counted(components: Iterable[Component]) -> str:
    """How many components of each sort there are."""
    counts = Counter(one.ecosystem for one in components)
    return ", ".join(f"{counts[sort]} {name}" for sort, name in NAMES.items() if counts[sort])
