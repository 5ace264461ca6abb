"""The lock of a run as a Lease of the cluster, which every server sees.

Source: Kubernetes, coordination.k8s.io/v1. A change names the version that was read, so of two runs one is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Optional

from ..host.run_lock import Record, parsed, refusal, taken
from .api import Api, unanswered

PATH = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
NAME, RECORD = "casemate", "casemate/record"


def record_of(lease: Mapping[str, Any]) -> Optional[Record]:
    """The record that a Lease carries."""
    return parsed((lease.get("metadata", {}).get("annotations") or {}).get(RECORD, ""))


def lease_of(record: Mapping[str, Any], version: str = "") -> dict[str, Any]:
    """The Lease that carries a record, as others read it too."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": NAME,
            "namespace": "kube-system",
            "annotations": {RECORD: json.dumps(record, sort_keys=True)},
            **({"resourceVersion": version} if version else {}),
        },
        "spec": {
            "holderIdentity": record["name"],
            "leaseDurationSeconds": max(1, int(record["seconds"])),
            "acquireTime": _moment(record["since"]),
            "renewTime": _moment(record["renewed"]),
        },
    }


class Lease:
    """The Lease behind an API server. Every call raises Unavailable where that does not answer."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def take(self, holder: Mapping[str, Any], seconds: float, gone: Sequence[str] = ()) -> tuple[str, Optional[Record]]:
        """Take or renew it. Return ("", the record), or why it is refused with whose it is."""
        for last in (False, True):
            lease = self._read()
            record, now = (record_of(lease) if lease else None), time.time()
            why = refusal(record, holder["run"], now, gone)
            if why:
                return why, record
            record = taken(record, holder, seconds, now)
            if self._write(lease, record):
                return "", record
            if last:
                return "another run has taken the lock of this cluster at this moment; nothing was changed", None
        raise AssertionError

    def free(self, run: str) -> bool:
        """Give back what `run` has; return whether it was its own."""
        lease = self._read()
        record = record_of(lease) if lease else None
        if lease is None or record is None or record["run"] != run:
            return False
        version = lease["metadata"]["resourceVersion"]
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"resourceVersion": version}}
        status, _ = self.api.call("DELETE", f"{PATH}/{NAME}", options)
        return status == 200

    def break_by(self, name: str, by: str) -> Optional[Record]:
        """End the lock of the holder of that name; return what it was, or None where nobody of that name has it."""
        lease = self._read()
        record = record_of(lease) if lease else None
        if lease is None or record is None or record["name"] != name or record.get("broken"):
            return None
        return record if self._write(lease, {**record, "broken": by}) else None

    def _read(self) -> Optional[dict[str, Any]]:
        status, answer = self.api.call("GET", f"{PATH}/{NAME}")
        if status not in (200, 404):
            raise unanswered(PATH, status, answer)
        return answer if status == 200 else None

    def _write(self, lease: Optional[Mapping[str, Any]], record: Mapping[str, Any]) -> bool:
        """Write it where nobody else has meanwhile; return whether it was."""
        if lease is None:
            status, answer = self.api.call("POST", PATH, lease_of(record))
        else:
            changed = lease_of(record, lease["metadata"]["resourceVersion"])
            status, answer = self.api.call("PUT", f"{PATH}/{NAME}", changed)
        if status not in (200, 201, 409):
            raise unanswered(PATH, status, answer)
        return status != 409


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
