"""Attack real hosts with the tests of `tests/behaviour` and turn what withstood into findings."""

from __future__ import annotations

import concurrent.futures
import configparser
import contextlib
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

UNREACHABLE_SAID = "the attacks could not reach this host over SSH"
NO_ATTACK = 5
ENDED = {2: "was interrupted", 3: "broke down", 4: "was called wrongly", NO_ATTACK: "found no attack to run"}
AT_ONCE = 8
"""Lanes that run side by side."""


def attack(
    inventories: tuple[str, ...], limit: str | None, arguments: tuple[str, ...], verbose: bool
) -> tuple[list[dict[str, Any]], dict[str, list[str]], str]:
    """Run the attacks; return hosts as a report has them, the accepted reason codes, and what went wrong."""
    with scratch.folder() as private, concurrent.futures.ThreadPoolExecutor(1) as beside:
        adding_up = beside.submit(runner.play, "waivers.yml", inventories, limit)
        environment = {**os.environ, **runner.environment(private)}
        environment[recorder.CONNECTIONS] = connections(environment)
        try:
            inventory = _inventory(inventories, limit, Path(private), environment)
            hosts = _listed(inventory, Path(private), environment)
        except subprocess.CalledProcessError as refused:
            said = adding_up.result().errors or [str(refused.stderr).strip()]
            return [], {}, "; ".join(["the inventory cannot be read", *said])
        if not hosts:
            return [], {}, runner.NO_HOST
        terse = () if verbose else ("-qq", "--no-header", "--no-summary", "--tb=no", "-W", "ignore")
        command = [
            sys.executable, "-P", "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}",
            "-p", recorder.__name__, "-p", "no:cacheprovider", *terse,
            f"--ansible-inventory={inventory}", str(ROOT / "tests/behaviour"), *arguments,
        ]  # fmt: skip
        trouble, read = run_lanes(command, environment, hosts, Path(private), verbose)
        added_up = adding_up.result()
    if added_up.errors:
        return [], {}, "; ".join(["the waivers cannot be read", *added_up.errors])
    if trouble:
        return [], {}, f"pytest {trouble}"
    accepted = {host: codes for one in read for host, codes in one["accepted"].items()}
    if any(host not in added_up.results for host in accepted):
        why = (f"{', '.join(hosts)}: {message}" for message, hosts in added_up.failures())
        return [], {}, "; ".join(["the waivers cannot be read", *why])
    entries, today = judged(read), waiver.today_in_utc()
    for host in entries:
        theirs = added_up.results[host["name"]]["waivers"] or {}
        host["findings"] = [waiver.excused(made, theirs.get(made["control"]), today) for made in host["findings"]]
    return entries, accepted, ""


def run_lanes(
    command: list[str], environment: Mapping[str, str], hosts: list[str], folder: Path, verbose: bool
) -> tuple[str, list[dict[str, Any]]]:
    """Run pytest for each lane, at last for what must not be disturbed; (what went wrong, what each has written)."""
    codes: list[int] = []
    read: list[dict[str, Any]] = []
    running: list[subprocess.Popen[str]] = []
    waits, opens = os.pipe()

    def lane(name: str | None) -> None:
        results = folder / f"results{(name or '').encode().hex()}.json"  # so that any host's name is a file's name
        known = {**environment, "CASEMATE_PROVE": str(results), **({} if name is None else {recorder.LANE: name})}
        inherited = [waits] if name == recorder.LAST else []
        known.update((recorder.GATE, str(handle)) for handle in inherited)
        output = subprocess.PIPE if verbose and name is not None else sys.stderr  # what is long is told whole
        with subprocess.Popen(command, env=known, stdout=output, text=True, pass_fds=inherited) as process:
            running.append(process)
            printed = process.communicate()[0]
        if printed:
            print(printed, file=sys.stderr, flush=True)
        codes.append(process.returncode)
        if results.exists():
            read.append(json.loads(results.read_text()))

    several = [recorder.TOGETHER, *hosts]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE + 1) as lanes:
        try:
            last = lanes.submit(lane, recorder.LAST if len(hosts) > 1 else None)
            list(lanes.map(lane, several if len(hosts) > 1 else []))
            os.write(opens, b".")
            last.result()
        except BaseException:
            lanes.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.send_signal(signal.SIGINT)  # it takes back what its attacks have made
            raise
        finally:
            os.close(opens)  # who still waits then ends
            os.close(waits)
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


def connections(environment: Mapping[str, str]) -> str:
    """The folder in which Ansible keeps connections open, made as Ansible makes it.

    Without the folder testinfra logs in anew for each command. Source: ansible-doc -t connection ssh, control_path_dir.
    """
    settings = configparser.RawConfigParser()
    settings.read(environment["ANSIBLE_CONFIG"])
    settled = settings.get("ssh_connection", "control_path_dir", fallback="~/.ansible/cp")
    named = environment.get(recorder.CONNECTIONS) or str(settled)
    folder = ROOT / Path(os.path.expandvars(named)).expanduser()
    with contextlib.suppress(OSError):  # then each command has a connection of its own
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(folder)


def _inventory(inventories: tuple[str, ...], limit: str | None, folder: Path, environment: Mapping[str, str]) -> str:
    """One inventory for testinfra, which takes a single one and knows no limit; without any, that of ansible.cfg."""
    given = [os.path.abspath(path) if os.path.exists(path) else path for path in inventories]
    if len(given) == 1 and not limit:
        return given[0]
    merged = folder / "inventory.yml"
    command = ["ansible-inventory", "--list", "--yaml", *(part for path in given for part in ("-i", path))]
    command += ["--limit", limit] if limit else []
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    merged.touch(0o600)
    merged.write_text(done.stdout)
    return str(merged)


def _listed(inventory: str, folder: Path, environment: dict[str, str]) -> list[str]:
    """The nodes of the inventory, which is listed once for all lanes: each would take a second for it."""
    from testinfra.utils.ansible_runner import itergroup

    command = ["ansible-inventory", "--list", "-i", inventory]
    quiet = {**environment, "ANSIBLE_VERBOSITY": "0"}  # else it prints more than the list
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=True)
    listed = folder / "inventory.json"
    listed.touch(0o600)
    listed.write_text(done.stdout)
    environment[recorder.LISTED] = str(listed)
    known = json.loads(done.stdout)
    return list(dict.fromkeys(host for group in recorder.GROUPS for host in itergroup(known, group)))


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
