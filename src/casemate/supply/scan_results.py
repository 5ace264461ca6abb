"""Results of scans as they are kept: a file for each digest in a folder of the operator's, the same bytes for the same.

Format: {"schema": 1, "digest": SHA256, "scans": {PLATFORM: {…}}}; a platform is such as linux/amd64. What is kept is
all that the scanner found, so that another policy or waiver holds at once, without another scan.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from casemate.supply.scan_policy import Policy, Scan
from casemate.supply.scan_report import DIGEST, SEVERITIES, UNRATED, Advisory, moment
from module_utils.casemate.host.files import replacing

KEPT = datetime.timedelta(days=180)
"""For how long a result is kept: twice as long as an inventory may have it count."""

Scans = Mapping[str, Scan]
"""Platform -> its scan."""


class ResultError(Exception):
    """A file of the folder is not what was kept there; the message names it and says what to do."""


def file_of(folder: Path, digest: str) -> Path:
    """Where the results of a digest lie."""
    return folder / f"{digest.replace(':', '-')}.json"


def read(folder: Path, digest: str) -> Scans:
    """The scans of an image by platform; none where it was not scanned. Raises ResultError."""
    try:
        return {platform: _scan(kept) for platform, kept in _kept(folder, digest).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as wrong:
        raise _broken(folder, digest, wrong) from wrong


def _kept(folder: Path, digest: str) -> dict[str, Any]:
    """Platform -> what the file of a digest says of it, as it stands there."""
    try:
        made = json.loads(file_of(folder, digest).read_text(encoding="utf-8"))
        if made["schema"] != 1 or made["digest"] != digest:
            raise ValueError("another schema or digest")
        return dict(made["scans"])
    except FileNotFoundError:
        return {}
    except (KeyError, OSError, RecursionError, TypeError, ValueError) as wrong:
        raise _broken(folder, digest, wrong) from wrong


def _broken(folder: Path, digest: str, wrong: Exception) -> ResultError:
    said = f"{file_of(folder, digest)} holds no result of a scan ({type(wrong).__name__}: {wrong})"
    return ResultError(f"{said}. Remove it, and scan again")


def digests(folder: Path) -> list[str]:
    """The digests that have a file in the folder."""
    names = sorted(path.stem.replace("-", ":", 1) for path in folder.glob("sha256-*.json"))
    return [digest for digest in names if DIGEST.fullmatch(digest)]


def keep(folder: Path, digest: str, platform: str, scan: Scan, policy: Policy, passed: bool) -> Path:
    """Keep a result beside those of other platforms; returns the file. Raises ResultError, and OSError."""
    kept = {
        **scan._asdict(),
        "database": scan.database.isoformat(timespec="seconds"),
        "scanned": scan.scanned.isoformat(timespec="seconds"),
        "advisories": [one._asdict() for one in sorted(scan.advisories)],
        "policy": policy.told(),
        "passed": passed,
    }
    made = {"schema": 1, "digest": digest, "scans": {**_kept(folder, digest), platform: kept}}
    path = file_of(folder, digest)
    with replacing(str(path)) as (out, name):
        out.write(json.dumps(made, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n")
        os.chmod(name, 0o644)
    return path


def prune(folder: Path, now: datetime.datetime) -> int:
    """Remove the files of images of which no scan is as young as KEPT, and return how many; broken ones stay.

    None of them counts any more, so that no image stands better afterwards.
    """
    removed = 0
    for digest in digests(folder):
        try:
            scans = read(folder, digest)
        except ResultError:
            continue
        if scans and all(scan.scanned < now - KEPT for scan in scans.values()):
            file_of(folder, digest).unlink(missing_ok=True)
            removed += 1
    return removed


def _scan(kept: Mapping[str, Any]) -> Scan:
    texts = {name: str(kept[name]) for name in ("image", "scanner", "version", "sha256")}
    return Scan(
        **texts,
        database=_time(kept["database"]),
        scanned=_time(kept["scanned"]),
        advisories=tuple(_advisory(one) for one in kept["advisories"]),
        config=str(kept.get("config") or ""),
        whole=kept.get("whole") is True,
    )


def _time(text: Any) -> datetime.datetime:
    made = moment(text)
    if made is None:
        raise ValueError(f"{text} is no time")
    return made


def _advisory(kept: Mapping[str, Any]) -> Advisory:
    severity = str(kept["severity"])
    if severity not in (*SEVERITIES, UNRATED):
        raise ValueError(f"{severity} is no severity")
    texts = {name: str(kept[name]) for name in ("id", "package", "installed", "fixed")}
    return Advisory(**texts, aliases=tuple(map(str, kept["aliases"])), severity=severity)
