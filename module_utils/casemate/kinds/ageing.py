"""When passwords end: what new accounts are given, and what those have that are there.

What else the files of new accounts say (how passwords are hashed, how homes are made) is judged as that.

An account that comes in by key ends with its password, too, since sshd asks PAM about it: so one that has none must not
age, and the account that Casemate logs in as is told and left alone. No apply ends somebody's password either: one that
is old already would end at once. Sources: shadow(5), login.defs(5), useradd(8), and pam_unix's check_shadow_expiry.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from typing import Annotated, Dict, List, Literal, NamedTuple, Optional, Pattern, Set, TypedDict

from ..core.schema import Key
from ..core.verdict import Left, Observation, Verdict
from ..host.accounts import number, shadow_fields
from ..host.machine import Host
from ..host.text import split_lines
from .account import password
from .home import people
from .kind import Enforceable, Kind, Owned, Pass


class Needed(TypedDict):
    """What every setting of this kind says."""

    of: Annotated[
        Literal["new_accounts", "passwords", "keys", "dates"],
        Key("new_accounts: what a file gives them; passwords: of people; keys: people without one; dates: of changes"),
    ]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind may demand."""

    file: Annotated[str, Key("new_accounts: login.defs, or the defaults of useradd")]
    at_least: Annotated[Dict[str, int], Key("name to its lowest number of days; of accounts as in chage(1)")]
    at_most: Annotated[Dict[str, int], Key("name to its highest number of days; what is not set counts as above")]
    exactly: Annotated[Dict[str, str], Key("new_accounts: name to its word, such as an octal number")]
    allow: Annotated[List[str], Key("passwords: accounts whose password does not end")]


class Field(NamedTuple):
    """A number of /etc/shadow: the place of its field, and the option of chage(1) that sets it."""

    place: int
    option: str


FIELDS = {"min": Field(3, "-m"), "max": Field(4, "-M"), "warn": Field(5, "-W"), "inactive": Field(6, "-I")}
SHADOW = "/etc/shadow"
MARK = "# Casemate; before: "
"""Begins a comment above a line of ours."""
NEVER = 10000
"""Days from which on a password counts as one that does not end; Debian writes 99999."""


def identity(setting: Setting) -> str:
    """The check, and the file that it is about with the names of what is set there."""
    return ":".join([setting["of"], *([setting["file"], *sorted(_names(setting))] if "file" in setting else [])])


