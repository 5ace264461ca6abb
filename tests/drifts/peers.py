"""What other tools say of drifts: AIDE, debsums, Lynis and kube-bench, each as its package or release installs it.

A tool names a drift when a line of its report, which it did not have before, holds the place. What it only counts, or
tells without a place, names nothing. Sources: aide(1), debsums(1), lynis(8), kube-bench's README.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from .drift import Drift

AIDE = "/var/lib/aide/aide.db"
LYNIS = "/var/log/lynis-report.dat"
KUBE_BENCH = "/opt/kube-bench"
"""Folder of a release of kube-bench: the program, and its `cfg`."""
PACKAGES = {"AIDE": "aide", "debsums": "debsums", "Lynis": "lynis"}
COMMANDS = {
    "AIDE": "aide --config=/etc/aide/aide.conf --check",
    "debsums": "debsums --all --changed --silent",
    "Lynis": "lynis audit system --quick --quiet --no-colors",
    "kube-bench": f"{KUBE_BENCH}/kube-bench run --config-dir {KUBE_BENCH}/cfg --benchmark k3s-cis-1.9"
    " --targets master,etcd,controlplane,node,policies",
}
Lines = set[str]


def ran(command: str) -> Lines:
    """What a tool prints. Its exit code says that it found something, which is no fault of it."""
    done = subprocess.run(command.split(), capture_output=True, check=False, timeout=1800)
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode != 127 and "command not found" not in text, text
    return set(text.splitlines())


def told(tool: str) -> Lines:
    """The lines of a tool's report: of Lynis that for machines, which lists more than its suggestions do; of kube-bench
    the checks that fail or warn."""
    said = ran(COMMANDS[tool])
    if tool == "Lynis":
        with open(LYNIS, encoding="utf-8", errors="replace") as report:
            return {line.strip() for line in report if not line.startswith(("report_datetime", "uptime_in"))}
    return {line for line in said if line.startswith(("[FAIL]", "[WARN]"))} if tool == "kube-bench" else said


class Peers:
    """The tools that are here, and what they say when nothing is planted."""

    def __init__(self) -> None:
        packages = [*PACKAGES.values(), "aide-common"]  # which has AIDE's rules
        subprocess.run(
            ["apt-get", "--yes", "--quiet", "--no-install-recommends", "install", *packages],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, check=True, stdout=sys.stderr,
        )  # fmt: skip
        there = {"kube-bench": os.path.exists(f"{KUBE_BENCH}/kube-bench")}
        ran("aide --config=/etc/aide/aide.conf --init")
        os.replace(f"{AIDE}.new", AIDE)
        self.base = {tool: told(tool) for tool in COMMANDS if there.get(tool, True)}
        self.new = dict.fromkeys(self.base, 0)
        """Of each tool, how many lines of its reports are new while something is planted."""

    def names(self, drifts: Iterable[Drift]) -> dict[str, dict[str, bool]]:
        """Of drifts that are planted now: place -> tool -> whether it names it."""
        texts = {}
        for tool, before in self.base.items():
            new = told(tool) - before
            self.new[tool] += len(new)
            texts[tool] = "\n".join(sorted(new))
        return {one.place: {tool: is_named(one, text) for tool, text in texts.items()} for one in drifts}

    def described(self) -> list[dict[str, Any]]:
        """Name, version, command and number of new lines of each tool."""
        versions = {tool: " ".join(ran(f"dpkg-query --show {package}")) for tool, package in PACKAGES.items()}
        if "kube-bench" in self.base:  # one that was built without a version says nothing
            versions["kube-bench"] = " ".join(ran(f"{KUBE_BENCH}/kube-bench version")).strip() or "not told"
        return [
            {"tool": tool, "version": versions[tool], "command": COMMANDS[tool], "new": new}
            for tool, new in self.new.items()
        ]


def is_named(drift: Drift, text: str) -> bool:
    """Whether a text holds one of the places of a drift, and not only as the beginning of another."""
    return any(re.search(rf"(?<![\w/.-]){re.escape(place)}(?![\w/-])", text) for place in drift.places)
