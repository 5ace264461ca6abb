"""People as they are declared: an account for each, its groups, its last day; and who is revoked stays out.

One `ansible.builtin.user` task of the role settles what differs. No account of the system and not the one that Casemate
logs in as is ever among them, whatever is declared. Sources: passwd(5), shadow(5), group(5), useradd(8).
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Callable, Dict, List, Literal, Mapping, NamedTuple, Optional, TypedDict

from ..core import waiver
from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host.accounts import EPOCH, Account, days, group, is_over, last_days, login_shell, passwd, shadow
from ..host.machine import Host
from .account import LOGIN_DEFS, least_uid, login_defs, password
from .kind import Kind

Person = Mapping[str, Any]
"""One of `__casemate_people`: name, state, uid (0: any), groups, over (the first day that is too late; -1: none)."""
REVOKED = "revoked"
NEVER = -1
NOBODY = 65534
OF_EVERYBODY = "users"
"""The group that useradd gives to whom it makes no group of their own."""
PLACES = {
    "accounts": "/etc/passwd",
    "groups": "/etc/group",
    "last_days": "/etc/shadow",
    "revoked": "/etc/shadow",
    "second_factors": "casemate_people",
}


class Setting(TypedDict):
    """What a control of this kind demands."""

    of: Annotated[
        Literal["accounts", "groups", "last_days", "revoked", "second_factors"], Key("what of each person is judged")
    ]
    people: Annotated[List[Any], Key("everybody who is declared")]


class Lists(NamedTuple):
    """What the files say: accounts by name and by uid, kinds of passwords, last days, groups by member, least uid.

    `elsewhere` are accounts of people that stand in no file of this host but in a directory, such as LDAP.
    """

    accounts: Dict[str, Account]
    elsewhere: Dict[str, Account]
    names: Dict[int, str]
    passwords: Dict[str, str]
    last_days: Dict[str, int]
    groups: Dict[str, List[str]]
    group_names: Dict[int, str]
    least_uid: int
    automation: str
    today: int


class Fault(NamedTuple):
    """What is wrong with a person, what is there and what should be; and what keeps apply from mending it."""

    why: str
    have: Any
    want: Any
    barred: str = ""


def identity(setting: Setting) -> str:
    """One control for each thing that is judged."""
    return setting["of"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """Name -> Fault, for each setting. Raises OSError where the accounts cannot be read."""
    lists = read(host, (person for setting in settings for person in setting["people"]))
    return [{"faults": faults(setting, lists)} for setting in settings]


def read(host: Host, people: Iterable[Person] = ()) -> Lists:
    """What decides, as libc reads it; of these people the accounts of directories, too."""
    found = passwd(host.text("/etc/passwd") or "")
    if not found:
        raise OSError("/etc/passwd cannot be read as accounts")
    secrets = host.text("/etc/shadow") or ""
    groups: Dict[str, List[str]] = {}
    known = group(host.text("/etc/group") or "")
    for one in known:
        for member in one.members:
            groups.setdefault(member, []).append(one.name)
    accounts = {one.name: one for one in found if one.first}
    return Lists(
        accounts,
        _elsewhere(sorted({str(person["name"]) for person in people} - set(accounts)), host),
        {one.uid: one.name for one in reversed(found)},
        {name: password(field) for name, field in shadow(secrets).items()},
        last_days(secrets),
        {name: sorted(set(named)) for name, named in groups.items()},
        {one.gid: one.name for one in reversed(known)},
        least_uid(login_defs(host.text(LOGIN_DEFS) or "").get("UID_MIN", "")),
        str(host.context.get("account") or ""),
        days(waiver.day(host.context)),
    )


def _elsewhere(names: List[str], host: Host) -> Dict[str, Account]:
    """Those of the names that whatever /etc/nsswitch.conf names beside the files has an account for."""
    if not names:
        return {}
    said = host.cached(f"accounts beside the files: {names}", lambda: host.run(["getent", "passwd", *names]).out)
    return {one.name: one for one in passwd(said) if one.name in names}


def faults(setting: Setting, lists: Lists) -> Dict[str, Fault]:
    """Name -> what is wrong with that person. Who has no account is told by the control of accounts alone."""
    look = LOOKS[setting["of"]]
    found = {str(person["name"]): look(person, lists) for person in setting["people"]}
    return {name: fault for name, fault in sorted(found.items()) if fault}


def is_persons(uid: int, lists: Lists) -> bool:
    """Whether an account of this number is a person's: not the system's, and not the one that stands for nobody."""
    return uid >= lists.least_uid and uid != NOBODY


def spared(name: str, lists: Lists) -> str:
    """Why nothing is ever done to an account of this name, with what to do; nothing for a person's."""
    account = lists.accounts.get(name) or lists.elsewhere.get(name)
    automation = lists.accounts.get(lists.automation)
    if name == lists.automation or (account and automation and account.uid == automation.uid):
        return f"{name} is the account that Casemate logs in as: take it off casemate_people"
    if account and not is_persons(account.uid, lists):
        return f"{name} is an account of the system here (uid {account.uid}): give the person another name"
    return ""


