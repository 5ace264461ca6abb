"""A small schema for settings: enough to refuse a malformed one by name before anything is touched.

JSON Schema proper is used on the controller for files; targets have the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from .flow import quoted


class ControlError(Exception):
    """One or more controls, or their waivers, are malformed; the message names each control and field."""


TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "list": (list, tuple),
    "dict": (dict,),
    "scalar": (str, int, float, bool),
    "any": (str, int, float, bool, list, tuple, dict, type(None)),
}


@dataclass(frozen=True)
class Field:
    """One field of a setting: its type, whether it must be there, and what it may be."""

    type: str
    required: bool = False
    choices: tuple[Any, ...] = ()
    pattern: str = ""
    help: str = ""


Scalar = Union[str, int, float, bool]
"""One value that is no list and no mapping."""
NAMES: dict[Any, str] = {str: "str", int: "int", bool: "bool", list: "list", dict: "dict", Scalar: "scalar", Any: "any"}


@dataclass(frozen=True)
class Key:
    """What the key of a setting means, and which texts it may be; it stands beside the key's type."""

    help: str
    pattern: str = ""


def schema_of(setting: Any) -> dict[str, Field]:
    """The schema of a TypedDict whose keys are `Annotated[type, Key(...)]`; the choices of a `Literal` are allowed."""
    hints = get_type_hints(setting, include_extras=True)
    return {name: _field(hint, name in setting.__required_keys__) for name, hint in hints.items()}


def _field(hint: Any, required: bool) -> Field:
    if get_origin(hint) is not Annotated:
        raise TypeError(f"{hint} says nothing of what it is for")
    kind, key = get_args(hint)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    name = "str" if choices else NAMES[kind if kind in NAMES else get_origin(kind)]
    return Field(name, required, choices, key.pattern, key.help)


def problem(value: Any, field: Field) -> str | None:
    """Say what is wrong with `value`, or None. A bool is never taken for an int."""
    if not isinstance(value, TYPES[field.type]) or (field.type == "int" and isinstance(value, bool)):
        return f"must be of type {field.type}, not {type(value).__name__}"
    if field.choices and value not in field.choices:
        return f"is {quoted(value)}; allowed: {', '.join(map(str, field.choices))}"
    if field.pattern and not re.fullmatch(field.pattern, str(value)):
        return f"is {quoted(value)}, which does not match {field.pattern}"
    return None


def problems(raw: Mapping[str, Any], fields: Mapping[str, Field], where: str) -> list[str]:
    """List everything wrong with a mapping: unknown, missing and malformed fields, each by name."""
    found = [f"{where}.{name}: unknown; known are {', '.join(sorted(fields))}" for name in raw if name not in fields]
    for name, field in fields.items():
        if name not in raw:
            if field.required:
                found.append(f"{where}.{name}: missing")
        else:
            wrong = problem(raw[name], field)
            if wrong:
                found.append(f"{where}.{name}: {wrong}")
    return found
