"""Advisories about what is compiled in: loaded from files alone, and compared with modules, forks and parts of K3s."""

from __future__ import annotations

import itertools
import json
import os
import socket
import zipfile
from pathlib import Path
from typing import Any

import pytest

from casemate.supply import osv
from casemate.supply.advisories import DataError, load, matches, part_of, unknown
from casemate.supply.component import Component

CONTAINERD, RUNC = "github.com/containerd/containerd/v2", "github.com/opencontainers/runc"


def entry(name: str, events: list[dict[str, str]], number: int = 1, **rest: Any) -> dict[str, Any]:
    one = {"package": {"name": name, "ecosystem": "Go"}, "ranges": [{"type": "SEMVER", "events": events}]}
    made = {"id": f"GO-2026-{number}", "modified": f"2026-11-0{number}T00:00:00Z", "affected": [one], **rest}
    one.update(made.pop("more", {}))
    return made


def until(version: str) -> list[dict[str, str]]:
    return [{"introduced": "0"}, {"fixed": version}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    every = [
        entry(CONTAINERD, until("2.3.4"), 1),
        entry(RUNC, until("1.4.2"), 2, aliases=["CVE-2026-2"]),
        entry(RUNC, until("1.4.2"), 3, id="GHSA-aaaa", aliases=["CVE-2026-2"]),
        entry("k8s.io/api", until("0.36.4"), 4),
        entry("k8s.io/kubernetes", until("1.36.3"), 5),
        entry("github.com/k3s-io/k3s", until("1.36.3+k3s2"), 6),
        entry("stdlib", until("1.26.9"), 7, more={"ecosystem_specific": {"imports": [{"goos": ["windows"]}]}}),
        entry("stdlib", until("1.26.9"), 8, more={"ecosystem_specific": {"imports": [{"goarch": ["ppc64le"]}]}}),
        entry(CONTAINERD, until("9.0.0"), 9, withdrawn="2026-11-09T00:00:00Z"),
    ]
    made = tmp_path / "osv"
    (made / "index").mkdir(parents=True)
    (made / "index/db.json").write_text('{"modified": "2026-11-20T00:00:00Z"}')
    for at, one in enumerate(every):
        (made / f"{at}.json").write_text(json.dumps(one))
    return made


def named(folder: Path, *components: Component, machine: str = "") -> list[tuple[str, str, str]]:
    return [(one.id, one.module, one.fixed) for one in matches(components, load(folder).advisories, machine)]


def test_an_older_runc_and_containerd_are_named_with_what_fixes_them(folder: Path) -> None:
    found = named(folder, Component("go", RUNC, "v1.4.1"), Component("go", CONTAINERD, "v2.3.3"))
    assert found == [("GHSA-aaaa", RUNC, "1.4.2"), ("GO-2026-1", CONTAINERD, "2.3.4")]
    assert named(folder, Component("go", RUNC, "v1.4.2"), Component("go", CONTAINERD, "v2.3.4")) == []


def test_one_fault_by_several_names_is_told_once_and_with_every_place(folder: Path) -> None:
    both = [Component("go", RUNC, "v1.4.1", (f"/bin/{name}",)) for name in "ab"]
    found = matches(both, load(folder).advisories)
    assert [(one.id, one.aliases, one.where) for one in found] == [
        ("GHSA-aaaa", ("CVE-2026-2", "GO-2026-2"), ("/bin/a", "/bin/b"))
    ]
    assert {one.part for one in found} == {"runc"}


def of_one_fault(*entries: dict[str, Any]) -> list[Any]:
    advisories = [made for one in entries if (made := osv.advisory(one))]
    return matches([Component("go", RUNC, "v1.4.1")], advisories)


def test_entries_that_a_third_one_calls_the_same_are_one_fault_in_whatever_order_they_come() -> None:
    one = entry(RUNC, until("1.4.2"), 1, id="CVE-2026-1", aliases=["GO-2026-3"])
    other = entry(RUNC, until("1.4.2"), 2, id="GHSA-aaaa")
    both = entry(RUNC, until("1.4.2"), 3, id="GO-2026-3", aliases=["CVE-2026-1", "GHSA-aaaa"])
    for order in itertools.permutations([one, other, both]):
        (found,) = of_one_fault(*order)
        assert (found.id, found.aliases) == ("CVE-2026-1", ("GHSA-aaaa", "GO-2026-3"))


def test_of_what_several_sources_say_the_worst_severity_counts_and_a_fix_that_one_of_them_knows() -> None:
    def rated(name: str, severity: str, events: list[dict[str, str]]) -> dict[str, Any]:
        return entry(RUNC, events, 1, id=name, aliases=["CVE-2026-1"], database_specific={"severity": severity})

    (found,) = of_one_fault(
        rated("GHSA-aaaa", "LOW", [{"introduced": "0"}]),
        rated("GHSA-bbbb", "CRITICAL", until("1.4.2")),
        rated("GHSA-cccc", "", until("1.4.2")),
    )
    assert (found.severity, found.fixed) == ("critical", "1.4.2")
    (found,) = of_one_fault(rated("GHSA-aaaa", "LOW", until("1.4.10")), rated("GHSA-bbbb", "LOW", until("1.4.9")))
    assert found.fixed == "1.4.10"


@pytest.mark.parametrize(
    ("version", "found"),
    [("v2.3.3-k3s2", [("GO-2026-1", CONTAINERD, "2.3.4")]), ("v2.3.3-k3s1.36", [("GO-2026-1", CONTAINERD, "2.3.4")]),
     ("v2.3.4-k3s1.36", []), ("v2.3.4-k3s1", []), ("v2.3.3", [])],
)  # fmt: skip
def test_a_fork_of_k3s_counts_as_what_it_forks(folder: Path, version: str, found: list[Any]) -> None:
    fork = Component("go", "github.com/k3s-io/containerd/v2", version, replaces=CONTAINERD)
    assert named(folder, fork) == found


def test_a_fork_of_somebody_else_counts_by_its_own_name_alone(folder: Path) -> None:
    assert named(folder, Component("go", "example.org/containerd/v2", "v2.3.3-k3s1", replaces=CONTAINERD)) == []


def test_staging_modules_have_the_minor_version_of_kubernetes(folder: Path) -> None:
    name = "github.com/k3s-io/kubernetes/staging/src/k8s.io/api"
    (found,) = matches([Component("go", name, "v1.36.3-k3s1", replaces="k8s.io/api")], load(folder).advisories)
    assert (found.id, found.part) == ("GO-2026-4", "kubernetes")
    assert not named(folder, Component("go", name, "v1.36.4-k3s1", replaces="k8s.io/api"))


def test_kubernetes_is_not_older_than_its_release_for_being_a_fork(folder: Path) -> None:
    name = "github.com/k3s-io/kubernetes"
    assert not named(folder, Component("go", name, "v1.36.3-k3s1", replaces="k8s.io/kubernetes"))
    assert named(folder, Component("go", name, "v1.36.2-k3s1", replaces="k8s.io/kubernetes"))


def test_builds_of_k3s_are_told_apart(folder: Path) -> None:
    assert named(folder, Component("go", "github.com/k3s-io/k3s", "v1.36.3+k3s1"))
    assert not named(folder, Component("go", "github.com/k3s-io/k3s", "v1.36.3+k3s2"))


def test_other_systems_and_machines_are_not_ours(folder: Path) -> None:
    library = Component("go", "stdlib", "v1.26.8")
    assert named(folder, library, machine="amd64") == []
    assert [one[0] for one in named(folder, library, machine="ppc64le")] == ["GO-2026-8"]


def test_a_module_without_a_version_is_told_as_such(folder: Path, tmp_path: Path) -> None:
    devel = Component("go", RUNC, "(devel)")
    assert named(folder, devel) == []
    assert unknown([devel, Component("deb", "runc", "")]) == [devel]
    commit = Component("go", "stdlib", "devel go1.27-abcdef")
    (tmp_path / "one.json").write_text(json.dumps(entry("stdlib", until("1.20.0"))))
    known = load(tmp_path / "one.json").advisories
    assert matches([commit], known) == [] != matches([Component("go", "stdlib", "v1.19.0")], known)
    assert unknown([commit]) == [commit]


@pytest.mark.parametrize(
    ("name", "version", "replaces", "strange"),
    [
        ("github.com/k3s-io/containerd/v2", "v2.3.3-k3s1.36", CONTAINERD, False),
        ("github.com/k3s-io/containerd/v2", "v2.3.3-0.20261101000000-0123456789ab", CONTAINERD, True),
        ("example.org/runc", "v1.4.1", RUNC, True),
        (RUNC, "v1.4.1", RUNC, False),
        (RUNC, "v1.4.1", "", False),
        ("example.org/net", "v1.4.1", "golang.org/x/net", False),
    ],
)
def test_a_part_whose_fork_does_not_say_of_what_it_is_made_is_told_as_such(
    name: str, version: str, replaces: str, strange: bool
) -> None:
    one = Component("go", name, version, replaces=replaces)
    assert unknown([one]) == [one] * strange


def test_names_that_only_begin_alike_are_no_part() -> None:
    assert part_of("go.etcd.io/etcd/server/v3") == "etcd"
    assert part_of("go.etcd.io/etcdfoo") == ""
    assert part_of("github.com/containerd/containerd/api") == "containerd"


def test_a_file_and_an_archive_are_read_as_a_folder_is(folder: Path, tmp_path: Path) -> None:
    archive, single = tmp_path / "osv.zip", tmp_path / "all.json"
    with zipfile.ZipFile(archive, "w") as out:
        for one in folder.rglob("*.json"):
            out.write(one, str(one.relative_to(folder)))
    single.write_text(json.dumps([json.loads(one.read_text()) for one in sorted(folder.glob("*.json"))]))
    assert sorted(load(archive).advisories, key=str) == sorted(load(folder).advisories, key=str)
    assert load(single).advisories == load(folder).advisories


def test_the_data_says_up_to_when_it_tells(folder: Path, tmp_path: Path) -> None:
    told = load(folder).told
    assert told is not None and told.isoformat() == "2026-11-09T00:00:00+00:00"
    module = tmp_path / "vulndb@v0.0.0-20261105234957-e22db6528018"
    module.mkdir()
    (module / "one.json").write_text(json.dumps(entry(RUNC, until("1.0.0"), modified="0001-01-01T00:00:00Z")))
    told = load(module).told
    assert told is not None and told.isoformat() == "2026-11-05T23:49:57+00:00"
    assert load((module / "one.json").rename(tmp_path / "one.json")).told is None


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "holds no advisories of OSV"), ('{"a": 1}', "it has no id"), ("[]", "holds no advisory"),
     (json.dumps(entry(RUNC, until("1.0.0"), modified="soon")), "date that is none")],
)  # fmt: skip
def test_what_is_no_data_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"odd\.json.*{said}"):
        load(path)
    with pytest.raises(DataError, match=r"missing\.json cannot be read"):
        load(tmp_path / "missing.json")


