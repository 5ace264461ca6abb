"""Who is declared and turned away by a list of sshd that is not ours, and by which line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable, Verdict
from module_utils.casemate.host import logins
from module_utils.casemate.kinds import admission

MAIN, OURS, THEIRS = (
    "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/00-casemate.conf", "/etc/ssh/sshd_config.d/50-provider.conf"
)  # fmt: skip
PASSWD = "ops:x:1000:1000::/home/ops:/bin/bash\nalice:x:1001:1001::/home/alice:/bin/bash\n"
GROUP = "ops:x:1000:\nalice:x:1001:\nadm:x:4:alice\n"
ALICE = {"name": "alice", "state": "present", "groups": []}
BOB = {"name": "bob", "state": "present", "groups": ["staff"]}
EVE = {"name": "eve", "state": "revoked", "groups": []}


def judged(folder: Path, theirs: str, *people: Any, said: str = "", rc: int = 0) -> Verdict:
    """`said` is what sshd -T shows of the lists."""
    files = {
        MAIN: "Include /etc/ssh/sshd_config.d/*.conf\n", OURS: "allowusers ops alice\n", THEIRS: theirs,
        "/etc/passwd": PASSWD, "/etc/group": GROUP,
    }  # fmt: skip
    commands = {"/usr/sbin/sshd -T": (rc, f"port 22\n{said}", "broken")}
    host = FakeHost(folder, files, commands, context={"account": "ops"})
    setting: Any = {"people": list(people)}
    return admission.KIND.assess(setting, admission.observe([setting], host)[0])


@pytest.mark.parametrize(
    ("line", "away"),
    [
        ("DenyUsers alice", ["alice"]),
        ("DenyUsers al* mallory", ["alice"]),
        ("DenyUsers alice@*", ["alice"]),
        ("DenyUsers alice@192.0.2.*", []),  # from there alone
        ("DenyUsers mallory", []),
        ("DenyUsers eve", []),  # who is revoked
        ("DenyUsers ops", ["ops"]),
        ("DenyGroups adm", ["alice"]),
        ("DenyGroups sta?f", ["bob"]),  # who has no account yet
        ("DenyGroups games", []),
        ("AllowGroups adm staff", ["ops"]),
        ("AllowGroups alice ops bob", []),
    ],
)
def test_who_is_turned_away_is_named_with_the_line(tmp_path: Path, line: str, away: list[str]) -> None:
    key, _, names = line.partition(" ")
    shown = "".join(f"{key.lower()} {name}\n" for name in names.split())
    verdict = judged(tmp_path, f"# of the provider\n{line}\n", ALICE, BOB, EVE, said=shown)
    assert verdict.observed == (away or "nobody")
    assert verdict.where == ((f"{THEIRS}:2",) if away else ())
    assert all(f"{name} does not get in by {line.split()[0]}" in verdict.reason for name in away)


@pytest.mark.parametrize(
    ("session", "asked"),
    [
        (
            ["203.0.113.9", "4000", "203.0.113.1", "2222"],
            "host=203.0.113.9,addr=203.0.113.9,laddr=203.0.113.1,lport=2222",
        ),
        ([], "host=stranger.invalid,addr=192.0.2.1,laddr=192.0.2.2,lport=22"),
    ],
)
def test_blocks_count_that_are_for_where_one_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: list[str], asked: str
) -> None:
    monkeypatch.setattr(logins, "session", lambda: session)
    host = FakeHost(tmp_path, {MAIN: "Match LocalPort 22,2222\n  DenyUsers alice\n", "/etc/passwd": PASSWD},
                    {"/usr/sbin/sshd -T": (0, "denyusers alice\n", "")})  # fmt: skip
    setting: Any = {"people": [ALICE]}
    assert not admission.KIND.assess(setting, admission.observe([setting], host)[0]).ok
    (argv,) = [one for one in host.ran if one[:2] == ["/usr/sbin/sshd", "-T"]]
    assert sorted(argv[argv.index("-C") + 1].split(",")) == sorted(f"{asked},user=alice".split(","))


def test_where_there_is_no_list_sshd_is_not_asked(tmp_path: Path) -> None:
    assert judged(tmp_path, "PasswordAuthentication yes\n", ALICE, rc=255).ok


def test_what_sshd_cannot_read_is_not_evaluated(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="sshd cannot read its configuration"):
        judged(tmp_path, "DenyUsers mallory\nNonsense\n", ALICE, rc=255)
