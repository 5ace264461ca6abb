"""`casemate advisories`: what it prints of programs on this machine, and its exit codes."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from casemate.cli.advisories import old
from casemate.cli.app import main
from casemate.supply.advisories import Data
from module_utils.casemate.formats import go_build
from module_utils.casemate.formats.go_build import Build, Module

RUNC, NET = "github.com/opencontainers/runc", "golang.org/x/net"
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
    (one,) = json.loads(done.stdout)["advisories"]
    assert done.exit_code == 2
    assert (one["id"], one["part"], one["fixed"], one["where"]) == (
        "GO-2026-0", "runc", "1.4.2", [f"{program}/runc"],
    )  # fmt: skip


def test_one_about_another_module_is_told_alone(tmp_path: Path, program: Path) -> None:
    done = run(program, "--data", data(tmp_path, net="0.2.0"), "--format", "json")
    assert done.exit_code == 0
    assert [one["id"] for one in json.loads(done.stdout)["advisories"]] == ["GO-2026-1"]


def test_a_part_without_a_version_is_no_pass(tmp_path: Path, program: Path) -> None:
    (program / "runc").write_text("(devel)")
    done = run(program, "--data", data(tmp_path), "--format", "json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["unknown_versions"][0]["module"] == RUNC


def test_old_data_is_no_pass(tmp_path: Path, program: Path) -> None:
    folder = data(tmp_path, modified="2020-01-01T00:00:00Z")
    done = run(program, "--data", folder, "--format", "json")
    assert done.exit_code == 2
    assert "2020-01-01" in json.loads(done.stdout)["stale"][0]


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
        (program, "--data", program / "busybox"),
        (Path(folder), "--data", folder),
    ):
        if arguments[0] == Path(folder):
            for one in Path(folder).iterdir():
                one.unlink()
        assert run(*arguments).exit_code == 1, arguments