def test_an_entry_without_a_date_is_an_entry_of_which_nobody_knows_the_age(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps({**entry(RUNC, until("1.0.0")), "modified": None}))
    found = load(tmp_path)
    assert len(found.advisories) == 1 and found.told is None


def test_of_a_tracker_beside_entries_the_older_of_both_counts(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(entry(RUNC, until("1.0.0"), modified="2026-11-20T00:00:00Z")))
    tracker = tmp_path / "tracker.json"
    tracker.write_text(json.dumps({"openssl": {"CVE-1": {"releases": {}}}}))
    os.utime(tracker, (1_600_000_000, 1_600_000_000))
    found = load(tmp_path)
    assert found.told is not None and found.told.year == 2020 and found.told_by == "the time of tracker.json"
    os.utime(tracker, (1_800_000_000, 1_800_000_000))
    assert load(tmp_path).told_by == "the newest entry"


def test_of_entries_about_go_and_about_debian_in_one_folder_the_older_count(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(entry(RUNC, until("1.0.0"), modified="2026-11-20T00:00:00Z")))
    debian = {**entry("openssl", until("1.0.0"), 2, modified="2026-10-01T00:00:00Z")}
    debian["affected"][0]["package"]["ecosystem"] = "Debian:12"
    (tmp_path / "two.json").write_text(json.dumps(debian))
    told = load(tmp_path).told
    assert told is not None and told.isoformat() == "2026-10-01T00:00:00+00:00"
    (tmp_path / "one.json").write_text(json.dumps(entry(RUNC, until("1.0.0"), modified="0001-01-01T00:00:00Z")))
    assert load(tmp_path).told is None


