"""Scans as the operator's inventory asks for them (`casemate_image_scans`), and whether an image may go on the list."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from casemate.supply import scan_results
from casemate.supply.scan_policy import OUTDATED, PASSED, UNSCANNED, Policy, standing
from casemate.supply.scan_results import ResultError
from casemate.supply.scanner import HIDING, Scanner

VARIABLE, WAIVERS, MAX_AGE = "casemate_image_scans", "casemate_advisory_waivers", "casemate_image_max_age_days"
AGAIN = "scan it: casemate images scan -i INVENTORY {image}"
UNREADABLE = "unreadable"
"""The state of an image whose file of results is broken."""
REMEDY = {UNSCANNED: AGAIN, OUTDATED: AGAIN}


class Settings(NamedTuple):
    """What the inventory says: the scanner, the folder of results, and the policy."""

    scanner: Scanner
    results: Path
    policy: Policy


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
    return Settings(scanner, _path(given["results"]), policy)


def _path(given: Any) -> Path:
    return Path(str(given)).expanduser()


def refusal(digest: str, image: str, asked: Settings | None, now: datetime.datetime) -> str:
    """Why an image may not go on the list, and what to do; "" where it may, and where no scans are set up.

    Of an image for several platforms each scan that is kept has to pass. Raises nothing: a broken result refuses.
    """
    if asked is None:
        return ""
    try:
        scans = scan_results.read(asked.results, digest)
    except ResultError as broken:
        return str(broken)
    stands = {platform: standing(scan, asked.policy, now) for platform, scan in scans.items()}
    for platform, (state, why) in sorted(stands.items()) or [("", standing(None, asked.policy, now))]:
        if state != PASSED:
            fallback = f"take an image without them, or waive one by its id in {WAIVERS}, with a reason and an end"
            where = f" ({platform})" if platform else ""
            return f"{image}{where}: {why}. To allow it, {REMEDY.get(state, fallback).format(image=image)}"
    return ""


def standings(asked: Settings | None, now: datetime.datetime) -> dict[str, dict[str, dict[str, str]]]:
    """Digest -> platform -> `state` and `why`, of all results that are kept; of a broken file: UNREADABLE."""
    if asked is None:
        return {}
    made: dict[str, dict[str, dict[str, str]]] = {}
    for digest in scan_results.digests(asked.results):
        try:
            scans = scan_results.read(asked.results, digest)
        except ResultError as broken:
            made[digest] = {"": {"state": UNREADABLE, "why": str(broken)}}
            continue
        made[digest] = {name: standing(scan, asked.policy, now)._asdict() for name, scan in scans.items()}
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


def _hides(argument: str, hiding: Collection[str]) -> bool:
    """Whether an argument has one of these options; behind one dash each letter is one, or the value of that before."""
    if argument.startswith("-") and not argument.startswith("--"):
        return any(f"-{letter}" in hiding for letter in argument[1:])
    return argument.partition("=")[0] in hiding
