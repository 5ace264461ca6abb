"""Write the bill of materials of Casemate itself: what it depends on, by the hashes of uv.lock.

    sbom.py FOLDER    writes casemate-VERSION.cdx.json into FOLDER

It has what the wheel needs on any Python that it runs on, and nothing of what only its development needs. Licences are
those that the packages of this environment state as SPDX expressions. The same commit gives the same bytes: the date is
SOURCE_DATE_EPOCH, and the serial number is made of the lock.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import sys
import tomllib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclonedx.model.component import Component as Entry
from cyclonedx.model.component import ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.model.lifecycle import LifecyclePhase
from cyclonedx.spdx import fixup_id
from packageurl import PackageURL

from casemate import __version__
from casemate.supply import bill
from casemate.supply.component import Component

ROOT = Path(__file__).resolve().parents[1]
NAME = "casemate"
Locked = Mapping[str, Any]
"""A package of uv.lock."""


def needed(lock: Mapping[str, Any]) -> list[Locked]:
    """The packages of a lock that the project's own dependencies lead to, in order, itself left out.

    A package's extras are followed where they are asked for.
    """
    by_name: dict[str, list[Locked]] = {}
    for package in lock["package"]:
        by_name.setdefault(package["name"], []).append(package)
    found: dict[tuple[str, str], Locked] = {}
    seen: set[tuple[str, str, str]] = set()
    waiting = [(package, "") for package in by_name[NAME]]
    while waiting:
        package, extra = waiting.pop()
        seen.add((package["name"], package["version"], extra))
        found[package["name"], package["version"]] = package
        asked = package.get("optional-dependencies", {}).get(extra, ()) if extra else package.get("dependencies", ())
        for one in asked:
            for other in by_name[one["name"]]:
                if one.get("version", other["version"]) == other["version"]:
                    asks = [(other, also) for also in ("", *one.get("extra", ()))]
                    waiting += [ask for ask in asks if (other["name"], other["version"], ask[1]) not in seen]
    return [found[key] for key in sorted(found) if key[0] != NAME]


def files(package: Locked) -> list[tuple[str, str]]:
    """(address, SHA-256) of each file of a package; raises ValueError for one without a hash."""
    made = []
    for file in [*([package["sdist"]] if "sdist" in package else ()), *package.get("wheels", ())]:
        kind, _, digest = file.get("hash", "").partition(":")
        if kind != "sha256":
            raise ValueError(f"uv.lock has no SHA-256 of {file['url']}: lock it again by uv lock")
        made.append((file["url"], digest))
    return made


def licence(name: str, version: str) -> str:
    """The SPDX expression that the installed package states, as older ones do by the identifier of a licence alone.

    It is "" where that package is not installed, or states none.
    """
    try:
        stated = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
    if stated["Version"] != version:
        return ""
    return str(stated["License-Expression"] or fixup_id(str(stated["License"] or "")) or "")


def main(folder: str) -> None:
    """Write the document, once it fits the schema of CycloneDX."""
    text = (ROOT / "uv.lock").read_text()
    packages = needed(tomllib.loads(text))
    subject = Entry(
        name=NAME,
        type=ComponentType.APPLICATION,
        version=__version__,
        bom_ref=f"pkg:pypi/{NAME}@{__version__}",
        purl=PackageURL("pypi", None, NAME, __version__),
        licenses=[LicenseExpression("Apache-2.0")],
    )
    made = bill.document(
        subject,
        [Component("pypi", p["name"], p["version"], licence=licence(p["name"], p["version"])) for p in packages],
        {},
        LifecyclePhase.BUILD,
        uuid.uuid5(uuid.NAMESPACE_URL, f"{NAME} {__version__} {text}"),
        datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC),
        {(p["name"], p["version"]): files(p) for p in packages},
    )
    Path(folder, f"{NAME}-{__version__}.cdx.json").write_text(made)


if __name__ == "__main__":
    main(sys.argv[1])
