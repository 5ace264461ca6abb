"""What sudo's files say, as its own parser (cvtsudoers(1), JSON) shows them: who needs no password, and Defaults.

Source: sudoers(5): aliases, negation, tags, and the order in which Defaults count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..host.machine import Host

SIGNS = {"usergroup": "%", "usergid": "%#", "userid": "#", "netgroup": "+", "nonunixgroup": "%:", "nonunixgid": "%:#"}


INCLUDE = re.compile(r"[@#](include(?:dir)?)\s+\"?(.+?)\"?\s*$")


def reads_folder(host: Host, path: str, folder: str, depth: int = 0) -> bool:
    """Whether sudo reads the files of a folder: a line of the file at `path` says so, or of one that it includes."""
    for found in filter(None, map(INCLUDE.match, (host.text(path) or "").split("\n"))):
        named = _named(path, found[2])
        if found[1] == "includedir" and named.rstrip("/") == folder:
            return True
        if found[1] == "include" and depth < 8 and reads_folder(host, named, folder, depth + 1):
            return True
    return False


def _named(path: str, given: str) -> str:
    """What an include in the file at `path` means."""
    return given if given.startswith("/") else f"{path.rpartition('/')[0]}/{given}"


def written(host: Host, path: str, depth: int = 0) -> list[tuple[str, str]]:
    """(file:line, line) of everything that sudo reads from `path` on, in its order; a loop of includes must end."""
    found: list[tuple[str, str]] = []
    number, text = 0, host.text(path) or ""
    for line in text.replace("\\\n", "\0").split("\n"):  # a continued line counts as the one where it begins
        number += 1
        include = INCLUDE.match(line)
        if include and depth < 8:
            named = _named(path, include[2])
            inner = [one for one in host.glob(f"{named}/*") if not re.search(r"~$|\.", one[len(named) :])]
            for one in inner if include[1] == "includedir" else [named]:
                found += written(host, one, depth + 1)
        elif not re.match(r"\s*#(?!\d)", line):  # with a number after it, it is a uid (sudoers(5))
            found.append((f"{path}:{number}", line.replace("\0", " ")))
        number += line.count("\0")
    return found


def places(lines: list[tuple[str, str]], words: str, whom: list[str]) -> list[str]:
    """Where a pattern of words stands: in lines that name each of `whom`, or, with an alias between, in all of them."""
    hits = [(place, re.split(r"[\s,=:]+", line)) for place, line in lines if re.search(words, line)]
    named = [place for place, tokens in hits if set(whom) & set(tokens)]
    everyone = {name for name in whom for _, tokens in hits if name in tokens} == set(whom)
    return named if named and everyone else [place for place, _ in hits]


def nopasswd(policy: Mapping[str, Any], names: Mapping[int, str]) -> list[str]:
    """Whom sudo asks for no password, as cvtsudoers shows its files; `names` are the accounts by uid.

    A rule counts whatever its commands, target and host are: few programs that may be run as another stay harmless.
    Defaults that ask nobody are told as such, whoever is meant: cvtsudoers shows `Defaults:root` and `Defaults>root`
    alike.
    """
    found = []
    for option in (option for default in policy.get("Defaults", ()) for option in default["Options"]):
        found += ["those of Defaults !authenticate"] if option.get("authenticate") is False else []
        found += [f"%{option['exempt_group']}"] if option.get("exempt_group") else []
    for rule in policy.get("User_Specs", ()):
        if any({"authenticate": False} in command.get("Options", ()) for command in rule["Cmnd_Specs"]):
            found += grantees(rule["User_List"], policy.get("User_Aliases", {}), names)
    return sorted({*found} - {"root"})


def overridden(policy: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """Defaults that are not as they must be: the last of those for all, and each that is for some only (sudoers(5))."""
    general: dict[str, Any] = {}
    special: list[tuple[str, Any]] = []
    for default in policy.get("Defaults", ()):
        for name, value in (pair for option in default["Options"] for pair in option.items() if pair[0] in options):
            if default.get("Binding"):
                special.append((name, value))
            else:
                general[name] = value
    found = [(name, general.get(name, "not set")) for name in options] + special
    words = {True: "on", False: "off"}
    return sorted(
        {f"{name} is {words.get(value, value)}" for name, value in found if not as_good(value, options[name])}
    )


def as_good(value: Any, wanted: Any) -> bool:
    """Whether an option is as it must be: the same, or a number that is not above it (a negative one has no end)."""
    if isinstance(wanted, (str, bool)):
        return bool(value == wanted)
    return value is False or bool(re.fullmatch(r"\d+(\.\d*)?", str(value)) and float(value) <= wanted)


def grantees(
    members: list[dict[str, Any]], aliases: Mapping[str, Any], names: Mapping[int, str], negated: bool = False
) -> Iterator[str]:
    """Who is in a list of users, aliases resolved: what a negated list leaves out is let in."""
    for member in members:
        (sort, value), *_ = ((k, v) for k, v in member.items() if k != "negated")
        out = bool(member.get("negated")) != negated
        if sort == "useralias":
            yield from grantees(aliases.get(value, []), {k: v for k, v in aliases.items() if k != value}, names, out)
        elif not out:
            yield names.get(value, f"#{value}") if sort == "userid" else f"{SIGNS.get(sort, '')}{value}"
