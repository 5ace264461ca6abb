"""`casemate images scan`: scan what runs and has no result that counts, or what is named, and report how it stands."""

from __future__ import annotations

import datetime
import platform as machine
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from casemate.cli import app
from casemate.report import findings
from casemate.run import runner
from casemate.supply import image_list, scan_results, scanner
from casemate.supply.artifact_lock import ARCHITECTURES
from casemate.supply.scan_gate import VARIABLE, Settings, refusal, settings
from casemate.supply.scan_policy import OUTDATED, PASSED, UNSCANNED, standing

PLAYBOOK, KIND = "images.yml", "image_scans"
REPORTS = (("json", Path("report/images.json")), ("html", Path("report/images.html")))
SERVICE, TIMER = "casemate-images-scan.service", "casemate-images-scan.timer"
UNITS = """\
# /etc/systemd/system/{service}
[Unit]
Description=Scan the images that run in the cluster (Casemate)
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
User={user}
WorkingDirectory={folder}
ExecStart={command}
Nice=19
# 2: something fails, which the report says; it is no failure of the unit.
SuccessExitStatus=2

# /etc/systemd/system/{timer}
[Unit]
Description=Scan the images that run in the cluster every day (Casemate)

[Timer]
OnCalendar=daily
RandomizedDelaySec=1h
Persistent=true

[Install]
WantedBy=timers.target
"""


@click.command()
@click.argument("references", nargs=-1, metavar="[IMAGE@sha256:DIGEST...]")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH",
              help="Of named images: for which platform (repeatable). Default: linux and this machine's.")  # fmt: skip
@click.option("--again", is_flag=True, help="Scan what has a result that counts, too, as with a newer database.")
@click.option("--print-timer", is_flag=True, help="Print units of systemd that do this every day, and do nothing.")
@app.run_options
def scan(references: tuple[str, ...], platforms: tuple[str, ...], again: bool, print_timer: bool, **given: Any) -> int:
    """Scan the images that run on all nodes and have no result that counts, or those that are named, and report.

    With images named, these alone are scanned, and no host is contacted: what shall go on the signed list comes first.
    """
    if print_timer:
        click.echo(units(given["inventories"]), nl=False)
        return 0
    app.demand(given["inventories"])
    if references:
        return _named(
            references, platforms or (f"linux/{ARCHITECTURES.get(machine.machine(), 'amd64')}",), again, given
        )
    started = findings.now()
    run = _look(given, {"__casemate_image_scans": {}} if again else None)
    asked = asked_by(run)
    trouble: list[str] = []
    if asked and not run.errors:
        todo = wanted(run)
        trouble = carried_out(asked, todo)
        if again or len(todo) > len(trouble):
            run = _look(given)
    if not asked and not run.errors:
        app.err.print(f"{VARIABLE} is not set, so that nothing can be scanned: name your scanner there", markup=False)
    hosts = run.entries()
    if run.errors and not hosts:
        app.tell([*run.errors, *trouble], [])
        return 1
    accepted = {host.name: host.accepted for host in run.hosts.values()}
    made = findings.report("check", started, hosts, accepted, [*run.errors, *trouble])
    code = app.finish(made, given["formats"] or REPORTS, [*((one, []) for one in run.errors), *run.messages()])
    app.tell(trouble, [])
    return 1 if trouble or run.errors else code


def _look(given: Mapping[str, Any], variables: dict[str, Any] | None = None) -> runner.Run:
    with runner.progress(app.err, quiet=bool(given["verbose"])) as watch:
        asked = (given["inventories"], given["limit"], variables, given["verbose"], watch)
        return runner.play(PLAYBOOK, *asked)


def asked_by(run: runner.Run) -> Settings | None:
    """How the inventory has images scanned, None for not at all. Raises ClickException where hosts differ in it."""
    said = {name: result.get("msg") for name, result in run.results.items()}
    told = [one for one in said.values() if isinstance(one, Mapping)]
    if any(one != told[0] for one in told):
        raise click.ClickException(f"hosts differ in {VARIABLE} or its waivers: set them once for all, in all.vars")
    return settings(told[0]["given"], told[0]["waivers"]) if told and told[0] else None


