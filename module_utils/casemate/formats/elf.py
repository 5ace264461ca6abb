"""Where an ELF file says that its parts lie, as far as it takes to find data of a program that nobody runs.

Sources: elf(5); the System V ABI, chapter 4 (file header, section headers) and chapter 5 (program headers).
"""

from __future__ import annotations

import mmap
import struct
from typing import List, NamedTuple, Optional, Tuple, Union

Bytes = Union[bytes, mmap.mmap]
"""A whole file; a mapped one is only read where something is looked up."""

MAGIC = b"\x7fELF"
LOADED = 1
"""PT_LOAD: a segment that becomes memory of the program."""
EXECUTABLE, WRITABLE = 1, 2
"""PF_X and PF_W among the flags of a segment."""
NO_BYTES = 8
"""SHT_NOBITS: a section without bytes in the file."""


class Segment(NamedTuple):
    """A program header. `offset` and `size` are bytes in the file, `address` is where they come to lie in memory."""

    type: int
    flags: int
    offset: int
    address: int
    size: int


class Section(NamedTuple):
    """A section header, without its name."""

    name_at: int
    type: int
    address: int
    offset: int
    size: int


class Layout(NamedTuple):
    """Where the tables of a file are: (offset, size of an entry, number of entries), and how to read them."""

    wide: bool
    order: str
    segments: Tuple[int, int, int]
    sections: Tuple[int, int, int]
    names: int


def layout(data: Bytes) -> Optional[Layout]:
    """How a file is laid out; None for one that is no ELF file. Raises ValueError for one whose header is broken."""
    if data[: len(MAGIC)] != MAGIC:
        return None
    if len(data) < 16 or data[4] not in (1, 2) or data[5] not in (1, 2):
        raise ValueError("its ELF header is broken")
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    header = _unpacked(order + ("16xHHIQQQIHHHHHH" if wide else "16xHHIIIIIHHHHHH"), data, 0)
    _, _, _, _, segments_at, sections_at, _, _, segment_size, segments, section_size, sections, names = header
    return Layout(wide, order, (segments_at, segment_size, segments), (sections_at, section_size, sections), names)


def segments(data: Bytes, found: Layout) -> List[Segment]:
    """All program headers, in their order. Raises ValueError where the file ends before they do."""
    start, size, count = found.segments
    made = []
    for at in range(start, start + size * count, size or 1):
        if found.wide:
            kind, flags, offset, address, _, length = _unpacked(found.order + "IIQQQQ", data, at)
        else:
            kind, offset, address, _, length, _, flags = _unpacked(found.order + "IIIIIII", data, at)
        made.append(Segment(kind, flags, offset, address, length))
    return made


def section(data: Bytes, found: Layout, name: bytes) -> Optional[Section]:
    """The first section of a name that has bytes in the file, or None. Raises ValueError for a broken table."""
    start, size, count = found.sections
    if not count or found.names >= count:
        return None
    names = _section(data, found, start + size * found.names)
    for at in range(start, start + size * count, size or 1):
        one = _section(data, found, at)
        begin = names.offset + one.name_at
        if one.type != NO_BYTES and data[begin : begin + len(name) + 1] == name + b"\0":
            return one
    return None


def _section(data: Bytes, found: Layout, at: int) -> Section:
    name_at, kind, _, address, offset, size = _unpacked(found.order + ("IIQQQQ" if found.wide else "IIIIII"), data, at)
    return Section(name_at, kind, address, offset, size)


def _unpacked(form: str, data: Bytes, at: int) -> Tuple[int, ...]:
    try:
        return struct.unpack_from(form, data, at)
    except (struct.error, OverflowError) as odd:
        raise ValueError("it is cut off, or its ELF header is broken") from odd
