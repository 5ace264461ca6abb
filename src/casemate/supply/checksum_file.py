"""Files of checksums as sha256sum(1) and BSD's sha256(1) write them; anybody may have changed them on their way."""

from __future__ import annotations

import re

LINE = re.compile(r"(?P<digest>[0-9A-Fa-f]+)[ \t]+\*?(?P<name>.+)|SHA256 ?\((?P<bsd>.+)\) ?= ?(?P<of_bsd>[0-9A-Fa-f]+)")
"""`DIGEST  NAME`, with an asterisk before the name where it was read as binary, or `SHA256 (NAME) = DIGEST`."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
DIGITS = 64


class ChecksumError(Exception):
    """It is no file of SHA-256 checksums; the message names line and fault."""


def parse(data: bytes) -> dict[str, str]:
    """Name of a file -> its SHA-256 in small letters.

    Names are plain ones, but for `./` before them: a path may lead anywhere. Blank lines, and ends of lines as Windows
    writes them, are no faults. Raises ChecksumError for all else, and for a name that stands there with two digests.
    """
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as wrong:
        raise ChecksumError("it is no text") from wrong
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, digest = _entry(line.strip(), number)
        if found.setdefault(name, digest) != digest:
            raise ChecksumError(f"line {number} gives {name} the digest {digest}, and an earlier one {found[name]}")
    if not found:
        raise ChecksumError("it names no file")
    return found


def _entry(line: str, number: int) -> tuple[str, str]:
    match = LINE.fullmatch(line)
    if match is None:
        raise ChecksumError(f"line {number} is no line of a file of SHA-256 checksums: {line[:80]!r}")
    name, digest = match["name"] or match["bsd"], (match["digest"] or match["of_bsd"]).lower()
    if len(digest) != DIGITS:
        raise ChecksumError(f"line {number} has {len(digest)} digits of a checksum; one of SHA-256 has {DIGITS}")
    name = name.removeprefix("./")
    if not NAME.fullmatch(name):
        raise ChecksumError(f"line {number} names {name[:80]!r}, which is no plain name of a file")
    return name, digest
