"""What new passwords are held against, in libpwquality's own order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.kinds import pwquality
from module_utils.casemate.kinds.pwquality import KIND, MAIN

OURS = f"{MAIN}.d/99-zz-casemate.conf"
GOOD = "# ours\nminlen = 14\nminclass=3\nmaxrepeat = 3  # in a row\nenforce_for_root\n"
PAM = "/etc/pam.d/common-password"
DEMAND: dict[str, Any] = {
    "at_least": {"minlen": 14, "minclass": 3}, "at_most": {"maxrepeat": 3}, "flags": ["enforce_for_root"],
    "credits": ["dcredit", "ocredit"], "file": OURS,
}  # fmt: skip


def judged(tmp_path: Path, **files: str) -> Any:
    named = {"main": MAIN, "ours": OURS, "later": f"{MAIN}.d/zzz.conf", "pam": PAM, "passwd": "/etc/pam.d/passwd"}
    named |= {"first": f"{MAIN}.d/50-site.conf", "hidden": f"{MAIN}.d/.z.conf", "copy": f"{MAIN}.d/zzz.conf.conf"}
    host = FakeHost(tmp_path, {named[name]: text for name, text in files.items()})
    setting: Any = DEMAND
    (seen,) = pwquality.observe([setting], host)
    return KIND.assess(setting, seen)


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({"main": "# minlen = 8\n"}, None),
        ({"main": "minlen = 8\n"}, f"{MAIN}:1"),  # the main file wins over every drop-in
        ({"later": "minlen = 8\n"}, f"{MAIN}.d/zzz.conf:1"),
        ({"main": "minlen = 20\n"}, None),
        ({"main": "maxrepeat = 0\n"}, f"{MAIN}:1"),  # off
        ({"main": "maxrepeat = 9\n"}, f"{MAIN}:1"),
        ({"main": "minlen = many\n"}, f"{MAIN}:1"),
        ({"pam": "password requisite pam_pwquality.so retry=3\n"}, None),
        ({"pam": "password requisite pam_pwquality.so minlen=8\n"}, f"{PAM}:1"),
        ({"main": "minlen = 8\n", "pam": "\npassword requisite pam_pwquality.so minlen=15\n"}, None),
        ({"main": "MinLen = 8\n"}, f"{MAIN}:1"),  # names count in any case
        ({"main": "minlen=8#20\n"}, f"{MAIN}:1"),
        ({"hidden": "minlen = 8\n"}, None),  # it comes before ours
        ({"copy": "minlen = 8\n"}, None),  # .conf has to come once, and at the end
        ({"main": "dcredit = 8\n"}, f"{MAIN}:1"),  # eight digits count twice, so six characters are enough
        ({"main": "dcredit = -1\n"}, None),
        ({"pam": "password requisite pam_pwquality.so ocredit=5\n"}, f"{PAM}:1"),
        ({"passwd": "password requisite pam_pwquality.so minlen=8\n"}, "/etc/pam.d/passwd:1"),
        ({"pam": "password requisite pam_pwquality.so minlen=8\npassword required pam_pwquality.so minlen=15\n"}, None),
        ({"first": "minlen = fourteen\n"}, f"{MAIN}.d/50-site.conf:1"),  # and so ours is never read
        ({"first": "min_len = 20\n"}, f"{MAIN}.d/50-site.conf:1"),
    ],
)
def test_the_value_that_counts(tmp_path: Path, files: dict[str, str], where: str | None) -> None:
    verdict = judged(tmp_path, **{"ours": GOOD, **files})
    assert (verdict.ok, verdict.where) == (where is None, (where,) if where else ())


def test_what_nothing_sets(tmp_path: Path) -> None:
    verdict = judged(tmp_path, main="minlen = 14\n")
    assert not verdict.ok
    assert "enforce_for_root has to be set and is not set" in verdict.reason


def test_what_another_control_tells_is_told_once(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.failing_files.add(OURS)
    setting: Any = DEMAND
    (seen,) = pwquality.observe([setting], host)
    assert KIND.assess(setting, seen).ok


def test_a_line_that_cannot_be_read_ends_the_reading_of_files(tmp_path: Path) -> None:
    verdict = judged(tmp_path, ours=GOOD, first="minclass = 4\nminlen = fourteen\n")
    assert not verdict.ok
    assert verdict.reason.startswith(f"{MAIN}.d/50-site.conf:2 cannot be read")


def test_hidden_files_count(tmp_path: Path) -> None:
    assert judged(tmp_path, hidden=GOOD).ok