def of_inventory(inventories: tuple[str, ...], limit: str | None = None, verbose: int = 0) -> Settings | None:
    """How an inventory has images scanned; no host is contacted. Raises ClickException for what is wrong with it."""
    given = {"inventories": inventories, "limit": limit, "verbose": verbose}
    run = _look(given, {"__casemate_only_settings": True})
    wrong = [*run.errors, *(host.message for host in run.hosts.values() if host.status != "ok")]
    if wrong or not run.results:
        raise click.ClickException("; ".join(wrong) or "no host of k3s_server or k3s_agent is in this inventory")
    return asked_by(run)


def wanted(run: runner.Run) -> list[scanner.Wanted]:
    """What runs somewhere and is to be scanned: each digest once for each platform."""
    found: dict[tuple[str, str], scanner.Wanted] = {}
    for host in run.hosts.values():
        for made in host.findings:
            if made["kind"] != KIND or made["status"] != "fail" or not isinstance(made["observed"], Mapping):
                continue
            for digest, one in made["observed"].items():
                if one["state"] in (UNSCANNED, OUTDATED) and one.get("config"):
                    place = (digest, one["platform"])
                    found[place] = scanner.Wanted(digest, one["image"], one["config"], one["platform"])
    return [found[place] for place in sorted(found)]


def carried_out(asked: Settings, todo: Iterable[scanner.Wanted]) -> list[str]:
    """Scan each, keep what is found, and return what went wrong; one failure stops no other."""
    todo, trouble = list(todo), []
    if not todo:
        return []
    try:
        with scanner.verified(asked.scanner, asked.results) as ready:
            for one in todo:
                try:
                    _scan(asked, ready, one)
                except (scanner.ScanError, scan_results.ResultError) as refused:
                    trouble.append(f"{one.repository}@{one.digest}: {refused}".lstrip("@"))
    except scanner.ScanError as refused:
        return [str(refused)] * len(todo)
    return trouble


def _scan(asked: Settings, ready: scanner.Ready, one: scanner.Wanted) -> None:
    app.err.print(f"scanning {one.repository}@{one.digest} ({one.platform}) …", markup=False)
    now = datetime.datetime.now(datetime.UTC)
    made = scanner.scan(ready, one, now)
    state = standing(made, asked.policy, now)
    scan_results.keep(asked.results, one.digest, one.platform, made, asked.policy, state.state == PASSED)
    app.out.print(
        f"{one.repository}@{one.digest}: {state.state}" + (f": {state.why}" if state.why else ""), markup=False
    )


def _named(references: tuple[str, ...], platforms: tuple[str, ...], again: bool, given: Mapping[str, Any]) -> int:
    asked = of_inventory(given["inventories"], given["limit"], given["verbose"])
    if asked is None:
        raise click.ClickException(f"{VARIABLE} is not set, so that nothing can be scanned: name your scanner there")
    now = datetime.datetime.now(datetime.UTC)
    try:
        images = [image_list.named(one) for one in references]
    except image_list.ListError as refused:
        raise click.ClickException(str(refused)) from refused
    todo = [
        scanner.Wanted(digest, image, "", platform)
        for image, digest in images
        for platform in platforms
        if again or not _counts(asked, digest, platform, now)
    ]
    trouble = carried_out(asked, todo)
    app.tell(list(dict.fromkeys(trouble)), [])
    refused_ones = [refusal(digest, f"{image}@{digest}", asked, now) for image, digest in images]
    for said in filter(None, refused_ones):
        app.out.print(said, markup=False)
    return 1 if trouble else 2 if any(refused_ones) else 0


def _counts(asked: Settings, digest: str, platform: str, now: datetime.datetime) -> bool:
    try:
        known = scan_results.read(asked.results, digest).get(platform)
    except scan_results.ResultError:
        return False
    return standing(known, asked.policy, now).state not in (UNSCANNED, OUTDATED)


def units(inventories: tuple[str, ...]) -> str:
    """Units of systemd that scan what runs every day, as this account, in this folder."""
    import getpass
    import shlex

    given = [part for path in inventories for part in ("-i", path if "," in path else str(Path(path).resolve()))]
    command = shlex.join([sys.executable, "-m", "casemate.cli", "images", "scan", *given])
    return UNITS.format(
        service=SERVICE, timer=TIMER, user=getpass.getuser(), folder=Path.cwd(), command=command.replace("%", "%%")
    )
