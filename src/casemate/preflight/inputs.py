"""What an operator gave must be right before any host is touched. Pure but for reading files.

argument_specs check types and ignore unknown names and ranges; here every `k3s_*` and `casemate_*` variable
must be known, of its type and within its range. Each problem names the variable, what it is (a secret's value
never), what is allowed, and what to do.
"""

from __future__ import annotations

import datetime
import difflib
import ipaddress
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from casemate import ROOT
from casemate.catalogue import declarations

Spec = Mapping[str, Any]
PREFIXES = ("k3s_", "casemate_")
SECRET = re.compile(r"token|passw|secret|credential|private", re.IGNORECASE)
FIX = "Correct it in the inventory"
SHARED = Path(__file__).parent / "schema/inputs.yml"
"""What the inputs of all roles are."""


def network(text: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """A CIDR network or single address, or None when it is neither."""
    try:
        return ipaddress.ip_network(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _like(pattern: str) -> Callable[[Any], bool]:
    return lambda value: bool(re.fullmatch(pattern, str(value)))


def _ports(value: Any) -> bool:
    ends = [int(end) for end in str(value).split("-")] if _like(r"\d{1,5}(-\d{1,5})?")(value) else [0]
    return 1 <= ends[0] <= ends[-1] <= 65535


def _one_or_both(text: str) -> bool:
    """Whether it is one address or network, or two of different families."""
    parts = [network(part) for part in text.split(",")]
    return None not in parts and len({part.version for part in parts if part}) == len(parts)


def _date(value: Any) -> bool:
    try:
        return _like(r"\d{4}-\d\d-\d\d")(value) and bool(datetime.date.fromisoformat(str(value)))
    except ValueError:
        return False


def _batches(value: Any) -> bool:
    every = value if isinstance(value, list) else [value]
    return bool(every) and all(
        not isinstance(one, bool) and _like(r"[1-9]\d{0,3}|([1-9]\d?|100)%")(one) for one in every
    )


def _toml(value: Any) -> bool:
    try:
        return isinstance(tomllib.loads(str(value)), dict)
    except tomllib.TOMLDecodeError:
        return False


def _there(is_there: Callable[[Path], bool]) -> Callable[[Any], bool]:
    return lambda value: Path(str(value)).expanduser().is_absolute() and is_there(Path(str(value)).expanduser())


FORMATS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "cidr": ("an address or a network without host bits, such as 192.0.2.0/24", lambda v: network(v) is not None),
    "cidrs": (
        "a network without host bits, such as 10.42.0.0/16, or one of IPv4 and one of IPv6 with a comma",
        lambda v: _one_or_both(str(v)),
    ),
    "addresses": (
        "an IPv4 or IPv6 address, or one of each with a comma, such as 192.0.2.7,2001:db8::7",
        lambda v: "/" not in str(v) and _one_or_both(str(v)),
    ),
    "name": (
        "a host name or an address",
        lambda v: _like(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")(v) or network(v) is not None,
    ),
    "account": (
        "the name of an account (letters, digits, _, . and -, not - or . first, not digits alone, not ALL; 32 at most)",
        _like(r"(?!([0-9]+|ALL)\Z)[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}"),
    ),
    "namespace": (
        "the name of a namespace (lower-case letters, digits and dashes; 63 at most)",
        _like(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"),
    ),
    "flag": (
        "a flag without leading dashes, as name=value, such as v=2",
        _like(r"[A-Za-z][A-Za-z0-9._-]*(=[^\n]*)?"),
    ),
    "ports": ("a port from 1 to 65535, or the first and the last one with a dash, such as 30000-30010", _ports),
    "date": ("a date as YYYY-MM-DD", _date),
    "batches": ("a number of 1 or more, a share such as 25%, or a list of these", _batches),
    "toml": ("text in TOML", _toml),
    "file": ("the absolute path of a file that is on this controller", _there(Path.is_file)),
    "folder": ("the absolute path of a folder that is on this controller", _there(Path.is_dir)),
    "path": ("the absolute path of a file or folder that is on this controller", _there(Path.exists)),
}
"""Format -> (what it is in words, whether a value fits)."""


def _is_int(value: Any) -> bool:
    return not isinstance(value, bool) and (isinstance(value, int) or bool(re.fullmatch(r"-?\d+", str(value))))


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, float)) or _is_int(value)


TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("text", _is_text),
    "path": ("a path", lambda v: isinstance(v, str)),
    "int": ("a whole number", _is_int),
    "float": ("a number", lambda v: _is_int(v) or isinstance(v, float)),
    "bool": ("true or false", lambda v: isinstance(v, bool) or str(v).lower() in ("true", "false", "yes", "no")),
    "list": ("a list", lambda v: isinstance(v, list)),
    "dict": ("a mapping", lambda v: isinstance(v, dict)),
    "raw": ("anything", lambda v: True),
    "option": (
        "text, a number, true, false, or a list of these",
        lambda v: all(isinstance(one, bool) or _is_text(one) for one in (v if isinstance(v, list) else [v])),
    ),
}