def encrypted(data: bytes) -> bytes:
    """An archive whose members say that they are encrypted."""
    at = data.find(b"PK\x01\x02") + 8
    return data[:6] + b"\x01" + data[7:at] + b"\x01" + data[at + 1 :]


def spoiled(data: bytes) -> bytes:
    at = data.find(b"GO-2026")
    return data[:at] + b"XX" + data[at + 2 :]


@pytest.mark.parametrize(("spoil", "said"), [(encrypted, "encrypted"), (spoiled, "Bad CRC-32")])
def test_an_archive_that_cannot_be_read_is_refused_by_name(tmp_path: Path, spoil: Any, said: str) -> None:
    path = tmp_path / "osv.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("one.json", json.dumps(entry(RUNC, until("1.0.0"))))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=rf"one\.json in .*osv\.zip cannot be read: .*{said}"):
        load(path)


def test_links_to_folders_are_followed_once_and_a_folder_that_cannot_be_read_is_no_empty_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "osv").symlink_to(folder)
    (folder / "back").symlink_to(linked)
    assert sorted(load(linked).advisories, key=str) == sorted(load(folder).advisories, key=str)

    def refused(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match=r"linked cannot be read: Permission denied"):
        load(linked)


def test_what_is_no_regular_file_or_nested_without_end_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DataError, match=r"pipe\.json is no regular file"):
        load(tmp_path)
    (tmp_path / "pipe.json").unlink()
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"deep\.json holds no advisories"):
        load(tmp_path)


def test_no_network_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert named(folder, Component("go", RUNC, "v1.0.0"))
