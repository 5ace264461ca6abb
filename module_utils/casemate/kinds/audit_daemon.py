"""How auditd keeps and limits its log. Observe-only: the file is its package's, and has no folder of drop-ins.

Source: auditd.conf(5); of several lines for one name the last counts.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host.machine import Host
from ..host.text import split_lines
from .kind import Kind


class Setting(TypedDict, total=False):
    """What a control of this kind may demand."""

    values: Annotated[dict[str, list[str]], Key("name to the words that it may be; not set is none")]
    at_least: Annotated[dict[str, int], Key("name to its lowest number")]


FILE = "/etc/audit/auditd.conf"


def identity(setting: Setting) -> str:
    """The names that are judged."""
    return ",".join(sorted([*setting.get("values", ()), *setting.get("at_least", ())]))


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """Name -> word and number of the line that counts."""
    found: Observation = {}
    for number, line in enumerate(split_lines(host.text(FILE) or ""), 1):
        match = re.fullmatch(r"\s*(\w+)\s*=\s*(\S+)\s*", line, re.ASCII)
        if match:
            found[match[1].lower()] = (match[2].lower(), number)
    return [found] * len(settings)


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that each is one of the words, or a number that is high enough."""
    wanted = {name: " or ".join(words) for name, words in setting.get("values", {}).items()}
    wanted.update({name: f"{lowest} or more" for name, lowest in setting.get("at_least", {}).items()})
    wrong = []
    for name in wanted:
        word, _ = seen.get(name, ("", 0))
        good = word in setting.get("values", {}).get(name, ())
        lowest = setting.get("at_least", {}).get(name)
        wrong += [] if good or (lowest is not None and word.isdigit() and int(word) >= lowest) else [name]
    where = [f"{FILE}:{seen[name][1]}" if name in seen else FILE for name in wrong]
    said = [f"{at}: {name} is {seen.get(name, ('not set', 0))[0]}" for at, name in zip(where, wrong)]
    advice = f"; set {', '.join(f'{name} = {wanted[name]}' for name in wrong)}, then: systemctl reload auditd"
    return Verdict(
        ok=not wrong,
        expected=wanted,
        observed={name: seen[name][0] for name in wanted if name in seen},
        reason="; ".join(said) + (advice if wrong else ""),
        evidence=FILE,
        where=tuple(where),
    )


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, places=lambda setting: [FILE])
