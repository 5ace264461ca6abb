"""What the kernel answers about audit."""

from __future__ import annotations

import errno
import struct

from module_utils.casemate.host import audit


def message(sort: int, body: bytes) -> bytes:
    return audit.HEADER.pack(audit.HEADER.size + len(body), sort, 0, 1, 0) + body


def test_a_status_and_a_refusal_are_read() -> None:
    assert audit.answered(message(audit.GET, struct.pack("=10I", 0, 2, *[0] * 8))) == audit.Status(audit.LOCKED)
    refused = audit.answered(message(audit.ERROR, struct.pack("=i", -errno.EPERM)))
    assert "not permitted" in refused.lacks and not refused.enabled


def test_this_machine_is_asked() -> None:
    seen = audit.status()
    assert seen.enabled in (0, 1, 2) and isinstance(seen.lacks, str)
