"""What new passwords are really held against: the files of libpwquality in its order, then the options of PAM's line.

Sources: libpwquality's settings.c (the drop-ins come first, so that the main file wins over them), pwquality.conf(5),
pam_pwquality(8).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, Dict, List, Tuple, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..formats import pam_stack
from ..host.machine import Host
from ..host.text import split_lines
from .kind import Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    at_least: Annotated[Dict[str, int], Key("option to the lowest number that it may have")]
    at_most: Annotated[Dict[str, int], Key("option to the highest; 0 switches it off and counts as above")]


class Setting(Needed, total=False):
    """What a control of this kind demands."""

    flags: Annotated[List[str], Key("options without a value that have to be set")]
    file: Annotated[str, Key("the file of ours that gives them: what another control says of that is not said twice")]


MAIN = "/etc/security/pwquality.conf"
MODULE, SERVICE = "pam_pwquality.so", "common-password"
LINE = re.compile(r"\s*(\w+)\s*(?:=\s*(.*?))?\s*(?:#.*)?$")


def identity(setting: Setting) -> str:
    """A host has one policy for new passwords."""
    return MAIN


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """Option -> (its value, where it is given), of every option that is given anywhere."""
    found: Dict[str, Tuple[str, str]] = {}
    for path in [*host.glob(f"{MAIN}.d/*.conf"), MAIN]:
        for number, line in enumerate(split_lines(host.text(path) or ""), 1):
            given = LINE.match(line)
            if given:
                found[given[1]] = (given[2] or "", f"{path}:{number}")
    for called in pam_stack.stack(SERVICE, "password", host):
        if called.module == MODULE:
            found.update({o.partition("=")[0]: (o.partition("=")[2], called.place) for o in called.options})
    shown = {name: {"value": value, "place": place} for name, (value, place) in found.items()}
    return [{"given": shown, "excused": setting.get("file") in host.failing_files} for setting in settings]


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that each option is as strict as demanded, wherever its value comes from."""
    given: Dict[str, Dict[str, str]] = seen["given"]
    wrong: Dict[str, str] = {}
    for name, lowest in setting["at_least"].items():
        if _number(given.get(name)) < lowest:
            wrong[name] = f"at least {lowest}"
    for name, highest in setting["at_most"].items():
        if not 1 <= _number(given.get(name)) <= highest:
            wrong[name] = f"from 1 to {highest}"
    wrong.update({name: "set" for name in setting.get("flags", []) if name not in given})
    if seen["excused"]:
        wrong = {}
    said = [f"{name} has to be {wanted} and {_shown(given.get(name))}" for name, wanted in wrong.items()]
    places = tuple(given[name]["place"] for name in wrong if name in given)
    observed: Dict[str, Any] = {name: given[name]["value"] for name in given}
    return Verdict(
        ok=not wrong,
        expected={**setting["at_least"], **setting["at_most"], **dict.fromkeys(setting.get("flags", []), "")},
        observed=observed,
        reason=f"{'; '.join(said)}: remove that line" if said else "",
        evidence=f"{MAIN}.d, {MAIN}, /etc/pam.d/{SERVICE}",
        where=places,
    )


def _number(one: Any) -> int:
    text = one["value"] if one else "0"
    return int(text) if re.fullmatch(r"-?\d+", text) else 0


def _shown(one: Any) -> str:
    return f"is {one['value']!r} by {one['place']}" if one else "is not set"


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, places=lambda setting: [setting.get("file", MAIN)])
