"""What preflight says of `casemate_people`, and what controls get of it."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from unit.test_authorized_keys import PLAIN, TOKEN, blob

from casemate.preflight import inputs
from casemate.preflight import people as rules
from casemate.run import people

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
        ({"second_factor": "totp"}, "allowed: one of none, fido"),
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


def test_who_is_revoked_is_let_in_by_no_other_list() -> None:
    gone = {"name": "carol", "state": "revoked"}
    assert said(gone, k3s_access_allow_users=["bob"]) == []
    (problem,) = said(gone, k3s_access_allow_users=["carol"])
    assert "Take carol off that list" in problem


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
        "over": 20819,
        "authorized": f"{people.HEADER}\n{PLAIN}\n",
    }
    assert (carol["groups"], carol["sudo"], carol["over"], carol["authorized"]) == ([], "none", 1, f"{people.HEADER}\n")
    assert rules.admitted([ALICE, {"name": "carol", "state": "revoked"}]) == ["alice"]
