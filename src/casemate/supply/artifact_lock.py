"""The artifact lock: which bytes are K3s. Reviewed and signed, since K3s signs nothing itself.

Format: {"schema": 1, "serial": NUMBER, "issued": DATE, "expires": DATE, "default": VERSION,
"releases": {VERSION: {"provides": […], "files": {NAME: SHA256}}}}. Serial and dates may be left out: a lock without
them has no end, and is older than any that has a serial.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate import kept
from module_utils.casemate.host.machine import Host
from module_utils.casemate.host.signature import SignatureError, signers
from module_utils.casemate.k3s import lock_validity
from module_utils.casemate.k3s.artifact import at_least

ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
VERSION = r"^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?\+k3s[0-9]+\Z"
IMAGES = "k3s-airgap-images"
DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["schema", "default", "releases"],
    "additionalProperties": False,
    "properties": {
        "schema": {"const": 1},
        "serial": {"type": "integer", "minimum": 1},
        "issued": {"type": "string", "pattern": DATE},
        "expires": {"type": "string", "pattern": DATE},
        "default": {"type": "string", "pattern": VERSION},
        "releases": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": VERSION},
            "additionalProperties": {
                "type": "object",
                "required": ["provides", "files"],
                "additionalProperties": False,
                "properties": {
                    "provides": {"type": "array", "items": {"enum": ["api_semantics"]}, "uniqueItems": True},
                    "files": {
                        "type": "object",
                        "minProperties": 1,
                        "propertyNames": {"pattern": r"^k3s[A-Za-z0-9._-]*\Z"},
                        "additionalProperties": {"type": "string", "pattern": r"^[0-9a-f]{64}\Z"},
                    },
                },
            },
        },
    },
}


class LockError(Exception):
    """The lock is missing, malformed, unsigned, changed, signed by a stranger, or lacks what is asked for."""


@dataclass(frozen=True)
class Release:
    """One locked release: its version, capabilities and digests by file name."""

    version: str
    provides: tuple[str, ...]
    files: Mapping[str, str]

    def binary(self, machine: str) -> tuple[str, str]:
        """(file name, sha256) of the K3s binary for a machine type such as x86_64; raises LockError."""
        name = binary_of(architecture(machine))
        if name not in self.files:
            raise LockError(f"the lock has no {name} for {self.version}")
        return name, self.files[name]

    def images(self, machine: str) -> tuple[str, str] | None:
        """(file name, sha256) of the air-gap images for a machine type, or None where they are not locked."""
        name = images_of(architecture(machine))
        return (name, self.files[name]) if name in self.files else None


@dataclass(frozen=True)
class Lock:
    """A parsed lock."""

    default: str
    releases: Mapping[str, Release]
    serial: int = 0
    """It rises with every change, so that an older lock is known; 0 for none."""
    issued: str = ""
    """The day of the last change, as YYYY-MM-DD in UTC; empty for none."""
    expires: str = ""
    """The last day, as YYYY-MM-DD in UTC; empty for none."""

    def over(self, today: datetime.date) -> str:
        """Why it does not hold on this day in UTC, and what to do; or nothing."""
        return lock_validity.over(self.issued, self.expires, today)

    def release(self, version: str | None = None) -> Release:
        """The release of a version, by default the lock's own; raises LockError naming what there is."""
        wanted = version or self.default
        if wanted not in self.releases:
            raise LockError(f"K3s {wanted} is not in the lock; it holds {', '.join(sorted(self.releases))}")
        return self.releases[wanted]


def binary_of(arch: str) -> str:
    """How a release of K3s names the program for an architecture."""
    return "k3s" if arch == "amd64" else f"k3s-{arch}"


def images_of(arch: str) -> str:
    """How a release of K3s names the images for starts without a network."""
    return f"{IMAGES}-{arch}.tar.zst"


