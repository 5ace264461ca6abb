"""What other tools say of drifts: AIDE, debsums, Lynis and kube-bench, each as its package or release installs it.

A tool names a drift when a line of its report, which it did not have before, holds the place. What it only counts, or
tells without a place, names nothing. Sources: aide(1), debsums(1), lynis(8), kube-bench's README.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable

from .drift import Drift

AIDE = "/var/lib/aide/aide.db"
LYNIS = "/var/log/lynis-report.dat"
KUBE_BENCH = "/opt/kube-bench"
"""Folder of a release of kube-bench: the program, and its `cfg`."""
BENCHMARK = ("--benchmark", "k3s-cis-1.9", "--targets", "master,etcd,controlplane,node,policies")
Lines = set[str]


def ran(*argv: str) -> Lines:
    """What a tool prints. Its exit code says that it found something, which is no fault of it."""
    done = subprocess.run(argv, capture_output=True, check=False, timeout=1800)
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode != 127 and "command not found" not in text, text
    return set(text.splitlines())


def aide() -> Lines:
    """Every entry of its default rules that was added, removed or changed since its database was made."""
    return ran("aide", "--config=/etc/aide/aide.conf", "--check")


def debsums() -> Lines:
    """Every changed file of a package, configuration too."""
    return ran("debsums", "--all", "--changed", "--silent")


def lynis() -> Lines:
    """Its report for machines, with what it lists, and not only its suggestions."""
    ran("lynis", "audit", "system", "--quick", "--quiet", "--no-colors")
    with open(LYNIS, encoding="utf-8", errors="replace") as report:
        return {line.strip() for line in report if not line.startswith(("report_datetime", "uptime_in"))}


def kube_bench() -> Lines:
    """Every check that fails or warns."""
    said = ran(f"{KUBE_BENCH}/kube-bench", "run", "--config-dir", f"{KUBE_BENCH}/cfg", *BENCHMARK)
    return {line for line in said if line.startswith(("[FAIL]", "[WARN]"))}


TOOLS: dict[str, Callable[[], Lines]] = {"AIDE": aide, "debsums": debsums, "Lynis": lynis, "kube-bench": kube_bench}


class Peers:
    """The tools that are here, and what they say when nothing is planted."""

    def __init__(self) -> None:
        ran("apt-get", "--yes", "--quiet", "--no-install-recommends", "install", "aide", "debsums", "lynis")
        there = {"kube-bench": os.path.exists(f"{KUBE_BENCH}/kube-bench")}
        self.tools = {name: tool for name, tool in TOOLS.items() if there.get(name, True)}
        ran("aide", "--config=/etc/aide/aide.conf", "--init")
        os.replace(f"{AIDE}.new", AIDE)
        self.base = {name: tool() for name, tool in self.tools.items()}

    def names(self, drifts: Iterable[Drift]) -> dict[str, dict[str, bool]]:
        """Of drifts that are planted now: place -> tool -> whether it names it."""
        new = {name: "\n".join(tool() - self.base[name]) for name, tool in self.tools.items()}
        return {one.place: {name: is_named(one, text) for name, text in new.items()} for one in drifts}


def is_named(drift: Drift, text: str) -> bool:
    """Whether a text holds one of the places of a drift, and not only as the beginning of another."""
    return any(re.search(rf"(?<![\w/.-]){re.escape(place)}(?![\w/-])", text) for place in drift.places)