def _account(person: Person, lists: Lists) -> Fault | None:
    name, uid = str(person["name"]), person["uid"]
    account = lists.accounts.get(name)
    barred = spared(name, lists)
    if barred:
        return Fault(barred, f"uid {account.uid}" if account else "absent", "a person's account", barred)
    if person["state"] == REVOKED:
        return None
    if name in lists.elsewhere:
        barred = (
            f"{name} is an account of a directory here, which nothing on this host changes: give the person another "
            "name, or take them off casemate_people and list them in k3s_access_allow_users"
        )
        return Fault(barred, f"uid {lists.elsewhere[name].uid}", "an account in /etc/passwd", barred)
    if account is None:
        taken = lists.names.get(uid, "") if uid else ""
        barred = f"the uid {uid} is {taken}'s here: give {name} another one" if taken else ""
        return Fault(barred or f"{name} has no account", "absent", "an account", barred)
    if uid and account.uid != uid:
        by_hand = f"{name} has the uid {account.uid}, not {uid}: declare that, or by hand: usermod -u {uid} {name}"
        return Fault(by_hand, account.uid, uid, by_hand)
    if not login_shell(account.shell):
        return Fault(f"{name} has no login shell", account.shell, "a login shell")
    return None


def _groups(person: Person, lists: Lists) -> Fault | None:
    name = str(person["name"])
    account, want = lists.accounts.get(name), sorted(person["groups"])
    if account is None or spared(name, lists):
        return None
    have, own = lists.groups.get(name, []), lists.group_names.get(account.gid, name)
    by_hand = ""
    if own not in (name, OF_EVERYBODY, *want):
        by_hand = f"{name} has {own} for a group of their own, which nobody declared: by hand: usermod -g {name} {name}"
    if have == want:
        return Fault(by_hand, [own, *have], want, by_hand) if by_hand else None
    lacks, beyond = [one for one in want if one not in have], [one for one in have if one not in want]
    words = [f"is not in {', '.join(lacks)}"] if lacks else []
    words += [f"is in {', '.join(beyond)}, which nobody declared"] if beyond else []
    why = f"{name} {' and '.join(words)}"
    return Fault(f"{why}; {by_hand}" if by_hand else why, have, want)


def _last_day(person: Person, lists: Lists) -> Fault | None:
    name = str(person["name"])
    have, want = lists.last_days.get(name, NEVER), person["over"]
    if person["state"] == REVOKED or name not in lists.accounts or spared(name, lists) or have == want:
        return None
    return Fault(f"{name} ends {date(have)}, not {date(want)}", date(have), date(want))


def _revoked(person: Person, lists: Lists) -> Fault | None:
    name = str(person["name"])
    if person["state"] == REVOKED and name in lists.elsewhere and not spared(name, lists):
        by_hand = f"{name} is revoked and an account of a directory: end it there, then take it off casemate_people"
        return Fault(by_hand, "an account of a directory", "locked and ended", by_hand)
    if person["state"] != REVOKED or name not in lists.accounts or spared(name, lists):
        return None
    usable = lists.passwords.get(name, "locked") != "locked"
    day = lists.last_days.get(name, NEVER)
    goes_on = not is_over(day, lists.today)
    words = (["has a usable password"] if usable else []) + (["has not ended"] if goes_on else [])
    have = " and ".join(words)
    return Fault(f"{name} is revoked and {have}", have, "locked and ended") if words else None


def _second_factor(person: Person, _lists: Lists) -> Fault | None:
    if person["state"] == REVOKED or person["second_factor"] != "none" or person["break_glass"]:
        return None
    why = f"{person['name']} needs a key alone: declare second_factor in casemate_people"
    return Fault(why, "none", "a second factor", why)


LOOKS: Dict[str, Callable[[Person, Lists], Optional[Fault]]] = {
    "accounts": _account,
    "groups": _groups,
    "last_days": _last_day,
    "revoked": _revoked,
    "second_factors": _second_factor,
}


def date(day: int) -> str:
    """The last day on which an account that is over on `day` still lets its person in, as people write it."""
    if day == NEVER:
        return "never"
    try:
        return "on " + (EPOCH + datetime.timedelta(days=day - 1)).isoformat()
    except OverflowError:
        return "never"


def has_ended(person: Person, today: int) -> bool:
    """Whether a person may have nothing running any more."""
    return bool(person["state"] == REVOKED or is_over(person["over"], today))


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that nothing is wrong; whom apply may not touch is named, with what to do."""
    wrong: Dict[str, Fault] = seen["faults"]
    barred = [fault.barred for fault in wrong.values() if fault.barred]
    return Verdict(
        ok=not wrong,
        expected={name: fault.want for name, fault in wrong.items()} or "as declared",
        observed={name: fault.have for name, fault in wrong.items()} or "as declared",
        reason=several([fault.why for fault in wrong.values()]),
        evidence="/etc/passwd, /etc/shadow, /etc/group",
        blocked_by="; ".join(barred),
        still_enforced=len(barred) < len(wrong),
        todo=[name for name, fault in wrong.items() if not fault.barred],
    )


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, enforced_by="task", places=lambda setting: [PLACES[setting["of"]]]
)
