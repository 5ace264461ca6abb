"""What preflight says of `casemate_people`, and what controls get of it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from unit.test_authorized_keys import PLAIN, TOKEN, blob

from casemate.preflight import inputs
from casemate.preflight import people as rules
from casemate.run import people
from module_utils.casemate.formats import authorized_keys
from module_utils.casemate.kinds import totp_secrets

OTHER = f"ssh-ed25519 {blob('ssh-ed25519', bytes([7] * 32))} bob"
ALICE = {"name": "alice", "keys": [PLAIN]}
KNOWN = inputs.known_inputs()["casemate_people"]


def said(*given: Any, **values: Any) -> list[str]:
    return rules.problems({"casemate_people": list(given), **values}, "ops")


def test_nobody_is_locked_out_by_half_a_waiver() -> None:
    """Where the folder of keys is not written, sshd must not look there."""
    values = {"casemate_people": [ALICE]}
    (wrong,) = rules.problems(values, "ops", ["PEOPLE-KEYS-DECLARED"])
    assert "SSH-KEYFILES-DECLARED" in wrong
    assert rules.problems(values, "ops", ["PEOPLE-KEYS-DECLARED", "SSH-KEYFILES-DECLARED"]) == []
    assert rules.problems(values, "ops", ["SSH-KEYFILES-DECLARED"]) == []
    assert rules.problems({"casemate_people": []}, "ops", ["PEOPLE-KEYS-DECLARED"]) == []


SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
"""That of RFC 6238's test vectors, in base32."""
ERIN: dict[str, Any] = {"name": "erin", "keys": [PLAIN], "second_factor": "totp"}


def erin(folder: Path, text: str = f"{SECRET}\n", mode: int = 0o600, **change: Any) -> dict[str, Any]:
    """Somebody whose codes are made of the secret in a file."""
    path = folder / "erin"
    path.write_text(text)
    path.chmod(mode)
    return {**ERIN, "totp_secret_file": str(path), **change}


def test_codes_take_a_secret_from_a_file_or_a_vault(tmp_path: Path) -> None:
    for person in (erin(tmp_path), erin(tmp_path, SECRET.lower()), {**ERIN, "totp_secret": f"{SECRET}\n"}):
        assert inputs.value_problems("casemate_people", [person], KNOWN) == []
        assert said(person) == []
        (whole,) = people.resolved([person], "ops")
        assert whole["secret_digest"] == totp_secrets.digest(SECRET)
        assert SECRET not in str(whole)
    assert said(erin(tmp_path), k3s_access_trusted_user_ca_keys="/etc/ssh/ca.pub") == [], (
        "a code is asked for there too"
    )
    (gone,) = people.resolved([erin(tmp_path, state="revoked")], "ops")
    assert gone["secret_digest"] == ""


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        (SECRET[:24], 0o600, "it has 24 characters; allowed: 26 to 128 characters of base32"),
        (SECRET * 5, 0o600, "it has 160 characters"),
        (SECRET[:-1] + "1", 0o600, "it is not base32"),
        (f"{SECRET[:16]} {SECRET[16:]}", 0o600, "it is not base32"),
        (f"{SECRET[:27]}", 0o600, "it ends in the middle of a byte"),
        ("", 0o600, "it is empty"),
        ("\xff" * 30, 0o600, "it is no text"),
        (SECRET, 0o640, "others may read"),
        (SECRET, 0o604, "(mode 0604); allowed: 26 to 128"),
    ],
)
def test_a_secret_that_does_not_fit_is_refused_and_not_shown(tmp_path: Path, text: str, mode: int, says: str) -> None:
    (problem,) = said(erin(tmp_path, text, mode))
    assert says in problem and problem.startswith("casemate_people: totp_secret_file of erin is not taken: ")
    assert not text or text[:12] not in problem
    assert not mode & 0o077 or f"chmod 600 {tmp_path}/erin" in problem
    if mode == 0o600 and "text" not in says:
        (problem,) = said({**ERIN, "totp_secret": text})
        assert says in problem and "totp_secret of erin" in problem


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "with no secret; allowed: one of totp_secret_file, totp_secret. Make a secret by head -c 20"),
        ({"totp_secret": SECRET, "totp_secret_file": "/x"}, "with totp_secret_file and totp_secret; allowed: one"),
        ({"totp_secret_file": "/nowhere"}, "/nowhere cannot be read: No such file or directory"),
        ({"second_factor": "none", "totp_secret": SECRET}, "gives erin totp_secret without second_factor: totp"),
        ({"totp_secret": SECRET, "break_glass": True}, "which would fail on the same day"),
    ],
)
def test_who_needs_codes_has_one_secret(change: dict[str, Any], says: str) -> None:
    (problem,) = said({**ERIN, **change})
    assert says in problem and SECRET not in problem


