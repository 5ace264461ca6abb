"""What `containerd config dump` prints: TOML with one key a line, as go-toml writes it. Python 3.9 reads no TOML."""

from __future__ import annotations

import re
from typing import Dict, Tuple

from ..host.text import split_lines

Table = Tuple[str, ...]
PART = re.compile(r"'([^']*)'|\"([^\"]*)\"|([A-Za-z0-9_-]+)")


def parse(text: str) -> Dict[Table, Dict[str, str]]:
    """Table -> key -> value, a text without its quotes; other values, lists too, as they are written."""
    found: Dict[Table, Dict[str, str]] = {(): {}}
    table: Table = ()
    for line in map(str.strip, split_lines(text)):
        header = re.fullmatch(r"\[{1,2}(.*?)\]{1,2}", line)
        setting = re.match(r"([A-Za-z0-9_-]+|'[^']*'|\"[^\"]*\") = (.*)", line)
        if setting:
            found[table][_plain(setting[1])] = _plain(setting[2])
        elif header:
            table = tuple(one or two or bare for one, two, bare in PART.findall(header[1]))
            found.setdefault(table, {})
    return found


def _plain(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
