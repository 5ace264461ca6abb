"""Revisions in files of microcode, as Intel and AMD lay them out."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.microcode_files import amd, intel

from module_utils.casemate.formats.microcode import AMD, INTEL, Processor, newest

SAPPHIRE = Processor(INTEL, 6, 0x8F, 8, 0x80)
MILAN = Processor(AMD, 0x19, 1, 1, 0)


@pytest.mark.parametrize(
    ("processor", "signature", "file"),
    [
        (SAPPHIRE, 0x806F8, "intel-ucode/06-8f-08"),
        (Processor(INTEL, 15, 4, 3, 1), 0xF43, "intel-ucode/0f-04-03"),
        (MILAN, 0xA00F11, "amd-ucode/microcode_amd_fam19h.bin"),
        (Processor(AMD, 0x10, 8, 0, 0), 0x100F80, "amd-ucode/microcode_amd.bin"),
        (Processor("HygonGenuine", 0x18, 0, 1, 0), 0x900F01, ""),
    ],
)
def test_a_processor_is_known_by_its_numbers(processor: Processor, signature: int, file: str) -> None:
    assert (processor.signature, processor.file) == (signature, file)


@pytest.mark.parametrize(
    ("data", "revision"),
    [
        (intel(0x2B, 0x806F8), 0x2B),
        (intel(0x2B, 0x806F8) + intel(0x2C, 0x806F8), 0x2C),
        (intel(0x2C, 0x806F8, flags=0x10) + intel(0x2B, 0x806F8), 0x2B),  # for another platform
        (intel(0x2C, 0x806F7), 0),
        (intel(0x2C, 0x806F7, also=[(0x806F8, 0x87)]), 0x2C),
        (intel(0x2C, 0x806F7, also=[(0x806F8, 0x10)]), 0),
        (intel(0x2B, 0x806F8, size=0), 0x2B),  # of the size that 0 stands for
        (b"", 0),
    ],
)
def test_what_is_for_a_processor_of_intel_counts(data: bytes, revision: int) -> None:
    assert newest(SAPPHIRE, data) == revision


@pytest.mark.parametrize(
    ("data", "revision"),
    [
        (amd({0xA00F11: 1}, [(0xA0011D3, 1)]), 0xA0011D3),
        (amd({0xA00F11: 1, 0xA00F12: 2}, [(0xA0011D3, 1), (0xA001238, 2)]), 0xA0011D3),
        (amd({0xA00F12: 2}, [(0xA001238, 2)]) + amd({0xA00F11: 2}, [(0xA0011D5, 2)]), 0xA0011D5),  # tables of their own
        (amd({0xA00F12: 2}, [(0xA001238, 2)]), 0),
    ],
)
def test_what_is_for_a_processor_of_amd_counts(data: bytes, revision: int) -> None:
    assert newest(MILAN, data) == revision


@pytest.mark.parametrize("processor", [SAPPHIRE, MILAN])
@pytest.mark.parametrize("data", [b"#!/bin/sh\n" * 9, intel(1, 1)[:-1] + b"", amd({1: 1}, [(1, 1)])[:-1], b"\0" * 99])
def test_what_is_none_or_was_cut_off_is_told(processor: Processor, data: bytes) -> None:
    with pytest.raises(ValueError, match="microcode"):
        newest(processor, data)


@given(st.binary(max_size=200), st.sampled_from([SAPPHIRE, MILAN]))
def test_any_bytes_come_to_an_end(noise: bytes, processor: Processor) -> None:
    for data in (noise, struct.pack("<I", 0x00414D44) + noise):
        try:
            assert newest(processor, data) >= 0
        except ValueError:
            continue
