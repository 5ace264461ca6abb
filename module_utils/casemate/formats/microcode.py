"""Which revision of a processor's microcode lies in the files that its kernel loads at boot.

Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3A, 11.11 (microcode update facilities);
Linux, arch/x86/kernel/cpu/microcode/amd.c; Documentation/arch/x86/microcode.rst (where the files lie).
"""

from __future__ import annotations

import struct
from typing import Dict, Iterator, NamedTuple, Set, Tuple

INTEL, AMD = "GenuineIntel", "AuthenticAMD"
HEADER = struct.Struct("<9I12x")
"""Of an update of Intel: its version, revision, date, signature, sum, loader, flags, sizes of data and all."""
EXTENDED, ALSO_FOR = struct.Struct("<I16x"), struct.Struct("<II4x")
"""How many other processors it is for, after its data; and the signature and flags of one of them."""
DATA, ALL = 2000, 2048
"""The sizes in bytes that 0 stands for."""
CONTAINER, TABLE, PATCH = 0x00414D44, 0, 1
SECTION, PROCESSOR, OF_PATCH = struct.Struct("<II"), struct.Struct("<I8xH2x"), struct.Struct("<4xI16xH")
"""Of AMD: sort and size of a section; signature of a processor and its number; revision of a patch and that number."""


class Processor(NamedTuple):
    """A processor as /proc/cpuinfo tells it, with the flags of its platform (Intel) as a mask of one bit."""

    vendor: str
    family: int
    model: int
    stepping: int
    flags: int

    @property
    def signature(self) -> int:
        """What CPUID says of it in EAX, leaf 1."""
        family, above = min(self.family, 15), max(self.family - 15, 0)
        low = (self.model & 15) << 4 | self.stepping
        return above << 20 | (self.model >> 4) << 16 | family << 8 | low

    @property
    def file(self) -> str:
        """Where its microcode lies below the folder of firmware; nothing for other vendors."""
        if self.vendor == INTEL:
            return f"intel-ucode/{self.family:02x}-{self.model:02x}-{self.stepping:02x}"
        if self.vendor == AMD:
            return f"amd-ucode/microcode_amd{f'_fam{self.family:02x}h' if self.family > 0x14 else ''}.bin"
        return ""


def newest(processor: Processor, data: bytes) -> int:
    """The highest revision in a file that is for a processor, or 0.

    Raises ValueError for what is no file of microcode, or was cut off.
    """
    found = _intel(data) if processor.vendor == INTEL else _amd(data)
    signature, flags = processor.signature, processor.flags
    fit = (rev for rev, of, mask in found if of == signature and (mask & flags or mask == flags == 0))
    return max(fit, default=0)


def _intel(data: bytes) -> Iterator[Tuple[int, int, int]]:
    """(revision, signature, mask of flags) of all updates."""
    at = 0
    while at + HEADER.size <= len(data):
        version, revision, _, signature, _, _, mask, size, whole = HEADER.unpack_from(data, at)
        size, whole = size or DATA, whole or ALL
        if version != 1 or whole < HEADER.size + size or at + whole > len(data):
            raise ValueError("it holds what is no update of microcode")
        yield revision, signature, mask
        more = at + HEADER.size + size
        if more + EXTENDED.size <= at + whole:
            (count,) = EXTENDED.unpack_from(data, more)
            others = data[more + EXTENDED.size : at + whole]
            for signature, mask in ALSO_FOR.iter_unpack(others[: count * ALSO_FOR.size]):
                yield revision, signature, mask
        at += whole
    if at != len(data):
        raise ValueError("it ends in the middle of an update of microcode")


def _amd(data: bytes) -> Iterator[Tuple[int, int, int]]:
    """(revision, signature, 0) of all patches, for each processor that one is for."""
    numbers: Dict[int, Set[int]] = {}
    at = 0
    while at + SECTION.size <= len(data):
        sort, size = SECTION.unpack_from(data, at)
        if sort == CONTAINER:  # and what follows is the sort of its first section
            at, numbers = at + 4, {}
            continue
        at += SECTION.size
        held = data[at : at + size]
        if len(held) < size or not size or sort not in (TABLE, PATCH):
            raise ValueError("it holds what is no container of microcode")
        if sort == TABLE:
            numbers = _numbers(held)
        elif size >= OF_PATCH.size:
            revision, number = OF_PATCH.unpack_from(held)
            for signature in sorted(numbers.get(number, ())):
                yield revision, signature, 0
        at += size
    if at != len(data):
        raise ValueError("it ends in the middle of a container of microcode")


def _numbers(table: bytes) -> Dict[int, Set[int]]:
    """Number -> the signatures of the processors that have it."""
    found: Dict[int, Set[int]] = {}
    for signature, number in PROCESSOR.iter_unpack(table[: len(table) - len(table) % PROCESSOR.size]):
        if signature:
            found.setdefault(number, set()).add(signature)
    return found
