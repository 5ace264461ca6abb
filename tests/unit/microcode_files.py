"""Files of microcode, made as Intel and AMD lay them out; what stands for the microcode itself is nothing."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence


def intel(
    revision: int, signature: int, flags: int = 0x87, size: int = 16, also: Sequence[tuple[int, int]] = ()
) -> bytes:
    """An update; `also` are the signatures and flags of more processors that it is for."""
    others = b"".join(struct.pack("<III", one, mask, 0) for one, mask in also)
    more = struct.pack("<IIIII", len(also), 0, 0, 0, 0) + others if also else b""
    data = bytes(size or 2000)
    whole = 48 + len(data) + len(more) if size else 0
    return struct.pack("<9I12x", 1, revision, 0x01022026, signature, 0, 1, flags, size, whole) + data + more


def amd(processors: Mapping[int, int], patches: Sequence[tuple[int, int]]) -> bytes:
    """A container: signatures of processors with their numbers, and patches by revision and number."""
    table = b"".join(struct.pack("<IIIHH", one, 0, 0, number, 0) for one, number in processors.items()) + bytes(16)
    made = struct.pack("<III", 0x00414D44, 0, len(table)) + table
    for revision, number in patches:
        patch = struct.pack("<IIHBBIIIH", 0, revision, 0, 0, 0, 0, 0, 0, number) + bytes(38)
        made += struct.pack("<II", 1, len(patch)) + patch
    return made
