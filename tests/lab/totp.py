"""Codes of RFC 6238 as an application on a phone makes them.

Sources: RFC 6238 (SHA-1, six digits, steps of thirty seconds), RFC 4226 (dynamic truncation).
"""

from __future__ import annotations

import base64
import hmac
import struct
import time

STEP = 30
"""Seconds."""


def code(secret: str, step: int) -> str:
    """The code of one step since 1970."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    made = hmac.digest(key, struct.pack(">Q", step), "sha1")
    at = made[-1] & 15
    return f"{(int.from_bytes(made[at : at + 4], 'big') & 0x7FFFFFFF) % 10**6:06d}"


class Phone:
    """Makes codes when they are typed, since one that waited is no longer right."""

    def __init__(self, secret: str) -> None:
        """Take the secret of somebody."""
        self.secret, self.made = secret.strip(), ""

    def right(self) -> str:
        """The code of now; the module takes those of the step before and after, too."""
        self.made = code(self.secret, int(time.time() // STEP))
        return self.made

    def again(self) -> str:
        """The right code that was made last."""
        return self.made

    def wrong(self) -> str:
        """A code that is not right now or soon."""
        now = int(time.time() // STEP)
        near = {code(self.secret, now + by) for by in range(-3, 5)}
        return next(f"{number:06d}" for number in range(20) if f"{number:06d}" not in near)
