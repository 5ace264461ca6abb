"""What no single value of `casemate_people` shows: who is there twice, who is no person, which keys may not be. Pure.

Each problem names the person, what is allowed and what to do. A key is never shown: it may be a private one.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from casemate.catalogue import declarations
from casemate.preflight import totp
from module_utils.casemate.formats import authorized_keys
from module_utils.casemate.formats.authorized_keys import FIDO, Key, Unfit

VARIABLE = "casemate_people"
AUTHORITIES = "k3s_access_trusted_user_ca_keys"
KEYS_WRITTEN = declarations.control("folder", path="{{ __k3s_access_keys_folder }}")
KEYS_READ = declarations.control("sshd", key="authorizedkeysfile")
"""The controls by which keys of people are written, and by which sshd looks for them there."""
PRESENT, REVOKED = "present", "revoked"
SECOND_FACTOR, CODES = "fido", "totp"
FACTORS = (SECOND_FACTOR, CODES)
NEEDED_BY_CODES = [
    *(
        declarations.control("sshd", key=key)
        for key in ("authenticationmethods", "kbdinteractiveauthentication", "passwordauthentication", "usepam")
    ),
    declarations.control("pam_line", profile="casemate-code"),
    declarations.control("totp_secrets"),
]
"""The controls without which a code would be the only proof, or none, or nobody's."""
NEEDED_BY_TOKENS = [
    declarations.control("sshd", key=key)
    for key in (
        "authorizedkeysfile", "authorizedkeyscommand", "trustedusercakeys", "passwordauthentication",
        "kbdinteractiveauthentication", "hostbasedauthentication", "gssapiauthentication",
    )
]  # fmt: skip
"""The controls without which another proof than a key of a token may let somebody in."""
NEEDED = {SECOND_FACTOR: ("token", NEEDED_BY_TOKENS), CODES: ("code", NEEDED_BY_CODES)}
"""Second factor -> its name in words, and what it needs."""
OTHER_LISTS = {
    "k3s_access_allow_users": "lets in",
    "k3s_access_sudo_without_password": "excuses a rule of sudo for",
    "k3s_host_ageless_accounts": "excuses the password of",
}
"""Other inputs that let somebody do something -> what they do for a name."""
OF_SERVICES = (
    "backup", "bin", "daemon", "games", "gnats", "irc", "kube", "list", "lp", "mail", "man", "messagebus", "news",
    "nobody", "ntp", "polkitd", "proxy", "sshd", "sync", "sys", "tss", "uucp", "uuidd", "www-data",
)  # fmt: skip
"""Accounts that Debian and its packages bring, beside those that begin with _ or systemd-."""
NOBODY = 65534
"""The uid of the account that stands for nobody (passwd(5))."""
FIRST_END = datetime.date(1970, 1, 1)
"""The first last day that an account can have: shadow(5) counts from it, and takes what is before for none."""
Person = Mapping[str, Any]


def admitted(people: Iterable[Person]) -> list[str]:
    """The names of those who may log in."""
    return [str(one["name"]) for one in people if one.get("state", PRESENT) == PRESENT]


def is_break_glass(person: Person) -> bool:
    """Whether somebody is for the day on which tokens fail; Ansible's words for true count."""
    return str(person.get("break_glass", False)).lower() in ("true", "yes")


def problems(values: Mapping[str, Any], automation: str, waived: Collection[str] = ()) -> list[str]:
    """What is wrong with the people of a host, whose values are of their types already."""
    people: list[Person] = values.get(VARIABLE) or []
    found = [wrong for one in people for wrong in _of_one(one, values, automation)]
    found += _shared(people)
    if admitted(people) and KEYS_WRITTEN in waived and KEYS_READ not in waived:
        found.append(
            f"casemate_waivers has {KEYS_WRITTEN} without {KEYS_READ}, so sshd would look for keys of people where "
            "nobody puts any, and let none of them in; allowed: both, or none. Add the other one, or take this one off"
        )
    found += _factors_waived(people, waived)
    return found


def _factors_waived(people: Iterable[Person], waived: Collection[str]) -> Iterator[str]:
    """Waivers that do not go with a second factor: who needs it would be let in without it, or not at all."""
    for factor, (word, needed) in NEEDED.items():
        names = [str(one["name"]) for one in people if _asks_for(factor, one)]
        lacking = [one for one in needed if one in waived]
        if names and lacking:
            yield (
                f"casemate_waivers has {', '.join(lacking)}, without which a {word} of {', '.join(names)} is no second "
                f"factor; allowed: none of {', '.join(needed)}. Take it off, or leave out second_factor: {factor}"
            )


