"""What new passwords are really held against: the files of libpwquality in its order, then the options of PAM's lines.

Sources: libpwquality's settings.c and pam_pwquality.c (the drop-ins come first, so that the main file wins over them;
names count in any case; at a line that cannot be read all reading of files ends), pwquality.conf(5), pam_pwquality(8).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Dict, List, Optional, Tuple, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..formats import pam_stack
from ..host.files import names_in
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
    credits: Annotated[List[str], Key("options that may not be above 0, which let characters count more than once")]
    file: Annotated[str, Key("the file of ours that gives them: what another control says of that is not said twice")]


MAIN = "/etc/security/pwquality.conf"
MODULE = "pam_pwquality.so"
LINE = re.compile(r"\s*([^\s=]+)\s*=?\s*(.*?)\s*$")
NUMBERS = (
    "dcredit", "dictcheck", "difok", "enforcing", "gecoscheck", "lcredit", "maxclassrepeat", "maxrepeat", "maxsequence",
    "minclass", "minlen", "ocredit", "retry", "ucredit", "usercheck", "usersubstr",
)  # fmt: skip
WORDS = ("badwords", "dictpath", "enforce_for_root", "local_users_only")
"""Options with a number, and those that take anything; with another one, or another value, reading ends."""
NO_CREDIT = "0 or less"
Given = Dict[str, Tuple[str, str]]
"""Option -> its value, and where it is given."""


def identity(setting: Setting) -> str:
    """A host has one policy for new passwords."""
    return MAIN


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """What each line of PAM that asks about new passwords demands, by the services that ask it; what cannot be read."""
    files, broken = _of_files(host)
    called: Dict[Tuple[str, ...], Tuple[List[str], List[Given]]] = {}
    for service, stack in pam_stack.in_use("password", host).items():
        lines = [line for line in pam_stack.flat(stack) if line.module == MODULE]
        if lines:
            demands = [{**files, **_of_line(line)} for line in lines]
            called.setdefault(tuple(line.place for line in lines), ([], demands))[0].append(service)
    asked = list(called.values()) or [([], [files])]
    told = [setting.get("file") in host.failing_files for setting in settings]
    return [{"asked": asked, "broken": broken, "excused": excused} for excused in told]


def _of_files(host: Host) -> Tuple[Given, str]:
    """What the files give, and the line at which reading ends."""
    names = [name for name in names_in(host.path(f"{MAIN}.d")) if name.find(".conf") == len(name) - len(".conf")]
    found: Given = {}
    for path in [*(f"{MAIN}.d/{name}" for name in sorted(names)), MAIN]:  # names that begin with a dot, too
        for number, line in enumerate(split_lines(host.text(path) or ""), 1):
            given = LINE.match(line.partition("#")[0])
            if given is None:
                continue
            name = given[1].lower()
            if not (name in WORDS or (name in NUMBERS and _number(given[2]) is not None)):
                return found, f"{path}:{number}"
            found[name] = (given[2], f"{path}:{number}")
    return found, ""


def _of_line(line: pam_stack.Line) -> Given:
    """What the options of a line of PAM give. One that cannot be read is passed over."""
    parts = (option.partition("=") for option in line.options)
    given = [(name.lower(), value) for name, _, value in parts]
    return {name: (value, line.place) for name, value in given if name in WORDS or _number(value) is not None}


def _number(text: str) -> Optional[int]:
    """What strtol(3) makes of a whole text; None for what is no number."""
    return int(text) if re.fullmatch(r"[+-]?[0-9]+", text) else None


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that each option is as strict as demanded, wherever its value comes from, in each service.

    Of several lines in one service each has its say, so that the strictest value of an option counts.
    """
    said: List[str] = []
    where: Dict[str, None] = {}
    if seen["broken"]:
        said.append(f"{seen['broken']} cannot be read, so nothing of the files counts from there on: correct it")
        where[seen["broken"]] = None
    for _, demands in seen["asked"]:
        faults = [_faults(setting, given) for given in demands]
        for name in (name for name in faults[0] if all(name in others for others in faults[1:])):
            value = demands[0].get(name)
            if value is None and seen["broken"]:
                continue  # what stands there may be right
            shown = f"is {value[0]!r} by {value[1]}" if value else "is not set"
            remedy = ": remove that line" if value else ""
            said.append(f"{name} has to be {faults[0][name]} and {shown}{remedy}")
            where.update({value[1]: None} if value else {})
    said = [] if seen["excused"] else list(dict.fromkeys(said))
    others = {**dict.fromkeys(setting.get("credits", ()), NO_CREDIT), **dict.fromkeys(setting.get("flags", ()), "")}
    return Verdict(
        ok=not said,
        expected={**setting["at_least"], **setting["at_most"], **others},
        observed=[{name: value for name, (value, _) in given.items()} for _, (given, *_more) in seen["asked"]],
        reason=several(said),
        evidence=f"{MAIN}.d, {MAIN}, the stacks of /etc/pam.d",
        where=() if seen["excused"] else tuple(where),
    )


def _faults(setting: Setting, given: Given) -> Dict[str, str]:
    """Option -> what it has to be, of those that are not."""
    values = {name: _number(value) or 0 for name, (value, _) in given.items()}
    wrong: Dict[str, str] = {}
    for name, lowest in setting["at_least"].items():
        if values.get(name, 0) < lowest:
            wrong[name] = f"at least {lowest}"
    for name, highest in setting["at_most"].items():
        if not 1 <= values.get(name, 0) <= highest:
            wrong[name] = f"from 1 to {highest}"
    wrong.update({name: NO_CREDIT for name in setting.get("credits", ()) if values.get(name, 0) > 0})
    wrong.update({name: "set" for name in setting.get("flags", ()) if name not in given})
    return wrong


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, places=lambda setting: [setting.get("file", MAIN)])
