"""What daemons of systemd go by: the last assignment of all their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.kinds import systemd_setting
from module_utils.casemate.kinds.systemd_setting import KIND

MAIN = "# /etc/systemd/journald.conf\n# see /etc/systemd/other.conf\n[Journal]\n#Storage=auto\n"
OURS = "\n# /etc/systemd/journald.conf.d/99-zz-casemate.conf\n# Managed\n[Journal]\nStorage=persistent\n"
DEMAND: dict[str, Any] = {
    "config": "systemd/journald.conf", "section": "Journal", "key": "Storage", "values": ["persistent"]
}  # fmt: skip


def judged(tmp_path: Path, shown: str, **setting: Any) -> Any:
    whole: Any = {**DEMAND, **setting}
    host = FakeHost(tmp_path, commands={f"systemd-analyze cat-config --no-pager {whole['config']}": (0, shown, "")})
    (seen,) = systemd_setting.observe([whole], host)
    return KIND.assess(whole, seen)


@pytest.mark.parametrize(
    ("later", "ok"),
    [
        ("", True),
        ("[Journal]\nStorage=none\n", False),
        ("[Other]\nStorage=none\n", True),
        ("[Journal]\n  Storage = none \n", False),
        ("[Journal]\n; Storage=none\n", True),
        ("[Journal]\nStorage=\n", False),  # back to the default
        ("[Journal]\nStorage=\\\nnone\n", False),
        ("[Journal]\nstorage=none\n", True),
    ],
)
def test_the_last_assignment_counts(tmp_path: Path, later: str, ok: bool) -> None:
    verdict = judged(tmp_path, f"{MAIN}{OURS}\n# /etc/systemd/journald.conf.d/zz.conf\n{later}")
    assert verdict.ok == ok
    if not ok and "=\n" not in later:
        assert verdict.where[0].startswith("/etc/systemd/journald.conf.d/zz.conf:")
        assert "remove that line" in verdict.reason


def test_a_comment_that_looks_like_a_file_is_a_comment(tmp_path: Path) -> None:
    verdict = judged(tmp_path, MAIN + "Storage=none\n")
    assert verdict.where == ("/etc/systemd/journald.conf:4",)


def test_what_may_not_be_set(tmp_path: Path) -> None:
    assert judged(tmp_path, MAIN, key="RateLimitBurst", values=[]).ok
    verdict = judged(tmp_path, MAIN + "RateLimitBurst=1\n", key="RateLimitBurst", values=[])
    assert (verdict.ok, verdict.observed) == (False, "1")


@pytest.mark.parametrize(
    ("value", "ok"),
    [
        ("LANG=de_DE.UTF-8 LC_ALL=de_DE.UTF-8", True),
        ('"TZ=Pacific/Kiritimati"', True),
        ("LD_PRELOAD=/tmp/x.so", False),
        ("LANG=C LD_PRELOAD=/tmp/x.so", False),
        ("LANG=C\nDefaultEnvironment=LD_PRELOAD=/tmp/x.so", False),
        ("LD_PRELOAD=/tmp/x.so\nDefaultEnvironment=LANG=C", False),  # they add up
        ("LD_PRELOAD=/tmp/x.so\nDefaultEnvironment=\nDefaultEnvironment=LANG=C", True),
        ("XLANG=C", False),
        ('"LANG=C', False),
    ],
)
def test_a_language_may_be_set_and_no_variable_of_power(tmp_path: Path, value: str, ok: bool) -> None:
    shown = f"# /etc/systemd/system.conf\n[Manager]\nDefaultEnvironment={value}\n"
    more = {"config": "systemd/system.conf", "section": "Manager", "key": "DefaultEnvironment", "values": []}
    assert judged(tmp_path, shown, **more, harmless="LANG|LC_[A-Z]+|TZ").ok == ok


def test_what_another_control_tells_is_told_once(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, commands={"systemd-analyze": (0, MAIN, "")})
    host.failing_files.add("/etc/x")
    setting: Any = {**DEMAND, "file": "/etc/x"}
    (seen,) = systemd_setting.observe([setting], host)
    assert KIND.assess(setting, seen).ok


def test_without_systemd_nothing_is_known(tmp_path: Path) -> None:
    setting: Any = DEMAND
    (seen,) = systemd_setting.observe([setting], FakeHost(tmp_path))
    assert isinstance(seen, Unavailable)
