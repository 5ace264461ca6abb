"""Secrets of codes: which are right, what is wrong with others, and that none is ever shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Verdict
from module_utils.casemate.kinds import totp_secrets as kind

FOLDER = "/var/lib/casemate/totp"
SECRET, OTHER = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
OPTIONS = ["RATE_LIMIT 3 30", "WINDOW_SIZE 3", "DISALLOW_REUSE", "TOTP_AUTH"]
FRESH = "\n".join([SECRET, *(f'" {option}' for option in OPTIONS), ""])
USED = FRESH.replace("3 30", "3 30 1796000000").replace("REUSE", "REUSE 59866666 59866667")
SETTING: Any = {"path": FOLDER, "secrets": {"erin": kind.digest(SECRET)}, "options": OPTIONS}
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root's files are right")


def judged(folder: Path, text: str | None = FRESH, **change: Any) -> Verdict:
    host = FakeHost(folder, {} if text is None else {f"{FOLDER}/erin": text})
    real = Path(host.path(FOLDER))
    if real.exists():
        real.chmod(0o700)
        (real / "erin").chmod(0o600)
    setting: Any = {**SETTING, **change}
    return kind.assess(setting, kind.observe([setting], host)[0])


@AS_ROOT
@pytest.mark.parametrize("text", [FRESH, USED, FRESH.lower().replace("totp_auth", "TOTP_AUTH"), USED + "\n"])
def test_what_the_module_notes_is_its_own(tmp_path: Path, text: str) -> None:
    text = text if "rate" not in text else "\n".join([SECRET.lower(), *FRESH.split("\n")[1:]])
    verdict = judged(tmp_path, text)
    assert (verdict.ok, verdict.reason, verdict.todo) == (True, "", [])


@AS_ROOT
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "it is missing, so no code is right"),
        ("", "it holds no secret"),
        ("\n" + FRESH, "it holds no secret"),
        (FRESH.replace(SECRET, OTHER), "its secret is another one than is declared"),
        (FRESH.replace('" DISALLOW_REUSE\n', ""), "it lacks DISALLOW_REUSE"),
        (FRESH.replace("3 30", "30 30"), "it lacks RATE_LIMIT 3 30 and it has 1 lines more"),
        (FRESH.replace("WINDOW_SIZE 3", "WINDOW_SIZE 300"), "it lacks WINDOW_SIZE 3 and it has 1 lines more"),
        (FRESH + "12345678\n87654321\n", "it has 2 lines more than are declared"),
        (FRESH + '" HOTP_COUNTER 1\n', "it has 1 lines more than are declared"),
        (FRESH + '" DISALLOW_REUSE\n', "it has 1 lines more than are declared"),
    ],
)
def test_what_makes_other_codes_right_is_named_and_written_anew(tmp_path: Path, text: str | None, says: str) -> None:
    verdict = judged(tmp_path, text)
    assert not verdict.ok
    assert f"{FOLDER}/erin: {says}" in verdict.reason
    assert (verdict.todo, verdict.where, verdict.blocked_by) == ([f"{FOLDER}/erin"], (f"{FOLDER}/erin",), "")
    assert not any(secret in str(vars(verdict)) for secret in (SECRET, OTHER, "12345678"))


@AS_ROOT
def test_who_may_read_it_is_named(tmp_path: Path) -> None:
    judged(tmp_path)
    host = FakeHost(tmp_path, {})
    for path, mode, says in (("/erin", 0o644, "with mode 0600 at most"), ("", 0o755, "with mode 0700 at most")):
        real = Path(host.path(FOLDER + path))
        before = real.stat().st_mode & 0o777
        real.chmod(mode)
        seen = kind.observe([SETTING], host)[0]
        assert seen["faults"] == {FOLDER + path: f"it is not root's {says}"}
        real.chmod(before)
    Path(host.path(f"{FOLDER}/erin")).chmod(0o400)  # as the module leaves it
    assert kind.assess(SETTING, kind.observe([SETTING], host)[0]).ok
    os.chown(host.path(f"{FOLDER}/erin"), 1000, -1)
    assert not kind.assess(SETTING, kind.observe([SETTING], host)[0]).ok


@AS_ROOT
def test_a_secret_of_nobody_goes(tmp_path: Path) -> None:
    verdict = judged(tmp_path, secrets={})
    assert verdict.reason == f"{FOLDER}/erin: nobody who is declared has it"
    assert verdict.todo == [f"{FOLDER}/erin"]
    assert judged(tmp_path / "none", None, secrets={}).ok


@AS_ROOT
def test_what_no_task_may_replace_is_left_to_people(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {})
    Path(host.path(f"{FOLDER}/erin")).mkdir(parents=True)
    Path(host.path(FOLDER)).chmod(0o700)
    verdict = kind.assess(SETTING, kind.observe([SETTING], host)[0])
    assert verdict.blocked_by == f"{FOLDER}/erin is a folder: remove it"
    Path(host.path(f"{FOLDER}/erin")).rmdir()
    Path(host.path(FOLDER)).rmdir()
    Path(host.path(FOLDER)).write_text("")
    verdict = kind.assess(SETTING, kind.observe([SETTING], host)[0])
    assert verdict.blocked_by == f"{FOLDER} is no folder: remove it"