def place(setting: Setting) -> str:
    """The file that is judged."""
    return setting.get("file", SHADOW)


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """For each setting its faults, by name; what new accounts are given as numbers of days."""
    today = int(time.time() // 86400)
    seen: List[Observation] = []
    for setting in settings:
        if setting["of"] == "new_accounts":
            text = host.text(setting["file"]) or ""
            seen.append({"given": given(text), "words": words(text), "faults": {}})
        elif setting["of"] == "dates":
            seen.append({"faults": _ahead(host, today)})
        else:
            judge = _of_keys if setting["of"] == "keys" else _of_passwords
            seen.append({"faults": judge(setting, host, today)})
    return seen


def given(text: str) -> Dict[str, int]:
    """Name -> number of days, of login.defs (a space) or the defaults of useradd (=); the last line counts."""
    return {name: int(word) for name, word in words(text).items() if re.fullmatch(r"-?\d+", word, re.ASCII)}


def words(text: str) -> Dict[str, str]:
    """Name -> word, of the same files."""
    found = (re.match(r"[ \t]*(\w+)(?:[ \t]+|=)[\"']?([^\s\"']+)[\"']?\s*$", line) for line in split_lines(text))
    return {one[1]: one[2] for one in found if one}


def _lines(host: Host) -> Dict[str, List[str]]:
    return shadow_fields(host.text(SHADOW) or "")


def _days(fields: List[str], place: int) -> Optional[int]:
    """A number of /etc/shadow, or None where it is not set."""
    value = number(fields[place])
    return None if not fields[place] or value is None or value > 2**31 else value


def _ends(fields: List[str]) -> bool:
    """Whether a login ends because of the password's age, or at once because it has to be changed."""
    most = _days(fields, FIELDS["max"].place)
    return _days(fields, 2) == 0 or (most is not None and most < NEVER)


def _of_passwords(setting: Setting, host: Host, today: int) -> Dict[str, str]:
    """People whose password may be older than it should; whoever has none is judged as that."""
    spared = {*setting.get("allow", ()), str(host.context.get("account", ""))}
    faults, known = {}, _lines(host)
    for name in (one.name for one in people(host) if one.name in known):
        fields = known[name]
        if name in spared or password(fields[1]) in ("locked", "empty"):
            continue
        values = {key: _days(fields, field.place) for key, field in FIELDS.items()}
        wrong = _wrong(setting, values)
        if wrong:
            does = f"chage {' '.join(f'{FIELDS[key].option} {days}' for key, days in wrong.items())} {name}"
            changed, most = _days(fields, 2), wrong.get("max", 0)
            old = most and changed is not None and changed + most < today
            first = f"passwd {name}, since it is older than that already, then " if old else ""
            faults[name] = f"{', '.join(f'{key} is {_shown(values[key])}' for key in wrong)}: {first}{does}"
    return faults


def _of_keys(setting: Setting, host: Host, today: int) -> Dict[str, str]:
    """People without a password, and whom Casemate logs in as, who will not come in any more because of its age."""
    ours, known = str(host.context.get("account", "")), _lines(host)
    faults = {}
    for name in dict.fromkeys([*(one.name for one in people(host)), ours]):
        fields = known.get(name)
        if fields is None or not _ends(fields) or (name != ours and password(fields[1]) != "locked"):
            continue
        who = "Casemate logs in as it" if name == ours else "it has no password to change"
        faults[name] = (
            f"{who}, and once its password is over PAM refuses its keys, too: chage -M -1 -I -1 -d $(date +%F) {name}"
        )
    return faults


def _ahead(host: Host, today: int) -> Dict[str, str]:
    """Accounts whose password was changed in the future, so that it does not end before."""
    faults = {}
    for name, fields in _lines(host).items():
        changed = _days(fields, 2)
        if changed is not None and changed > today:
            days = changed - today
            faults[name] = f"its password was changed {days} days from now: chage -d $(date +%F) {name}"
    return faults


def _wrong(setting: Setting, values: Dict[str, Optional[int]]) -> Dict[str, int]:
    """Name -> what it should be, of those that are not as demanded."""
    wrong = {}
    for name, lowest in setting.get("at_least", {}).items():
        value = values.get(name)
        if value is None or value < lowest:
            wrong[name] = lowest
    for name, highest in setting.get("at_most", {}).items():
        value = values.get(name)
        if value is None or not 0 <= value <= highest:
            wrong[name] = highest
    return wrong


def _other(setting: Setting, seen: Dict[str, str]) -> Dict[str, str]:
    """Name -> its word, of those that have another one."""
    return {name: word for name, word in setting.get("exactly", {}).items() if seen.get(name) != word}


def _shown(value: int | str | None) -> str:
    return "not set" if value is None else str(value)


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that nobody offends."""
    demanded = {**setting.get("at_least", {}), **setting.get("at_most", {}), **setting.get("exactly", {})}
    if setting["of"] == "new_accounts":
        values = {name: seen["given"].get(name) for name in demanded}
        wrong = {**_wrong(setting, values), **_other(setting, seen["words"])}
        values.update({name: seen["words"].get(name) for name in setting.get("exactly", {})})
        return Verdict(
            ok=not wrong,
            expected=demanded,
            observed=values,
            reason=", ".join(f"{name} is {_shown(values[name])}" for name in wrong),
            evidence=place(setting),
        )
    faults = seen["faults"]
    return Verdict(
        ok=not faults,
        expected=demanded or "nobody",
        observed=sorted(faults) or "nobody",
        reason="; ".join(f"{name}: {why}" for name, why in faults.items()),
        evidence=SHADOW,
    )


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Write what new accounts are given, and beside it what stood there."""
    for setting in (settings[i] for i in sorted(failing)):
        text = host.text(setting["file"]) or ""
        wrong: Dict[str, int | str] = {**_wrong(setting, dict(given(text))), **_other(setting, words(text))}
        for name, value in wrong.items():
            text = _set(text, name, value, "=" if setting["file"].endswith("/useradd") else "\t")
        _write(setting, text, host)


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """The file, as long as a line of it is ours."""
    text = host.text(setting["file"]) or "" if "file" in setting else ""
    return Left(setting["file"]) if any(_mark(name).search(text) for name in _names(setting)) else Left()


def take_back(waived: List[Setting], wanted: List[Setting], host: Host) -> None:
    """Put back what stood there before."""
    for setting in (one for one in waived if "file" in one):
        text = host.text(setting["file"]) or ""
        for name in _names(setting):
            stood = _mark(name).search(text)
            if stood:
                before = "" if stood[1] == name else f"{stood[1]}\n"
                text = _line(name).sub("", text.replace(stood[0], f"{MARK}\n", 1)).replace(f"{MARK}\n", before, 1)
        _write(setting, text, host)


def _write(setting: Setting, text: str, host: Host) -> None:
    host.write(setting["file"], text.encode("utf-8", "surrogateescape"))


def _names(setting: Setting) -> List[str]:
    return [*setting.get("at_least", {}), *setting.get("at_most", {}), *setting.get("exactly", {})]


def _set(text: str, name: str, value: int | str, between: str) -> str:
    """A text with one line for a name, where its first one was, or at the end; above it the one that counted before."""
    marked, lines = _mark(name).search(text), list(_line(name).finditer(text))
    before = marked[1] if marked else lines[-1][0].rstrip("\n") if lines else name
    new = f"{MARK}{before}\n{name}{between}{value}\n"
    text = _mark(name).sub("", text)
    found = _line(name).search(text)
    if not found:
        return text + ("" if not text or text.endswith("\n") else "\n") + new
    return text[: found.start()] + new + _line(name).sub("", text[found.end() :])


def _line(name: str) -> Pattern[str]:
    return re.compile(rf"(?m)^[ \t]*{name}(?:[ \t]+|=).*\n?")


def _mark(name: str) -> Pattern[str]:
    """The comment that keeps the line that stood there, or the name alone where there was none."""
    return re.compile(rf"(?m)^{MARK}([ \t]*{name}(?:[ \t=].*)?)\n")


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    places=lambda setting: [place(setting)],
    owned=Owned(left, take_back),
)