def test_nobody_has_the_secret_of_somebody_else() -> None:
    both = [{**ERIN, "totp_secret": SECRET}, {**ERIN, "name": "bob", "keys": [OTHER], "totp_secret": SECRET.lower()}]
    (problem,) = said(*both)
    assert "gives erin and bob one and the same secret" in problem and SECRET not in problem


@pytest.mark.parametrize("waived", rules.NEEDED_BY_CODES)
def test_nothing_of_what_makes_a_code_count_is_waived(waived: str) -> None:
    values = {"casemate_people": [{**ERIN, "totp_secret": SECRET}]}
    (problem,) = rules.problems(values, "ops", [waived])
    assert f"casemate_waivers has {waived}, without which a code of erin is no second factor" in problem
    assert rules.problems({"casemate_people": [ALICE]}, "ops", [waived]) == []


@pytest.mark.parametrize("waived", rules.NEEDED_BY_TOKENS)
def test_no_other_proof_than_a_token_is_let_in_by_a_waiver(waived: str) -> None:
    """By a password, a plain key in the home, or a certificate, who needs a token would be in without it."""
    token = {"name": "alice", "keys": [TOKEN], "second_factor": "fido"}
    (problem,) = rules.problems({"casemate_people": [token]}, "ops", [waived])
    assert f"casemate_waivers has {waived}, without which a token of alice is no second factor; allowed" in problem
    assert rules.problems({"casemate_people": [{**token, "state": "revoked"}]}, "ops", [waived]) == []
    assert rules.problems({"casemate_people": [{"name": "alice", "keys": [TOKEN]}]}, "ops", [waived]) == []


@pytest.mark.parametrize("factor", rules.FACTORS)
def test_ansible_comes_as_nobody_who_needs_a_second_factor(factor: str) -> None:
    values = {"casemate_people": [{**ALICE, "second_factor": factor}, {"name": "bob", "keys": [OTHER]}]}
    (problem,) = rules.login_problems(values, "alice", "ops")
    assert f"Ansible comes as alice, of whom casemate_people asks second_factor: {factor}" in problem
    assert "such as ops. Name that in ansible_user" in problem
    assert [rules.login_problems(values, login, "ops") for login in ("bob", "ops", "")] == [[], [], []]
    assert rules.login_problems({}, "alice", "ops") == []


def test_a_certificate_is_no_second_factor() -> None:
    token = {"name": "alice", "keys": [TOKEN], "second_factor": "fido"}
    (wrong,) = said(token, k3s_access_trusted_user_ca_keys="/etc/ssh/ca.pub")
    assert "without a token" in wrong
    assert said(token, k3s_access_trusted_user_ca_keys="none") == []
    assert said(ALICE, k3s_access_trusted_user_ca_keys="/etc/ssh/ca.pub") == []


