"""The pytest plugin of `casemate prove`: it names each attack as it ends, and writes what all of them found.

An attack names the controls it proves with `@pytest.mark.control(ID, ...)`, and the machines it attacks by its
fixtures. A skipped attack is not evaluated, with the code that stands before the colon of its reason; it never counts
as a pass.

Attacks that look at each host by itself run on different hosts side by side: a process for each host is a lane. Those
that take several hosts are one lane beside them. What must not be disturbed runs after all of them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from casemate.report.findings import STATUSES
from module_utils.casemate.core.legible import shown

LANE = "CASEMATE_PROVE_LANE"
"""Variable of the environment that names the host that a process attacks; tests/behaviour/conftest.py reads it, too."""
CONNECTIONS = "ANSIBLE_SSH_CONTROL_PATH_DIR"
"""Ansible's variable for the folder of its open connections; tests/behaviour/conftest.py tells testinfra of it."""
LISTED = "CASEMATE_PROVE_INVENTORY"
"""Variable that names a file with what `ansible-inventory --list` says of the inventory."""
GROUPS = ("k3s_server", "k3s_agent")
TOGETHER = "*"
"""The lane of the attacks that take several hosts."""
LAST = "!"
"""The lane of the attacks that must not be disturbed. Both are no names of hosts: Ansible takes them for patterns."""
GATE = "CASEMATE_PROVE_GATE"
"""Variable that names the open file in which the last lane waits for one byte: all others have ended."""
ENDINGS = {"pass": "withstood", "fail": "broken", "error": "error", "not_evaluated": "not evaluated"}
UNREACHABLE = re.compile(
    r"UNREACHABLE|ssh: connect to host|Failed to connect to the host|SshBackend object at \w+>, exit_status=255"
)
"""What is said where nobody comes in: 255 is ssh's own exit code (ssh(1), EXIT STATUS)."""
SAID_BY_SSH = re.compile(r"""_stderr=b(["'])(.*?)\1""")
NAMED = 3
"""Hosts of an attack that are named in its line; more are counted."""


def is_in(lane: str | None, fixtures: Iterable[str], undisturbed: bool) -> bool:
    """Whether an attack is one of a lane, by the fixtures that it uses; without lanes all are. Pure."""
    used = set(fixtures)
    its = LAST if undisturbed else TOGETHER if "nodes" not in used or used & {"server", "agent"} else None
    return lane is None or its == (lane if lane in (TOGETHER, LAST) else None)


def is_about(lane: str | None, host: str) -> bool:
    """Whether a lane attacks a host: that of a host only this one, all others every host. Pure."""
    return lane in (None, TOGETHER, LAST, host)


def targets(fixtures: Iterable[str], servers: list[str], agents: list[str]) -> list[str]:
    """Which hosts an attack is about, by the fixtures it uses (directly or through others). Pure."""
    used = set(fixtures)
    if "nodes" in used:
        return servers + agents
    hit = agents[:1] if "agent" in used else agents if "agents" in used else []
    hit = (servers[:1] if "server" in used else servers if "servers" in used else []) + hit
    return hit or servers[:1] or agents[:1]


def skipped(said: str) -> tuple[str, str]:
    """(code, reason) of a skip: pytest has text alone, so attacks write the code, a colon, and why. Pure."""
    said = said.removeprefix("Skipped: ").strip()
    code = re.match(r"([a-z0-9_]+): ", said)
    return (code[1], said) if code else ("skipped", f"skipped: {said or 'without a reason'}")


def said_by_ssh(text: str) -> str:
    """What ssh said, of the result of a command as testinfra shows it; the text itself where it is none. Pure."""
    found = SAID_BY_SSH.search(text)
    lines = [line for line in (found[2] if found else "").replace("\\r", "").split("\\n") if line]
    return "; ".join(lines) or text


