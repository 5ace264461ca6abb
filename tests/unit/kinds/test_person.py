"""People: accounts, groups, last days and revocation, and whose account nothing ever acts on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Verdict
from module_utils.casemate.kinds import person as kind

PASSWD = (
    "root:x:0:0::/root:/bin/bash\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\nops:x:1000:1000::/home/ops:/bin/bash\n"
    "alice:x:1001:1001::/home/alice:/bin/bash\ncarol:x:1002:1002::/home/carol:/bin/bash\n"
)
SHADOW = "root:!:19000::::::\nops:!:19000::::::\nalice:$y$j9T$a$b:19000::::::\ncarol:!:19000:::::1:\n"
GROUP = "alice:x:1001:\nvideo:x:44:alice,ops\nadm:x:4:\n"
TODAY = 20785  # 2026-11-28


def one(name: str = "alice", **given: Any) -> dict[str, Any]:
    whole = {
        "name": name,
        "state": "present",
        "uid": 0,
        "groups": [],
        "over": -1,
        "second_factor": "none",
        "break_glass": False,
    }
    return {**whole, **({"state": "revoked", "over": 1} if given.get("state") == "revoked" else {}), **given}


def judged(of: str, folder: Path, *people: Any, **files: str) -> Verdict:
    given = {"/etc/passwd": PASSWD, "/etc/shadow": SHADOW, "/etc/group": GROUP}
    given.update({f"/etc/{name}": text for name, text in files.items()})
    host = FakeHost(folder, given, context={"account": "ops", "today": "2026-11-28"})
    setting: Any = {"of": of, "people": list(people)}
    return kind.assess(setting, kind.observe([setting], host)[0])


@pytest.mark.parametrize(
    ("person", "wrong", "barred"),
    [
        (one(), "", False),
        (one(uid=1001), "", False),
        (one("bob"), "bob has no account", False),
        (one("bob", uid=1500), "bob has no account", False),
        (one("bob", uid=1001), "the uid 1001 is alice's here: give bob another one", True),
        (one(uid=1500), "alice has the uid 1001, not 1500: declare that, or by hand: usermod -u 1500 alice", True),
        (one("www-data"), "www-data is an account of the system here (uid 33)", True),
        (one("root"), "root is an account of the system here (uid 0)", True),
        (one("ops"), "ops is the account that Casemate logs in as", True),
        (one("ops", state="revoked"), "ops is the account that Casemate logs in as", True),
        (one("bob", state="revoked"), "", False),
        (one("carol", state="revoked"), "", False),
    ],
)
def test_an_account_for_everybody(tmp_path: Path, person: Any, wrong: str, barred: bool) -> None:
    verdict = judged("accounts", tmp_path, person)
    assert verdict.ok is (wrong == "")
    assert wrong in verdict.reason
    assert bool(verdict.blocked_by) is barred
    assert verdict.todo == ([person["name"]] if wrong and not barred else [])


def test_a_person_has_a_login_shell(tmp_path: Path) -> None:
    text = PASSWD.replace("/home/alice:/bin/bash", "/home/alice:/usr/sbin/nologin")
    verdict = judged("accounts", tmp_path, one(), one("bob"), passwd=text)
    assert verdict.reason == "alice has no login shell; bob has no account"
    assert verdict.todo == ["alice", "bob"]
    assert verdict.observed == {"alice": "/usr/sbin/nologin", "bob": "absent"}


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        (["video"], ""),
        ([], "alice is in video, which nobody declared"),
        (["adm"], "alice is not in adm and is in video, which nobody declared"),
        (["adm", "video"], "alice is not in adm"),
    ],
)
def test_groups_are_those_that_are_declared(tmp_path: Path, groups: list[str], says: str) -> None:
    verdict = judged("groups", tmp_path, one(groups=groups))
    assert (verdict.ok, verdict.reason) == (says == "", says)
    assert judged("groups", tmp_path, one("bob", groups=["adm"])).ok, "that there is no bob is told once"
    assert judged("groups", tmp_path, one("ops", groups=[])).ok, "of the automation account nothing is judged here"


@pytest.mark.parametrize(
    ("gid", "groups", "says"),
    [
        (1001, ["video"], ""),
        (100, ["video"], ""),  # where a group of the name was there already
        (4711, ["video"], ""),  # that there is no such group is another control's
        (
            27,
            ["video"],
            "alice has sudo for a group of their own, which nobody declared: by hand: usermod -g alice alice",
        ),
        (27, [], "alice is in video, which nobody declared; alice has sudo for a group of their own"),
        (44, ["video"], ""),
        (4, ["adm", "video"], "alice is not in adm"),
    ],
)
def test_the_first_group_of_an_account_counts_as_sudo_takes_it(
    tmp_path: Path, gid: int, groups: list[str], says: str
) -> None:
    """A rule for %sudo is for those, too, whose group it is in /etc/passwd; usermod -G leaves that as it is."""
    text = PASSWD.replace("alice:x:1001:1001:", f"alice:x:1001:{gid}:")
    verdict = judged("groups", tmp_path, one(groups=groups), passwd=text, group=f"{GROUP}sudo:x:27:\nusers:x:100:\n")
    assert verdict.ok is (says == "") and says in verdict.reason
    by_people_alone = says.startswith("alice has")
    assert bool(verdict.blocked_by) is by_people_alone
    assert verdict.todo == (["alice"] if says and not by_people_alone else [])


@pytest.mark.parametrize(
    ("field", "over", "says"),
    [
        ("", -1, ""),
        ("", 20819, "alice ends never, not on 2026-12-31"),
        ("20819", 20819, ""),
        ("20819", -1, "alice ends on 2026-12-31, not never"),
        ("99999999999", -1, ""),
    ],
)
def test_an_account_ends_when_it_is_declared(tmp_path: Path, field: str, over: int, says: str) -> None:
    text = SHADOW.replace("alice:$y$j9T$a$b:19000::::::", f"alice:$y$j9T$a$b:19000:::::{field}:")
    verdict = judged("last_days", tmp_path, one(over=over), shadow=text)
    assert (verdict.ok, verdict.reason) == (says == "", says)
    assert judged("last_days", tmp_path, one(state="revoked")).ok, "that is another control's"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("carol:!:19000:::::1:", ""),
        ("carol:!$y$j9T$a$b:19000:::::1:", ""),
        ("carol:!:19000:::::20785:", ""),
        ("carol:!:19000:::::20786:", "carol is revoked and has not ended"),
        ("carol:!:19000:::::0:", "carol is revoked and has not ended"),
        ("carol:$y$j9T$a$b:19000:::::1:", "carol is revoked and has a usable password"),
        ("carol:$y$j9T$a$b:19000::::::", "carol is revoked and has a usable password and has not ended"),
    ],
)
def test_who_is_revoked_is_locked_and_over(tmp_path: Path, line: str, says: str) -> None:
    verdict = judged("revoked", tmp_path, one("carol", state="revoked"), shadow=line + "\n")
    assert (verdict.ok, verdict.reason) == (says == "", says)
    assert "y$j9T" not in f"{verdict.observed}{verdict.expected}"


def test_who_needs_no_second_factor_is_told_and_left_to_people(tmp_path: Path) -> None:
    verdict = judged(
        "second_factors", tmp_path, one(), one("dave", second_factor="fido"), one("carol", state="revoked")
    )
    assert verdict.reason == verdict.blocked_by
    assert verdict.observed == {"alice": "none"} and verdict.todo == []
    assert judged("second_factors", tmp_path, one(second_factor="fido"), one("spare", break_glass=True)).ok


def test_the_second_name_of_the_automation_account_is_spared(tmp_path: Path) -> None:
    text = PASSWD + "twin:x:1000:1000::/home/ops:/bin/bash\n"
    verdict = judged("accounts", tmp_path, one("twin", state="revoked"), passwd=text)
    assert verdict.blocked_by and not verdict.still_enforced
    assert judged("revoked", tmp_path, one("twin", state="revoked"), passwd=text).ok


def test_an_account_of_a_directory_is_told_and_left_alone(tmp_path: Path) -> None:
    """One of sssd or LDAP stands in no file here: usermod refuses it, and its password goes on letting somebody in."""
    host = FakeHost(
        tmp_path,
        {"/etc/passwd": PASSWD, "/etc/shadow": SHADOW, "/etc/group": GROUP},
        {"getent passwd dora erik": (2, "dora:*:70001:70001:Dora:/home/dora:/bin/bash\n", "")},
        {"account": "ops", "today": "2026-11-28"},
    )
    people = [one(), one("dora", state="revoked"), one("erik")]
    settings: Any = [{"of": of, "people": people} for of in ("accounts", "revoked")]
    accounts, revoked = (kind.assess(*pair) for pair in zip(settings, kind.observe(settings, host), strict=True))
    assert accounts.reason == "erik has no account" and accounts.todo == ["erik"]
    assert "dora is revoked and an account of a directory: end it there" in revoked.blocked_by
    assert revoked.todo == [] and not revoked.still_enforced
    settings[0]["people"] = [one("dora"), one("erik")]
    verdict = kind.assess(settings[0], kind.observe(settings, host)[0])
    assert "dora is an account of a directory here" in verdict.blocked_by
    assert verdict.todo == ["erik"] and verdict.observed["dora"] == "uid 70001"
    assert sum(argv[0] == "getent" for argv in host.ran) == 1, "asked once for all"


def test_files_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be read"):
        judged("accounts", tmp_path, passwd="")


@pytest.mark.parametrize(("day", "words"), [(-1, "never"), (1, "on 1970-01-01"), (20819, "on 2026-12-31")])
def test_days_are_told_as_dates(day: int, words: str) -> None:
    assert kind.date(day) == words


@pytest.mark.parametrize(
    ("person", "ended"),
    [
        (one(), False),
        (one(over=TODAY), True),
        (one(over=TODAY + 1), False),
        (one(state="revoked"), True),
    ],
)
def test_whose_time_is_over(person: Any, ended: bool) -> None:
    assert kind.has_ended(person, TODAY) is ended
