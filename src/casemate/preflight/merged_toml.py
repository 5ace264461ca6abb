"""Several texts of TOML as one: where they say different things of one key, and the text of what they say together.

Put one after the other they would be another text: a table may stand only once, and a key without a table would fall
into the table above it.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import tomllib
from collections.abc import Mapping
from typing import Any

VERSION = 3
"""Of containerd 2's configuration, which is the only one that K3s' template has."""


def merge(texts: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """What named texts say together, without their `version`, and what speaks against that: no value is shown.

    Raises tomllib.TOMLDecodeError for what is no TOML.
    """
    merged: dict[str, Any] = {}
    givers: dict[tuple[str, ...], str] = {}
    problems: list[str] = []
    for name, text in texts.items():
        said = tomllib.loads(text)
        version = said.pop("version", VERSION)
        if version != VERSION or isinstance(version, bool):
            problems.append(f"{name} has another version than {VERSION}; allowed: version = {VERSION}, or no version")
        _add(merged, said, name, (), givers, problems)
    return merged, problems


def _add(
    into: dict[str, Any],
    said: Mapping[str, Any],
    name: str,
    path: tuple[str, ...],
    givers: dict[tuple[str, ...], str],
    problems: list[str],
) -> None:
    for key, value in said.items():
        here = (*path, key)
        if key not in into:
            givers[here] = name
            into[key] = {} if isinstance(value, dict) else value
        if isinstance(value, dict) and isinstance(into[key], dict):
            _add(into[key], value, name, here, givers, problems)
        elif (type(value), value) != (type(into[key]), into[key]):
            problems.append(f"{givers[here]} and {name} differ in {'.'.join(map(_key, here))}; allowed: one value")


def render(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """A table as TOML 1.0: its own values, then the tables below it."""
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    own = "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items() if key not in inner)
    header = f"\n[{'.'.join(map(_key, path))}]\n" if path and (own or not inner) else ""
    return header + own + "".join(render(value, (*path, key)) for key, value in inner.items())


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # inf, -inf and nan are TOML's words too
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    return _text(value) if isinstance(value, str) else repr(value)
