"""`casemate advisories`: what it prints of programs on this machine, and its exit codes."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from unit.test_inventory import GATHERED

from casemate import ROOT
from casemate.cli.app import main
from casemate.run import runner
from casemate.run.runner import Host, Run
from casemate.supply import release_contents
from casemate.supply.advisories import Data
from casemate.supply.advisory_policy import old
from casemate.supply.component import Component
from module_utils.casemate.formats import go_build
from module_utils.casemate.formats.go_build import Build, Module

RUNC, NET = "github.com/opencontainers/runc", "golang.org/x/net"
LOCK = ROOT / "roles/k3s_node/files/artifacts.lock.json"
TODAY = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a program `runc`, whose version is in its bytes, a link to it, and one that Go did not build."""

    def build(data: bytes) -> Build | None:
        version = data.decode()
        return Build("go1.26.8", RUNC, Module(RUNC, version), (Module(NET, "v0.1.0"),), {}) if version else None

    monkeypatch.setattr(go_build, "build", build)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "runc").write_text("v1.4.1")
    (folder / "busybox").write_text("")
    (folder / "link").symlink_to("runc")
    return folder


def data(tmp_path: Path, modified: str = TODAY, **fixed: str) -> str:
    for at, (name, version) in enumerate((("runc", RUNC), ("net", NET))):
        ranges = [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": fixed.get(name, "0.0.1")}]}]
        one = {"package": {"name": version, "ecosystem": "Go"}, "ranges": ranges}
        entry = {"id": f"GO-2026-{at}", "summary": f"hole in {name}", "modified": modified, "affected": [one]}
        (tmp_path / f"{name}.json").write_text(json.dumps(entry))
    folder = tmp_path / "osv"
    folder.mkdir()
    for name in ("runc", "net"):
        (tmp_path / f"{name}.json").rename(folder / f"{name}.json")
    return str(folder)


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["advisories", *map(str, arguments)])


def test_an_advisory_about_a_part_of_k3s_ends_in_2(tmp_path: Path, program: Path) -> None:
    done = run(program, "--data", data(tmp_path, runc="1.4.2"), "--format", "json")
    (one,) = json.loads(done.stdout)[0]["open"]
    assert done.exit_code == 2
    assert (one["id"], one["part"], one["fixed"], one["where"]) == (
        "GO-2026-0", "runc", "1.4.2", [f"{program}/runc"],
    )  # fmt: skip


def test_one_about_another_module_is_told_alone(tmp_path: Path, program: Path) -> None:
    done = run(program, "--data", data(tmp_path, net="0.2.0"), "--format", "json")
    assert done.exit_code == 0
    assert [one["id"] for one in json.loads(done.stdout)[0]["told"]] == ["GO-2026-1"]
    said = run(program, "--data", str(tmp_path / "osv"), "--all").stdout
    assert f"other: GO-2026-1: {NET} v0.1.0, fixed in 0.2.0: hole in net [{program}/runc]" in said
    assert "GO-2026-1" not in run(program, "--data", str(tmp_path / "osv")).stdout


def test_a_part_without_a_version_is_no_pass(tmp_path: Path, program: Path) -> None:
    (program / "runc").write_text("(devel)")
    done = run(program, "--data", data(tmp_path), "--format", "json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)[0]["unknown_versions"][0]["name"] == RUNC


def test_old_data_is_no_pass(tmp_path: Path, program: Path) -> None:
    folder = data(tmp_path, modified="2020-01-01T00:00:00Z")
    done = run(program, "--data", folder, "--format", "json")
    assert done.exit_code == 2
    assert "2020-01-01" in json.loads(done.stdout)[0]["stale"][0]


def test_the_day_on_which_data_grows_old() -> None:
    now = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)
    path = Path("osv")
    assert not old(Data((), now - datetime.timedelta(days=14)), path, 14, now)
    assert "15 days are more than 14" in old(Data((), now - datetime.timedelta(days=15)), path, 14, now)
    assert "nobody can say how old" in old(Data((), None), path, 14, now)


