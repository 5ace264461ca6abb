"""The secret of which a person's codes are made (TOTP, RFC 6238): where it is given, and whether it may be used.

RFC 4226, R6: 128 bits or more. It is never shown, whatever is wrong with it.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GIVEN = ("totp_secret_file", "totp_secret")
LEAST, MOST = 26, 128
"""Characters of base32, five bits each."""
WORDS = (
    f"{LEAST} to {MOST} characters of base32, without blanks or =, in a file that its owner alone may read, or a vault"
)
MAKE = "head -c 20 /dev/urandom | base32"


class SecretError(ValueError):
    """Why a secret is not taken, without the secret, and what to do."""

    def __init__(self, why: str, remedy: str) -> None:
        """Keep what to do beside the reason."""
        super().__init__(why)
        self.remedy = remedy


def secret_of(person: Mapping[str, Any]) -> str:
    """The secret of somebody who is declared with one, in capitals. Raises SecretError."""
    secret = _given(person).strip().upper()
    if not re.fullmatch("[A-Z2-7]*", secret) or not secret:
        raise SecretError("it is not base32" if secret else "it is empty", f"Make one by {MAKE}")
    if not LEAST <= len(secret) <= MOST:
        raise SecretError(f"it has {len(secret)} characters", f"Make one by {MAKE}")
    try:
        base64.b32decode(secret + "=" * (-len(secret) % 8))
    except binascii.Error:
        raise SecretError("it ends in the middle of a byte", "Copy it anew, whole") from None
    return secret


def _given(person: Mapping[str, Any]) -> str:
    if "totp_secret" in person:
        return str(person["totp_secret"])
    path = Path(str(person.get("totp_secret_file") or "")).expanduser()
    try:
        with path.open(encoding="ascii") as file:
            found = os.fstat(file.fileno())
            text = file.read(MOST * 2)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SecretError(f"{path} cannot be read: {why}", "Correct the path or the file") from None
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise SecretError(f"others may read {path} (mode {stat.S_IMODE(found.st_mode):04o})", f"chmod 600 {path}")
    return text
