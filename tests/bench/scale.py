"""What hosts cost the controller, measured with simulated ones: a check beside `ansible -m ping` of the same hosts.

What is compared is CPU, which others on this machine change little; the clock matters for the largest number alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from bench import simulated
from bench.costs import Cost, measure

FEW, SOME, MANY = 10, 50, 500
RATIO = 2.0
"""Of the controller's CPU for a check to that of a ping, at most."""
FLAT = 1.1
"""Of the ratio for SOME hosts to that for FEW, at most."""
MINUTES = 4
"""In which MANY hosts are judged and reported, at most."""


TIMES = 3
"""How often what is compared is measured."""


def pair(count: int, times: int = 1) -> tuple[Cost, Cost]:
    """What a check of so many hosts costs, with its default reports, and what a ping of them costs."""
    with tempfile.TemporaryDirectory() as folder:
        inventory = str(simulated.hosts(count, Path(folder)))
        formats = [part for name in ("json", "html") for part in ("--format", f"{name}:{folder}/report.{name}")]
        ping = measure(["ansible", "-i", inventory, "all", "-m", "ansible.builtin.ping"], times)
        return measure(["casemate", "check", "-i", inventory, *formats], times, codes=(0, 2)), ping


def main() -> int:
    """Measure as it is where Casemate is installed: Python has compiled each module, and keeps that."""
    os.environ.setdefault("ANSIBLE_CONFIG", str(Path(__file__).parents[2] / "ansible.cfg"))
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as kept:
        os.environ["PYTHONPYCACHEPREFIX"] = kept
        pair(simulated.SERVERS + 1)
        return judge()


def judge() -> int:
    """Measure, print and return 0 when every goal is reached."""
    ratios, check = {}, Cost(0, 0)
    for count in (FEW, SOME, MANY):
        check, ping = pair(count, 1 if count == MANY else TIMES)
        ratio = check.cpu / ping.cpu
        goal = ""
        if count != MANY:
            ratios[count] = ratio
            goal = f"(goal {RATIO}: {'ok' if ratio <= RATIO else 'over the goal'})   "
        print(
            f"check of {count:3} simulated hosts: controller CPU {check.cpu:6.1f} s ÷ ping {ping.cpu:5.1f} s = "
            f"{ratio:.2f}  {goal}on the clock {check.wall:.0f} s",
            flush=True,
        )
    growth, minutes = ratios[SOME] / ratios[FEW], check.wall / 60
    print(f"from {FEW} to {SOME} hosts the ratio grows by {growth:.2f}  (goal {FLAT})")
    print(f"{MANY} hosts judged and reported in {minutes:.1f} minutes on {os.cpu_count()} CPUs  (goal {MINUTES})")
    print(f"load of this machine: {os.getloadavg()[0]:.1f}")
    return 0 if max(ratios.values()) <= RATIO and growth <= FLAT and minutes <= MINUTES else 2


if __name__ == "__main__":
    sys.exit(main())
