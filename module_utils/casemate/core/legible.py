"""Text of strangers made fit to be shown: file names, output of programs, comments, names of objects.

Whatever a host says may hold bytes that are no UTF-8 (Python keeps them as lone surrogates), control characters,
escape sequences of terminals and marks that reorder or hide what a reader sees. JSON, HTML and XML refuse some of
them, terminals obey others. They are shown by their codes, so that a reader still sees which file is meant.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import unicodedata
from collections.abc import Mapping
from typing import Any, Dict

BYTES = range(0xDC80, 0xDD00)
"""The surrogates by which Python keeps the bytes 0x80 to 0xFF of what is no UTF-8 (PEP 383)."""
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of what has no shape of its own: controls, formats (bidirectional marks), surrogates, breaks."""
_KEY = os.urandom(16)


def legible(value: Any) -> Any:
    """A value with every text in it, keys too, as `shown`; what is no text stays as it is.

    A mapping that stands in it several times is looked at once, and stands in what comes out as often.
    """
    return _legible(value, {})


def _legible(value: Any, done: Dict[int, Dict[Any, Any]]) -> Any:
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, dict):
        if id(value) not in done:
            done[id(value)] = {_legible(key, done): _legible(one, done) for key, one in value.items()}
        return done[id(value)]
    if isinstance(value, (list, tuple)):
        return [_legible(one, done) for one in value]
    return value


def shown(text: str) -> str:
    """Text in which what has no shape of its own is its code, such as \\x1b or \\u202e; lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in "\n\t" or not _hidden(char) else _code(char) for char in text)


def _hidden(char: str) -> bool:
    # The last two of each plane of Unicode are no characters; XML refuses those of the first plane.
    return unicodedata.category(char) in HIDDEN or ord(char) & 0xFFFE == 0xFFFE


def _code(char: str) -> str:
    number = ord(char) - 0xDC00 if ord(char) in BYTES else ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def veiled(value: Any) -> Any:
    """A secret as a digest keyed for this process only: it shows whether two are equal, and nothing else."""
    if value is None or isinstance(value, bool):
        return value
    content = json.dumps(value, sort_keys=True, default=str).encode()
    return "hmac:" + hmac.new(_KEY, content, hashlib.sha256).hexdigest()[:16]


def public(setting: Mapping[str, Any]) -> dict[str, Any]:
    """A control's setting as it may be shown: what `sensitive` covers (true: its content, else keys) is veiled."""
    secret, shown_so = setting.get("sensitive"), dict(setting)
    if secret is True and "content" in setting:
        shown_so["content"] = veiled(setting["content"])
    elif isinstance(secret, list) and "options" in setting:
        shown_so["options"] = {
            key: value
            if key not in secret
            else [veiled(i) for i in value]
            if isinstance(value, list)
            else veiled(value)
            for key, value in setting["options"].items()
        }
    return shown_so
