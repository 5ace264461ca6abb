"""Which advisories ask for an answer, and who may give it."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest
from unit.test_advisories import RUNC, entry, until
from unit.test_debian import TRACKER
from unit.test_inventory import GATHERED
from unit.test_openvex import said, written

from casemate.supply.advisories import DataError
from casemate.supply.advisory_policy import Installed, judged, of_host, policy
from casemate.supply.component import Component

NOW = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)
BOOKWORM = {"ID": "debian", "VERSION_ID": "12", "VERSION_CODENAME": "bookworm"}
OPENSSL = Component("deb", "libssl3", "3.0.17-1", source="openssl", source_version="3.0.17-1", architecture="amd64")
FORK = Component("go", "github.com/k3s-io/containerd/v2", "v2.3.3-k3s2", ("/bin/k3s",),
                 replaces="github.com/containerd/containerd/v2")  # fmt: skip
NET = Component("go", "golang.org/x/net", "v0.1.0", ("/bin/k3s",))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Advisories up to the 15th, and Debian's as of the 20th."""
    severe = {"database_specific": {"severity": "LOW"}}
    folder = tmp_path / "data"
    folder.mkdir()
    for at, one in enumerate(
        [
            entry(FORK.replaces, until("2.3.4"), 1, modified="2026-11-15T00:00:00Z", aliases=["CVE-1"]),
            entry(RUNC, until("1.4.2"), 2, **severe),
            entry(NET.name, until("0.2.0"), 3),
        ]
    ):
        (folder / f"{at}.json").write_text(json.dumps(one))
    tracker = tmp_path / "tracker.json"
    tracker.write_text(json.dumps(TRACKER))
    os.utime(tracker, (NOW.timestamp(), NOW.timestamp()))
    return folder


def seen(data: Path, *components: Component, system: Any = BOOKWORM, **asked: Any) -> Any:
    sources = [data, data.with_name("tracker.json")]
    return judged(Installed(components, system, "amd64", "v1.36.3+k3s1"), policy({"data": sources, **asked}), NOW)


def names(found: Any) -> list[str]:
    return [one.id for one in found]


def test_parts_of_k3s_count_and_debian_counts_where_it_has_a_fix(data: Path) -> None:
    zlib = Component("deb", "zlib1g", "1.3", source="zlib", source_version="1.3")
    found = seen(data, FORK, NET, OPENSSL, zlib)
    assert names(found.open) == ["CVE-2026-1", "GO-2026-1"]
    assert [(one.module, one.fixed, one.where) for one in found.open] == [
        ("openssl", "3.0.18-1~deb12u1", ("libssl3",)), (FORK.replaces, "2.3.4", ("/bin/k3s",)),
    ]  # fmt: skip
    assert names(found.told) == ["CVE-2026-2", "CVE-2026-5", "GO-2026-3"]
    assert not found.silent and not found.stale and found.has_go and found.has_debian


def test_a_fixed_package_has_no_fault_and_another_release_is_another_matter(data: Path) -> None:
    fixed = Component("deb", "libssl3", "x", source="openssl", source_version="3.0.18-1~deb12u1")
    assert names(seen(data, fixed).open) == []
    found = seen(data, OPENSSL, system={"VERSION_CODENAME": "noble"})
    assert not found.open and found.has_debian and not found.has_release


def test_of_the_kernel_what_runs_counts_and_one_of_somebody_else_is_unknown(data: Path) -> None:
    tracker = {"linux": {"CVE-7": TRACKER["openssl"]["CVE-2026-1"]}}
    data.with_name("tracker.json").write_text(json.dumps(tracker))
    os.utime(data.with_name("tracker.json"), (NOW.timestamp(), NOW.timestamp()))
    runs = Component("kernel", "linux", "3.0-amd64", source="linux", source_version="3.0.17-1")
    headers = Component("deb", "linux-libc-dev", "3.0.17-1", source="linux", source_version="3.0.17-1")
    assert [one.where for one in seen(data, runs, headers).open] == [("the running kernel",)]
    other = Component("kernel", "linux", "6.18.0")
    assert seen(data, other).silent == (other,)


def test_a_known_lower_severity_is_told_alone(data: Path) -> None:
    old = Component("go", RUNC, "v1.4.1")
    assert names(seen(data, old).told) == ["GO-2026-2"]
    assert names(seen(data, old, severity="low").open) == ["GO-2026-2"]
    assert names(seen(data, FORK, severity="critical").open) == ["GO-2026-1"]  # of an unknown severity


def test_a_waiver_answers_by_any_name_until_its_day(data: Path) -> None:
    given = {"reason": "not reachable", "owner": "ops", "expires": "2026-11-20"}
    for name in ("GO-2026-1", "CVE-1"):
        found = seen(data, FORK, waivers={name: given})
        assert not found.open
        assert [why for _, why in found.answered] == ["waived by ops until 2026-11-20: not reachable"]
    assert names(seen(data, FORK, waivers={"GO-2026-1": {**given, "expires": "2026-11-19"}}).open) == ["GO-2026-1"]
    assert names(seen(data, FORK, waivers={"GO-2026-2": given}).open) == ["GO-2026-1"]


