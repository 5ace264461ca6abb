"""The part of YAML that manifests of Kubernetes are written in, read strictly and without a library.

Documents of block mappings and sequences, with plain and quoted scalars, lists of scalars in brackets, `{}` and literal
blocks (`|`, `|-`). Whatever else YAML can say, such as anchors, tags and folded text, is refused by line, because a
check that misreads a file would report what is not so. Sources: YAML 1.1, as K3s reads it (sigs.k8s.io/yaml).
"""

from __future__ import annotations

import re
from typing import Any, List, NamedTuple

from .yaml_subset import FALSE, TRUE, YamlError, scalar, uncomment

PLAIN = r"""(?:[^\s"'\-?:,\[\]{}#&*!|>%@`]|-[^\s:#])[^:#]*?"""
KEY = re.compile(rf"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|{PLAIN})\s*:(?:\s+(.*))?$""")
ITEM = re.compile(r"-(?:\s+(.*))?$")
QUOTED = ('"', "'")


class Line(NamedTuple):
    """A line that says something: its number, how far it is indented, and the rest."""

    number: int
    indent: int
    text: str


def documents(text: str) -> List[Any]:
    """The documents of a file, without those that hold nothing; raises YamlError with the line."""
    found = []
    for begin, lines in _apart(text.split("\n")):
        reader = _Reader(lines, begin)
        if reader.next is not None:
            found.append(reader.block(0))
            if reader.next is not None:
                raise YamlError(f"line {reader.next.number}: it belongs to nothing above")
    return found


def _apart(lines: List[str]) -> List[tuple[int, List[str]]]:
    """The lines of each document, with the number of the first."""
    found: List[tuple[int, List[str]]] = [(1, [])]
    for number, line in enumerate(lines, 1):
        if line.rstrip() == "---":
            found.append((number + 1, []))
        else:
            found[-1][1].append(line)
    return found


class _Reader:
    """The lines of one document, one after the other."""

    def __init__(self, lines: List[str], begin: int) -> None:
        self.lines, self.begin, self.at = lines, begin, 0
        self.next = self._seek()

    def _seek(self) -> Line | None:
        """The next line that says something."""
        while self.at < len(self.lines):
            line = self.lines[self.at].rstrip()
            text = line.lstrip(" ")
            if text and not text.startswith("#"):
                if text.startswith("\t"):
                    raise YamlError(f"line {self.begin + self.at}: a tabulator indents it")
                return Line(self.begin + self.at, len(line) - len(text), text)
            self.at += 1
        return None

    def _step(self) -> None:
        self.at += 1
        self.next = self._seek()

    def block(self, least: int) -> Any:
        """The mapping or list that begins here, indented at least so far; None where nothing is."""
        line = self.next
        if line is None or line.indent < least:
            return None
        return self._list(line.indent) if ITEM.match(line.text) else self._mapping(line.indent)

    def _list(self, indent: int) -> List[Any]:
        found: List[Any] = []
        while (line := self.next) is not None and line.indent == indent and (item := ITEM.match(line.text)):
            rest = item[1] or ""
            if not rest or rest.startswith("#"):
                self._step()
                found.append(self.block(indent + 1))
            elif ITEM.match(rest) or (KEY.match(rest) and not rest.startswith(("[", "{"))):
                inner = indent + len(line.text) - len(rest)
                self.next = Line(line.number, inner, rest)  # what follows the dash begins a block of its own
                found.append(self.block(inner))
            else:
                found.append(self._value(line, rest, indent))
        self._ends(indent)
        return found

    def _mapping(self, indent: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (line := self.next) is not None and line.indent == indent and not ITEM.match(line.text):
            match = KEY.match(line.text)
            if match is None:
                raise YamlError(f"line {line.number}: not of the form `key: value`")
            key = match[1][1:-1] if match[1].startswith(QUOTED) else match[1]
            if key in found:
                raise YamlError(f"line {line.number}: {key} stands twice")
            rest = match[2] or ""
            if rest and not rest.startswith("#"):
                found[key] = self._value(line, rest, indent)
                continue
            self._step()
            # A list may stand as far to the left as the key that it belongs to.
            below = self.next is not None and self.next.indent == indent and ITEM.match(self.next.text)
            found[key] = self._list(indent) if below else self.block(indent + 1)
        self._ends(indent)
        return found

    def _ends(self, indent: int) -> None:
        if self.next is not None and self.next.indent > indent:
            raise YamlError(f"line {self.next.number}: it is indented otherwise than what is above")

    def _value(self, line: Line, rest: str, indent: int) -> Any:
        try:
            if rest.startswith("|"):
                return self._literal(rest, indent)
            value = _flow(rest)
        except YamlError as fault:
            raise YamlError(f"line {line.number}: {fault}") from None
        self._step()
        return value

    def _literal(self, mark: str, indent: int) -> str:
        """A text of lines that stand as they are; those of its end count by the mark."""
        if uncomment(mark) not in ("|", "|-"):
            raise YamlError("a block of text of another sort than | or |-")
        self.at += 1
        held: List[str] = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.strip() and len(line) - len(line.lstrip(" ")) <= indent:
                break
            held.append(line)
            self.at += 1
        self.next = self._seek()
        first = next((line for line in held if line.strip()), "")
        margin = len(first) - len(first.lstrip(" "))
        if any(line.strip() and line[:margin].strip() for line in held):
            raise YamlError("a text whose first line is indented further than another")
        text = "\n".join(line[margin:] for line in held).rstrip("\n")
        return text + "\n" if text and uncomment(mark) == "|" else text


def _flow(text: str) -> Any:
    """A scalar, `{}`, or a list of scalars in brackets."""
    text = uncomment(text)
    if text == "{}":
        return {}
    if not text.startswith("["):
        return _typed(text)
    if not text.endswith("]"):
        raise YamlError("a list that does not end on its line")
    inner = text[1:-1].strip()
    parts = re.findall(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^,\[\]{}"']+?)\s*(?:,|$)""", inner)
    if re.sub(r"\s", "", ",".join(parts)) != re.sub(r"\s", "", inner.rstrip(",")):
        raise YamlError("a list that is not of plain scalars")
    return [_typed(part) for part in parts]


def _typed(text: str) -> Any:
    """A scalar as what YAML takes it for: nothing, a truth, a whole number or a text."""
    value = scalar(text)
    if text.startswith(QUOTED):
        return value
    if text in TRUE + FALSE:
        return text in TRUE
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    return int(value) if re.fullmatch(r"[-+]?[0-9]+", text) else value