class Recorder:
    """Collects what each attack says, and writes it when the session ends."""

    def __init__(self, path: str, lane: str | None = None) -> None:
        """Write to `path` in the end what the attacks of a lane found; without a lane, what all of them found."""
        self.path, self.lane = Path(path), lane
        self.seen: dict[str, dict[str, str]] = {}
        self.about: dict[str, tuple[tuple[str, ...], list[str]]] = {}
        self.servers: list[str] = []
        self.agents: list[str] = []
        self.dark: set[str] = set()
        self.show: Callable[[str], None] = print

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """No dots: each attack has a line of its own. It counts once, whatever its phases."""
        counts = report.when == "call" or not report.passed
        return (report.outcome if counts else "", "", "") if self.show is not print else None

    def pytest_collection_modifyitems(self, items: list[pytest.Item], config: pytest.Config) -> None:
        """Note which controls and fixtures each attack has, and leave out those of other lanes."""
        others = []
        for item in items:
            ids = [str(i) for mark in item.iter_markers("control") for i in mark.args]
            fixtures = list(getattr(item, "fixturenames", ()))
            self.about[item.nodeid] = (tuple(ids), fixtures)
            alone = item.get_closest_marker("undisturbed") is not None
            if not is_in(self.lane, fixtures, alone):
                others.append(item)
        if others:
            items[:] = [item for item in items if item not in others]
            config.hook.pytest_deselected(items=others)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note who is attacked."""
        self.servers, self.agents = (
            [name for name in names if is_about(self.lane, name)] for names in _groups(session)
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Wait for all other lanes in the last one, which is ready by then; with the run that started it, it ends."""
        if GATE in os.environ and not os.read(int(os.environ[GATE]), 1):
            raise KeyboardInterrupt

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Forget the attacks that nobody asked for."""
        for item in items:
            self.about.pop(item.nodeid, None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst phase of each attack."""
        if report.passed and report.when != "call":
            return
        said = code = ""
        if report.skipped and isinstance(report.longrepr, tuple):
            status, (code, said) = "not_evaluated", skipped(report.longrepr[2])
        else:
            status, code = ("pass", "") if report.passed else ("fail", "broken")
            crash = getattr(report.longrepr, "reprcrash", None)
            said = str(getattr(crash, "message", "") or "")
            if status == "fail" and (
                report.when != "call" or not said.startswith(("AssertionError", "assert", "Failed:"))
            ):
                unreachable = UNREACHABLE.search(said + str(report.longrepr))
                status, code = "error", "unreachable" if unreachable else "crash"
                said = said_by_ssh(said) if unreachable else said
            said = said.splitlines()[0][:300] if said else ""
        name = report.nodeid.partition("::")[2].partition("[")[0]
        claim = name.removeprefix("test_").replace("_", " ")
        before = self.seen.get(report.nodeid)
        if before is None or STATUSES.index(status) > STATUSES.index(before["status"]):
            self.seen[report.nodeid] = {
                "node": report.nodeid, "status": status, "code": code, "said": said, "claim": claim,
            }  # fmt: skip
            case = report.nodeid.partition("[")[2].rstrip("]")
            hosts = targets(self.about.get(report.nodeid, ((), []))[1], self.servers, self.agents)
            where = ", ".join(hosts) if len(hosts) <= NAMED else f"{len(hosts)} hosts"
            if code == "unreachable":  # none of its attacks says more than the first one
                if not self.dark.issuperset(hosts):
                    self.show(shown(f"{where}: unreachable: {said}"))
                self.dark.update(hosts)
                return
            line = f"{len(self.seen)}/{len(self.about)} {where or 'hosts'} {ENDINGS[status]}: {claim}"
            line += f" ({case})" if case else ""
            self.show(shown(line + (f": {said}" if said and status in ("fail", "error") else "")))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write what was seen: each outcome with its controls and hosts, and what the operator accepts there."""
        made = []
        for node, outcome in self.seen.items():
            controls, fixtures = self.about.get(node, ((), []))
            hosts = targets(fixtures, self.servers, self.agents)
            made.append({"outcome": outcome, "controls": list(controls), "hosts": hosts})
        about = {host: _machines(session).get_variables(host) for one in made for host in one["hosts"]}
        accepted = {host: list(known.get("casemate_accept_not_evaluated") or []) for host, known in about.items()}
        if made:
            inventory = [name for names in _groups(session) for name in names]
            self.path.write_text(json.dumps({"attacks": made, "accepted": accepted, "inventory": inventory}))


def _groups(session: pytest.Session) -> list[list[str]]:
    """The servers and the agents of the inventory."""
    inventory = _machines(session)
    return [list(inventory.get_hosts(group)) if group in inventory.inventory else [] for group in GROUPS]


def _machines(session: pytest.Session) -> Any:
    """testinfra's view of the inventory, which it reads once, and not at all where it has been listed for all lanes."""
    from testinfra.utils.ansible_runner import AnsibleRunner

    machines = AnsibleRunner.get_runner(session.config.getoption("ansible_inventory"))
    if "inventory" not in vars(machines) and LISTED in os.environ:
        machines.inventory = json.loads(Path(os.environ[LISTED]).read_text())
    return machines


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Record when `casemate prove` asks for it."""
    if os.environ.get("CASEMATE_PROVE"):
        recorder = Recorder(os.environ["CASEMATE_PROVE"], os.environ.get(LANE))
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            recorder.show = reporter.write_line
        config.pluginmanager.register(recorder, "casemate-recorder")
