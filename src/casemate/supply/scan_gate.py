"""Scans as the operator's inventory asks for them (`casemate_image_scans`), and whether an image may go on the list.

A list names what a registry resolves, which may be an index that leads to an image for each platform. So what is known
of one platform lets none on the list: those of the nodes (`platforms`) are all asked for.
"""

from __future__ import annotations

import datetime
import platform as machine
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from casemate.supply import scan_results
from casemate.supply.artifact_lock import ARCHITECTURES
from casemate.supply.scan_policy import OUTDATED, PASSED, UNSCANNED, Policy, Standing, standing
from casemate.supply.scan_results import ResultError, Scans
from casemate.supply.scanner import HIDING, Scanner

VARIABLE, WAIVERS, MAX_AGE = "casemate_image_scans", "casemate_advisory_waivers", "casemate_image_max_age_days"
AGAIN = "scan it: casemate images scan -i INVENTORY {image}"
UNREADABLE = "unreadable"
"""The state of an image whose file of results is broken."""
REMEDY = {UNSCANNED: AGAIN, OUTDATED: AGAIN}


class Settings(NamedTuple):
    """What the inventory says: the scanner, the folder of results, the policy, and the platforms of the nodes."""

    scanner: Scanner
    results: Path
    policy: Policy
    platforms: tuple[str, ...]


def platform_of(machine_type: str) -> str:
    """The platform of a machine such as x86_64, as images have it."""
    return f"linux/{ARCHITECTURES.get(machine_type, machine_type)}"


def own_platform() -> str:
    """Linux on a machine as this one."""
    return platform_of(machine.machine())


def settings(given: Mapping[str, Any] | None, waivers: Mapping[str, Any] | None = None) -> Settings | None:
    """The settings of the two variables, which preflight has found right; None where no scans are set up."""
    if not given:
        return None
    tool, usual = given["scanner"], Policy()
    archives = given.get("archives")
    scanner = Scanner(
        str(tool["kind"]),
        _path(tool["path"]),
        str(tool["sha256"]),
        _path(tool["database"]),
        tuple(map(str, tool.get("arguments") or ())),
        int(tool.get("timeout") or Scanner._field_defaults["timeout"]),
        _path(archives) if archives else None,
    )
    policy = Policy(
        str(given.get("fails_from", usual.fails_from)),
        str(given.get("only_fixed", usual.only_fixed)).lower() in ("true", "yes"),
        int(given.get("result_max_age_days", usual.result_days)),
        int(given.get("database_max_age_days", usual.database_days)),
        dict(waivers or {}),
    )
    platforms = tuple(map(str, given.get("platforms") or (own_platform(),)))
    return Settings(scanner, _path(given["results"]), policy, platforms)


def _path(given: Any) -> Path:
    return Path(str(given)).expanduser()


def refusal(digest: str, image: str, asked: Settings | None, now: datetime.datetime) -> str:
    """Why an image may not go on the list, and what to do; "" where it may, and where no scans are set up.

    Of an image for several platforms there has to be a scan for each of the nodes', and each that is kept has to pass.
    Raises nothing: a broken result refuses.
    """
    if asked is None:
        return ""
    try:
        scans = scan_results.read(asked.results, digest)
    except ResultError as broken:
        return str(broken)
    for platform, (state, why) in sorted(_by_platform(scans, asked, now).items()):
        if state != PASSED:
            fallback = f"take an image without them, or waive one by its id in {WAIVERS}, with a reason and an end"
            return f"{image} ({platform}): {why}. To allow it, {REMEDY.get(state, fallback).format(image=image)}"
    return ""


def _by_platform(scans: Scans, asked: Settings, now: datetime.datetime) -> dict[str, Standing]:
    """How an image stands on each platform that was scanned, and on each of the nodes'.

    What is no index is the same on all of them.
    """
    found = {platform: standing(scan, asked.policy, now) for platform, scan in scans.items()}
    if any(scan.whole for scan in scans.values()):
        return found
    return {**{platform: standing(None, asked.policy, now) for platform in asked.platforms}, **found}


def standings(asked: Settings | None, now: datetime.datetime) -> dict[str, dict[str, dict[str, str]]]:
    """Digest -> platform -> `state`, `why`, and `of`, the configuration of what was scanned where that is known.

    Those of all results that are kept; of a broken file: UNREADABLE.
    """
    if asked is None:
        return {}
    made: dict[str, dict[str, dict[str, str]]] = {}
    for digest in scan_results.digests(asked.results):
        try:
            scans = scan_results.read(asked.results, digest)
        except ResultError as broken:
            made[digest] = {"": {"state": UNREADABLE, "why": str(broken)}}
            continue
        made[digest] = {
            name: {**one._asdict(), "of": scans[name].config if name in scans else ""}
            for name, one in _by_platform(scans, asked, now).items()
        }
    return made


def problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the inputs about scans beyond what each value shows."""
    given = values.get(VARIABLE)
    if not given:
        return []
    tool = given["scanner"]
    hiding = HIDING[tool["kind"]]
    found = [
        f"{VARIABLE}.scanner.arguments has {argument}, which keeps findings from the report, or is what Casemate sets "
        f"itself. Remove it: what may pass is said by fails_from, only_fixed and {WAIVERS}"
        for argument in map(str, tool.get("arguments") or ())
        if _hides(argument, hiding)
    ]
    if not Path(str(tool["database"]), "db/metadata.json").expanduser().is_file() and tool["kind"] == "trivy":
        found.append(
            f"{VARIABLE}.scanner.database {tool['database']} has no db/metadata.json, so it is no cache of trivy's. "
            "Fill one where there is a network (trivy image --download-db-only --cache-dir FOLDER), and copy it"
        )
    return found


def platform_problems(values: Mapping[str, Any], machine_type: str) -> list[str]:
    """That images are let in without being scanned for the platform of a node of this machine type, or nothing."""
    asked, platform = settings(values.get(VARIABLE)), platform_of(machine_type)
    if asked is None or platform in asked.platforms:
        return []
    has = ", ".join(asked.platforms)
    said = f"{VARIABLE}.platforms is {has}, and this node is {platform}, for which no image would have to be scanned"
    return [f"{said}. Set platforms: [{', '.join(sorted({*asked.platforms, platform}))}]"]


def _hides(argument: str, hiding: Collection[str]) -> bool:
    """Whether an argument has one of these options; behind one dash each letter is one, or the value of that before."""
    if argument.startswith("-") and not argument.startswith("--"):
        return any(f"-{letter}" in hiding for letter in argument[1:])
    return argument.partition("=")[0] in hiding
