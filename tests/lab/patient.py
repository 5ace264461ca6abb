"""New logins on machines whose sshd turns an address away for a while that failed too often: OpenSSH from 9.8 on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from typing import Any

PATIENCE, PAUSE = 120, 5
"""Seconds."""
TURNED_AWAY = "kex_exchange_identification"
"""What ssh says where the daemon hangs up before it has said who it is."""


def admitted(argv: Sequence[str], **given: Any) -> subprocess.CompletedProcess[Any]:
    """How a command of ssh ends, once sshd listens to this address; `given` is what subprocess.run takes."""
    end = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(argv, capture_output=True, check=False, **given)
        said = done.stderr if isinstance(done.stderr, str) else done.stderr.decode("utf-8", "replace")
        if TURNED_AWAY not in said or time.monotonic() > end:
            return done
        time.sleep(PAUSE)