def _merged(spec: Spec, constraint: Spec) -> dict[str, Any]:
    """A specification with its constraints, those of sub-options too."""
    options = spec.get("options") or {}
    inner = {key: _merged(sub, (constraint.get("options") or {}).get(key) or {}) for key, sub in options.items()}
    return {**spec, **constraint, **({"options": inner} if inner else {})}


def known_inputs(root: Path = ROOT) -> dict[str, Spec]:
    """Every variable that an operator may set, with its specification: the roles' and the shared ones."""
    known: dict[str, Spec] = dict(declarations.read(SHARED))
    for path in sorted(root.glob("roles/*/meta/argument_specs.yml")):
        role = path.parents[1]
        constraints_file = role / "vars/main/constraints.yml"
        constraints = (
            declarations.read(constraints_file)[f"__{role.name}_constraints"] if constraints_file.is_file() else {}
        )
        for entry in declarations.read(path)["argument_specs"].values():
            for name, spec in (entry.get("options") or {}).items():
                if name.startswith(PREFIXES):
                    known.setdefault(name, _merged(spec, (constraints or {}).get(name) or {}))
    waivers = known["casemate_waivers"]
    known["casemate_waivers"] = {**waivers, "keys": {**waivers["keys"], "choices": sorted(known_controls(root))}}
    return known


def known_controls(root: Path = ROOT) -> set[str]:
    """The ids of all declared controls."""
    return {control["id"] for controls in declarations.controls(root).values() for control in controls}


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint with the most similar name, or nothing."""
    close = difflib.get_close_matches(name, list(names), 1, 0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def is_secret(name: str, spec: Spec) -> bool:
    """Whether a variable's value may never be shown."""
    return bool(spec.get("no_log", SECRET.search(name)))


def shown(name: str, value: Any, spec: Spec) -> str:
    """A value as a message may show it: never one that could be or hold a secret."""
    nested = isinstance(value, list) and any(isinstance(one, (list, dict)) for one in value)
    anything = spec.get("type") == "dict" and not ("options" in spec or "values" in spec)
    login = isinstance(value, str) and re.search(r"://[^/\s]*@", value)  # an address with an account, or a password
    if value is not None and (is_secret(name, spec) or nested or anything or login or isinstance(value, dict)):
        kinds = {dict: "a mapping", list: "a list", bool: "true or false", int: "a number", float: "a number"}
        return f"{kinds.get(type(value), 'text')} (not shown)"
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 120 else f"{text:.117}..."


def _range(spec: Spec, words: tuple[str, str, str]) -> str:
    """The bounds of a specification in words, or nothing; `words` are for both, the lower and the upper one."""
    low, high = spec.get("min"), spec.get("max")
    both, least, most = words
    if low is None and high is None:
        return ""
    return (least if high is None else most if low is None else both).format(low, high)


def allowed(spec: Spec) -> str:
    """What a variable may be, in words: its type, and its range, choices or form."""
    kind, options = spec.get("type", "str"), spec.get("options")
    if kind == "list":
        least = 1 if spec.get("required") else spec.get("min")
        size = _range({**spec, "min": least}, ("of {} to {} items", "of {} or more items", "of {1} or less items"))
        return f"a list {size}".rstrip() + f", each item {allowed(_each(spec))}"
    if "words" in spec or "format" in spec:
        return str(spec.get("words") or FORMATS[spec["format"]][0])
    if spec.get("choices"):
        quoted = [c if isinstance(yaml.safe_load(c), str) else f'"{c}" (with the quotes)' for c in spec["choices"]]
        return f"one of {', '.join(quoted)}"
    if options:
        return "a mapping with " + ", ".join(f"{key} ({allowed(sub)})" for key, sub in options.items())
    if "keys" in spec or "values" in spec:
        keys, values = (allowed(spec.get(part) or {"type": "raw"}) for part in ("keys", "values"))
        return f"a mapping of names ({keys}) to values ({values})"
    return f"{TYPES[kind][0]} {_range(spec, ('from {} to {}', 'of {} or more', 'of {1} or less'))}".rstrip()


