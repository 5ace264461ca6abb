"""Attack real hosts with the tests of `tests/behaviour` and turn what withstood into findings."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from casemate import ROOT, catalogue
from casemate.prove import recorder
from casemate.report.findings import STATUSES, host_entry
from casemate.run import runner, scratch
from module_utils.casemate.core import waiver
from module_utils.casemate.core.finding import Finding, finding

INVENTORY = ROOT / "inventory" / "example" / "hosts.yml"
UNREACHABLE_SAID = "the attacks could not reach this host over SSH"
NO_ATTACK = 5
ENDED = {2: "was interrupted", 3: "broke down", 4: "was called wrongly", NO_ATTACK: "found no attack to run"}
AT_ONCE = 8
"""Lanes that run side by side."""


def attack(
    inventories: tuple[str, ...], limit: str | None, arguments: tuple[str, ...], verbose: bool
) -> tuple[list[dict[str, Any]], dict[str, list[str]], str]:
    """Run the attacks; return hosts as a report has them, the accepted reason codes, and what went wrong."""
    added_up = runner.play("waivers.yml", inventories or (str(INVENTORY),), limit)
    if added_up.errors:
        return [], {}, "; ".join(["the waivers cannot be read", *added_up.errors])
    with scratch.folder() as private:
        environment = {**os.environ, **runner.environment()}
        try:
            inventory = _inventory(inventories, limit, Path(private), environment)
        except subprocess.CalledProcessError as refused:
            return [], {}, f"the inventory cannot be read: {str(refused.stderr).strip()}"
        terse = () if verbose else ("-q", "--no-header", "--no-summary", "--tb=no", "-W", "ignore")
        command = [
            sys.executable, "-m", "pytest", "-p", recorder.__name__, "-p", "no:cacheprovider", *terse,
            f"--ansible-inventory={inventory}", "tests/behaviour", *arguments,
        ]  # fmt: skip
        trouble, read = run_lanes(command, environment, list(added_up.results), Path(private), verbose)
    if trouble:
        return [], {}, f"pytest {trouble}"
    accepted = {host: codes for one in read for host, codes in one["accepted"].items()}
    if any(host not in added_up.results for host in accepted):
        return [], {}, "the waivers cannot be read"
    hosts, today = judged(read), waiver.today_in_utc()
    for host in hosts:
        theirs = added_up.results[host["name"]]["waivers"] or {}
        host["findings"] = [waiver.excused(made, theirs.get(made["control"]), today) for made in host["findings"]]
    return hosts, accepted, ""


def run_lanes(
    command: list[str], environment: Mapping[str, str], hosts: list[str], folder: Path, verbose: bool
) -> tuple[str, list[dict[str, Any]]]:
    """Run pytest for each lane, at last for what must not be disturbed; (what went wrong, what each has written)."""
    codes: list[int] = []
    read: list[dict[str, Any]] = []
    running: list[subprocess.Popen[str]] = []

    def lane(name: str | None) -> None:
        results = folder / f"results{(name or '').encode().hex()}.json"  # so that any host's name is a file's name
        known = {**environment, "CASEMATE_PROVE": str(results), **({} if name is None else {recorder.LANE: name})}
        mixed = name is not None and name != recorder.LAST
        output = subprocess.PIPE if verbose and mixed else sys.stderr  # what is long is told whole
        with subprocess.Popen(command, cwd=ROOT, env=known, stdout=output, text=True) as process:
            running.append(process)
            printed = process.communicate()[0]
        if printed:
            print(printed, file=sys.stderr, flush=True)
        codes.append(process.returncode)
        if results.exists():
            read.append(json.loads(results.read_text()))

    single = len(hosts) < 2
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as lanes:
        try:
            list(lanes.map(lane, [] if single else [recorder.TOGETHER, *hosts]))
        except BaseException:
            lanes.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.send_signal(signal.SIGINT)  # it takes back what its attacks have made
            raise
    lane(None if single else recorder.LAST)
    ended = [code for code in codes if code in ENDED and (code != NO_ATTACK or not read)]
    if ended or not read:
        return ENDED.get(min(ended or codes), f"ended with {codes[-1]}"), []
    return "", read


def judged(read: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hosts as a report has them, in the inventory's order, of what the lanes have written. Pure."""
    attacks = [one for each in read for one in each["attacks"]]
    by_host: dict[str, dict[str, list[dict[str, str]]]] = {}
    dark: dict[str, str] = {}
    for attack in attacks:
        for host in attack["hosts"]:
            if attack["outcome"]["code"] == "unreachable":
                dark[host] = UNREACHABLE_SAID
                continue
            for control in attack["controls"]:
                by_host.setdefault(host, {}).setdefault(control, []).append(attack["outcome"])
    known = catalogue.load()
    return [
        host_entry(
            host,
            "unreachable" if host in dark else "ok",
            [conclude(known[control], ends) for control, ends in by_host.get(host, {}).items()],
            dark.get(host, ""),
        )
        for host in read[0]["inventory"]
        if host in by_host or host in dark
    ]


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


def conclude(control: Mapping[str, Any], attacks: list[dict[str, str]]) -> Finding:
    """One finding from every attack on a control: the worst counts, and each is evidence. Pure."""
    status = max((a["status"] for a in attacks), key=STATUSES.index)
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