def architecture(machine: str) -> str:
    """The name that K3s uses for a machine type."""
    if machine not in ARCHITECTURES:
        raise LockError(f"{machine} is not supported; supported: {', '.join(sorted(ARCHITECTURES))}")
    return ARCHITECTURES[machine]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that stands twice: two readers could take different ones."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise LockError("a key stands twice in it")
    return made


def _valid(text: str) -> dict[str, Any]:
    """What a lock says, once it fits the schema; raises LockError naming every fault."""
    try:
        raw: dict[str, Any] = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as broken:
        raise LockError(f"it is not JSON: {broken}") from broken
    from jsonschema import Draft202012Validator  # here: a collection is also read where it is not installed

    faults = sorted(Draft202012Validator(SCHEMA).iter_errors(raw), key=lambda fault: fault.json_path)
    if faults:
        raise LockError("; ".join(f"{fault.json_path}: {fault.message}" for fault in faults[:5]))
    return raw


@functools.cache
def parse(text: str) -> Lock:
    """Parse and validate the text of a lock; raises LockError naming every fault. Nobody changes what it returns."""
    raw = kept.value("locks", [text.encode(), Path(__file__).read_bytes()], lambda: _valid(text))
    if raw["default"] not in raw["releases"]:
        raise LockError(f"its default {raw['default']} is not among its releases")
    dates = {name: raw[name] for name in ("issued", "expires") if name in raw}
    for name, day in dates.items():
        try:
            datetime.date.fromisoformat(day)
        except ValueError as wrong:
            raise LockError(f"$.{name}: {day!r} is no day such as 2027-01-31") from wrong
    if dates.get("expires", "9999-12-31") < dates.get("issued", ""):
        raise LockError(f"it ends on {dates['expires']}, before it was issued on {dates['issued']}")
    releases = {v: Release(v, tuple(r["provides"]), dict(r["files"])) for v, r in raw["releases"].items()}
    return Lock(raw["default"], releases, int(raw.get("serial", 0)), **dates)


def _newer(one: str, other: str) -> int:
    """Below 0 where the first version is at least the second."""
    return -1 if at_least(one, other) else 1


def text(lock: Lock) -> str:
    """A lock as a file for people to compare: always in the same order, newest release first, a line for a digest."""
    head = {"serial": lock.serial, "issued": lock.issued, "expires": lock.expires, "default": lock.default}
    releases = []
    for version in sorted(lock.releases, key=functools.cmp_to_key(_newer)):
        release = lock.releases[version]
        files = sorted(release.files.items(), key=lambda file: (file[0].startswith(IMAGES), file[0]))
        rows = ",\n".join(f"        {json.dumps(name)}: {json.dumps(digest)}" for name, digest in files)
        provides = json.dumps(sorted(release.provides))
        body = f'      "provides": {provides},\n      "files": {{\n{rows}\n      }}'
        releases.append(f"    {json.dumps(version)}: {{\n{body}\n    }}")
    said = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in {"schema": 1, **head}.items() if value]
    return "{\n" + ",\n".join([*said, '  "releases": {\n' + ",\n".join(releases) + "\n  }"]) + "\n}\n"


def load(path: str | Path) -> Lock:
    """Read and parse a lock file, without looking at its signature; raises LockError."""
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LockError(f"the artifact lock {path} cannot be read: {error.strerror}") from error
    except (LockError, UnicodeDecodeError) as fault:
        raise LockError(f"the artifact lock {path} is refused: {fault}") from fault


def verify(
    path: str | Path, allowed_signers: str | Path | None, needed: int = 1, revoked: str | Path | None = None
) -> list[str]:
    """Who signed the lock (signatures are PATH.sig and PATH.NAME.sig), at least `needed`; raises LockError."""
    try:
        return signers(Host().run, str(path), str(allowed_signers or ""), needed, str(revoked or ""))
    except SignatureError as refusal:
        raise LockError(f"the artifact lock is refused: {refusal}") from refusal