def asks_for_codes(person: Person) -> bool:
    """Whether somebody is there who needs a code."""
    return _asks_for(CODES, person)


def _asks_for(factor: str, person: Person) -> bool:
    return person.get("state", PRESENT) == PRESENT and person.get("second_factor") == factor


def login_problems(values: Mapping[str, Any], login: str, automation: str) -> list[str]:
    """Whether whom Ansible came as will be asked for what no run can give."""
    people: list[Person] = values.get(VARIABLE) or []
    asked = [factor for factor in FACTORS for one in people if one["name"] == login and _asks_for(factor, one)]
    return [
        f"Ansible comes as {login}, of whom {VARIABLE} asks second_factor: {factor}, which no run can give; allowed: "
        f"an account without one, such as {automation}. Name that in ansible_user"
        for factor in asked
    ]


def host_problems(values: Mapping[str, Any], there: Mapping[str, Any], automation: str) -> list[str]:
    """Whose name is an account of the system on a host, which would get keys and rules of sudo. Who is revoked gets
    none, and is told by a finding.

    `there`: what `logins` told, the `uids` of those that are an account, and the `least` one of a person.
    """
    uids: Mapping[str, int] = there.get("uids") or {}
    found = []
    for name in dict.fromkeys(name for name in admitted(values.get(VARIABLE) or []) if name in uids):
        uid, what = uids[name], ""
        if name != automation and uid == uids.get(automation):
            what = f"{automation} by another name"
        elif uid < there["least"] or uid == NOBODY:
            what = "an account of the system"
        if what:
            found.append(
                f"{VARIABLE} has {name}, which is {what} on this host (uid {uid}). Give the person a name of their own"
            )
    return found


def host_warnings(values: Mapping[str, Any], accepted: Mapping[str, Any]) -> list[str]:
    """Who has the very key by which this run came in, as `logins` told it, and so is root by that account."""
    people: list[Person] = values.get(VARIABLE) or []
    return [
        f"{VARIABLE} gives {one['name']} the key by which Casemate comes as {accepted['account']}, so whoever has it "
        "is root without a second factor: let each have a key of their own"
        for one in people
        if one.get("state", PRESENT) == PRESENT
        and accepted.get("key") in {key.fingerprint for key in _keys(one) if isinstance(key, Key)}
    ]


def _of_one(person: Person, values: Mapping[str, Any], automation: str) -> Iterator[str]:
    if not isinstance(person["name"], str):
        yield f"{VARIABLE} has {person['name']}, which is a number to YAML; allowed: text. Put the name into quotes"
        return
    name, state = person["name"], person.get("state", PRESENT)
    keys = list(_keys(person))
    yield from (one for one in keys if isinstance(one, str))
    if "expires" in person and datetime.date.fromisoformat(str(person["expires"])) < FIRST_END:
        yield (
            f"{VARIABLE}: expires of {name} is {person['expires']}, with which an account would never end; allowed: "
            f"from {FIRST_END} on. Correct it, or leave it out for somebody who stays"
        )
    if name == automation:
        yield (
            f"{VARIABLE} has {name}, the account that Casemate logs in as, which nothing here may change. Take it off "
            "the list, and give the person an account of their own"
        )
    if name == "root" or name in OF_SERVICES or name.startswith(("_", "systemd-")):
        yield f"{VARIABLE} has {name}, which is an account of the system. Give the person a name of their own"
    elif name in groups_of_root():
        yield (
            f"{VARIABLE} has {name}, which is also a group whose members are as good as root, so the account would be "
            "in it as soon as there is one. Give the person another name"
        )
    if state == REVOKED:
        for listing, does in OTHER_LISTS.items():
            if name in (values.get(listing) or ()):
                yield f"{VARIABLE} revokes {name}, and {listing} {does} {name}. Take {name} off that list"
        return
    if not person.get("keys"):
        yield (
            f"{VARIABLE} has {name} without keys, so {name} cannot log in; allowed: one key or more. Add the public "
            f"key, or set state: {REVOKED}"
        )
    powerful = sorted(set(person.get("groups") or ()) & groups_of_root())
    if powerful:
        yield (
            f"{VARIABLE} puts {name} into {', '.join(powerful)}, whose members are as good as root, and no log of sudo "
            "tells; allowed: other groups. Take that off, and set sudo: with_password where it is needed"
        )
    if is_break_glass(person) and person.get("second_factor") in FACTORS:
        yield (
            f"{VARIABLE} has {name} with break_glass and with second_factor: {person['second_factor']}, which would "
            "fail on the same day; allowed: one of them. Take one off"
        )
    yield from _secret(person)
    authority = str(values.get(AUTHORITIES) or "none")
    if person.get("second_factor") == SECOND_FACTOR and authority != "none":
        yield (
            f"{VARIABLE} asks {name} for second_factor: {SECOND_FACTOR}, and {AUTHORITIES} is {authority}, by whose "
            f"certificates {name} comes in without a token; allowed: one of them. Leave second_factor out, or set "
            f"{AUTHORITIES}: none"
        )
    plain = [one for one in keys if isinstance(one, Key) and one.type not in FIDO]
    if person.get("second_factor") == SECOND_FACTOR and plain:
        yield (
            f"{VARIABLE} asks {name} for second_factor: {SECOND_FACTOR}, and {len(plain)} of the keys are of no token; "
            f"allowed: {', '.join(FIDO)}. Make one by ssh-keygen -t ed25519-sk -O verify-required, and take the "
            "others off"
        )


