"""What a host says it is made of is compared on the controller, and what nobody knows is said."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from unit.test_advisories import RUNC, entry, until
from unit.test_debian import TRACKER
from unit.test_inventory import GATHERED

from casemate.run.advised import found


@pytest.fixture
def told() -> dict[str, Any]:
    made = copy.deepcopy(GATHERED)
    made["os"]["VERSION_CODENAME"] = "bookworm"
    made["files"][1]["build"]["modules"].append([RUNC, "v1.4.1", "", "", ""])
    return made


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    (tmp_path / "one.json").write_text(json.dumps(entry(RUNC, until("1.4.2"), 1)))
    (tmp_path / "tracker.json").write_text(json.dumps(TRACKER))
    return [str(tmp_path / "one.json"), str(tmp_path / "tracker.json")]


def made(told: Any, sources: list[str], **asked: Any) -> dict[str, Any]:
    return found(json.dumps(told), {"data": sources, "max_age": 3650, **asked})


def test_k3s_and_the_system_are_told_apart(told: Any, sources: list[str]) -> None:
    both = made(told, sources)
    assert [line.partition(":")[0] for line in both["k3s"]["open"]] == ["GO-2026-1"]
    assert both["k3s"]["places"] == ["/data/bin/runc"]
    assert both["system"]["open"] == ["openssl 3.0.17-1~deb12u2: CVE-2026-1, fixed in 3.0.18-1~deb12u1"]
    assert both["system"]["places"] == ["libssl3"]
    assert not both["k3s"]["lacks"] and not both["system"]["lacks"]


def test_waivers_of_the_inventory_answer(told: Any, sources: list[str]) -> None:
    waiver = {"reason": "r", "owner": "o", "expires": "2999-01-01"}
    both = made(told, sources, waivers={"GO-2026-1": waiver, "CVE-2026-1": waiver})
    assert both["k3s"]["open"] == [] == both["system"]["open"]


def test_each_is_unasked_where_no_data_is_about_it(told: Any, sources: list[str]) -> None:
    assert made(told, sources[:1])["system"]["lacks"][0] == "unasked"
    assert made(told, sources[:1])["k3s"]["lacks"] == []
    assert made(told, sources[1:])["k3s"]["lacks"][0] == "unasked"
    told["os"]["VERSION_CODENAME"] = "noble"
    assert made(told, sources)["system"]["lacks"][0] == "advisories"


@pytest.mark.parametrize(
    ("change", "of", "code"),
    [
        (lambda told: told["unread"].update(k3s="there is none"), "k3s", "k3s"),
        (lambda told: told["unread"].update({"/data/bin/k3s": "broken"}), "k3s", "k3s"),
        (lambda told: told["files"][1]["build"]["modules"].append([RUNC, "(devel)", "", "", ""]), "k3s", "version"),
        (lambda told: told["unread"].update(packages="no dpkg"), "system", "package_index"),
        (lambda told: told.update(kernel_package=""), "system", "kernel"),
    ],
)
def test_what_the_host_cannot_say_is_no_pass(told: Any, sources: list[str], change: Any, of: str, code: str) -> None:
    change(told)
    both = made(told, sources)
    assert both[of]["lacks"][0] == code
    assert not both[{"k3s": "system", "system": "k3s"}[of]]["lacks"]


def test_broken_data_and_a_strange_host_are_said(told: Any, tmp_path: Path) -> None:
    for text in (json.dumps({"kernel": 1}), "{", "[]", json.dumps({**told, "unread": None})):
        both = found(text, {"data": []})
        assert {one["lacks"][0] for one in both.values()} == {"advisories"}
    assert made(told, [str(tmp_path / "none")])["k3s"]["lacks"][0] == "advisories"
