"""What a command costs."""

from __future__ import annotations

import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, and seconds of the controller's CPUs."""

    wall: float
    cpu: float


def measure(command: Sequence[str], repeat: int = 1, codes: Sequence[int] = (0,)) -> Cost:
    """The median cost of a command; exits when it ends with another code."""
    costs = []
    for _ in range(repeat):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode not in codes:
            sys.exit(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        costs.append(Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return Cost(statistics.median(c.wall for c in costs), statistics.median(c.cpu for c in costs))