def _each(spec: Spec) -> dict[str, Any]:
    """The specification of a list's items."""
    left_out = ("type", "elements", "min", "max", "required", "default")
    return {**{k: v for k, v in spec.items() if k not in left_out}, "type": spec.get("elements", "raw")}


def _fits(value: Any, spec: Spec) -> bool:
    """Whether a value, not looking into it, is of its type and within its range, choices and form."""
    kind = spec.get("type", "str")
    if value is None or not TYPES[kind][1](value):
        return kind == "raw" and "format" not in spec
    size = len(value) if kind == "list" else float(value) if kind in ("int", "float") else 0
    least = 1 if kind == "list" and spec.get("required") else spec.get("min", size)
    if not least <= size <= spec.get("max", size):
        return False
    if kind in ("list", "dict"):
        return True
    text = str(value)
    choices = [str(choice) for choice in spec.get("choices") or ()]
    return (
        (not choices or text in choices)
        and bool(re.fullmatch(spec.get("pattern", "(?s).*"), text))
        and ("format" not in spec or FORMATS[spec["format"]][1](value))
    )


def value_problems(name: str, value: Any, spec: Spec, fix: str = "") -> list[str]:
    """Everything that is wrong with one variable, its items and its sub-options."""
    default = spec.get("default")
    plain = isinstance(default, (str, int, float)) and "{{" not in str(default)
    remove = "" if spec.get("required") else ", or remove it" + (f" for the default {default}" if plain else "")
    if not _fits(value, spec):
        near = nearest(str(value), map(str, spec.get("choices") or ()))
        return [f"{name} is {shown(name, value, spec)}; allowed: {allowed(spec)}{near}. {fix or FIX + remove}"]
    if spec.get("type") == "list":
        each = {**_each(spec), "no_log": is_secret(name, spec)}
        return [p for at, one in enumerate(value) for p in value_problems(f"{name}[{at}]", one, each, FIX)]
    if spec.get("type") != "dict":
        return []
    options, keys, found = spec.get("options") or {}, spec.get("keys") or {"type": "raw"}, []
    for key, one in value.items():
        sub: Spec = options.get(key) or spec.get("values") or {"type": "raw"}
        sub = {**sub, "no_log": True} if is_secret(name, spec) else sub  # what is within a secret is one, too
        if options and key not in options:
            found.append(f"{name}.{key} is not known{nearest(str(key), options)}; allowed: {', '.join(options)}. {FIX}")
        elif not _fits(key, keys):
            near = nearest(str(key), keys.get("choices") or ())
            found.append(f"{name} has the name {key}; allowed: {allowed(keys)}{near}. {FIX}")
        found += value_problems(f"{name}.{key}", one, sub, FIX)
    return found + [
        f"{name}.{key} is missing; allowed: {allowed(sub)}. Add it in the inventory"
        for key, sub in options.items()
        if sub.get("required") and key not in value
    ]


def input_problems(
    values: Mapping[str, Any], known: Mapping[str, Spec], failed: Mapping[str, str] | None = None
) -> list[str]:
    """What is wrong with a host's `k3s_*` and `casemate_*` variables; others are left alone.

    They are resolved, but for those in `failed`: expression and, by its name, why it fails.
    """
    found = []
    for name, value in sorted(values.items()):
        spec: Spec = known.get(name, {})
        if failed and name in failed:
            why = "its value is a secret" if is_secret(name, spec) else failed[name].strip().splitlines()[0]
            found.append(f"{name} is {shown(name, value, spec)}, which fails: {why}; allowed: {allowed(spec)}. {FIX}")
        elif name in known:
            found += value_problems(name, value, spec)
        elif name.startswith(PREFIXES):
            where = (
                f"{SHARED if name.startswith('casemate_') else ROOT / 'roles/*/defaults/main.yml'} says what there is"
            )
            found.append(f"{name} is not a variable of Casemate{nearest(name, known)}. Correct or remove it: {where}")
    for name, spec in known.items():
        if spec.get("required") and name not in values:
            example = f", for example {name}: {spec['example']}" if spec.get("example") else ""
            found.append(f"{name} is missing; allowed: {allowed(spec)}. Set it in the inventory{example}")
    return found
