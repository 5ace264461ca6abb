"""How a stack of PAM modules is gone through, and where it ends.

Sources: pam.conf(5); Linux-PAM's pam_dispatch.c and pam_handlers.c.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Callable, Dict, List, NamedTuple, Optional

from ..host.machine import Host
from ..host.text import split_lines, split_words

FOLDERS = ("/etc/pam.d", "/usr/lib/pam.d")
"""Where a service's file lies; the first one that has it counts."""
DEEPEST = 8
"""How deep files include each other at most: a loop must end."""
SUCCESS, IGNORE = "success", "ignore"
COPIES = re.compile(r".*(?:~|\.(?:pam-(?:old|new)|dpkg-\w+|ucf-\w+|bak|orig|old))")
"""Names of what pam-auth-update, dpkg and editors leave beside a service: nobody logs in by them."""
CONTROLS: Dict[str, Dict[str, str]] = {
    "required": {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "bad"},
    "requisite": {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "die"},
    "sufficient": {"success": "done", "new_authtok_reqd": "done", "default": "ignore"},
    "optional": {"success": "ok", "new_authtok_reqd": "ok", "default": "ignore"},
}
"""What the plain words stand for."""


class Line(NamedTuple):
    """One module of a stack, or a stack of its own where there is a `substack`."""

    place: str
    """File and line, as path:number."""
    actions: Mapping[str, str]
    """What a module returns -> what follows from it."""
    module: str
    """Name without folder, such as pam_unix.so."""
    options: Sequence[str]
    substack: Optional[List[Line]] = None


class End(NamedTuple):
    """Where a stack ends."""

    admits: bool
    place: str
    """The line that decided; nothing where none did."""


Returns = Callable[[Line], str]
"""What a module returns."""


def services(host: Host) -> List[str]:
    """Every service that has a file, hidden ones included."""
    found = {path.rsplit("/", 1)[1] for folder in FOLDERS for path in host.glob(f"{folder}/*", hidden=True)}
    return sorted(found)


def in_use(facility: str, host: Host) -> Dict[str, List[Line]]:
    """Service -> its stack, of all by which somebody may come."""
    names = [name for name in services(host) if not COPIES.fullmatch(name)]
    return {name: host.cached(f"PAM {facility} {name}", partial(stack, name, facility, host)) for name in names}


def flat(lines: Sequence[Line]) -> List[Line]:
    """The modules of a stack, those of the stacks within it last."""
    inner = [one for line in lines if line.substack is not None for one in flat(line.substack)]
    return [*(line for line in lines if line.substack is None), *inner]


def _file(service: str, host: Host) -> str:
    """Where a service's file lies, or nothing; what is included may be named by its whole path."""
    paths = [service] if service.startswith("/") else [f"{folder}/{service}" for folder in FOLDERS]
    return next((path for path in paths if host.stat(path)), "")


def stack(service: str, facility: str, host: Host, depth: int = 0) -> List[Line]:
    """The modules that a service calls for `auth`, `account`, `password` or `session`, what it includes in place."""
    path = _file(service, host)
    found: List[Line] = []
    if not path or depth > DEEPEST:
        return found
    for number, text in _joined(host.text(path) or ""):
        if split_words(text)[:1] == ["@include"]:
            found += stack("".join(split_words(text)[1:2]), facility, host, depth + 1)
            continue
        parsed = re.match(r"\s*-?(\w+)\s+(\[[^]]*\]|\S+)\s+(\S+)\s*(.*)", text)
        if not parsed or parsed[1].lower() != facility:
            continue
        control, module, options = parsed[2], parsed[3], split_words(parsed[4])
        if control.lower() == "include":
            found += stack(module, facility, host, depth + 1)
        elif control.lower() == "substack":
            inner = stack(module, facility, host, depth + 1)
            found.append(Line(f"{path}:{number}", {}, module, options, inner))
        else:
            found.append(Line(f"{path}:{number}", _actions(control), module.rsplit("/", 1)[-1], options))
    return found


def end_of(lines: Sequence[Line], returns: Returns) -> End:
    """How a stack ends when each module returns what `returns` says of it."""
    state = _State()
    _go(lines, returns, state)
    return End(state.good is True, state.place)


class _State:
    """What is thought of the caller so far: nothing yet, good, or bad for ever."""

    def __init__(self) -> None:
        self.good: Optional[bool] = None
        self.place = ""

    def be(self, good: bool, place: str) -> None:
        if self.good is False or (good and self.good):
            return
        self.good, self.place = good, place


def _go(lines: Sequence[Line], returns: Returns, state: _State) -> bool:
    """Go through a stack; return whether the one that it belongs to ends with it."""
    at = 0
    while at < len(lines):
        line, at = lines[at], at + 1
        if line.substack is not None:
            _go(line.substack, returns, state)  # what ends a substack ends no more than it
            continue
        returned = returns(line)
        action = line.actions.get(returned, line.actions.get("default", "bad"))
        if action in ("ok", "done") and returned != IGNORE:
            state.be(returned == SUCCESS, line.place)
        elif action in ("bad", "die"):
            state.be(False, line.place)
        elif action == "reset":
            state.good, state.place = None, ""
        elif action.isdigit():
            at += int(action)
        if action == "die" or (action == "done" and state.good):
            return True
    return False


def _joined(text: str) -> List[tuple[int, str]]:
    """(number of its first line, the line) without comments; a backslash at its end joins a line with the next."""
    found, begun = [], None
    for number, line in enumerate(split_lines(text), 1):
        line = re.sub(r"(^|[ \t])#.*", "", line)
        start, before = begun or (number, "")
        if line.endswith("\\"):
            begun = (start, before + line[:-1] + " ")
            continue
        found.append((start, before + line))
        begun = None
    return [*found, begun] if begun else found


def _actions(control: str) -> Mapping[str, str]:
    if not control.startswith("["):
        return CONTROLS.get(control.lower(), {"default": "bad"})
    return dict(pair.split("=", 1) for pair in split_words(control[1:-1]) if "=" in pair)
