"""The part of YAML that K3s configuration files need, read strictly and written plainly, without a library.

One mapping of keys to scalars or lists of scalars. Whatever else YAML can say is refused by line, because a check
that misreads a file would report what is not so. Scalars are returned as the text that K3s makes of them
(YAML 1.1: `yes` is true, `0600` is 384).
"""

from __future__ import annotations

import json
import re
from typing import Any, List, Mapping, Optional, Set, Tuple, Union

Value = Union[str, List[str]]
KEY = re.compile(r"""(?:"([^"\\]+)"|'([^']+)'|([A-Za-z0-9][A-Za-z0-9._/+-]*))\s*:(?:\s+(.*))?""")
TRUE = ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")
FALSE = ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")
STRANGE = re.compile(
    r"[-+]?(0[xob][0-9a-fA-F_]+|[0-9][0-9_]*_[0-9_]*|[0-9]*\.[0-9]+([eE][-+]?[0-9]+)?|[0-9]+\.|[0-9]+[eE][-+]?[0-9]+"
    r"|\.(inf|nan)|[0-9]+(:[0-5]?[0-9])+)|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*",
    re.IGNORECASE,
)


class YamlError(ValueError):
    """A line that is not of this subset."""


def parse(text: str) -> List[Tuple[str, Value]]:
    """Return (key, text or list of texts) in the order of the file; raises YamlError naming the line."""
    found: List[Tuple[str, Value]] = []
    into: Optional[List[str]] = None
    indent: Optional[int] = None
    blocks: Set[str] = set()  # written as nothing or as a block: without items it is null, not a list
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.rstrip()
        bare = line.lstrip(" ")
        if not bare or bare.startswith("#") or (line == "---" and not found):
            continue
        try:
            if bare == "-" or bare.startswith("- "):
                depth = len(line) - len(bare)
                if into is None or indent not in (None, depth):
                    raise YamlError("a list item that belongs to no key")
                indent = depth
                into.append(scalar(bare[1:].strip()))
                continue
            match = KEY.fullmatch(line)
            if match is None:
                raise YamlError("not of the form `key: value`")
            key = match[1] or match[2] or match[3]
            if key in [name for name, _ in found]:
                raise YamlError(f"{key} stands twice")
            rest = uncomment(match[4] or "")
            into, indent = None, None
            if not rest:
                into = []
                blocks.add(key)
                found.append((key, into))
            else:
                found.append((key, _flow(rest) if rest.startswith("[") else scalar(rest)))
        except YamlError as fault:
            raise YamlError(f"line {number}: {fault}") from None
    return [(key, "" if value == [] and key in blocks else value) for key, value in found]


def uncomment(text: str) -> str:
    """Drop a comment that follows a value outside quotes."""
    quote = ""
    for at, char in enumerate(text):
        if quote:
            quote = "" if char == quote and not (quote == '"' and text[at - 1] == "\\") else quote
        elif char in "\"'" and (at == 0 or text[at - 1] in " [,"):
            quote = char
        elif char == "#" and (at == 0 or text[at - 1] in " \t"):
            return text[:at].strip()
    return text.strip()


def _flow(text: str) -> List[str]:
    if not text.endswith("]"):
        raise YamlError("a list that does not end on its line")
    inner = text[1:-1].strip()
    if not inner:
        return []
    parts = re.findall(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^,\[\]{}"']+?)\s*(?:,|$)""", inner)
    if re.sub(r"\s", "", ",".join(parts)) != re.sub(r"\s", "", inner.rstrip(",").strip()):
        raise YamlError("a list that is not of plain scalars")
    return [scalar(part) for part in parts]


def scalar(text: str) -> str:
    """The text that K3s gets for one scalar; raises YamlError for what is not plainly one."""
    text = uncomment(text)
    if text.startswith('"'):
        try:
            made = json.loads(text)
        except ValueError:
            made = None
        if not isinstance(made, str):
            raise YamlError("a quoted text with escapes beyond JSON's")
        return made
    if text.startswith("'"):
        if not re.fullmatch(r"'(?:[^']|'')*'", text):
            raise YamlError("a quoted text that does not end")
        return text[1:-1].replace("''", "'")
    if text in ("", "~", "null", "Null", "NULL"):
        return ""
    if text[0] in "&*!|>%@`[]{},?#=<" or re.match(r"[-:](\s|$)", text) or re.search(r":(\s|$)|\t", text):
        raise YamlError("neither a plain nor a quoted scalar")
    if text in TRUE + FALSE:
        return "true" if text in TRUE else "false"
    if STRANGE.fullmatch(text):
        raise YamlError("a number or date in YAML's eyes; quote it")
    if re.fullmatch(r"[-+]?[0-9]+", text):
        octal = re.fullmatch(r"([-+]?)0+([0-7]+)", text)
        return str(int(octal[1] + octal[2], 8) if octal else int(text))
    return text


def render(values: Mapping[str, Any]) -> str:
    """YAML of keys to scalars or lists, every text quoted, so that no reader can take it for something else."""
    lines: List[str] = []
    for key, value in values.items():
        if isinstance(value, (list, tuple)):
            lines += [f"{key}:"] + [f"  - {_written(item)}" for item in value] if value else [f"{key}: []"]
        else:
            lines.append(f"{key}: {_written(value)}")
    return "".join(line + "\n" for line in lines)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return json.dumps(text, ensure_ascii=not text.isprintable())  # YAML takes no surrogates, by which JSON escapes some
