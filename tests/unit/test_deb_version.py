"""Versions of Debian packages are in the order that dpkg has them in."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module_utils.casemate.formats.deb_version import key, older

ORDERED = [
    "1.0~~", "1.0~rc1", "1.0", "1.0-0+deb12u1", "1.0-1~bpo12+1", "1.0-1", "1.0-1+b1", "1.0a", "1.0+dfsg-1", "1.0.1",
    "1.2", "1.10", "9", "1:0.1", "1:0.1-2", "2:0.0",
]  # fmt: skip


def test_versions_are_in_the_order_of_dpkg() -> None:
    assert sorted(random.Random(7).sample(ORDERED, len(ORDERED)), key=key) == ORDERED
    assert key("1.0") == key("1.0-0") == key("0:1.0") == key("01.00")


@pytest.mark.parametrize(
    ("version", "floor"),
    [
        ("1.0~rc1", "1.0"), ("1.0", "1.0+b1"), ("1.0", "1.0a"), ("1.9", "1.10"), ("1.0-1", "1.0-1.1"),
        ("9", "1:1"), ("1.0~~", "1.0~"), ("1.0-1~bpo", "1.0-1"), ("5.10.1", "5.10.1a"), ("1.0", "1.0-1"),
    ],
)  # fmt: skip
def test_older(version: str, floor: str) -> None:
    assert older(version, floor)
    assert not older(floor, version)
    assert not older(floor, floor)


VERSIONS = st.from_regex(r"([0-2]:)?[0-9][a-z0-9.+~]{0,5}(-[a-z0-9.+~]{1,3})?", fullmatch=True)


@pytest.mark.skipif(not shutil.which("dpkg"), reason="dpkg decides")
@settings(max_examples=60)
@given(VERSIONS, VERSIONS)
def test_the_order_is_dpkgs(one: str, other: str) -> None:
    said = subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False).returncode
    assert older(one, other) is (said == 0)
