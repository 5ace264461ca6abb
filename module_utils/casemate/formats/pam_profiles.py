"""Whether the files that pam-auth-update makes hold what it would put there. Source: pam-auth-update(8).

It fills /usr/share/pam/common-* with lines of the profiles in /usr/share/pam-configs; which ones, and how far each line
jumps, depends on what an administrator chose.
"""

from __future__ import annotations

import re
from typing import List, Set, Tuple

from ..host.machine import Host
from ..host.text import split_lines, split_words

TEMPLATES, PROFILES = "/usr/share/pam", "/usr/share/pam-configs"
PLACEHOLDER = ("[default=#]", "pam_permit.so")
"""What stands where no profile has anything to say."""
Entry = Tuple[str, ...]
"""A line's control, with # for how far it jumps, its module, and options."""


def strangers(path: str, host: Host) -> List[str]:
    """The lines of a common-* file that are of no profile, each with its number."""
    known = _known(path.rsplit("/", 1)[1], host)
    found = []
    for number, line in enumerate(split_lines(host.text(path) or ""), 1):
        words = split_words(line.split("#", 1)[0])
        if words and _entry(" ".join(words[1:])) not in known:
            found.append(f"line {number} ({' '.join(words)})")
    return found


def _known(name: str, host: Host) -> Set[Entry]:
    def make() -> Set[Entry]:
        lines = [re.sub(r"^\s*\S+", "", line) for line in _lines(f"{TEMPLATES}/{name}", host)]
        for profile in host.glob(f"{PROFILES}/*"):
            lines += [line for line in _lines(profile, host) if line.startswith(("\t", " "))]
        return {PLACEHOLDER, *(_entry(line) for line in lines)}

    return host.cached(f"PAM profiles of {name}", make)


def _lines(path: str, host: Host) -> List[str]:
    return [line for line in split_lines(host.text(path) or "") if not line.lstrip().startswith(("#", "$"))]


def _entry(line: str) -> Entry:
    parsed = re.match(r"\s*(\[[^]]*\]|\S+)\s+(\S+)\s*(.*)", line)
    if not parsed:
        return ()
    control = re.sub(r"=(end|\d+)\b", "=#", " ".join(split_words(parsed[1])))
    return (control, parsed[2], *split_words(parsed[3]))
