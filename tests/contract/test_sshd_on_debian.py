"""sshd's files as the sshd of each supported Debian judges them: every criterion of Match, and a stopped daemon."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from contract.debian import seen_on

from casemate_lab.image import RELEASES, missing_tools

BLOCKS = {
    "all": "all",
    "a user": "User alice",
    "users": "User bob,alice",
    "a pattern of users": "User al*",
    "users but one": "User *,!root",
    "users but those": "User o*,!ox,!oy",
    "with an equals sign": "User=alice",
    "in small letters": "user alice",
    "in quotes": 'User "alice"',
    "before a comment": "User alice # User bob LocalPort 2222",
    "a tab between": "User\talice",
    "a group": "Group sudo",
    "the second group": "Group nobody-is-in,sudo",
    "a group and a user": "Group sudo User al*",
    "the group of an account": "Group ops",
    "a host": "Host *.example.org",
    "a host in capitals": "Host Bastion.Example.Org",
    "hosts but one": "Host *.example.org,!x.example.org",
    "an address": "Address 203.0.113.7",
    "a network": "Address 10.0.0.0/8",
    "a network but a part": "Address 10.0.0.0/8,!10.0.0.0/24",
    "networks": "Address 192.0.2.0/24,198.51.100.0/24",
    "a network of IPv6": "Address 2001:db8::/32",
    "a network of IPv6 but a part": "Address 2001:db8::/32,!2001:db8::/64",
    "a pattern of addresses": "Address 10.0.*",
    "a pattern of one digit": "Address 10.0.0.?",
    "a pattern of IPv6": "Address 2001:db8:*",
    "any address": "Address *",
    "a local address": "LocalAddress 10.1.0.0/16",
    "a local port": "LocalPort 2222",
    "the usual port": "LocalPort 22",
    "the highest port": "LocalPort 65535",
    "a port and an address": "LocalAddress 192.0.2.2 LocalPort 443",
    "a port and a user": "LocalPort 2222 User alice",
    "a routing domain": "RDomain blue",
    "all at once": "User alice Host *.example.org Address 10.0.0.0/8 LocalAddress 10.1.0.1 LocalPort 2222",
}
NEWER = {"an unknown user": "Invalid-User", "a version of sshd": "Version OpenSSH_*", "both": "Version * User alice"}
"""Criteria of OpenSSH 9.9 and newer."""
NOBODY = {"an empty group": "Group nobody-is-in", "no user": "User !alice", "another version": "Version Dropbear*"}
CASES = {"12": BLOCKS, "13": {**BLOCKS, **NEWER}}


@functools.cache
def seen(release: str) -> dict[str, Any]:
    """What is judged in a copy of the lab's Debian, which nothing outlives."""
    blocks = {**CASES[release], **{name: b for name, b in NOBODY.items() if release != "12" or "Version" not in b}}
    prepared = 'rm -rf /tmp/*; adduser() { usermod -aG "$2" "$1"; }; adduser alice sudo; mkdir -p /run/sshd'
    return seen_on(release, "sshd_on_debian.py", {"blocks": blocks}, prepared)


pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "the lab can run here"),
]
debians = pytest.mark.parametrize("release", RELEASES)


@pytest.mark.parametrize(("release", "name"), [(release, name) for release, cases in CASES.items() for name in cases])
def test_a_block_that_opens_again_is_named_whatever_it_asks_for(release: str, name: str) -> None:
    root, hostkey, daemon = seen(release)[name].values()
    assert (root[0], hostkey[0], daemon[0]) == (False, True, True), (root, hostkey, daemon)
    block = CASES[release][name].replace('"', "")
    assert root[1].startswith((f"Match {block} (user ", "logins: "))  # the latter where it is for all
    assert root[2] == "/etc/ssh/sshd_config:3"


@pytest.mark.parametrize(
    ("release", "name"), [(r, n) for r in RELEASES for n in NOBODY if r != "12" or "Version" not in NOBODY[n]]
)
def test_a_block_that_nobody_meets_opens_nothing(release: str, name: str) -> None:
    assert [one[0] for one in seen(release)[name].values()] == [True, True, True]


@debians
@pytest.mark.parametrize("case", ["clean", "no /run/sshd", "key made"])
def test_a_stopped_daemon_makes_nothing_blind(release: str, case: str) -> None:
    assert [one[0] for one in seen(release)[case].values()] == [True, True, True], seen(release)[case]


@debians
def test_a_host_key_that_lacks_is_one_finding(release: str) -> None:
    found = seen(release)["no key"]
    assert {key: one[0] for key, one in found.items()} == {"permitrootlogin": True, "hostkey": False, "daemon": True}
    assert found["hostkey"][1:] == ["there is no /etc/ssh/ssh_host_ed25519_key", ""]


@debians
def test_looking_leaves_nothing_behind(release: str) -> None:
    assert seen(release)["left behind"] == {"/run/sshd": False, "/tmp": []}


@debians
@pytest.mark.parametrize(
    ("case", "right"),
    [
        ("before", set()),
        ("after", {"authorizedkeysfile", "pubkeyauthoptions", "usepam"}),
        ("overridden", {"usepam"}),
        ("from a network", {"usepam"}),
        ("in a group", {"pubkeyauthoptions", "usepam"}),
        ("one less", {"pubkeyauthoptions", "usepam"}),
        ("without", {"authorizedkeysfile", "pubkeyauthoptions", "usepam"}),
    ],
)
def test_values_for_some_users_hold_for_them_and_nobody_else(release: str, case: str, right: set[str]) -> None:
    found = seen(release)["people"][case]
    assert {key for key, one in found.items() if one[0]} == right, found
    if case == "overridden":
        assert found["authorizedkeysfile"][2] == "/etc/ssh/sshd_config.d/00-aaa.conf:2"
        assert found["pubkeyauthoptions"][2] == "/etc/ssh/sshd_config.d/00-aaa.conf:4"
    elif case in ("from a network", "in a group"):
        assert found["authorizedkeysfile"][1].startswith("Match "), "who comes so is named"
        assert found["authorizedkeysfile"][2] == "/etc/ssh/sshd_config.d/00-aaa.conf:2"
    elif case in ("before", "one less"):
        assert not any(one[2] for one in found.values()), "nothing keeps apply from writing it"
