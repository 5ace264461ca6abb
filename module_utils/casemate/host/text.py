"""Lines and words as the daemons of a host read them: Python's own ideas of both are wider.

`str.splitlines` also ends a line at a form feed, a vertical tab, U+0085 and U+2028, and `str.split` takes a no-break
space for white space: whoever writes one of them into a file would hide what follows, or show what no daemon sees.
"""

from __future__ import annotations

import re
from typing import List

SPACE = " \t\n\r\v\f"
"""White space in the C locale, isspace(3)."""


def split_lines(text: str) -> List[str]:
    """The lines of a file that is read with getline(3) or fgets(3): a newline ends them, nothing else does."""
    return text[: -1 if text.endswith("\n") else None].split("\n") if text else []


def systemd_lines(text: str) -> List[str]:
    r"""The lines of a file that systemd reads: `\n`, `\r`, NUL, or two different ones together end them."""
    found = re.split(r"\n\r?|\r\n?|\0", text)
    return found[: -1 if found[-1] == "" else None]


def split_words(line: str) -> List[str]:
    """The words of a line."""
    return re.findall(rf"[^{SPACE}]+", line)


def show(data: bytes | None) -> str:
    """Bytes as text for a diff."""
    return "" if data is None else data.decode("utf-8", "replace")
