"""Links to the verified program: made as K3s' install script makes them, and nothing of anybody is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.engine import run as engine
from module_utils.casemate.host.machine import EnforceError
from module_utils.casemate.kinds import link

KUBECTL = "/usr/local/bin/kubectl"
SETTING: Any = {"path": KUBECTL, "target": "k3s"}


def laid(root: Path, *, points: str = "", own: bool = False, elsewhere: str = "") -> FakeHost:
    host = FakeHost(root, {"/usr/local/bin/k3s": "binary", **({elsewhere: "theirs"} if elsewhere else {})})
    if elsewhere:
        Path(host.path(elsewhere)).chmod(0o755)
    if points:
        Path(host.path(KUBECTL)).symlink_to(points)
    elif own:
        Path(host.path(KUBECTL)).write_text("theirs")
    return host


def judge(host: FakeHost) -> Any:
    return link.assess(SETTING, link.observe([SETTING], host)[0])


@pytest.mark.parametrize(
    ("there", "ok", "blocked_by"),
    [
        ({"points": "k3s"}, True, False),
        ({"points": "/usr/local/bin/k3s"}, True, False),
        ({"points": "../bin/k3s"}, True, False),
        ({}, False, False),
        ({"points": "/opt/kubectl"}, False, False),
        ({"points": "k3s.previous"}, False, False),
        ({"own": True}, False, True),
        ({"elsewhere": "/usr/bin/kubectl"}, True, False),
        ({"elsewhere": "/snap/bin/kubectl"}, True, False),
        ({"points": "/opt/kubectl", "elsewhere": "/usr/bin/kubectl"}, False, False),
        ({"points": "k3s", "elsewhere": "/usr/bin/kubectl"}, True, False),
        ({"own": True, "elsewhere": "/usr/bin/kubectl"}, False, True),
    ],
)
def test_a_link_to_the_program_or_a_command_elsewhere_is_right(
    tmp_path: Path, there: Any, ok: bool, blocked_by: bool
) -> None:
    verdict = judge(laid(tmp_path, **there))
    assert (verdict.ok, bool(verdict.blocked_by)) == (ok, blocked_by)
    assert ok or KUBECTL in verdict.reason


@pytest.mark.parametrize("points", ["", "/opt/kubectl", "gone"])
def test_a_missing_or_other_link_is_made_and_stays(tmp_path: Path, points: str) -> None:
    host = laid(tmp_path, points=points)
    link.enforce([SETTING], {0}, host)
    assert str(Path(host.path(KUBECTL)).readlink()) == "k3s"
    assert judge(host).ok
    assert host.changes == [
        {"path": KUBECTL, "before": f"link to {points}\n" if points else "", "after": "link to k3s\n"}
    ]


def test_a_file_in_the_place_is_kept_and_keeps_no_other_link_from_being_made(tmp_path: Path) -> None:
    host = laid(tmp_path, own=True)
    other: link.Setting = {"path": "/usr/local/bin/ctr", "target": "k3s"}
    with pytest.raises(EnforceError, match="kubectl is no link"):
        link.enforce([SETTING, other], {0, 1}, host)
    assert host.text(KUBECTL) == "theirs"
    assert str(Path(host.path("/usr/local/bin/ctr")).readlink()) == "k3s"


def test_a_run_that_was_killed_between_link_and_name_stops_nothing(tmp_path: Path) -> None:
    host = laid(tmp_path)
    Path(host.path("/usr/local/bin/.casemate-link")).symlink_to("k3s")
    link.enforce([SETTING], {0}, host)
    assert sorted(path.name for path in Path(host.path("/usr/local/bin")).iterdir()) == ["k3s", "kubectl"]


def test_check_says_what_apply_does(tmp_path: Path) -> None:
    control: Any = {
        "id": "X-KUBECTL-LINKED", "title": "kubectl is linked", "why": "People expect it.", "severity": "low",
        "level": "baseline", "applies_to": ["node"], "mitigations": ["T7.2"], "refs": {},
        "setting": {"kind": "link", **SETTING},
    }  # fmt: skip
    host = laid(tmp_path)
    actions = [engine.run({"r": [control]}, host, check).findings[0]["action"] for check in (True, False, True)]
    assert actions == ["would_change", "changed", "none"]
