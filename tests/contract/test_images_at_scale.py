"""Five nodes with two hundred images are judged in one pass over each, and each image is scanned once for all of them.

The nodes only answer, as in the bench; what they answer is what the engine says on such a node.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from bench import simulated
from unit import running_images, scanning
from unit.fake_host import FakeHost

from casemate import ROOT
from casemate.catalogue import declarations
from module_utils.casemate.engine.run import run
from module_utils.casemate.k3s import images

NODES, IMAGES = 5, 200
KINDS = ("image_scans", "image_age", "image_updates")


def node(folder: Path, count: int) -> FakeHost:
    """A node that runs so many images, each in a pod of its own and by a tag of its own."""
    blobs: running_images.Blobs = {}
    named, pods = [], []
    for at in range(count):
        repository = f"registry.example.org/app-{at}"
        manifest, config = running_images.image(blobs, "2026-11-01T00:00:00Z", author=str(at))
        named += [(f"{repository}:1", manifest), (f"{repository}@{manifest}", manifest), (config, manifest)]
        pods.append(running_images.container(config, f"shop/web-{at}", asked=f"{repository}:1"))
    host = running_images.node(folder, blobs, named, pods, context={"today": "2026-11-29"})
    host.commands["systemctl show k3s.service"] = (0, "ActiveState=active\nMainPID=7\n", "")
    host.commands["systemctl show k3s-agent.service"] = (0, "ActiveState=inactive\n", "")
    return host


def judged(host: FakeHost, scans: dict[str, Any]) -> list[dict[str, Any]]:
    """What the engine finds of images on a node with a scanner, by these results of scans."""
    chosen = [c for c in declarations.controls()["k3s_node"] if c["setting"]["kind"] in KINDS and "vantage" not in c]
    given = {"wanted": True, "scans": scans, "answers": {}, "days": 365}
    made = [
        {
            **c,
            "needs": [],
            "setting": {**c["setting"], **{key: given[key] for key in given.keys() & c["setting"].keys()}},
        }
        for c in chosen
    ]
    return run({"k3s_node": made}, host, check=True).findings


def test_a_node_is_asked_for_its_images_once_however_many_there_are(tmp_path: Path) -> None:
    asked = {}
    for count in (1, IMAGES):
        host = node(tmp_path / str(count), count)
        found = {made["control"]: made for made in judged(host, {})}
        asked[count] = Counter(" ".join(argv) for argv in host.ran)
        assert len(found["IMAGES-RUNNING-SCANNED"]["observed"]) == count
        assert len(found["IMAGES-TAGS-CURRENT"]["observed"]) == count
    assert asked[1] == asked[IMAGES]
    runtime = [
        " ".join(argv)
        for argv in (images.CONTAINERS, images.containers_of(images.KUBELETS), images.images_of(images.KUBELETS))
    ]
    assert [asked[IMAGES][command] for command in runtime] == [1, 1, 1]


class Fleet:
    """Nodes that only answer, which all run these images, and a scanner that finds nothing in any."""

    def __init__(self, folder: Path, configs: dict[str, str]) -> None:
        """`configs`: digest of an image -> that of its configuration."""
        before, after, self.asked = folder / "before", folder / "after", folder / "asked"
        before.mkdir()
        self.inventory, self.folder = simulated.hosts(NODES, before), folder
        settings = scanning.settings(folder, built=datetime.datetime.now(datetime.UTC), configs=configs)
        self.results = settings.results
        given = json.loads(self.inventory.read_text())
        given["all"]["vars"]["casemate_image_scans"] = scanning.inventory(settings)
        self.inventory.write_text(json.dumps(given))
        self.before, self.after = before, after
        # Which module is run where is noted, and once all is scanned others answer.
        several = f'answers={before}; [ "$(ls {self.results} | wc -l)" -lt {IMAGES} ] || answers={after}'
        ssh = simulated.SSH.replace("answers=ANSWERS", several)
        noted = f'echo "$host $module" >>{self.asked}\ncase $module in\n'
        (before / "ssh").write_text(ssh.replace("case $module in\n", noted, 1))

    def answer(self, place: Path, findings: list[dict[str, Any]]) -> None:
        """Have each node answer with these findings."""
        place.mkdir(exist_ok=True)
        (place / "probe").write_bytes((self.before / "probe").read_bytes())
        made = {**simulated.settled([]), "findings": json.dumps(findings)}
        for kind in ("first", "server", "agent"):
            (place / f"{kind}.json").write_text(json.dumps(made))

    def casemate(self, *arguments: str) -> tuple[int, dict[str, int], str]:
        """(exit code, how often a module was run: `host module` -> times, what is said)."""
        argv = [sys.executable, "-m", "casemate.cli", *arguments, "-i", str(self.inventory)]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=300, cwd=self.folder, env=environment, check=False
        )
        lines = self.asked.read_text().splitlines() if self.asked.exists() else []
        self.asked.unlink(missing_ok=True)
        return done.returncode, Counter(lines), done.stdout + done.stderr


def test_each_node_is_passed_over_once_by_a_check_and_twice_by_a_scan_of_all_its_images(tmp_path: Path) -> None:
    host = node(tmp_path / "node", IMAGES)
    found = judged(host, {})
    digests = next(made["observed"] for made in found if made["kind"] == "image_scans")
    fleet = Fleet(tmp_path, {digest: one["config"] for digest, one in digests.items()})
    _, once, said = fleet.casemate("check", "--format", f"json:{tmp_path}/report.json")
    assert len(once) == NODES, said
    assert set(once.values()) == {1}, once

    passed = {digest: {"linux/amd64": {"state": "passed", "why": ""}} for digest in digests}
    fleet.answer(fleet.before, found)
    fleet.answer(fleet.after, judged(host, passed))
    _, twice, said = fleet.casemate("images", "scan")
    assert (twice.keys(), set(twice.values())) == (once.keys(), {2}), said
    assert said.count("scanning registry.example.org/app-") == IMAGES
    assert {path.name for path in fleet.results.iterdir()} == {f"{digest.replace(':', '-')}.json" for digest in digests}

    _, again, said = fleet.casemate("images", "scan")
    assert again == once, said
    assert "scanning" not in said
