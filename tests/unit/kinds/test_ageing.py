"""When passwords end, who would be kept out by it, and what new accounts are given."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Left
from module_utils.casemate.kinds import ageing
from module_utils.casemate.kinds.ageing import KIND, MARK
from module_utils.casemate.kinds.kind import Pass

TODAY = int(time.time() // 86400)
PASSWD = "root:x:0:0::/root:/bin/bash\nops:x:1000:1000::/home/ops:/bin/bash\nalice:x:1001:1001::/home/alice:/bin/bash\n"
DEFS, USERADD = "/etc/login.defs", "/etc/default/useradd"
PEOPLE: Any = {
    "of": "passwords",
    "at_most": {"max": 365, "inactive": 45},
    "at_least": {"min": 1, "warn": 7},
    "allow": [],
}
KEYS: Any = {"of": "keys"}
DATES: Any = {"of": "dates"}
NEW: Any = {"of": "new_accounts", "file": DEFS, "at_most": {"PASS_MAX_DAYS": 365}, "at_least": {"PASS_MIN_DAYS": 1}}
LOCK: Any = {"of": "new_accounts", "file": USERADD, "at_most": {"INACTIVE": 45}}
UMASK: Any = {"of": "new_accounts", "file": DEFS, "exactly": {"UMASK": "027"}}
RUN = Pass([], check=False)
HASH = "$y$j9T$SALT$HASH"


def judged(tmp_path: Path, setting: Any, shadow: str) -> Any:
    given = {"/etc/passwd": PASSWD, "/etc/shadow": shadow, DEFS: "UID_MIN 1000\n"}
    host = FakeHost(tmp_path, given, context={"account": "ops"})
    (seen,) = ageing.observe([setting], host)
    verdict = KIND.assess(setting, seen)
    assert "HASH" not in f"{seen}{verdict.reason}{verdict.observed}"
    return verdict


@pytest.mark.parametrize(
    ("setting", "line", "said"),
    [
        (PEOPLE, f"alice:{HASH}:{TODAY}:1:365:7:45::", ""),
        (PEOPLE, f"alice:{HASH}:{TODAY}:1:90:14:0::", ""),  # stricter
        (PEOPLE, f"alice:{HASH}:{TODAY}:0:99999:7:::", "chage -m 1 -M 365 -I 45 alice"),
        (PEOPLE, f"alice:{HASH}:{TODAY}:1:365:3:45::", "chage -W 7 alice"),
        (PEOPLE, f"alice:{HASH}:{TODAY - 400}:1:99999:7:45::", "passwd alice, since it is older than that already"),
        (PEOPLE, f"alice:!:{TODAY}:0:99999:7:::", ""),  # has none
        (PEOPLE, f"ops:{HASH}:{TODAY}:0:99999:7:::", ""),  # Casemate logs in as it
        ({**PEOPLE, "allow": ["alice"]}, f"alice:{HASH}:{TODAY}:0:99999:7:::", ""),
        (PEOPLE, f"root:{HASH}:{TODAY}:0:99999:7:::", ""),
        (KEYS, f"alice:!:{TODAY}:0:99999:7:::", ""),
        (KEYS, f"alice:!:{TODAY}:0::7:::", ""),
        (KEYS, f"alice:!:{TODAY}:1:365:7:45::", "chage -M -1 -I -1 -d $(date +%F) alice"),
        (KEYS, "alice:!:0:0:99999:7:::", "chage -M -1 -I -1 -d $(date +%F) alice"),
        (KEYS, f"alice:{HASH}:{TODAY}:1:365:7:45::", ""),  # may change it
        (KEYS, f"ops:{HASH}:{TODAY}:1:365:7:45::", "Casemate logs in as it"),
        (DATES, f"alice:{HASH}:{TODAY}:1:365:7:45::", ""),
        (DATES, f"alice:{HASH}:{TODAY + 3}:1:365:7:45::", "changed 3 days from now"),
        (DATES, f"alice:{HASH}::::::: \ngarbage\n::::", ""),
    ],
)
def test_accounts(tmp_path: Path, setting: Any, line: str, said: str) -> None:
    verdict = judged(tmp_path, setting, f"{line}\n")
    assert verdict.ok == (not said)
    assert said in verdict.reason


@pytest.mark.parametrize(
    ("setting", "text", "after"),
    [
        (NEW, "PASS_MAX_DAYS 365\nPASS_MIN_DAYS 1\n", None),
        (NEW, "PASS_MAX_DAYS\t90\nPASS_MIN_DAYS\t7\n", None),
        (NEW, "# A 1\nPASS_MAX_DAYS\t99999\nX y\nPASS_MIN_DAYS 0\n",
         f"# A 1\n{MARK}PASS_MAX_DAYS\t99999\nPASS_MAX_DAYS\t365\nX y\n{MARK}PASS_MIN_DAYS 0\nPASS_MIN_DAYS\t1\n"),
        (NEW, "X y\n", f"X y\n{MARK}PASS_MIN_DAYS\nPASS_MIN_DAYS\t1\n{MARK}PASS_MAX_DAYS\nPASS_MAX_DAYS\t365\n"),
        (LOCK, "# INACTIVE=-1\n", f"# INACTIVE=-1\n{MARK}INACTIVE\nINACTIVE=45\n"),
        (LOCK, "INACTIVE=-1\n", f"{MARK}INACTIVE=-1\nINACTIVE=45\n"),
        (LOCK, "INACTIVE=30\n", None),
        (UMASK, "UMASK\t\t027\n", None),
        (UMASK, "UMASK\t\t022\n", f"{MARK}UMASK\t\t022\nUMASK\t027\n"),
        (UMASK, "UMASK\t\t27\n", f"{MARK}UMASK\t\t27\nUMASK\t027\n"),  # 033 in octal
        (UMASK, "# UMASK 027\n", f"# UMASK 027\n{MARK}UMASK\nUMASK\t027\n"),
    ],
)  # fmt: skip
def test_new_accounts(tmp_path: Path, setting: Any, text: str, after: str | None) -> None:
    host = FakeHost(tmp_path, {setting["file"]: text})

    def holds() -> bool:
        return bool(KIND.assess(setting, ageing.observe([setting], host)[0]).ok)

    assert holds() == (after is None)
    assert ageing.left(setting, RUN, host) == Left()
    if after is None:
        return
    ageing.enforce([setting], {0}, host)
    assert (host.text(setting["file"]), host.armed, holds()) == (after, [setting["file"]], True)
    by_hand = re.sub(r"(?m)^(PASS_MAX_DAYS\t|INACTIVE=).*", r"\g<1>-1", after)
    host.write(setting["file"], f"{by_hand}PASS_MIN_DAYS -1\n".encode())
    ageing.enforce([setting], {0}, host)
    assert str(host.text(setting["file"])).replace("PASS_MIN_DAYS -1\n", "") == after, "what was there first is kept"
    host.write(setting["file"], after.encode())
    assert ageing.left(setting, RUN, host) == Left(setting["file"])
    ageing.take_back([setting], [], host)
    assert (host.text(setting["file"]), ageing.left(setting, RUN, host)) == (text, Left())


def test_of_several_lines_the_last_counts(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {DEFS: "PASS_MAX_DAYS 365\nPASS_MAX_DAYS -1\nPASS_MIN_DAYS 1"})
    ageing.enforce([NEW], {0}, host)
    assert host.text(DEFS) == f"{MARK}PASS_MAX_DAYS -1\nPASS_MAX_DAYS\t365\nPASS_MIN_DAYS 1"
