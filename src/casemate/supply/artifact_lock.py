"""The artifact lock: which bytes are K3s. Reviewed and signed, since K3s signs nothing itself.

Format: {"schema": 1, "default": VERSION, "releases": {VERSION: {"provides": […], "files": {NAME: SHA256}}}}.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate import kept
from module_utils.casemate.host.machine import Host
from module_utils.casemate.host.signature import SignatureError, signer

ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
VERSION = r"^v\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?\+k3s\d+$"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["schema", "default", "releases"],
    "additionalProperties": False,
    "properties": {
        "schema": {"const": 1},
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
                        "propertyNames": {"pattern": r"^k3s[A-Za-z0-9._-]*$"},
                        "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
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
        arch = architecture(machine)
        name = "k3s" if arch == "amd64" else f"k3s-{arch}"
        if name not in self.files:
            raise LockError(f"the lock has no {name} for {self.version}")
        return name, self.files[name]

    def images(self, machine: str) -> tuple[str, str] | None:
        """(file name, sha256) of the air-gap images for a machine type, or None where they are not locked."""
        name = f"k3s-airgap-images-{architecture(machine)}.tar.zst"
        return (name, self.files[name]) if name in self.files else None


@dataclass(frozen=True)
class Lock:
    """A parsed lock."""

    default: str
    releases: Mapping[str, Release]

    def release(self, version: str | None = None) -> Release:
        """The release of a version, by default the lock's own; raises LockError naming what there is."""
        wanted = version or self.default
        if wanted not in self.releases:
            raise LockError(f"K3s {wanted} is not in the lock; it holds {', '.join(sorted(self.releases))}")
        return self.releases[wanted]


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
    except ValueError as broken:
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
    return Lock(
        raw["default"],
        {v: Release(v, tuple(r["provides"]), dict(r["files"])) for v, r in raw["releases"].items()},
    )


def load(path: str | Path) -> Lock:
    """Read and parse a lock file, without looking at its signature; raises LockError."""
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LockError(f"the artifact lock {path} cannot be read: {error.strerror}") from error
    except LockError as fault:
        raise LockError(f"the artifact lock {path} is refused: {fault}") from fault


def verify(path: str | Path, allowed_signers: str | Path | None) -> str:
    """The principal who signed the lock (its signature is PATH.sig); raises LockError. Fails closed."""
    try:
        return signer(Host().run, str(path), str(allowed_signers or ""))
    except SignatureError as refusal:
        raise LockError(f"the artifact lock is refused: {refusal}") from refusal
