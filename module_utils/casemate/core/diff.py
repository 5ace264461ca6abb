"""How a difference is shown to people: texts line by line, other values as `key: value` lines. Pure."""

from __future__ import annotations

import json
from typing import Any, Tuple

Pair = Tuple[str, str]
"""What is there, and what is demanded."""
SHOWN = 100_000
"""Characters of a text in a diff; Ansible leaves out what is larger, too."""


def of_texts(before: str, after: str) -> Pair:
    """Two texts as they are; one that is too long, or no text, is told instead."""
    return _short(before), _short(after)


def of_values(before: Any, after: Any) -> Pair:
    """Two values of any sort, one line for each key or item."""
    return _short(_lines(before)), _short(_lines(after))


def _lines(value: Any) -> str:
    if isinstance(value, dict) and value:
        lines = [f"{key}: {_word(value[key])}" for key in sorted(value)]
    else:
        lines = [_word(part) for part in (value if isinstance(value, list) else [value])]
    return "".join(f"{line}\n" for line in lines)


def _word(part: Any) -> str:
    return part if isinstance(part, str) else json.dumps(part, sort_keys=True, default=str)


def _short(text: str) -> str:
    if "\0" in text:
        return "(not text)\n"
    return text if len(text) <= SHOWN else f"({len(text)} characters, not shown)\n"
