"""Accounts as libc reads them from passwd(5) and shadow(5).

Source: glibc's nss_files (files-parse.c, files-XXX.c, fgetpwent_r.c, sgetspent_r.c): leading white space is skipped,
comments and what does not parse are no accounts, names that begin with + or - are entries of NIS, absent fields at the
end are empty, numbers are read by strtoul(3), and of several lines with one name or number the first counts.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Dict, List, Optional

from .text import SPACE, split_lines

NUMBER = re.compile(rf"[{SPACE}]*([+-]?)([0-9]+)")
MOST = 2**32 - 1
EPOCH = datetime.date(1970, 1, 1)
"""From which shadow(5) counts days."""
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?")
"""Names that a program may be given as an argument: nothing in them is an option, a pattern or a path."""
NO_SHELL = ("nologin", "false", "sync", "shutdown", "halt")


@dataclass(frozen=True)
class Account:
    """One line of passwd(5). `first` says whether it is what its name means; a later line of the name is reached
    by its uid only."""

    name: str
    password: str
    uid: int
    gid: int
    home: str
    shell: str
    first: bool = True


def _entries(text: str) -> List[str]:
    """Lines that may be entries: what follows a NUL is not seen by libc."""
    found = (line.split("\0", 1)[0].lstrip(SPACE) for line in split_lines(text))
    return [line for line in found if line and line[0] not in "#+-"]


def number(field: str) -> Optional[int]:
    """What strtoul(3) makes of a whole field in base 10, or None where libc refuses it, as it does above 32 bits."""
    match = NUMBER.fullmatch(field)
    value = int(match[2]) if match and len(match[2]) < 30 else MOST + 1
    if match and match[1] == "-" and 0 < value < 2**64:
        value = 2**64 - value
    return value if value <= MOST else None


def passwd(text: str) -> List[Account]:
    """Every account of /etc/passwd, in its order."""
    found: List[Account] = []
    names = set()
    for line in _entries(text):
        fields = line.split(":", 6)
        ids = [number(field) for field in fields[2:4]]
        if len(ids) < 2 or ids[0] is None or ids[1] is None:
            continue
        fields += [""] * (7 - len(fields))
        name = fields[0]
        found.append(Account(name, fields[1], ids[0], ids[1], fields[5], fields[6], name not in names))
        names.add(name)
    return found


def shadow(text: str) -> Dict[str, str]:
    """Account -> its password field of /etc/shadow."""
    return {name: fields[1] for name, fields in shadow_fields(text).items()}


def shadow_fields(text: str) -> Dict[str, List[str]]:
    """Account -> all fields of its line in /etc/shadow, absent ones at the end as empty."""
    found: Dict[str, List[str]] = {}
    for line in _entries(text):
        fields = line.split(":")
        dates = fields[2:5]
        whole = len(fields) > 5 or (len(fields) == 5 and bool(fields[4]))
        if whole and all(number(field) is not None for field in dates if field.strip(SPACE)):
            found.setdefault(fields[0], [*fields, *[""] * (9 - len(fields))])
    return found


def last_days(text: str) -> Dict[str, int]:
    """Account -> the first day on which it is over, in days since 1970, of those in /etc/shadow that have one."""
    found: Dict[str, int] = {}
    seen = set()
    for fields in (line.split(":") for line in _entries(text)):
        day = number(fields[7]) if len(fields) > 7 and fields[7].strip(SPACE) else None
        if day is not None and fields[0] not in seen:
            found[fields[0]] = day
        seen.add(fields[0])
    return found


def days(date: datetime.date) -> int:
    """A date as shadow(5) has it."""
    return (date - EPOCH).days


def is_over(day: int, today: int) -> bool:
    """Whether an account whose first day past its end is `day` lets nobody in any more; 0 and less is no end."""
    return 0 < day <= today


@dataclass(frozen=True)
class Group:
    """One line of group(5)."""

    name: str
    gid: int
    members: List[str]


def group(text: str) -> List[Group]:
    """Every group of /etc/group, in its order."""
    found: List[Group] = []
    for fields in (line.split(":") for line in _entries(text)):
        gid = number(fields[2]) if len(fields) > 2 else None
        if gid is not None:
            members = fields[3].split(",") if len(fields) > 3 else []
            found.append(Group(fields[0], gid, [one.strip() for one in members if one.strip()]))
    return found


def login_shell(shell: str) -> bool:
    """Whether an account with this shell gets one; an empty field is /bin/sh (passwd(5))."""
    return shell.rsplit("/", 1)[-1] not in NO_SHELL
