"""`casemate revert`: what it says of each host, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from casemate.cli.app import main
from casemate.run import runner
from casemate.run.runner import Host, Run


def typed(monkeypatch: pytest.MonkeyPatch, *hosts: Host, plan: bool = False) -> tuple[int, list[str]]:
    """Exit code and lines of a revert of hosts that ended so."""
    run = Run(settled=True)
    run.hosts.update({host.name: host for host in hosts})

    def played(*_: Any, check: bool) -> Run:
        assert check is plan
        return run

    monkeypatch.setattr(runner, "play", played)
    done = CliRunner().invoke(main, ["revert", "-i", "a,", *(["--plan"] if plan else [])])
    return done.exit_code, done.output.splitlines()


DONE: dict[str, Any] = {"back": ["/etc/one"], "stay": {"/etc/two": "somebody has changed it"}}


def test_what_goes_back_and_what_stays_is_said_of_each_host(monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = typed(monkeypatch, Host("a", reverted=DONE), Host("b"))
    assert code == 0
    assert {"a: as it was before: /etc/one", "b: nothing to take back"} <= set(said)
    assert "a: stays, since somebody has changed it: /etc/two" in said
    assert "a: would go back: /etc/one" in typed(monkeypatch, Host("a", reverted=DONE), plan=True)[1]


def test_what_nobody_confirmed_is_not_said_to_be_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host undoes it by itself."""
    code, said = typed(monkeypatch, Host("a", "error", "a fresh login failed", reverted=DONE), Host("b", reverted=DONE))
    assert code == 1
    assert not any("a: as it was before" in line for line in said)
    assert "a fresh login failed" in " ".join(said)
    assert "b: as it was before: /etc/one" in said
