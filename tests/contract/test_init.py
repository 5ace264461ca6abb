"""What `casemate init` writes passes the whole preflight of input as the command line runs it, in Ansible."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from casemate.cli import main
from casemate.run import runner

PLAY = [
    {
        "hosts": "k3s_server:k3s_agent",
        "gather_facts": False,
        "tasks": [{"casemate_preflight": {"host": False}, "any_errors_fatal": True}],
    }
]


@pytest.mark.parametrize(
    "arguments",
    [
        "--server 192.0.2.1",
        "--server 192.0.2.1 --server 192.0.2.2 --server 192.0.2.3 --agent 192.0.2.4 --agent 192.0.2.5 --user ops",
        "--server 2001:db8::1 --agent db=2001:db8::2 --admin-source 2001:db8::/64",
        "--server 192.0.2.1,2001:db8::1 --agent 192.0.2.2,2001:db8::2 --user john.doe",
        "--server node1.example.org=192.0.2.1 --agent Node2=192.0.2.2",
        "--server yes=192.0.2.1 --agent 007=192.0.2.2 --agent 1e3=192.0.2.3 --agent 2.5=192.0.2.4 --user off",
        "--server k3s-server=192.0.2.1 --agent localhost=192.0.2.2 --agent hosts=192.0.2.3 --agent vars=192.0.2.4",
    ],
)
def test_what_is_written_passes_preflight(arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["init", *arguments.split(), "--admin-source", "198.51.100.0/24"])
    assert done.exit_code == 0, done.output
    (tmp_path / "preflight.yml").write_text(yaml.safe_dump(PLAY))
    run = runner.play(str(tmp_path / "preflight.yml"), ("hosts.yml",))
    assert run.errors == []
    assert {host.name: host.message for host in run.hosts.values()} == dict.fromkeys(run.hosts, "")
    groups = yaml.safe_load(Path("hosts.yml").read_text())["all"]["children"]
    assert run.results.keys() == {name for group in groups.values() for name in group["hosts"]}
    assert all("invalid" not in warning.lower() for warning in run.warnings)
