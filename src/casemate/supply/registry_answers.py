"""What registries answered of tags, kept in one file on the controller, so that a check asks nobody.

Format: {"schema": 1, "answers": {REFERENCE: {PLATFORM: {"digests": […], "config": SHA256, "why": "", "asked": TIME}}}},
where a reference is HOST/PATH:TAG, and `why` says why there was no answer.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from casemate.supply.registry import Answer
from casemate.supply.scan_report import moment
from module_utils.casemate.host.files import replacing

VARIABLE = "casemate_image_updates"
NAME, SCHEMA = "registries.json", 1
DAYS = 7
"""For how many days an answer counts, where the inventory does not say."""

Kept = dict[str, dict[str, dict[str, Any]]]
"""Reference -> platform -> what was answered."""


class AnswersError(Exception):
    """The file is not what was kept there; the message names it and says what to do."""


def file_of(given: Mapping[str, Any]) -> Path:
    """Where the answers lie, by the input."""
    return Path(str(given["answers"])).expanduser() / NAME


def known(given: Mapping[str, Any] | None, now: datetime.datetime) -> Kept:
    """The answers that count; none where the input is not set. Raises AnswersError."""
    if not given:
        return {}
    path, limit = file_of(given), now - datetime.timedelta(days=int(given.get("max_age_days") or DAYS))
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        if made["schema"] != SCHEMA:
            raise ValueError("another schema")
        found = {
            reference: {platform: dict(one) for platform, one in of.items() if _counts(one, limit, now)}
            for reference, of in made["answers"].items()
        }
    except FileNotFoundError:
        return {}
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as wrong:
        said = f"{path} holds no answers of registries ({type(wrong).__name__}: {wrong})"
        raise AnswersError(f"{said}. Remove it, and run casemate images scan") from wrong
    return {reference: of for reference, of in found.items() if of}


def _counts(one: Mapping[str, Any], limit: datetime.datetime, now: datetime.datetime) -> bool:
    asked = moment(one["asked"])
    if asked is None or not isinstance(one["digests"], list) or not {"config", "why"} <= one.keys():
        raise ValueError("an answer of another shape")
    return limit <= asked <= now + datetime.timedelta(hours=1)


def answered(found: Answer, now: datetime.datetime) -> dict[str, Any]:
    """An answer as it is kept."""
    return _kept(list(found.digests), found.config, "", now)


def unanswered(why: str, now: datetime.datetime) -> dict[str, Any]:
    """The same, where there was none."""
    return _kept([], "", why, now)


def _kept(digests: list[str], config: str, why: str, now: datetime.datetime) -> dict[str, Any]:
    return {"digests": digests, "config": config, "why": why, "asked": now.isoformat(timespec="seconds")}


def keep(given: Mapping[str, Any], found: Kept, now: datetime.datetime) -> Path:
    """Keep answers beside those that still count; returns the file. Raises AnswersError, and OSError."""
    path, made = file_of(given), known(given, now)
    for reference, of in found.items():
        made.setdefault(reference, {}).update(of)
    with replacing(str(path)) as (out, name):
        out.write(json.dumps({"schema": SCHEMA, "answers": made}, sort_keys=True, indent=1).encode() + b"\n")
        os.chmod(name, 0o644)
    return path