def test_what_cannot_be_judged_is_misuse(tmp_path: Path, program: Path) -> None:
    folder = data(tmp_path)
    for arguments in (
        (program / "busybox", "--data", folder),
        (tmp_path / "none", "--data", folder),
        (program,),
        (program, "--data", folder, "-i", "a,"),
        (program, "--data", folder, "--release", program),
        (program, "--data", program / "busybox"),
        (Path(folder), "--data", folder),
    ):
        if arguments[0] == Path(folder):
            for one in Path(folder).iterdir():
                one.unlink()
        assert run(*arguments).exit_code == 1, arguments


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Two hosts that say what they are made of, and an inventory with data about runc."""
    made = Run(settled=True)
    monkeypatch.setattr(runner, "play", lambda playbook, *_, **__: made if playbook == "components.yml" else None)
    asked = {"data": [data(tmp_path, runc="1.4.2")], "lock": str(LOCK), "artifact_dir": "", "waivers": {}}
    shim: dict[str, Any] = {
        "go": "go1.26.8",
        "package": "",
        "main": None,
        "modules": [[RUNC, "v1.4.1", "", "", ""]],
        "settings": {},
    }
    runs = [*GATHERED["files"], {"path": "/data/bin/shim", "sha256": "d" * 64, "build": shim}]
    for name, files in (("old", runs), ("new", GATHERED["files"])):
        made.hosts[name] = Host(name, gathered={**GATHERED, "files": files, "asked": asked})
    return made


def test_each_host_is_compared_with_the_data_of_its_inventory(hosts: Run) -> None:
    done = run("-i", "a,")
    assert done.exit_code == 2
    said = " ".join(done.stdout.split())
    assert "old: 1 to answer for, 0 answered, 0 others GO-2026-0:" in said
    assert "new: 0 to answer for" in said
    hosts.hosts.pop("old")
    assert run("-i", "a,").exit_code == 0


def test_a_waiver_of_the_inventory_answers_and_is_told(hosts: Run) -> None:
    waiver = {"reason": "not reachable", "owner": "ops", "expires": "2999-01-01"}
    hosts.hosts["old"].gathered["asked"]["waivers"] = {"GO-2026-0": waiver}
    done = run("-i", "a,")
    assert done.exit_code == 0
    assert "[waived by ops until 2999-01-01: not reachable]" in done.stdout


def test_what_a_host_could_not_read_is_no_pass_but_for_images(hosts: Run) -> None:
    del hosts.hosts["old"]
    hosts.hosts["new"].gathered["unread"] = {"images": "no runtime"}
    assert run("-i", "a,").exit_code == 0
    hosts.hosts["new"].gathered["unread"] = {"packages": "no dpkg"}
    done = run("-i", "a,")
    assert done.exit_code == 2
    assert "not read: packages: no dpkg" in done.stdout


def test_what_an_odd_host_says_stops_no_other(hosts: Run) -> None:
    hosts.hosts["old"].gathered = {"asked": {}}
    hosts.hosts["gone"] = Host("gone", "unreachable", "no route")
    done = run("-i", "a,")
    assert done.exit_code == 1
    assert "new: 0 to answer for" in done.stdout


def test_hosts_without_data_are_misuse(hosts: Run) -> None:
    for host in hosts.hosts.values():
        host.gathered["asked"] = {**host.gathered["asked"], "data": []}
    done = run("-i", "a,")
    assert done.exit_code == 1
    assert "casemate_advisory_data" in done.output


def test_a_newer_release_at_hand_says_what_it_fixes(
    hosts: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {"v1.36.4+k3s1": "v1.4.2", "v1.36.2+k3s1": "v1.4.2", "v1.36.5+k3s1": "v1.4.1"}
    folders = []
    for version in contents:
        folders += ["--release", str(tmp_path / version)]
        (tmp_path / version).mkdir()
    monkeypatch.setattr(release_contents, "at_hand", lambda folder, *_: (
        folder.name, [Component("go", RUNC, contents[folder.name])]))  # fmt: skip
    done = run("-i", "a,", *folders, "--format", "json")
    assert [one["fixed_in_k3s"] for one in json.loads(done.stdout)[0]["open"]] == ["v1.36.4+k3s1"]
    assert "; K3s v1.36.4+k3s1 is without it" in run("-i", "a,", *folders).stdout
