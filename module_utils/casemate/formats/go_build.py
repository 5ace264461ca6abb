"""What the Go toolchain writes into every program about how it was built: modules, versions, settings.

It is what `go version -m FILE` prints. The program is never run: it may be anybody's. Sources: Go's debug/buildinfo
(where it lies in a file, its header, strings) and runtime/debug (ParseBuildInfo, the text's lines).
"""

from __future__ import annotations

import ast
import re
from typing import Dict, List, NamedTuple, Optional, Tuple

from . import elf
from .elf import Bytes

MAGIC = b"\xff Go buildinf:"
HEADER, ALIGNED = 32, 16
"""Bytes of the header, and of what its place is a multiple of."""
FLAGS, INLINE = 15, 2
"""Place of the flags in the header; the one that says that the strings follow it, which is so since Go 1.18."""
FRAME = 16
"""Bytes before and after the text of the modules, by which the toolchain finds it in a running program."""
LONGEST = 16 * 1024 * 1024
"""Bytes of a string that are believed. K3s, with 300 modules, has 30 KiB."""
ESCAPE = r"""\\(?:[abfnrtv\\"']|[0-7]{3}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"""
QUOTED = re.compile(rf'"(?:[^"\\\n]|{ESCAPE})*"|`[^`]*`')
"""A string as Go quotes it."""


class Module(NamedTuple):
    """A module that is compiled in. `sum` is that of go.sum, or "" where the toolchain knew none.

    Where go.mod replaced a module, `path`, `version` and `sum` are of what took its place; `replaces` and
    `replaced_version` say what it stands for. A replacement that is a folder has that folder's name as its path.
    """

    path: str
    version: str
    sum: str = ""
    replaces: str = ""
    replaced_version: str = ""


class Build(NamedTuple):
    """How a program was built. `go` is the toolchain's version, `package` that of main; `main` is the module around it.

    `settings` are by their names: "GOOS", "vcs.revision", "-ldflags" …
    """

    go: str
    package: str
    main: Optional[Module]
    modules: Tuple[Module, ...]
    settings: Dict[str, str]


def build(data: Bytes) -> Optional[Build]:
    """What a whole ELF file says of its build; None where it is no ELF file, or no program that Go built.

    Raises ValueError for an ELF file that is broken, and for a program of Go before 1.18, which kept it otherwise.
    """
    found = elf.layout(data)
    if found is None:
        return None
    at, end = _place(data, found)
    if at < 0:
        return None
    if not data[at + FLAGS] & INLINE:
        raise ValueError("it was built by a Go before 1.18, whose build information is not read here")
    go, at = _string(data, at + HEADER, end)
    text, _ = _string(data, at, end)
    # Without modules, as in the build of Go itself, there is no text.
    framed = len(text) > 2 * FRAME and text[-FRAME - 1 : -FRAME] == b"\n"
    return _parsed(go.decode(), text[FRAME:-FRAME].decode() if framed else "")


def _place(data: Bytes, found: elf.Layout) -> Tuple[int, int]:
    """(where the header is in the file, where the part around it ends); (-1, 0) where there is none.

    A section has it by name. Where sections were taken out, it is in the first segment that is data.
    """
    named = elf.section(data, found, b".go.buildinfo")
    segments = [one for one in elf.segments(data, found) if one.type == elf.LOADED]
    if named is not None:
        start, address, size = named.offset, named.address, named.size
    else:
        written = [one for one in segments if one.flags & (elf.WRITABLE | elf.EXECUTABLE) == elf.WRITABLE and one.size]
        if not written:
            return -1, 0
        start, address, size = written[0].offset, written[0].address, written[0].size
    # Strings may go on behind the section, as far as the segment around it goes.
    around = [one.offset + one.size for one in segments if one.offset <= start < one.offset + one.size]
    stop, end = min(start + size, len(data)), min(max([start + size, *around]), len(data))
    if start >= stop:
        raise ValueError("it is cut off before its data")
    at = data.find(MAGIC, start, stop)
    while at >= 0 and (at - start + address) % ALIGNED:
        at = data.find(MAGIC, at + 1, stop)
    if at >= 0 and at + HEADER > end:
        raise ValueError("it is cut off in its build information")
    return at, end


def _string(data: Bytes, at: int, end: int) -> Tuple[bytes, int]:
    """The string at a place of a file, which begins with its length as a varint; and where it ends."""
    length = shift = 0
    while True:
        if at >= end or shift > 63:
            raise ValueError("its build information is broken: a string has no length")
        byte = data[at]
        length |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    if length > min(end - at, LONGEST):
        raise ValueError("its build information is broken: a string is longer than what is there")
    return data[at : at + length], at + length


def _parsed(go: str, text: str) -> Build:
    package, main = "", None
    modules: List[Module] = []
    settings: Dict[str, str] = {}
    last = ""
    for line in text.split("\n"):
        word, _, rest = line.partition("\t")
        if word == "path":
            package = rest
        elif word == "mod":
            main = _module(rest)
        elif word == "dep":
            modules.append(_module(rest))
        elif word == "=>" and last == "mod" and main is not None:
            main = _replaced(main, rest)
        elif word == "=>" and last == "dep":
            modules[-1] = _replaced(modules[-1], rest)
        elif word == "=>":
            raise ValueError("its build information is broken: it replaces a module that it does not name")
        elif word == "build":
            name, value = _setting(rest)
            settings[name] = value
        last = word
    return Build(go, package, main, tuple(modules), settings)


def _module(columns: str) -> Module:
    path, *others = columns.split("\t")
    if not path or len(others) not in (1, 2):
        raise ValueError("its build information is broken: a module has no version")
    return Module(path, *others)


def _replaced(old: Module, columns: str) -> Module:
    return _module(columns)._replace(replaces=old.path, replaced_version=old.version)


def _setting(said: str) -> Tuple[str, str]:
    """(name, value) of NAME=VALUE. What has a space or a quote in it is quoted as Go quotes strings."""
    quoted = QUOTED.match(said)
    name, rest = (quoted[0], said[quoted.end() :]) if quoted else (said.partition("=")[0], said[said.find("=") :])
    if not name or not rest.startswith("="):
        raise ValueError("its build information is broken: a setting has no name or no value")
    return _unquoted(name), _unquoted(rest[1:])


def _unquoted(word: str) -> str:
    if word[:1] not in ('"', "`"):
        return word
    if not QUOTED.fullmatch(word):
        raise ValueError("its build information is broken: a quoted string is none")
    if word[0] == "`":
        return word[1:-1]
    try:
        return str(ast.literal_eval(word))  # Python's strings have all of Go's escapes, and this is one string
    except SyntaxError as odd:
        raise ValueError("its build information is broken: a quoted string names no character") from odd
