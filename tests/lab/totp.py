"""Codes of RFC 6238 as an application on a phone makes them, and logins with them at the pace that the module allows.

Sources: RFC 6238 (SHA-1, six digits, steps of thirty seconds), RFC 4226 (dynamic truncation).
"""

from __future__ import annotations

import base64
import hmac
import struct
import time

STEP = 30
TRIES = 3
"""How many the module takes in STEP seconds, right ones and wrong ones."""


def code(secret: str, step: int) -> str:
    """The code of one step since 1970."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    made = hmac.digest(key, struct.pack(">Q", step), "sha1")
    at = made[-1] & 15
    return f"{(int.from_bytes(made[at : at + 4], 'big') & 0x7FFFFFFF) % 10**6:06d}"


class Phone:
    """Makes codes, each once, and waits where the module would take no more.

    A code is made when it is typed, after every wait: one that waited is no longer right. A try counts from the end of
    its login, since nobody outside knows when the module saw it.
    """

    def __init__(self, secret: str) -> None:
        """Take the secret of somebody."""
        self.secret, self.steps, self.tries = secret.strip(), list[int](), list[float]()

    def next(self) -> str:
        """A code that is right and was not used yet; the module takes those of the step before and after, too."""
        while True:
            now = int(time.time() // STEP)
            fresh = [step for step in (now, now + 1, now - 1) if step not in self.steps]
            if fresh:
                self.steps.append(fresh[0])
                return code(self.secret, fresh[0])
            time.sleep(1)

    def again(self) -> str:
        """The code that was made last."""
        return code(self.secret, self.steps[-1])

    def wrong(self) -> str:
        """A code that is not right now or soon."""
        now = int(time.time() // STEP)
        near = {code(self.secret, now + by) for by in range(-3, 5)}
        return next(f"{number:06d}" for number in range(20) if f"{number:06d}" not in near)

    def wait(self) -> None:
        """Wait until one more try is taken."""
        latest = self.tries[-TRIES:]
        if len(latest) == TRIES:
            time.sleep(max(0, latest[0] + STEP + 1 - time.time()))

    def tried(self) -> None:
        """Count a try that has just ended."""
        self.tries.append(time.time())