@pytest.mark.parametrize(
    "person",
    [
        ALICE,
        {**ALICE, "name": "john.doe"},
        {**ALICE, "name": "ALICE", "break_glass": True},
        {**ALICE, "groups": ["adm", "video"], "sudo": "with_password", "uid": 1500, "expires": "2027-03-31"},
        {"name": "alice", "keys": [TOKEN], "second_factor": "fido"},
        {**ALICE, "name": "1.5", "expires": "1970-01-01"},
        {**ALICE, "expires": datetime.date(9999, 12, 31)},
        {"name": "carol", "state": "revoked"},
        {"name": "carol", "state": "revoked", "keys": [PLAIN], "expires": datetime.date(2026, 1, 1)},
    ],
)
def test_people_are_taken(person: dict[str, Any]) -> None:
    assert inputs.value_problems("casemate_people", [person], KNOWN) == []
    assert said(person) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "-x"}, "casemate_people[0].name is '-x'; allowed: the name of an account"),
        ({"name": "a:b"}, "casemate_people[0].name"),
        ({"name": "1234"}, "casemate_people[0].name"),
        ({"keys": "x"}, "casemate_people[0].keys is text (not shown); allowed: a list"),
        ({"sudo": "yes"}, "casemate_people[0].sudo is 'yes'; allowed: one of none, with_password, without_password"),
        ({"expires": "31.03.2027"}, "allowed: a date as YYYY-MM-DD"),
        ({"uid": 0}, "casemate_people[0].uid is 0; allowed: a whole number from 1000 to 59999"),
        ({"state": "gone"}, "allowed: one of present, revoked"),
        ({"groups": ["a b"]}, "casemate_people[0].groups[0] is 'a b'; allowed: the name of a group"),
        ({"shell": "/bin/sh"}, "casemate_people[0].shell is not known"),
        ({"second_factor": "sms"}, "allowed: one of none, fido, totp"),
        (
            {"totp_secret_file": "/nowhere"},
            "casemate_people[0].totp_secret_file is '/nowhere'; allowed: the absolute path",
        ),
        ({"totp_secret": ["x"]}, "casemate_people[0].totp_secret is a list (not shown); allowed: a secret of TOTP"),
    ],
)
def test_a_value_is_refused_by_name(change: dict[str, Any], says: str) -> None:
    (problem,) = inputs.value_problems("casemate_people", [{**ALICE, **change}], KNOWN)
    assert says in problem
    assert "Correct it in the inventory" in problem or "is not known" in problem


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([ALICE, {"name": "alice", "keys": [OTHER]}], "casemate_people has alice 2 times"),
        ([{**ALICE, "name": "ops"}], "the account that Casemate logs in as"),
        ([{**ALICE, "name": "root"}], "an account of the system"),
        ([{**ALICE, "name": "www-data"}], "an account of the system"),
        ([{**ALICE, "name": "_apt"}], "an account of the system"),
        ([{**ALICE, "name": "systemd-network"}], "an account of the system"),
        ([{**ALICE, "name": 1.5}], "has 1.5, which is a number to YAML; allowed: text. Put the name into quotes"),
        (
            [{**ALICE, "expires": "1026-12-31"}],
            "expires of alice is 1026-12-31, with which an account would never end",
        ),
        ([{"name": "carol", "state": "revoked", "expires": "0026-12-31"}], "expires of carol is 0026-12-31"),
        ([{"name": "alice"}], "without keys"),
        ([{**ALICE, "groups": ["sudo"]}], "puts alice into sudo"),
        ([{**ALICE, "groups": ["docker"]}], "puts alice into docker"),
        ([{**ALICE, "second_factor": "fido"}], "1 of the keys are of no token"),
        ([ALICE, {"name": "bob", "keys": [PLAIN]}], "alice and bob one and the same key"),
        ([{**ALICE, "uid": 1500}, {"name": "bob", "keys": [OTHER], "uid": 1500}], "alice and bob the uid 1500"),
        (
            [{**ALICE, "break_glass": True}, {"name": "bob", "keys": [OTHER], "break_glass": "yes"}],
            "break_glass for alice, bob; allowed: for one",
        ),
        ([{"name": "a", "keys": [TOKEN], "second_factor": "fido", "break_glass": True}], "would fail on the same day"),
        ([{"name": "alice", "keys": [f"cert-authority {PLAIN}"]}], "key 1 of alice is not taken: its option cert-auth"),
        ([{"name": "alice", "keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}], "it is a private key"),
    ],
)
def test_people_who_do_not_fit_are_refused(given: list[Any], says: str) -> None:
    (problem,) = said(*given)
    assert says in problem and problem.startswith("casemate_people")
    assert "AAAA" not in problem


@pytest.mark.parametrize("listing", rules.OTHER_LISTS)
def test_who_is_revoked_is_let_in_by_no_other_list(listing: str) -> None:
    assert listing in inputs.known_inputs()
    gone = {"name": "carol", "state": "revoked"}
    assert said(gone, **{listing: ["bob"]}) == []
    assert said(ALICE, **{listing: ["alice"]}) == []
    (problem,) = said(gone, **{listing: ["carol"]})
    assert f"revokes carol, and {listing} " in problem and "Take carol off that list" in problem


@pytest.mark.parametrize(
    ("expires", "over"),
    [(None, -1), ("1970-01-01", 1), ("2026-12-31", 20819), (datetime.date(2026, 12, 31), 20819)],
)
def test_an_account_is_over_on_the_day_after_its_last(expires: Any, over: int) -> None:
    assert people.over(expires) == over
    if over > 1:
        day = datetime.date(1970, 1, 1) + datetime.timedelta(days=over)
        assert day.isoformat() == "2027-01-01"


def test_people_are_whole_and_the_automation_account_is_none_of_them() -> None:
    alice, carol = people.resolved(
        [
            {**ALICE, "groups": ["b", "a"], "sudo": "with_password", "expires": "2026-12-31"},
            {"name": "carol", "state": "revoked", "keys": [OTHER], "groups": ["a"], "sudo": "with_password"},
            {"name": "ops", "keys": [OTHER]},
        ],
        "ops",
    )
    assert alice == {
        "name": "alice",
        "state": "present",
        "uid": 0,
        "groups": ["a", "b"],
        "sudo": "with_password",
        "second_factor": "none",
        "break_glass": False,
        "secret_digest": "",
        "over": 20819,
        "authorized": f"{people.HEADER}\n{PLAIN}\n",
    }
    assert (carol["groups"], carol["sudo"], carol["over"], carol["authorized"]) == ([], "none", 1, f"{people.HEADER}\n")
    assert rules.admitted([ALICE, {"name": "carol", "state": "revoked"}]) == ["alice"]


@pytest.mark.parametrize(
    ("name", "uid", "told"),
    [
        ("alice", None, ""),  # whom apply makes
        ("alice", 1001, ""),
        ("postgres", 113, "postgres, which is an account of the system on this host (uid 113)"),
        ("toor", 0, "toor, which is an account of the system on this host (uid 0)"),
        ("no1", 65534, "no1, which is an account of the system on this host (uid 65534)"),
        ("admin", 1000, "admin, which is ops by another name on this host (uid 1000)"),
    ],
)
def test_an_account_of_the_system_is_nobodys_person(name: str, uid: int | None, told: str) -> None:
    """It would get a key, a place in AllowUsers and rules of sudo, though its account is left alone."""
    values = {"casemate_people": [{"name": name, "keys": [PLAIN]}]}
    there = {"uids": {"ops": 1000, **({name: uid} if uid is not None else {})}, "least": 1000}
    found = rules.host_problems(values, there, "ops")
    assert [told in one for one in found] == ([True] if told else [])
    assert rules.host_problems(values, {}, "ops") == [], "a host without Python is refused for that"
    revoked = {"casemate_people": [{"name": name, "state": "revoked"}]}
    assert rules.host_problems(revoked, there, "ops") == [], "who gets nothing"


def test_groups_of_root_are_no_names_of_people() -> None:
    assert {"sudo", "docker"} <= rules.groups_of_root()
    for name in rules.groups_of_root() - {*rules.OF_SERVICES, "root"}:
        (wrong,) = said({**ALICE, "name": name})
        assert f"casemate_people has {name}, which is also a group whose members are as good as root" in wrong


def test_who_has_the_key_of_the_run_is_warned_of() -> None:
    accepted = {"account": "ops", "key": authorized_keys.parse(PLAIN).fingerprint}
    for state, count in (("present", 1), ("revoked", 0)):
        given = {"casemate_people": [{**ALICE, "state": state}, {"name": "bob", "keys": [OTHER]}]}
        found = rules.host_warnings(given, accepted)
        assert len(found) == count
        assert all("gives alice the key by which Casemate comes as ops" in one for one in found)
        assert rules.host_warnings(given, {}) == []
