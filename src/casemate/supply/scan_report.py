"""What trivy and grype say of an image, read into one shape. Pure.

Sources: trivy, pkg/types/report.go and vulnerability.go (schema version 2); grype, grype/presenter/models/document.go.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

SEVERITIES = ("negligible", "low", "medium", "high", "critical")
"""From the least to the worst."""
UNRATED = "unknown"
ENDED = "DISTRIBUTION-ENDED"
"""In place of an advisory: nobody writes any more for the distribution that an image is made of."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ReportError(Exception):
    """A scanner's output is no report about an image; the message says what lacks."""


class Advisory(NamedTuple):
    """An advisory about a package of an image: its ids, the package and its version, since which version it is fixed
    ("" where it is not), and how severe it is, one of SEVERITIES or UNRATED.
    """

    id: str
    aliases: tuple[str, ...]
    package: str
    installed: str
    fixed: str
    severity: str


class Report(NamedTuple):
    """What a scanner found: its version and the time of its database where it says them, the digests by which it knows
    the image (of configuration, manifest or index), the advisories, and the digests of the configuration and of the
    manifest that it looked at, "" where it does not say them.
    """

    version: str
    database: datetime.datetime | None
    digests: frozenset[str]
    advisories: tuple[Advisory, ...]
    config: str = ""
    manifest: str = ""


def parse(kind: str, text: bytes) -> Report:
    """The report of a scanner of that kind, `trivy` or `grype`; raises ReportError."""
    try:
        made = json.loads(text)
        return READERS[kind](made)
    except (ValueError, RecursionError) as broken:
        raise ReportError(f"it is not JSON: {broken}") from broken
    except (AttributeError, KeyError, TypeError) as strange:
        raise ReportError(f"it is no report of {kind}: {type(strange).__name__} {strange}") from strange


def _trivy(made: Mapping[str, Any]) -> Report:
    if made["SchemaVersion"] != 2 or made["ArtifactType"] != "container_image":
        raise KeyError("SchemaVersion 2 of a container_image")
    about = made["Metadata"]
    found = [
        Advisory(
            str(one["VulnerabilityID"]), _ids(one.get("VendorIDs")), str(one["PkgName"]), str(one["InstalledVersion"]),
            str(one.get("FixedVersion") or ""), _severity(one.get("Severity")),
        )
        for result in made.get("Results") or ()
        for one in result.get("Vulnerabilities") or ()
    ]  # fmt: skip
    system = about.get("OS") or {}
    if system.get("EOSL"):
        found.append(_ended(str(system.get("Family")), str(system.get("Name"))))
    known = [about["ImageID"], *(one.rpartition("@")[2] for one in about.get("RepoDigests") or ())]
    version = str((made.get("Trivy") or {}).get("Version") or "")
    return Report(version, None, _digests(known), _sorted(found), _digest(about["ImageID"]))


def _grype(made: Mapping[str, Any]) -> Report:
    source, about = made["source"], made["descriptor"]
    if source["type"] != "image":
        raise KeyError("a source of type image")
    found = [
        Advisory(
            str(one["vulnerability"]["id"]),
            _ids(related["id"] for related in one.get("relatedVulnerabilities") or ()),
            str(one["artifact"]["name"]),
            str(one["artifact"]["version"]),
            _fixed(one["vulnerability"].get("fix") or {}),
            _severity(one["vulnerability"].get("severity")),
        )
        for one in made["matches"]
    ]
    alerts = [alert for one in made.get("alertsByPackage") or () for alert in one.get("alerts") or ()]
    if any(alert.get("type") == "distro-eol" for alert in alerts):
        system = made.get("distro") or {}
        found.append(_ended(str(system.get("name")), str(system.get("version"))))
    target = source["target"]
    known = [target["imageID"], target["manifestDigest"]]
    known += [one.rpartition("@")[2] for one in target.get("repoDigests") or ()]
    database = about.get("db") or {}
    built = (database.get("status") or database).get("built")
    of = (_digest(target["imageID"]), _digest(target["manifestDigest"]))
    return Report(str(about.get("version") or ""), moment(built), _digests(known), _sorted(found), *of)


READERS = {"trivy": _trivy, "grype": _grype}


def moment(text: Any) -> datetime.datetime | None:
    """A time as both scanners write it, RFC 3339 with up to nine digits of a second, in UTC; None for anything else."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", str(text))
    try:
        return datetime.datetime.fromisoformat(found[1] + found[3]).astimezone(datetime.UTC) if found else None
    except ValueError:
        return None


def _fixed(fix: Mapping[str, Any]) -> str:
    return ", ".join(map(str, fix.get("versions") or ())) if fix.get("state") == "fixed" else ""


def _ended(family: str, version: str) -> Advisory:
    return Advisory(ENDED, (), family, version, "a later release", "high")


def _severity(text: Any) -> str:
    return str(text).lower() if str(text).lower() in SEVERITIES else UNRATED


def _ids(given: Iterable[Any] | None) -> tuple[str, ...]:
    return tuple(sorted({str(one) for one in given or ()}))


def _digest(said: Any) -> str:
    return str(said) if DIGEST.fullmatch(str(said)) else ""


def _digests(known: Iterable[Any]) -> frozenset[str]:
    return frozenset(str(one) for one in known if DIGEST.fullmatch(str(one)))


def _sorted(found: Iterable[Advisory]) -> tuple[Advisory, ...]:
    return tuple(sorted(set(found)))
