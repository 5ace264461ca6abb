"""What a daemon of systemd takes from its main file and its drop-ins, in systemd's own order.

A later assignment wins, and an empty one takes back those before. Sources: systemd-analyze(1), systemd.syntax(7).
"""

from __future__ import annotations

import re
from typing import List, NamedTuple, Optional

from ..core.verdict import Unavailable
from ..host.machine import Host
from ..host.text import systemd_lines

FILE = re.compile(r"# (/\S.*)$")


class Assignment(NamedTuple):
    """A value, and the file and line that give it."""

    value: str
    place: str


def effective(config: str, section: str, key: str, host: Host) -> List[Assignment]:
    """Every assignment of a key that still counts, the last one last; `config` is such as systemd/journald.conf.

    Raises Unavailable where systemd does not tell.
    """
    found: List[Assignment] = []
    for one in _assignments(config, section, key, host):
        found = [*found, one] if one.value else []
    return found


def _assignments(config: str, section: str, key: str, host: Host) -> List[Assignment]:
    made: List[Assignment] = []
    path, number, here, begun = "", 0, "", ""
    for line in systemd_lines(_shown(config, host)):
        named = FILE.match(line)
        if named and _begins(named[1], config):
            path, number, here, begun = named[1], 0, "", ""
            continue
        number += 1
        text = line.strip()
        if not text or text[0] in "#;":
            continue
        if text.endswith("\\"):
            begun += text[:-1] + " "
            continue
        text, begun = begun + text, ""
        header = re.match(r"\[(.+)\]$", text)
        if header:
            here = header[1]
            continue
        name, equals, value = text.partition("=")
        if equals and here == section and name.strip() == key:
            made.append(Assignment(value.strip(), f"{path}:{number}"))
    return made


def _begins(path: str, config: str) -> bool:
    """Whether a comment is the line by which systemd says which file comes next, and none that stands in a file."""
    return path.endswith(f"/{config}") or f"/{config}.d/" in path


def _shown(config: str, host: Host) -> str:
    def ask() -> Optional[str]:
        done = host.run(["systemd-analyze", "cat-config", "--no-pager", config])
        return done.out if done.rc == 0 else None

    shown = host.cached(f"cat-config {config}", ask)
    if shown is None:
        raise Unavailable("systemd", f"systemd-analyze does not show {config}")
    return shown
