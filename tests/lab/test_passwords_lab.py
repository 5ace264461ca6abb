"""What PAM asks by profiles of Casemate stays with packages, comes back, waits for the operator, and is taken back.

Runs on an applied lab, as a part of the drift story, with the double and with a real K3s.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from lab.applied import Lab, failing

pytestmark = pytest.mark.lab

AUTH, PROFILE = "/etc/pam.d/common-auth", "/usr/share/pam-configs/casemate-su"
LOOK = f"cat {AUTH} /etc/pam.d/common-password /var/lib/pam/auth /usr/share/pam-configs/*"
BY_HAND = "auth optional pam_echo.so by-hand"
WAIVED = {"reason": "the lab", "owner": "lab", "expires": "2099-12-31"}


def test_a_package_that_updates_pam_keeps_the_lines(lab: Lab) -> None:
    before = lab.root(lab.server, LOOK)
    lab.root(lab.server, "DEBIAN_FRONTEND=noninteractive pam-auth-update --package --enable mkhomedir")
    lab.root(lab.server, "DEBIAN_FRONTEND=noninteractive pam-auth-update --package --disable mkhomedir")
    assert lab.root(lab.server, LOOK) == before


def test_what_somebody_changed_of_our_lines_comes_back(lab: Lab) -> None:
    before = lab.root(lab.server, LOOK)
    lab.root(lab.server, f"sed -i 's/deny=5/deny=500/; /pam_wheel.so/d; /quiet service in/d' {AUTH}; rm {PROFILE}")
    report = lab.ends(0, "apply")
    changed = {one["control"] for host in report["hosts"] for one in host["findings"] if one["action"] == "changed"}
    assert {"LOCKOUT-FAILURES-COUNTED", "LOCKOUT-ACCOUNT-REFUSED", "SU-GROUP-LISTED"} <= changed
    assert lab.root(lab.server, LOOK) == before


def test_a_line_of_the_operators_own_is_never_overwritten(lab: Lab) -> None:
    before = lab.root(lab.server, LOOK)
    change = f"/pam_wheel.so/d; /quiet service in su:/d; /pam_unix.so/i {BY_HAND}"
    by_hand = lab.root(lab.server, f"sed -i '{change}' {AUTH}; cat {AUTH}")
    try:
        report = lab.ends(2, "apply")
        (found,) = [
            one
            for host in report["hosts"]
            if host["name"] == lab.server
            for one in host["findings"]
            if one["control"] == "SU-GROUP-LISTED"
        ]
        assert (found["status"], found["action"]) == ("fail", "blocked")
        assert f"of {AUTH} ({BY_HAND}) is of no profile: remove it" in found["reason"]
        assert lab.root(lab.server, f"cat {AUTH}") == by_hand
    finally:
        lab.root(lab.server, f"sed -i '/by-hand/d' {AUTH}")
    lab.ends(0, "apply")
    assert lab.root(lab.server, LOOK) == before


def test_a_waiver_takes_the_line_back_and_its_end_brings_it(lab: Lab, tmp_path: Path) -> None:
    before = lab.root(lab.server, LOOK)
    waivers = tmp_path / "waivers.yml"
    waivers.write_text(yaml.safe_dump({"all": {"vars": {"casemate_waivers": {"SU-GROUP-LISTED": WAIVED}}}}))
    report = lab.ends(0, "apply", "-i", lab.path, "-i", str(waivers))
    assert not failing(report)
    assert "pam_wheel" not in lab.root(lab.server, f"cat {AUTH}; test ! -e {PROFILE}")
    lab.ends(0, "apply")
    assert lab.root(lab.server, LOOK) == before
