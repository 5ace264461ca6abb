"""Lines of PAM as pam-auth-update of each supported Debian makes and merges them: one apply brings all of ours back."""

from __future__ import annotations

import functools
from typing import Any

import jinja2
import pytest
import yaml
from contract.debian import seen_on

from casemate import ROOT
from casemate.catalogue import load
from casemate_lab.image import RELEASES, missing_tools

SEEDS = 12
"""How many changes of our lines by hand are tried, each drawn from a number."""
BROUGHT = sorted(
    (
        {**control["setting"], **({"needed_by": ["erin"]} if "needed_by" in control["setting"] else {})}
        for control in load().values()
        if control["setting"]["kind"] == "pam_line" and "profile" in control["setting"]
    ),
    key=lambda setting: str(setting["profile"]),
)

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "the lab can run here"),
]


def rendered(value: Any) -> Any:
    """A setting with the defaults of its inputs."""
    if isinstance(value, list):
        return [rendered(one) for one in value]
    if not isinstance(value, str) or "{{" not in value:
        return value
    inputs = yaml.safe_load((ROOT / "roles/k3s_host/defaults/main.yml").read_text())
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.from_string(value).render({**inputs, "__k3s_access_codes_folder": "/var/lib/casemate/totp"})


@functools.cache
def seen(release: str) -> dict[str, Any]:
    """What is seen in a copy of the lab's Debian, which nothing outlives."""
    lines = [{name: rendered(value) for name, value in setting.items()} for setting in BROUGHT]
    return seen_on(release, "pam_lines_on_debian.py", {"lines": lines, "seeds": SEEDS})


debians = pytest.mark.parametrize("release", RELEASES)


@debians
def test_one_apply_heals_lines_of_several_profiles_that_hide_each_other(release: str) -> None:
    every = [setting["profile"] for setting in BROUGHT]
    assert seen(release)["first"] == every
    assert seen(release)["weakened"] == [name for name in every if name != "casemate-password-history"]
    assert seen(release)["healed"]


@debians
def test_one_apply_heals_whatever_lines_of_ours_were_changed_together(release: str) -> None:
    assert seen(release)["not healed"] == []


@debians
def test_what_an_administrator_changed_of_other_lines_stays(release: str) -> None:
    assert seen(release)["beside"] == ["casemate-lockout-refuse"]
    refuse, unix = seen(release)["of the administrator"]
    assert "debug" not in refuse
    assert "nullok" not in unix


@debians
def test_what_is_waived_goes_and_all_else_of_ours_stays(release: str) -> None:
    every = [setting["profile"] for setting in BROUGHT]
    assert seen(release)["taken back"] == every[:2]
    assert seen(release)["kept"] == every[2:]
