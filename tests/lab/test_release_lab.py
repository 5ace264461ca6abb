"""What is released hardens fresh machines from where nothing of the project is: the wheel one, the collection another.

Each machine is a cluster of its own. Each operator has a home, what the README's lines install there, and an empty
folder with hosts.yml. Installing asks the package index, so this story has a network; its machines have none. Left out
is an upgrade from the version before, of which there is no wheel.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from contract import installing

from casemate import ROOT
from casemate_lab import for_tests, lab

pytestmark = pytest.mark.lab
NAME = "release"
MACHINES = {"wheel": "server1", "collection": "server2"}
VERBS = {
    "wheel": {"apply": ("casemate", "apply"), "check": ("casemate", "check")},
    "collection": {
        "apply": tuple(installing.PLAYBOOK.split()[:2]),
        "check": ("ansible-playbook", "casemate.k3s.check"),
    },
}
"""How it is installed -> verb -> what is typed before `-i hosts.yml`."""
ONE_NODE = ["k3s", "vantage"]
"""Why attacks of one node on another are not evaluated in a cluster of one."""


class Ended(NamedTuple):
    """How a command ended: its exit code, what it changed, and what it said."""

    code: int
    changed: int
    said: str


class Operator:
    """Somebody who has installed what is released, and knows one machine."""

    def __init__(self, how: str, folder: Path, release: installing.Built, known: dict[str, Any]) -> None:
        self.how, self.home, self.folder = how, folder, folder / "cluster"
        self.folder.mkdir(parents=True)
        self.scripts = self.install(release)
        machine = MACHINES[how]
        address = known["children"]["k3s_server"]["hosts"][machine]["ansible_host"]
        hosts = {"all": {"vars": {}, "children": {"k3s_server": {"hosts": {machine: {"ansible_host": address}}}}}}
        if how == "wheel":
            (network,) = known["vars"]["casemate_admin_sources"]
            self.run("casemate", "init", f"--server={machine}={address}", "--user=ops", f"--admin-source={network}")
            hosts = yaml.safe_load((self.folder / "hosts.yml").read_text())
        needed = {**known["vars"], **hosts["all"]["vars"]}
        for group in ("all", "k3s_server"):
            needed |= yaml.safe_load((ROOT / f"inventory/lab/group_vars/{group}.yml").read_text())
        needed["casemate_accept_not_evaluated"] = sorted({*needed["casemate_accept_not_evaluated"], *ONE_NODE})
        hosts["all"]["vars"] = needed
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(hosts))

    def install(self, release: installing.Built) -> Path:
        """Its scripts; of a checkout nothing is there."""
        if self.how == "wheel":
            return installing.with_wheel(release, self.home, self.home)
        scripts = installing.with_ansible(release, self.home, self.home)
        for line in installing.COLLECTION:
            installing.shell(release, line, self.home, scripts)
        assert self.run_of(scripts, "python", "-c", "import casemate").returncode == 1
        return scripts

    def run_of(self, scripts: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return installing.run(scripts, self.folder, *words, home=self.home, within=lab.enter(NAME))

    def run(self, *words: str) -> Ended:
        """Run a command in the folder."""
        done = self.run_of(self.scripts, *words)
        changed = sum(map(int, re.findall(r"\bchanged=(\d+)", done.stdout)))
        if self.how == "wheel" and (report := self.folder / "report/report.json").exists():
            changed = json.loads(report.read_text())["summary"]["changed"]
        return Ended(done.returncode, changed, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}")


Operators = dict[str, Operator]


def at_once(operators: Operators, verb: str) -> dict[str, Ended]:
    """Both do the same side by side, as their clusters have nothing in common."""

    def does(how: str) -> Ended:
        return operators[how].run(*VERBS[how][verb], "-i", "hosts.yml")

    with ThreadPoolExecutor() as threads:
        return dict(zip(operators, threads.map(does, operators), strict=True))


@pytest.fixture(scope="module")
def operators() -> Iterator[Operators]:
    with tempfile.TemporaryDirectory(prefix="release-") as made:  # short, for ssh's sockets lie in their homes
        folder = Path(made)
        release = installing.built(folder / "dist")
        with for_tests.machines(NAME, servers=2, agents=0, workdir=folder / "work") as inventory:
            known = yaml.safe_load(inventory.read_text())["all"]
            yield {how: Operator(how, folder / how, release, known) for how in MACHINES}


@pytest.fixture(scope="module")
def first(operators: Operators) -> dict[str, Ended]:
    return at_once(operators, "apply")


@pytest.fixture(scope="module")
def second(operators: Operators, first: dict[str, Ended]) -> dict[str, Ended]:
    return at_once(operators, "apply")


@pytest.fixture(scope="module")
def checked(operators: Operators, second: dict[str, Ended]) -> dict[str, Ended]:
    return at_once(operators, "check")


@pytest.mark.parametrize("how", MACHINES)
class TestBoth:
    def test_a_fresh_machine_is_hardened(self, first: dict[str, Ended], how: str) -> None:
        assert first[how].code == 0, first[how].said
        assert first[how].changed > 0

    def test_a_second_run_changes_nothing(self, second: dict[str, Ended], how: str) -> None:
        assert (second[how].code, second[how].changed) == (0, 0), second[how].said

    def test_check_finds_nothing(self, checked: dict[str, Ended], how: str) -> None:
        assert (checked[how].code, checked[how].changed) == (0, 0), checked[how].said


def test_both_machines_are_hardened_in_the_same_way(operators: Operators, checked: dict[str, Ended]) -> None:
    """The collection reports nothing of its own, so the wheel judges either machine."""
    wheel, found = operators["wheel"], {}
    for how, operator in operators.items():
        hosts = str(operator.folder / "hosts.yml")
        judged = wheel.run("casemate", "check", "--scan", "-i", hosts, f"--format=json:{how}")
        assert judged.code == 0, judged.said
        (host,) = json.loads((wheel.folder / how).read_text())["hosts"]
        found[how] = {one["control"]: (one["status"], one["code"]) for one in host["findings"]}
    assert found["wheel"] == found["collection"]
    assert found["wheel"]["SSH-ROOT-REFUSED"] == ("pass", "")


def test_the_collection_ends_locks(operators: Operators, checked: dict[str, Ended]) -> None:
    """By the README's own line, for a name that holds none."""
    (line,) = re.findall(r"`(ansible-playbook casemate.k3s.unlock [^`]*)`", (ROOT / "README.md").read_text())
    ended = operators["collection"].run(*line.replace("NAME", "nobody").split())
    assert (ended.code, ended.changed) == (0, 0), ended.said


def test_the_installed_attacks_prove_it_and_all_is_reported(operators: Operators, checked: dict[str, Ended]) -> None:
    wheel = operators["wheel"]
    proven = wheel.run("casemate", "prove", "-i", "hosts.yml", "--format=json:proven.json")
    assert proven.code == 0, proven.said
    (host,) = json.loads((wheel.folder / "proven.json").read_text())["hosts"]
    ends = {one["control"]: one["status"] for one in host["findings"]}
    assert (ends["SSH-ROOT-REFUSED"], ends["FW-API-LISTED"]) == ("pass", "pass")
    reports = ("--from=report/report.json", "--from=proven.json")
    merged = wheel.run("casemate", "report", *reports, "--format=json:all.json", "--format=html:all.html")
    assert merged.code == 0, merged.said
    (host,) = json.loads((wheel.folder / "all.json").read_text())["hosts"]
    assert len(host["findings"]) > len(ends)
    assert "<html" in (wheel.folder / "all.html").read_text()