def _secret(person: Person) -> Iterator[str]:
    """What is wrong with the secret of somebody's codes, or with where it is."""
    name, given = person["name"], [one for one in totp.GIVEN if one in person]
    if person.get("second_factor") != CODES:
        if given:
            yield (
                f"{VARIABLE} gives {name} {' and '.join(given)} without second_factor: {CODES}, so no code would be "
                f"asked for; allowed: both, or none. Set second_factor: {CODES}, or take {' and '.join(given)} off"
            )
        return
    if len(given) != 1:
        remedy = "Take one off" if given else f"Make a secret by {totp.MAKE}, and name its file"
        yield (
            f"{VARIABLE} asks {name} for second_factor: {CODES} with {' and '.join(given) or 'no secret'}; allowed: "
            f"one of {', '.join(totp.GIVEN)}. {remedy}"
        )
        return
    try:
        totp.secret_of(person)
    except totp.SecretError as why:
        yield f"{VARIABLE}: {given[0]} of {name} is not taken: {why}; allowed: {totp.WORDS}. {why.remedy}"


def _keys(person: Person) -> Iterator[Key | str]:
    """Each key in its parts, or what is wrong with it."""
    for at, line in enumerate(person.get("keys") or ()):
        try:
            yield authorized_keys.parse(str(line))
        except Unfit as why:
            yield (
                f"{VARIABLE}: key {at + 1} of {person['name']} is not taken: {why}; allowed: {authorized_keys.WORDS}. "
                "Correct or remove it"
            )


def _shared(people: Iterable[Person]) -> Iterator[str]:
    """What only one person may have."""
    names = Counter(str(one["name"]) for one in people)
    for name in (name for name, count in names.items() if count > 1):
        yield f"{VARIABLE} has {name} {names[name]} times; allowed: once. Make one entry of them"
    spare = [str(one["name"]) for one in people if is_break_glass(one) and one.get("state", PRESENT) == PRESENT]
    if len(spare) > 1:
        yield (
            f"{VARIABLE} has break_glass for {', '.join(spare)}; allowed: for one. Leave it to one whose key lies in a "
            "safe"
        )
    secrets: dict[str, str] = {}
    for person in filter(asks_for_codes, people):
        try:
            secret = totp.secret_of(person)
        except totp.SecretError:
            continue
        if secrets.setdefault(secret, str(person["name"])) != person["name"]:
            yield (
                f"{VARIABLE} gives {secrets[secret]} and {person['name']} one and the same secret, so each makes the "
                f"codes of the other; allowed: one each. Make another one by {totp.MAKE}"
            )
    uids: dict[str, str] = {}
    blobs: dict[str, str] = {}
    for person in people:
        name, uid = str(person["name"]), str(person.get("uid") or "")
        if uid and uids.setdefault(uid, name) != name:
            yield f"{VARIABLE} gives {uids[uid]} and {name} the uid {uid}; allowed: one each. Change one of them"
        for blob in {key.blob for key in _keys(person) if isinstance(key, Key)}:
            if blobs.setdefault(blob, name) != name:
                yield (
                    f"{VARIABLE} gives {blobs[blob]} and {name} one and the same key, by which nobody can tell who "
                    "came; allowed: a key for one person. Let each make their own"
                )


def groups_of_root() -> set[str]:
    """The groups whose members are as good as root, as the control of them lists them."""
    judged = (one["setting"] for controls in declarations.controls().values() for one in controls)
    return {group for setting in judged if setting.get("of") == "groups" for group in setting.get("groups", ())}
