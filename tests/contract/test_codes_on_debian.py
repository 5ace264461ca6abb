"""Codes beside a key as PAM of each supported Debian asks for them, with the module that its package brings."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from contract.debian import seen_on

from casemate.catalogue import load
from casemate_lab.image import RELEASES, base, missing_tools, packages

SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
FOLDER = "/var/lib/casemate/totp"

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "the lab can run here"),
]


@functools.cache
def seen(release: str) -> dict[str, Any]:
    """What is seen in a copy of the lab's Debian, which nothing outlives."""
    line = {**load()["TOTP-CODE-ASKED"]["setting"], "needed_by": ["erin"]}
    line["options"] = [one.replace("{{ __k3s_access_codes_folder }}", FOLDER) for one in line["options"]]
    options = ["RATE_LIMIT 3 30", "WINDOW_SIZE 3", "DISALLOW_REUSE", "TOTP_AUTH"]
    secrets = {"path": FOLDER, "options": options}
    given = {"secret": SECRET, "line": line, "secrets": secrets, "password": "a password"}
    brought = packages(base(release))
    files = (*brought.glob("libpam-google-authenticator_*.deb"), *brought.glob("libqrencode4_*.deb"))
    prepared = 'dpkg -i /*.deb >/dev/null && useradd erin && echo "alice:a password" | chpasswd'
    return seen_on(release, "codes_on_debian.py", given, prepared, files)


debians = pytest.mark.parametrize("release", RELEASES)


@debians
def test_a_code_is_right_once_and_some_tries_are_taken(release: str) -> None:
    assert seen(release)["codes"] == [False, True, False]
    assert seen(release)["one try more"] is False


@debians
def test_what_apply_brings_holds_and_goes_on_holding_once_it_was_used(release: str) -> None:
    assert seen(release)["before"] == ["line", "secrets"]
    assert (seen(release)["after"], seen(release)["used"]) == ([], [])
    assert seen(release)["mode"] == "0400", "the module's own"


@debians
def test_sshd_takes_no_password_and_others_go_on_taking_them(release: str) -> None:
    assert seen(release)["a password"] == [False, True]


@debians
@pytest.mark.parametrize("case", ["nullok", "removed"])
def test_what_weakens_it_is_named_by_its_own_control_alone(release: str, case: str) -> None:
    assert seen(release)[case] == ["line"]


@debians
def test_where_nobody_needs_it_any_more_it_goes(release: str) -> None:
    assert seen(release)["taken back"]
