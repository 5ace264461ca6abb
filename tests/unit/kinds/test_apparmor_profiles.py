"""Profiles of AppArmor as the kernel has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.kinds import apparmor_profiles as kind

SETTING: Any = {"modes": ["enforce"]}
ENFORCED = "cri-containerd.apparmor.d (enforce)\n/usr/bin/man (enforce)\n"


@pytest.mark.parametrize(
    ("profiles", "reason"),
    [
        (ENFORCED, ""),
        (ENFORCED + "nvidia modprobe//kmod (complain)\n", "nvidia modprobe//kmod is in mode complain"),
        ("", "no profile is loaded"),
    ],
)
def test_a_profile_that_only_complains_is_named(tmp_path: Path, profiles: str, reason: str) -> None:
    host = FakeHost(tmp_path, {kind.PROFILES: profiles})
    verdict = kind.assess(SETTING, kind.observe([SETTING], host)[0])
    assert verdict.ok is (not reason) and reason in verdict.reason


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be read"):
        kind.observe([SETTING], FakeHost(tmp_path))
