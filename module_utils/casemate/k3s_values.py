"""One key of K3s' configuration against what is demanded of it: its value, who gives it, and what runs. All pure."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from .k3s_files import Part, flag_of, items, text_of
from .miniyaml import Value


def wanted(setting: Mapping[str, Any]) -> Dict[str, Any]:
    """Key -> value that one setting demands."""
    return dict(setting.get("options") or ({setting["key"]: setting.get("value")} if "key" in setting else {}))


def left_over(mine: Mapping[str, Value], made: Mapping[str, Any]) -> List[str]:
    """Keys and flags of an owned file that nothing declares any more; another value of one counts against it."""
    left = [key for key in mine if key not in made]
    for key in set(mine) & set(made):
        if key.endswith("-arg"):
            flags = {flag_of(item)[0] for item in items(text_of(made[key]))}
            left += [f"{key}: {item}" for item in items(mine[key]) if flag_of(item)[0] not in flags]
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
            f"{key} gives {flag} as {', '.join(have) or 'nothing'}" for (flag, want), have in given if {*have} != {want}
        ]
    if at["value"] == text_of(value) or (at["value"] is None and value == []):
        return []
    by = f" by {at['file']}" if at["file"] else ""
    return [f"{key} is {'not set' if at['value'] is None else at['value']}{by}"]


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
