"""One key of K3s' configuration against what is demanded of it: its value, who gives it, and what runs. All pure."""

from __future__ import annotations

from typing import Any, Collection, Dict, List, Mapping, Optional

from ..core.flow import plain
from ..core.legible import veiled
from ..formats.yaml_subset import Value
from .files import Part, flag_of, items, text_of


def veil(key: str, value: Optional[Value], secret: Collection[str]) -> Any:
    """A value as it may be shown: as digests, item by item, where the key is secret; flags keep their names."""
    if key not in secret or value is None:
        return value
    if not isinstance(value, list):
        return veiled(value)
    if not key.endswith("-arg"):
        return [veiled(item) for item in value]
    return [f"{flag}={veiled(one)}" for flag, one in map(flag_of, value)]


def veil_flags(
    key: str, running: Optional[Mapping[str, List[str]]], secret: Collection[str]
) -> Optional[Mapping[str, List[str]]]:
    """The flags of a running component as they may be shown."""
    if key not in secret or running is None:
        return running
    made: Dict[str, List[str]] = {flag: [veiled(one) for one in values] for flag, values in running.items()}
    return made


def wanted(setting: Mapping[str, Any]) -> Dict[str, Any]:
    """Key -> value that one setting demands."""
    return dict(setting.get("options") or ({setting["key"]: setting.get("value")} if "key" in setting else {}))


def left_over(mine: Mapping[str, Value], made: Mapping[str, Any]) -> List[str]:
    """Keys and flags of an owned file that nothing declares any more; another value of one counts against it.

    No value is told: whether it was a secret, only its declaration knew.
    """
    left = [key for key in mine if key not in made]
    for key in set(mine) & set(made):
        if key.endswith("-arg"):
            flags = {flag_of(item)[0] for item in items(text_of(made[key]))}
            left += [f"{key}: {flag}" for flag, _ in map(flag_of, items(mine[key])) if flag not in flags]
    return sorted(left)


def others(key: str, value: Any, parts: List[Part], owned: List[str]) -> List[str]:
    """Files of others that replace a key or, in a list of arguments, add one of the demanded flags."""
    flags = {flag_of(item)[0] for item in listed(value)}
    return [
        part.path
        for number, part in enumerate(parts)
        if part.path not in owned
        and (number == 0 or not key.endswith("-arg") or flags & {flag_of(item)[0] for item in items(part.value)})
    ]


def listed(value: Any) -> List[Any]:
    """A demand of an *-arg key as a list of items."""
    return list(value) if isinstance(value, list) else [value]


def concerned(key: str, value: Any, have: Any) -> Any:
    """Of an *-arg list only the items about the demanded flags."""
    flags = {flag_of(item)[0] for item in listed(value)}
    return [item for item in items(have or "") if flag_of(item)[0] in flags] if key.endswith("-arg") else have


def wrong(key: str, value: Any, at: Mapping[str, Any]) -> List[str]:
    """What is wrong with the merged value. One that is neither demanded nor set is right: `[]` demands nothing."""
    if key.endswith("-arg"):
        given = [
            (flag_of(i), [v for f, v in map(flag_of, items(at["value"] or "")) if f == flag_of(i)[0]])
            for i in listed(value)
        ]
        return [
            f"{key} gives {flag} as {'another value, which is not shown' if at.get('secret') else ', '.join(have)}"
            if have
            else f"{key} does not give {flag}"
            for (flag, want), have in given
            if {*have} != {want}
        ]
    if at["value"] == text_of(value) or (at["value"] is None and value == []):
        return []
    by = f" by {at['file']}" if at["file"] else ""
    if at.get("secret"):
        return [
            f"{key} is {'not set' if at['value'] is None else 'another value, which is not shown,'}{by}".rstrip(",")
        ]
    return [f"{key} is {'not set' if at['value'] is None else plain(at['value'])}{by}"]


def behind(key: str, value: Any, running: Optional[Mapping[str, List[str]]]) -> List[str]:
    """How the flags of the running component, where they are known, differ from what is demanded."""
    if running is None:
        return []
    given = [(flag, want, running.get(flag, [])) for flag, want in map(flag_of, listed(value))]
    return [
        f"the running {key[:-4]} has {flag} as {', '.join(have) or 'nothing'}"
        for flag, want, have in given
        if {*have} != {want}
    ]
