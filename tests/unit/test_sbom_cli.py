"""`casemate sbom`: what it writes, what it says, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from unit.test_inventory import GATHERED

from casemate.cli.app import main
from casemate.run import runner
from casemate.run.runner import Host, Run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """What Ansible is said to have found."""
    made = Run(settled=True)
    monkeypatch.setattr(runner, "play", lambda playbook, *_, **__: made if playbook == "components.yml" else None)
    return made


def typed(folder: Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["sbom", "-i", "a,", "-o", str(folder)])
    return done.exit_code, " ".join(done.output.split())


def test_a_document_is_written_for_each_host(run: Run, tmp_path: Path) -> None:
    run.hosts = {name: Host(name, gathered=GATHERED) for name in ("a", "b/c")}
    code, said = typed(tmp_path / "sbom")
    assert code == 0, said
    assert sorted(path.name for path in (tmp_path / "sbom").iterdir()) == ["a.cdx.json", "b%2Fc.cdx.json"]
    assert "4 Go modules, 1 Debian packages, 1 images, 3 files of K3s, 1 kernel, 1 release" in said
    document = json.loads((tmp_path / "sbom/a.cdx.json").read_text())
    assert document["metadata"]["component"]["name"] == "a"


def test_what_could_not_be_read_is_said_and_is_no_success(run: Run, tmp_path: Path) -> None:
    run.hosts = {"a": Host("a", gathered={**GATHERED, "images": [], "unread": {"images": "no runtime\x1b[31m"}})}
    code, said = typed(tmp_path)
    assert code == 2
    assert "not read a: images: no runtime" in said
    assert "\x1b" not in said
    assert (tmp_path / "a.cdx.json").is_file()


@pytest.mark.parametrize("told", [{}, {"os": 7}, {**GATHERED, "files": 7}, {**GATHERED, "os": [], "unread": []}])
def test_a_host_that_says_nothing_of_use_gets_no_document(told: dict[str, Any], run: Run, tmp_path: Path) -> None:
    run.hosts = {"a": Host("a", gathered=told), "b": Host("b", gathered=GATHERED)}
    code, said = typed(tmp_path)
    assert code == 1, said
    assert [path.name for path in tmp_path.iterdir()] == ["b.cdx.json"]


def test_an_unreachable_host_stops_no_other(run: Run, tmp_path: Path) -> None:
    run.hosts = {"a": Host("a", "unreachable", "no route"), "b": Host("b", gathered=GATHERED)}
    code, said = typed(tmp_path)
    assert code == 3
    assert "a: no route" in said
    assert [path.name for path in tmp_path.iterdir()] == ["b.cdx.json"]


def test_without_hosts_it_says_so(run: Run, tmp_path: Path) -> None:
    code, said = typed(tmp_path)
    assert code == 1
    assert "no host of k3s_server or k3s_agent" in said
