"""What PAM calls for a service. Source: pam.d(5)."""

from __future__ import annotations

import re

from ..host.machine import Host
from ..host.text import split_lines, split_words


def pam_modules(service: str, host: Host, depth: int = 0) -> list[str]:
    """Modules that a PAM service calls, with their options; includes followed (at most 8 deep: a loop must end)."""
    found: list[str] = []
    for line in split_lines(host.text(f"/etc/pam.d/{service}") or ""):
        words = split_words(re.sub(r"\[[^]]*\]", "control", line.split("#", 1)[0]))
        included = words[1:2] if words[:1] == ["@include"] else words[2:3] if words[1:2] == ["include"] else []
        if included and depth < 8:
            found += pam_modules(included[0], host, depth + 1)
        elif len(words) >= 3:
            found.append(" ".join([words[2].rsplit("/", 1)[-1], *words[3:]]))
    return found
