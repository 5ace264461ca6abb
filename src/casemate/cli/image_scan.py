"""`casemate images scan`: scan what runs and has no result that counts, or what is named, and report how it stands.

Where the operator has registries asked, they are, once for all nodes, to what the tags lead by which images run.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from casemate.cli import app, image_timer
from casemate.report import findings
from casemate.run import runner
from casemate.supply import image_list, registries, registry, registry_answers, scan_results, scanner
from casemate.supply.scan_gate import VARIABLE, WAIVERS, Settings, own_platform, refusal, settings
from casemate.supply.scan_policy import OUTDATED, PASSED, UNSCANNED, standing
from casemate.supply.scan_report import DIGEST
from module_utils.casemate.formats.image_reference import repository, tagged

PLAYBOOK = "images.yml"
SCANNED, CURRENT = "image_scans", "image_updates"
"""Kinds of the controls that tell what is to be scanned, and what is to be asked for."""
RESULTS, ANSWERS = "__casemate_image_scans", "__casemate_image_answers"
"""Variables with what is known of both: where they are empty, findings tell all that runs."""
PLATFORM = re.compile(r"([a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?)?")
"""Such as linux/arm/v7; "" where it is not known."""
UNKNOWN = "unknown"
"""The state of a tag of which it is not known to what it leads."""
UNSET = f"{VARIABLE} is not set, so that nothing can be scanned: name your scanner there"
REPORTS = (("json", Path("report/images.json")), ("html", Path("report/images.html")))


@click.command()
@click.argument("references", nargs=-1, metavar="[IMAGE@sha256:DIGEST...]")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH",
              help="Of named images: for which platform (repeatable). Default: that of the inventory.")  # fmt: skip
@click.option("--again", is_flag=True, help="Scan what has a result that counts, too, as with a newer database.")
@click.option("--print-timer", is_flag=True, help="Print units of systemd that do this every day, and do nothing.")
@app.run_options
def scan(references: tuple[str, ...], platforms: tuple[str, ...], again: bool, print_timer: bool, **given: Any) -> int:
    """Scan images that run on nodes, or stand on the list, and have no result that counts; or those that are named.

    With images named, these alone are scanned, and no host is contacted: what shall go on the signed list comes first.
    """
    inventories = app.demand(given["inventories"])
    if print_timer:
        if references or platforms or again or given["limit"] or given["formats"]:
            raise click.UsageError(
                "--print-timer takes no other option than -i: the units scan what runs on all nodes."
            )
        click.echo(image_timer.units(inventories), nl=False)
        return 0
    if platforms and not references:
        raise click.UsageError("--platform is for images that are named: nodes say theirs.")
    if references and given["formats"]:
        raise click.UsageError("--format is for what runs on nodes: of images that are named there is no report.")
    if references:
        return _named(references, platforms, again, given)
    app.demand_places(path for _, path in given["formats"] or REPORTS)
    started = findings.now()
    run = _look(given, {ANSWERS: {}, **({RESULTS: {}} if again else {})})
    asked = asked_by(run)
    trouble: list[str] = []
    if not run.errors and any(host.status == "ok" for host in run.hosts.values()):
        if asked.scans is None and not asked.updates:
            raise click.ClickException(UNSET)
        todo = _needed(asked.scans, wanted(run, asked.scans.platforms), again) if asked.scans else []
        trouble = carried_out(asked.scans, todo) if asked.scans else []
        removed = scan_results.prune(asked.scans.results, datetime.datetime.now(datetime.UTC)) if asked.scans else 0
        if removed:
            days = scan_results.KEPT.days
            app.err.print(f"{removed} results of scans are removed: they are older than {days} days")
        if _ask(asked, tags(run)) or again or todo:
            run = _look(given)
    hosts = run.entries()
    if run.errors and not hosts:
        app.tell([*run.errors, *trouble], [])
        return 1
    accepted = {host.name: host.accepted for host in run.hosts.values()}
    made = findings.report("check", started, hosts, accepted, [*run.errors, *trouble])
    code = app.finish(made, given["formats"] or REPORTS, [*((one, []) for one in run.errors), *run.messages()])
    _tell(trouble)
    return 1 if trouble or run.errors else code


def _look(given: Mapping[str, Any], variables: dict[str, Any] | None = None) -> runner.Run:
    return app.played(PLAYBOOK, given["inventories"], given["limit"], variables, given["verbose"])


class Asked(NamedTuple):
    """What an inventory asks for: scans, `casemate_image_updates`, and how registries are reached."""

    scans: Settings | None
    updates: Mapping[str, Any]
    registries: Sequence[Mapping[str, Any]]


def asked_by(run: runner.Run) -> Asked:
    """What the inventory asks for. Raises ClickException where hosts differ in it."""
    said = {name: result.get("msg") for name, result in run.results.items()}
    told = [one for one in said.values() if isinstance(one, Mapping)]
    if any(one != told[0] for one in told):
        inputs = f"{VARIABLE}, {WAIVERS}, {registry_answers.VARIABLE} or {registries.VARIABLE}"
        raise click.ClickException(f"hosts differ in {inputs}: set them once for all, in all.vars")
    if not told:
        return Asked(None, {}, ())
    one = told[0]
    return Asked(settings(one["scans"], one["waivers"]), one["updates"], one["registries"])


def of_inventory(inventories: tuple[str, ...], limit: str | None = None, verbose: int = 0) -> Settings | None:
    """How an inventory has images scanned; no host is contacted. Raises ClickException for what is wrong with it."""
    given = {"inventories": inventories, "limit": limit, "verbose": verbose}
    run = _look(given, {"__casemate_only_settings": True})
    wrong = [*run.errors, *(host.message for host in run.hosts.values() if host.status != "ok")]
    if wrong or not run.results:
        raise click.ClickException("; ".join(wrong) or runner.NO_HOST)
    return asked_by(run).scans


def wanted(run: runner.Run, platforms: Sequence[str]) -> list[scanner.Wanted]:
    """What runs somewhere, or stands on the list, and is to be scanned: each digest once for each platform.

    What stands on the list is for all of `platforms`.
    """
    found: dict[tuple[str, str], scanner.Wanted] = {}
    for observed in _observed(run, SCANNED):
        for digest, one in observed.items():
            if not _is_image(digest, one) or one["state"] not in (UNSCANNED, OUTDATED):
                continue
            for platform in [one["platform"] or own_platform()] if one["config"] else platforms:
                # That of which a node tells the configuration is asked for by it.
                if one["config"] or (digest, platform) not in found:
                    found[(digest, platform)] = scanner.Wanted(digest, one["image"], one["config"], platform)
    return [found[place] for place in sorted(found)]


def _needed(asked: Settings, todo: Iterable[scanner.Wanted], again: bool) -> list[scanner.Wanted]:
    """Those that have no result which counts, or that run: of these a node says so."""
    now = datetime.datetime.now(datetime.UTC)
    return [one for one in todo if again or one.config or not _counts(asked, one.digest, one.platform, now)]


def tags(run: runner.Run) -> list[tuple[str, str]]:
    """(tag, platform) of what runs somewhere, or is built on, and of which it is not known to what it leads."""
    told = [one for observed in _observed(run, CURRENT) for one in observed.values() if one["state"] == UNKNOWN]
    return sorted({(one["reference"], one["platform"]) for one in told if _is_tag(one)})


def _is_image(digest: str, one: Mapping[str, Any]) -> bool:
    """Whether what a host tells of an image is of the shape of one. A host that was taken over tells anything, and it
    becomes arguments of the scanner and the name of a file here.
    """
    digests = [digest, *([one["config"]] if one["config"] else [])]
    return (
        all(DIGEST.fullmatch(str(each)) for each in digests)
        and one["image"] in ("", repository(str(one["image"])))
        and bool(PLATFORM.fullmatch(str(one["platform"])))
    )


def _is_tag(one: Mapping[str, Any]) -> bool:
    """The same of a tag, which becomes an address that is asked."""
    return one["reference"] == tagged(str(one["reference"])) != "" and bool(PLATFORM.fullmatch(str(one["platform"])))


def _observed(run: runner.Run, kind: str) -> list[Mapping[str, Any]]:
    """What each host tells of images by controls of a kind that do not pass."""
    made = [one for host in run.hosts.values() for one in host.findings]
    return [one["observed"] for one in made if one["kind"] == kind and isinstance(one["observed"], Mapping)]


def _ask(asked: Asked, wanted: list[tuple[str, str]]) -> bool:
    """Ask registries for these tags, and keep what they answer, or why they do not; whether there was any tag."""
    if not asked.updates or not wanted:
        return False
    app.err.print(f"asking registries for {len(wanted)} tags …")
    asker, found = registry.Asker(asked.registries), registry_answers.Kept()
    for reference, platform in wanted:
        now = datetime.datetime.now(datetime.UTC)
        try:
            made = registry_answers.answered(asker.leads_to(reference, platform), now)
        except registry.Unanswered as why:
            made = registry_answers.unanswered(str(why), now)
        found.setdefault(reference, {})[platform] = made
    try:
        registry_answers.keep(asked.updates, found, datetime.datetime.now(datetime.UTC))
    except registry_answers.AnswersError as broken:
        raise click.ClickException(str(broken)) from broken
    return True


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
        return [str(refused)]
    return trouble


def _tell(trouble: list[str]) -> None:
    """Print what went wrong; of much the first, since the report has all."""
    more = len(trouble) - app.SHOWN
    app.tell([*trouble[: app.SHOWN], *([f"and {more} more in the report"] if more > 0 else [])], [])


def _scan(asked: Settings, ready: scanner.Ready, one: scanner.Wanted) -> None:
    app.err.print(f"scanning {one.repository}@{one.digest} ({one.platform}) …")
    now = datetime.datetime.now(datetime.UTC)
    made = scanner.scan(ready, one, now)
    state = standing(made, asked.policy, now)
    scan_results.keep(asked.results, one.digest, one.platform, made, asked.policy, state.state == PASSED)
    said = f"{one.repository}@{one.digest} ({one.platform}): {state.state}"
    app.out.print(said + (f": {state.why}" if state.why else ""))


def _named(references: tuple[str, ...], platforms: tuple[str, ...], again: bool, given: Mapping[str, Any]) -> int:
    asked = of_inventory(given["inventories"], given["limit"], given["verbose"])
    if asked is None:
        raise click.ClickException(UNSET)
    now = datetime.datetime.now(datetime.UTC)
    try:
        images = [image_list.named(one) for one in references]
    except image_list.ListError as wrong:
        raise click.ClickException(str(wrong)) from wrong
    every = [scanner.Wanted(one[1], one[0], "", name) for one in images for name in platforms or asked.platforms]
    todo = _needed(asked, every, again)
    trouble = carried_out(asked, todo)
    _tell(trouble)
    refused = {one: refusal(one[1], "@".join(one), asked, now) for one in images}
    told = {(one.repository, one.digest) for one in todo}
    for one in images:
        if refused[one] and (one not in told or not trouble):
            app.out.print(refused[one])
    return 1 if trouble else 2 if any(refused.values()) else 0


def _counts(asked: Settings, digest: str, platform: str, now: datetime.datetime) -> bool:
    try:
        known = scan_results.read(asked.results, digest).get(platform)
    except scan_results.ResultError:
        return False
    return standing(known, asked.policy, now).state not in (UNSCANNED, OUTDATED)
