"""What units of systemd name in their directives: the files of their environment, and the programs that they run.

Sources: systemd.exec(5) (EnvironmentFile=), systemd.service(5) (command lines), systemd.unit(5) (specifiers).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, List, Mapping, Tuple

from ..host.machine import Host
from . import system_keys

FOLDERS = (
    "/etc/systemd/system", "/etc/systemd/system.control", "/etc/systemd/system.attached", "/run/systemd/system",
    "/run/systemd/transient", "/run/systemd/generator", "/run/systemd/generator.early", "/run/systemd/generator.late",
    "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
)  # fmt: skip
LINE = re.compile(rb"(?m)^[ \t]*(EnvironmentFile|Exec[A-Z]\w+)[ \t]*=[ \t]*(\S.*)$")
SPECIFIERS = {"%t": "/run", "%S": "/var/lib", "%C": "/var/cache", "%E": "/etc", "%L": "/var/log", "%h": "/root"}
INTERPRETER = re.compile(r"/(env|(ba|da|z|k)?sh|python[\d.]*|perl|ruby|node|php[\d.]*)$")
MERGED = ("/bin/", "/sbin/", "/lib/")


def environment(setting: Mapping[str, Any], host: Host) -> Iterator[str]:
    """Patterns of the files that any unit takes its environment from."""
    for _, directive, value in _lines(host):
        if directive == "EnvironmentFile":
            yield _filled(value.strip("\"'").lstrip("-"))


def programs(setting: Mapping[str, Any], host: Host) -> Iterator[str]:
    """Programs that units run, and scripts that they give to an interpreter.

    Only of units that somebody vouches for: of another one it is the unit that is to be told.
    """
    known = {*setting["declared"], *setting["ours"]}
    for unit, directive, value in _lines(host):
        if directive == "EnvironmentFile" or not (unit in known or unit.startswith("/usr/lib/")):
            continue
        first, *rest = re.split(r"[\s\"';&|]+", value.lstrip("@-:+!|\"'"))
        script = next((word for word in rest if word.startswith("/")), "") if INTERPRETER.search(first) else ""
        yield from (_filled(path) for path in (first, script) if path)


def _filled(path: str) -> str:
    """A pattern of what a path with specifiers stands for, where the merged folders really are."""
    for short, whole in SPECIFIERS.items():
        path = whole + path[len(short) :] if path.startswith(short) else path
    path = re.sub(r"%[a-zA-Z]", "*", path)
    return f"/usr{path}" if path.startswith(MERGED) else path


def _lines(host: Host) -> List[Tuple[str, str, str]]:
    """(unit or drop-in, directive, value) of all of them."""

    def read() -> List[Tuple[str, str, str]]:
        found = []
        for path in (path for folder in FOLDERS for path in host.glob(f"{folder}/**/*", hidden=True)):
            for directive, value in LINE.findall((host.read(path) or b"").replace(b"\\\n", b" ")):
                found.append((path, directive.decode(), value.decode("utf-8", "surrogateescape").strip()))
        return found

    return host.cached("lines of units", read)


NAMED = {"AuthorizedKeysFile": system_keys.files, "EnvironmentFile": environment, "Exec": programs}
"""Directives -> what units, or sshd's configuration, name by them."""
