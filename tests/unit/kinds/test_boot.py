"""How the kernel was started, how it will be, and who may change that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable, Verdict
from module_utils.casemate.kinds import boot as kind

WANT: Any = {"arguments": ["init_on_alloc=1", "slab_nomerge"]}
WITHOUT: Any = {"without": ["mitigations=off", "apparmor=0"]}
ENTRIES = """menuentry 'Debian' {{
\tlinux\t/boot/vmlinuz-6.1 root=UUID=1 ro {}
}}
menuentry 'Debian (recovery mode)' {{
\tlinux\t/boot/vmlinuz-6.1 root=UUID=1 ro single
}}
"""
LOCKED = 'set superusers="ops"\npassword_pbkdf2 ops grub.pbkdf2.sha512.10000.AB.CD\n'


def judged(folder: Path, setting: Any, now: str, then: str | None = None, grub: str = "") -> Verdict:
    files = {"/proc/cmdline": f"BOOT_IMAGE=/vmlinuz ro {now}\n"}
    if then is not None:
        files[kind.GRUB] = grub + ENTRIES.format(then)
    return kind.assess(setting, kind.observe([setting], FakeHost(folder, files))[0])


@pytest.mark.parametrize(
    ("setting", "now", "then", "reason"),
    [
        (WANT, "init_on_alloc=1 slab_nomerge", "init_on_alloc=1 slab_nomerge", ""),
        (WANT, "init_on_alloc=1 slab_nomerge", None, ""),
        (WANT, "slab_nomerge", "init_on_alloc=1 slab_nomerge", "init_on_alloc=1 is missing now"),
        (WANT, "init_on_alloc=1 slab_nomerge", "slab_nomerge", "init_on_alloc=1 is missing at the next boot"),
        (WANT, "init_on_alloc=0 slab_nomerge", None, "init_on_alloc=1 is missing now"),
        (WANT, "init_on_alloc=1 slab_nomerge init_on_alloc=0", None, "init_on_alloc=1 is missing now"),  # the last
        (WANT, "init_on_alloc=0 slab_nomerge init-on-alloc=1", None, ""),
        (WANT, "slab_nomerge -- init_on_alloc=1", None, "init_on_alloc=1 is missing now"),  # that is init's
        (WITHOUT, "mitigations=off mitigations=auto", "quiet", ""),
        (WITHOUT, "quiet", "quiet", ""),
        (WITHOUT, "mitigations=off", "quiet", "mitigations=off is given now"),
        (WITHOUT, "quiet", "apparmor=0", "apparmor=0 is given at the next boot"),
    ],
)
def test_now_and_next_boot(tmp_path: Path, setting: Any, now: str, then: str | None, reason: str) -> None:
    verdict = judged(tmp_path, setting, now, then)
    assert verdict.ok is (not reason) and reason in verdict.reason


@pytest.mark.parametrize(
    ("grub", "ok"),
    [
        (LOCKED, True),
        ("", False),
        (LOCKED.replace("set superusers", "#set superusers"), False),
        ('set superusers="ops"\npassword ops plain\n', False),
        (LOCKED.replace('"ops"', '""'), False),
    ],
)
def test_a_password_has_a_hash_and_somebody_who_has_it(tmp_path: Path, grub: str, ok: bool) -> None:
    assert judged(tmp_path, {"password": True}, "", "quiet", grub).ok is ok


def test_another_boot_loader_is_not_judged(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as lacking:
        judged(tmp_path, {"password": True}, "")
    assert lacking.value.code == "boot_loader"


@given(st.text())
def test_any_configuration_is_survived(text: str) -> None:
    kind.ENTRY.findall(text)
