"""The lock of a run where it stands: the file on a host first, then, on a server, the cluster's Lease."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from ..core.verdict import Unavailable
from ..host.machine import Host
from ..host.run_lock import Lock, Record
from .api import Api
from .run_lock_lease import Lease


def places(host: Host, lease: bool) -> Iterator[tuple[str, Lock | Lease]]:
    """Where the lock of this host stands: each place with what it is called."""
    yield "file", Lock(host.root)
    if lease:
        with contextlib.suppress(Unavailable):
            yield "lease", Lease(Api(host, timeout=5.0))


def hold(
    host: Host, holder: Mapping[str, Any], seconds: float, lease: bool, gone: Sequence[str] = ()
) -> tuple[str, Optional[Record]]:
    """Take or renew it in all places that can be had. Return why it is refused, and whose it is; else ("", None)."""
    for _, lock in places(host, lease):
        try:
            why, record = lock.take(holder, seconds, gone)
        except Unavailable:  # there is no API: the file is what there is
            continue
        if why:
            if record is None or record["run"] != holder["run"]:
                Lock(host.root).free(holder["run"])
            return why, record
    return "", None


def free(host: Host, run: str, lease: bool) -> None:
    """Give back what `run` has, wherever it has it."""
    for _, lock in places(host, lease):
        with contextlib.suppress(Unavailable):
            lock.free(run)
