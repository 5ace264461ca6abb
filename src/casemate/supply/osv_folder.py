"""What OSV's API answered, as a folder of advisories: its entries, and a record of what was asked.

Such a folder knows of the modules that it was asked for, and of no other. The record says which these are, when that
was, and which entries belong to it, so that a part of it is not taken for all.
Format of the record: {"schema": 1, "asked": TIME, "of": ADDRESS, "names": [MODULE…], "entries": [ID…]}.
"""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD, SCHEMA = "casemate-asked.json", 1


class FolderError(Exception):
    """The answers cannot be kept there; the message says why."""


@dataclass(frozen=True)
class Record:
    """When, in UTC, and for which Go modules OSV was asked, and the ids of what it answered."""

    asked: datetime.datetime
    names: frozenset[str]
    entries: frozenset[str]


def is_record(raw: Any) -> bool:
    """Whether what was read from JSON is a record, and no advisory."""
    return isinstance(raw, Mapping) and "asked" in raw and "id" not in raw


def record(raw: Mapping[str, Any]) -> Record:
    """A record as it was kept. Raises ValueError."""
    try:
        if raw["schema"] != SCHEMA:
            raise ValueError("another schema")
        asked = datetime.datetime.fromisoformat(raw["asked"])
        return Record(asked.astimezone(datetime.UTC), frozenset(raw["names"]), frozenset(raw["entries"]))
    except (KeyError, TypeError, ValueError) as odd:
        raise ValueError(f"it is no record of what OSV was asked: {odd!r}") from odd


def keep(
    folder: Path, names: Collection[str], entries: Mapping[str, bytes], address: str, now: datetime.datetime
) -> None:
    """Keep what was answered in a folder that is empty, not there, or of an earlier answer, which it then replaces.

    Raises FolderError, with the folder as it was.
    """
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / RECORD).is_file():
            raise FolderError(f"{folder} holds other files: name a folder of its own for what OSV answers")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
            made, old = Path(beside, "new"), Path(beside, "old")
            made.mkdir()
            for name, data in entries.items():
                (made / f"{name}.json").write_bytes(data)
            asked = {"asked": now.isoformat(timespec="seconds"), "of": address}
            said = {"schema": SCHEMA, **asked, "names": sorted(names), "entries": sorted(entries)}
            (made / RECORD).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
            if folder.exists():
                folder.rename(old)
            made.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as failed:
        raise FolderError(f"{folder} cannot be written: {failed.strerror}. Name another folder") from failed
