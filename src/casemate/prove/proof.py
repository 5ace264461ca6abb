"""Attack real hosts with the tests of `tests/behaviour` and turn what withstood into findings.

This module is also the pytest plugin that does the turning: an attack names the controls it proves with
`@pytest.mark.control(ID, ...)`, and the machines it attacks by its fixtures. A skipped attack is not evaluated,
with the code that stands before the colon of its reason; it never counts as a pass.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from casemate import ROOT, catalogue
from casemate.report.findings import SEVERITY, host_entry
from casemate.run import runner, scratch
from module_utils.casemate.core import waiver
from module_utils.casemate.core.finding import Finding, finding
from module_utils.casemate.core.legible import shown

INVENTORY = ROOT / "inventory" / "example" / "hosts.yml"
ENDINGS = {"pass": "withstood", "fail": "broken", "error": "error", "not_evaluated": "not evaluated"}
UNREACHABLE = re.compile(r"UNREACHABLE|ssh: connect to host|Failed to connect to the host")
UNREACHABLE_SAID = "the attacks could not reach this host over SSH"
NAMED = 3
"""Hosts of an attack that are named in its line; more are counted."""
ENDED = {2: "was interrupted", 3: "broke down", 4: "was called wrongly", 5: "found no attack to run"}


def attack(
    inventories: tuple[str, ...], limit: str | None, arguments: tuple[str, ...], verbose: bool
) -> tuple[list[dict[str, Any]], dict[str, list[str]], str]:
    """Run the attacks; return hosts as a report has them, the accepted reason codes, and what went wrong."""
    with scratch.folder() as private:
        results = Path(private) / "results.json"
        environment = {**os.environ, **runner.environment(), "CASEMATE_PROVE": str(results)}
        try:
            inventory = _inventory(inventories, limit, Path(private), environment)
        except subprocess.CalledProcessError as refused:
            return [], {}, f"the inventory cannot be read: {str(refused.stderr).strip()}"
        terse = () if verbose else ("-q", "--no-header", "--no-summary", "--tb=no", "-W", "ignore")
        command = [
            sys.executable, "-m", "pytest", "-p", __name__, "-p", "no:cacheprovider", *terse,
            f"--ansible-inventory={inventory}", "tests/behaviour", *arguments,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=False)
        if not results.exists() or done.returncode in ENDED:
            return [], {}, f"pytest {ENDED.get(done.returncode, f'ended with {done.returncode}')}"
        read = json.loads(results.read_text())
    added_up = runner.play("waivers.yml", inventories or (str(INVENTORY),), limit)
    if added_up.errors or any(host["name"] not in added_up.results for host in read["hosts"]):
        return [], {}, "; ".join(["the waivers cannot be read", *added_up.errors])
    today = waiver.today_in_utc()
    for host in read["hosts"]:
        theirs = added_up.results[host["name"]]["waivers"] or {}
        host["findings"] = [waiver.excused(made, theirs.get(made["control"]), today) for made in host["findings"]]
    return read["hosts"], read["accepted"], ""


def _inventory(inventories: tuple[str, ...], limit: str | None, folder: Path, environment: Mapping[str, str]) -> str:
    """One inventory for testinfra, which takes a single one and knows no limit."""
    given = [os.path.abspath(path) if os.path.exists(path) else path for path in inventories or (str(INVENTORY),)]
    if len(given) == 1 and not limit:
        return given[0]
    merged = folder / "inventory.yml"
    command = ["ansible-inventory", "--list", "--yaml", *(part for path in given for part in ("-i", path))]
    command += ["--limit", limit] if limit else []
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    merged.touch(0o600)
    merged.write_text(done.stdout)
    return str(merged)


def targets(fixtures: Iterable[str], servers: list[str], agents: list[str]) -> list[str]:
    """Which hosts an attack is about, by the fixtures it uses (directly or through others). Pure."""
    used = set(fixtures)
    if "nodes" in used:
        return servers + agents
    hit = agents[:1] if "agent" in used else agents if "agents" in used else []
    hit = (servers[:1] if "server" in used else servers if "servers" in used else []) + hit
    return hit or servers[:1] or agents[:1]


def conclude(control: Mapping[str, Any], attacks: list[dict[str, str]]) -> Finding:
    """One finding from every attack on a control: the worst counts, and each is evidence. Pure."""
    status = max((a["status"] for a in attacks), key=SEVERITY.index)
    decisive = list(dict.fromkeys(a["said"] for a in attacks if a["status"] == status and a["said"]))
    withstood = f"withstood {len(attacks)} attack{'s' if len(attacks) > 1 else ''}"
    observed = withstood if status == "pass" else "; ".join(decisive)
    return finding(
        control,
        status,
        next(a["code"] for a in attacks if a["status"] == status),
        expected="; ".join(dict.fromkeys(a["claim"] for a in attacks)),
        observed=None if status == "not_evaluated" else observed,
        reason="" if status == "pass" else (decisive or ["the attack succeeded"])[0],
        evidence="\n".join(cases([a["node"] for a in attacks])),
    )


def cases(nodes: list[str]) -> list[str]:
    """Test node ids with the cases of one test folded into a count. Pure."""
    tests = [node.partition("[")[0] for node in nodes]
    return [t + (f" ({tests.count(t)} cases)" if tests.count(t) > 1 else "") for t in dict.fromkeys(tests)]


def skipped(said: str) -> tuple[str, str]:
    """(code, reason) of a skip: pytest has text alone, so attacks write the code, a colon, and why. Pure."""
    said = said.removeprefix("Skipped: ").strip()
    code = re.match(r"([a-z0-9_]+): ", said)
    return (code[1], said) if code else ("skipped", f"skipped: {said or 'without a reason'}")


class Recorder:
    """Collects what each attack says, and writes it when the session ends."""

    def __init__(self, path: str) -> None:
        """Write to `path` in the end."""
        self.path = Path(path)
        self.seen: dict[str, dict[str, str]] = {}
        self.about: dict[str, tuple[tuple[str, ...], list[str]]] = {}
        self.servers: list[str] = []
        self.agents: list[str] = []
        self.show: Callable[[str], None] = print

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """No dots: each attack has a line of its own."""
        return (report.outcome, "", "") if self.show is not print else None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note which controls and fixtures each attack has."""
        for item in items:
            ids = [str(i) for mark in item.iter_markers("control") for i in mark.args]
            self.about[item.nodeid] = (tuple(ids), list(getattr(item, "fixturenames", ())))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note who is attacked."""
        inventory = _machines(session)
        self.servers, self.agents = (
            list(inventory.get_hosts(group)) if group in inventory.inventory else []
            for group in ("k3s_server", "k3s_agent")
        )

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
            said = said.splitlines()[0][:300] if said else ""
        name = report.nodeid.partition("::")[2].partition("[")[0]
        claim = name.removeprefix("test_").replace("_", " ")
        before = self.seen.get(report.nodeid)
        if before is None or SEVERITY.index(status) > SEVERITY.index(before["status"]):
            self.seen[report.nodeid] = {
                "node": report.nodeid, "status": status, "code": code, "said": said, "claim": claim,
            }  # fmt: skip
            case = report.nodeid.partition("[")[2].rstrip("]")
            hosts = targets(self.about.get(report.nodeid, ((), []))[1], self.servers, self.agents)
            where = ", ".join(hosts) if len(hosts) <= NAMED else f"{len(hosts)} hosts"
            told = f"{len(self.seen)}/{len(self.about)} {where or 'hosts'} {ENDINGS[status]}: {claim}"
            told += f" ({case})" if case else ""
            self.show(shown(told + (f": {said}" if said and status in ("fail", "error") else "")))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn what was seen into hosts with findings."""
        if not self.seen:
            return
        inventory, servers, agents = _machines(session), self.servers, self.agents
        by_host: dict[str, dict[str, list[dict[str, str]]]] = {}
        dark: dict[str, str] = {}
        for node, outcome in self.seen.items():
            controls, fixtures = self.about.get(node, ((), []))
            for host in targets(fixtures, servers, agents):
                if outcome["code"] == "unreachable":
                    dark[host] = UNREACHABLE_SAID
                    continue
                for control in controls:
                    by_host.setdefault(host, {}).setdefault(control, []).append(outcome)
        known = catalogue.load()
        hosts, accepted = [], {}
        for host in sorted({*by_host, *dark}, key=(servers + agents).index):
            values = inventory.get_variables(host)
            accepted[host] = list(values.get("casemate_accept_not_evaluated") or [])
            found = [conclude(known[control], attacks) for control, attacks in by_host.get(host, {}).items()]
            hosts.append(host_entry(host, "unreachable" if host in dark else "ok", found, dark.get(host, "")))
        self.path.write_text(json.dumps({"hosts": hosts, "accepted": accepted}))


def _machines(session: pytest.Session) -> Any:
    """testinfra's view of the inventory, which it reads once."""
    from testinfra.utils.ansible_runner import AnsibleRunner

    return AnsibleRunner.get_runner(session.config.getoption("ansible_inventory"))


def pytest_configure(config: pytest.Config) -> None:
    """Record when `casemate prove` asks for it."""
    if os.environ.get("CASEMATE_PROVE"):
        recorder = Recorder(os.environ["CASEMATE_PROVE"])
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            recorder.show = reporter.write_line
        config.pluginmanager.register(recorder, "casemate-recorder")
