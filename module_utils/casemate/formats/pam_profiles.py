"""Whether the files that pam-auth-update makes hold what it would put there, and whether it would change them.

Sources: pam-auth-update(8), and the program itself.

It fills /usr/share/pam/common-* with lines of the profiles in /usr/share/pam-configs; which ones, and how far each line
jumps, depends on what an administrator chose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import List, Optional, Set, Tuple

from ..host.machine import Host
from ..host.text import split_lines, split_words

TEMPLATES, PROFILES = "/usr/share/pam", "/usr/share/pam-configs"
SAVED = "/var/lib/pam"
"""Where it keeps what it last made, to tell what an administrator has changed since."""
TYPES = ("auth", "account", "password", "session", "session-noninteractive")
COMMON = [f"/etc/pam.d/common-{name}" for name in TYPES]
STATE = [f"{SAVED}/{name}" for name in ("seen", *TYPES)]
BEGINS = '# here are the per-package modules (the "Primary" block)'
ENDS = "# here's the fallback if no module succeeds"
BEGINS_MORE = '# and here are more per-package modules (the "Additional" block)'
ENDS_MORE = "# end of pam-auth-update config"
MARKS = (BEGINS, ENDS, BEGINS_MORE, ENDS_MORE)
"""The comments between which it keeps its lines."""
MODULE = "Module: "
"""What it saves before the lines of a profile, with the profile's name after it."""
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


def left_alone(host: Host) -> str:
    """Why pam-auth-update would change none of its files, with what to do; empty where it would.

    It merges options that were added or taken away by hand, and lines that were removed, but no line that is no
    profile's (its diff_profiles).
    """
    for name, path in zip(TYPES, COMMON):
        saved, current = host.text(f"{SAVED}/{name}"), host.text(path)
        if saved is None or current is None:
            return f"{path if current is None else f'{SAVED}/{name}'} is not there: pam-auth-update --force makes it"
        if {mark for line in split_lines(current) for mark in MARKS if line.startswith(mark)} != set(MARKS):
            return f"{path} lacks a comment that pam-auth-update goes by: pam-auth-update --force writes it anew"
        for number, line, made_of in _matched(name, saved, current):
            if made_of is None:
                return f"line {number} of {path} ({' '.join(split_words(line))}) is of no profile: {REMEDY}"
    return ""


def as_it_stands(name: str, profiles: str, host: Host) -> str:
    """What pam-auth-update has saved of a file, with the lines of some profiles as they stand in the file now.

    It takes what was changed in a line by hand for an administrator's wish, keeps that by the line's control and
    module, and merges it into every line that has these two, whichever profile it is of. By this text there is no such
    wish for the lines of `profiles`, which all have names that begin so. What was changed of other lines stays.
    """
    saved = host.text(f"{SAVED}/{name}") or ""
    lines, of_them, theirs = split_lines(saved), set(), False
    for at, line in enumerate(lines):
        if line.startswith(MODULE):
            theirs = line.startswith(f"{MODULE}{profiles}")
        elif theirs:
            of_them.add(at)
    for _, line, made_of in _matched(name, saved, host.text(f"/etc/pam.d/common-{name}") or ""):
        if made_of is not None and made_of in of_them:
            lines[made_of] = _without_facility(name, line)
    return "".join(f"{line}\n" for line in lines)


def _matched(name: str, saved: str, current: str) -> Iterator[Tuple[int, str, Optional[int]]]:
    """The lines between the comments, each with its number, its text, and that of the saved line that it was made of.

    The latter is an index from 0, or None where it was made of none. As in diff_profiles each line belongs to the first
    saved one after that of the line before it which has its control and module.
    """
    modules = []
    for at, line in enumerate(split_lines(saved)):
        control_and_module = re.match(r"(\[[^]]+\]|\w+)\s+\S+", _mergeable(line))
        if control_and_module and not line.startswith(MODULE):
            modules.append((at, control_and_module[0]))
    left, ends = iter(modules), ""
    for number, line in enumerate(split_lines(current), 1):
        mark = next((mark for mark in MARKS if line.startswith(mark)), "")
        if mark:
            ends = {BEGINS: ENDS, BEGINS_MORE: ENDS_MORE}.get(mark, "")
        elif ends:
            own = _mergeable(_without_facility(name, line))
            yield number, line, next((at for at, module in left if own.startswith(module)), None)


REMEDY = f"remove it, or make it a profile of yours in {PROFILES}, and apply again"


def holds(facility: str, lines: Sequence[str], host: Host) -> bool:
    """Whether lines of a profile stand in the file of a facility one after the other, with no option more or less."""
    text = host.text(f"/etc/pam.d/common-{facility}") or ""
    found = [split_words(line.split("#", 1)[0]) for line in split_lines(text)]
    entries = [_entry(" ".join(words[1:])) for words in found if words]
    wanted = [_entry(line) for line in lines]
    return any(entries[at : at + len(wanted)] == wanted for at in range(len(entries)))


def _without_facility(name: str, line: str) -> str:
    return re.sub(rf"^{name.partition('-')[0]}\s+", "", line)


def _mergeable(line: str) -> str:
    """A line without where it jumps to, as pam-auth-update compares them."""
    return re.sub(r"(\[.*)end(.*\])", r"\1\2", re.sub(r"(\[[^0-9]*)[0-9]+(.*\])", r"\1\2", line))


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