@pytest.mark.parametrize(
    "about",
    [
        "pkg:golang/github.com/k3s-io/containerd/v2@v2.3.3-k3s2",
        "pkg:golang/github.com/containerd/containerd/v2@v2.3.3",
        "pkg:github/k3s-io/k3s@v1.36.3%2Bk3s1",
        "pkg:golang/github.com/k3s-io/k3s@v1.36.3%2Bk3s1",
    ],
)
def test_a_statement_of_openvex_answers_for_a_fork_by_either_name_and_for_k3s(data: Path, about: str) -> None:
    path = written(data.parent, said([about], vulnerability="CVE-1"))
    found = seen(data, FORK, vex=[path])
    assert not found.open
    assert found.answered[0][1] == "not_affected by OpenVEX: vulnerable_code_not_in_execute_path"


def test_a_statement_about_k3s_says_nothing_of_debian(data: Path) -> None:
    path = written(data.parent, said(["pkg:github/k3s-io/k3s"], vulnerability="CVE-2026-1"))
    assert names(seen(data, OPENSSL, vex=[path]).open) == ["CVE-2026-1"]
    path = written(data.parent, said(["pkg:deb/debian/libssl3"], vulnerability="CVE-2026-1"))
    assert names(seen(data, OPENSSL, vex=[path]).open) == []


def test_a_part_without_a_version_is_silent_and_old_data_is_stale(data: Path) -> None:
    devel = Component("go", RUNC, "(devel)")
    assert seen(data, devel, Component("go", "example.org/x", "(devel)")).silent == (devel,)
    (old,) = seen(data, max_age=4).stale
    assert old == f"{data} tells up to 2026-11-15, by the newest entry: 5 days are more than 4. Fetch it again"


def test_data_of_a_day_that_is_yet_to_come_is_not_up_to_date_for_ever(data: Path) -> None:
    (data / "3.json").write_text(json.dumps(entry(NET.name, until("0.2.0"), 4, modified="2099-01-01T00:00:00Z")))
    (ahead,) = seen(data).stale
    assert "up to 2099-01-01, by the newest entry, and today is 2026-11-20: set the clock" in ahead
    (data / "3.json").write_text(json.dumps(entry(NET.name, until("0.2.0"), 4, modified="2026-11-20T20:00:00Z")))
    assert not seen(data).stale


def test_what_is_kept_is_made_again_when_a_file_changes(data: Path) -> None:
    assert names(seen(data, FORK).open) == ["GO-2026-1"] == names(seen(data, FORK).open)
    (data / "0.json").write_text(json.dumps(entry(FORK.replaces, until("2.3.2"), 1)))
    assert names(seen(data, FORK).open) == []


def test_statements_that_cannot_be_read_are_refused(data: Path) -> None:
    with pytest.raises(DataError, match="holds no statements of OpenVEX"):
        seen(data, vex=[data / "0.json"])


def test_what_a_host_gathers_is_what_is_installed() -> None:
    made = of_host(GATHERED)
    assert (made.machine, made.k3s, made.system["ID"]) == ("amd64", "v1.36.3+k3s1", "debian")
    assert {one.ecosystem for one in made.components} >= {"go", "deb", "kernel"}
    with pytest.raises(ValueError, match="another shape"):
        of_host({"kernel": ""})


def test_debian_is_judged_by_data_in_the_form_of_osv_too(data: Path) -> None:
    data.with_name("tracker.json").unlink()
    fixed = {"introduced": "0"}, {"fixed": "3.0.18-1~deb12u1"}
    for number, (ecosystem, events) in enumerate({"Debian:12": fixed, "Debian:13": fixed[:1]}.items()):
        affected = {"package": {"name": "openssl", "ecosystem": ecosystem}}
        one = {"id": f"DEBIAN-CVE-2026-{number}", "modified": "2026-11-15T00:00:00Z"}
        ranges = [{"type": "ECOSYSTEM", "events": list(events)}]
        (data / f"debian-{number}.json").write_text(json.dumps({**one, "affected": [{**affected, "ranges": ranges}]}))

    def at(*components: Component, **asked: Any) -> Any:
        system = {**BOOKWORM, **asked.pop("system", {})}
        return judged(Installed(components, system, "amd64"), policy({"data": [data], **asked}), NOW)

    found = at(OPENSSL)
    assert [(one.id, one.aliases, one.fixed, one.where) for one in found.open] == [
        ("DEBIAN-CVE-2026-0", ("CVE-2026-0",), "3.0.18-1~deb12u1", ("libssl3",))
    ]
    assert found.has_debian and found.has_release and not found.stale
    waived = {"CVE-2026-0": {"reason": "r", "owner": "o", "expires": "2026-12-31"}}
    assert not at(OPENSSL, waivers=waived).open
    assert names(at(OPENSSL, system={"VERSION_ID": "13", "VERSION_CODENAME": "trixie"}).told) == ["DEBIAN-CVE-2026-1"]
    other = at(OPENSSL, system={"VERSION_ID": "11", "VERSION_CODENAME": "bullseye"})
    assert other.has_debian and not other.has_release
