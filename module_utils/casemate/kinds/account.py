"""Accounts: what passwd, shadow, login.defs, PAM and sudoers together allow. No hash ever leaves `observe`.

Accounts are locked by one `ansible.builtin.user` task of the role; the rest is observed. Sources: shadow(5),
crypt(5) (schemes), login.defs(5), pam.d(5), sudoers(5), cvtsudoers(1); CIS Debian 12 chapters 5.2, 5.3, 5.4, 7.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..formats import pam_stack
from ..formats.sudoers import nopasswd, overridden, places, reads_folder, written
from ..host.accounts import NO_SHELL, PLAIN, passwd, shadow
from ..host.machine import Host
from ..host.text import SPACE, split_lines
from .kind import Enforceable, Kind

Check = Literal[
    "locked",
    "no_empty_password",
    "only_root_is_uid_0",
    "system_nologin",
    "locked_without_shell",
    "hash_scheme",
    "login_def",
    "pam_module",
    "nopasswd_sudo",
    "sudo_defaults",
    "sudo_folder",
]


class Needed(TypedDict):
    """What every setting of this kind says."""

    check: Annotated[Check, Key("what is demanded")]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind may demand."""

    user: Annotated[str, Key("locked: which account")]
    allow: Annotated[list[str], Key("accounts that are excused (nopasswd_sudo: %group too, and root always)")]
    schemes: Annotated[list[str], Key("hash_scheme: ids of crypt(5), such as y for yescrypt")]
    key: Annotated[str, Key("login_def: name in login.defs")]
    values: Annotated[list[Any], Key("login_def: what it may be")]
    options: Annotated[dict[str, Any], Key("sudo_defaults: what they must be; a number is a most")]
    file: Annotated[str, Key("sudo_defaults: file that sets them; it and its folder tell themselves what is wrong")]
    service: Annotated[str, Key("pam_module: file in /etc/pam.d whose stack for new passwords must call the module")]
    module: Annotated[str, Key("pam_module: that module")]
    option: Annotated[str, Key("pam_module: word that it must get, whichever service calls it")]
    beaten_by: Annotated[list[str], Key("pam_module: words that count instead of it where they come later")]


SUDOERS, FOLDER = "/etc/sudoers", "/etc/sudoers.d"
LOGIN_DEFS = "/etc/login.defs"


def places_of(setting: Setting) -> list[str]:
    """The files that decide."""
    check = setting["check"]
    if check == "login_def":
        return [LOGIN_DEFS]
    if check == "pam_module":
        return [f"/etc/pam.d/{setting['service']}"]
    if check in ("nopasswd_sudo", "sudo_defaults", "sudo_folder"):
        return [setting.get("file", SUDOERS)]
    return ["/etc/passwd", "/etc/shadow"]


def identity(setting: Setting) -> str:
    """The check, and what it is about."""
    about = [str(setting[k]) for k in ("user", "key", "service", "module", "option") if k in setting]
    return ":".join([setting["check"], *about])


def password(field: str) -> str:
    """Kind of a password field, never its value: "empty", "locked", "des", or the scheme's id (crypt(5))."""
    if field == "":
        return "empty"
    if field[0] in "!*":
        return "locked"
    match = re.match(r"\$([a-z0-9-]+)\$", field)
    return match[1] if match else "des"


def login_defs(text: str) -> dict[str, str]:
    """Key -> value; the last line wins (shadow's getdef.c)."""
    pairs = (re.split("[ \t]+", line.strip(SPACE), maxsplit=1) for line in split_lines(text) if line[:1] != "#")
    return {pair[0]: pair[1].lstrip(' "\t').split('"')[0] for pair in pairs if len(pair) == 2}


def least_uid(value: str) -> int:
    """UID_MIN as getdef_num reads it: also in octal and hexadecimal; 1000 where it is no number."""
    match = re.fullmatch(r"(0x[0-9a-fA-F]+)|0([0-7]+)|(\d+)", value, re.ASCII)
    base = 16 if match and match[1] else 8 if match and match[2] else 10
    return int(match[match.lastindex or 0], base) if match else 1000


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """Accounts with the kind of their password, and the settings that each check reads."""
    found = passwd(host.text("/etc/passwd") or "")
    if not found:
        raise OSError("/etc/passwd cannot be read as accounts")
    fields = shadow(host.text("/etc/shadow") or "")
    defs = login_defs(host.text(LOGIN_DEFS) or "")
    accounts: list[dict[str, Any]] = []
    for entry in found:
        field = fields.get(entry.name, "!") if entry.password == "x" else entry.password  # noqa: S105 - it says: shadow
        facts = {"name": entry.name, "uid": entry.uid, "shell": entry.shell, "first": entry.first}
        accounts.append({**facts, "hash": password(field)})
    ours = {"account": host.context.get("account", ""), "people": list(host.context.get("people") or ())}
    seen: list[Observation] = []
    for setting in settings:
        one: Observation = {"accounts": accounts, "uid_min": least_uid(defs.get("UID_MIN", "")), **ours}
        if setting["check"] == "login_def":
            one = {"value": defs.get(setting["key"])}
        elif setting["check"] == "pam_module":
            one = {"modules": _called(setting, host)}
        elif setting["check"] == "sudo_folder":
            one = {"there": host.read(SUDOERS) is not None, "reads": reads_folder(host, SUDOERS, FOLDER)}
        elif setting["check"] in ("nopasswd_sudo", "sudo_defaults"):
            asked = host.run(["cvtsudoers", "-c", "/dev/null", "-f", "json", host.path(SUDOERS)])
            one = {"there": host.read(SUDOERS) is not None, "asked": asked, "accounts": accounts}
            one["lines"] = written(host, SUDOERS)
            one["file_fails"] = bool({str(setting.get("file")), FOLDER} & host.failing_files)
        seen.append(one)
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Nobody may offend; `observed` names who does, sorted."""
    check, allow = setting["check"], set(setting.get("allow") or ())
    if check == "login_def":
        want, have = [str(value) for value in setting["values"]], seen["value"]
        return Verdict(
            ok=have in want,
            expected=want,
            observed=have,
            reason="" if have in want else "it differs",
            evidence=LOGIN_DEFS,
        )
    if check == "pam_module":
        wanted = " ".join(setting[name] for name in ("module", "option") if name in setting)
        wrong = [place for place, line in seen["modules"].items() if not _calls(setting, line.split(" "))]
        absent = [] if seen["modules"] else [f"{setting['service']} does not call {wanted}"]
        return Verdict(
            ok=not (wrong or absent),
            expected=wanted,
            observed=seen["modules"] or "absent",
            reason="; ".join([*absent, *(f"{place} does not call {wanted}" for place in wrong)]),
            evidence="the stacks of /etc/pam.d",
            where=tuple(wrong),
        )
    if check == "sudo_folder":
        return _of_folder(seen)
    if check in ("nopasswd_sudo", "sudo_defaults"):
        return _sudo(setting, seen, allow)
    accounts = [a for a in seen["accounts"] if a["name"] not in allow]
    if check == "locked":
        found = [a for a in accounts if a["name"] == setting["user"]]
        wrong, why = [a for a in found if a["hash"] != "locked"], "has a usable password"
    elif check == "no_empty_password":
        wrong, why = [a for a in accounts if a["hash"] == "empty"], "needs no password"
    elif check == "only_root_is_uid_0":
        wrong, why = [a for a in accounts if a["uid"] == 0 and a["name"] != "root"], "has uid 0"
    elif check == "system_nologin":
        system = [a for a in accounts if 0 < a["uid"] < seen["uid_min"] or a["uid"] == 65534]
        wrong = [a for a in system if a["shell"].rsplit("/", 1)[-1] not in NO_SHELL]
        why = "is a system account with a login shell"
    elif check == "locked_without_shell":
        without = [a for a in accounts if a["shell"].rsplit("/", 1)[-1] in NO_SHELL]
        wrong, why = [a for a in without if a["hash"] not in ("locked", "empty")], "has a password and no shell"
    else:
        fine = {"empty", "locked", *(setting.get("schemes") or ())}
        wrong, why = [a for a in accounts if a["hash"] not in fine], "has a password with a weak hash"
    return _judged(setting, seen, sorted(wrong, key=lambda a: str(a["name"])), why)


def _called(setting: Setting, host: Host) -> dict[str, str]:
    """Place -> module and options, of each line that calls the module for a new password, whichever service it is of.

    Nothing where the service that is named does not.
    """
    by_service = {
        name: {
            one.place: " ".join([one.module, *one.options])
            for one in pam_stack.flat(stack)
            if one.module == setting["module"]
        }
        for name, stack in pam_stack.in_use("password", host).items()
    }
    if not by_service.get(setting["service"]):
        return {}
    return {place: line for lines in by_service.values() for place, line in lines.items()}


def _calls(setting: Setting, words: list[str]) -> bool:
    """Whether a line, as its module and options, calls the module with the option; of those that exclude each other the
    last one counts (pam_unix, _set_ctrl)."""
    option = setting.get("option")
    if words[0] != setting["module"] or option is None:
        return words[0] == setting["module"]
    deciding = [word for word in words[1:] if word == option or word in setting.get("beaten_by", ())]
    return deciding[-1:] == [option]


def _of_folder(seen: Observation) -> Verdict:
    line, ok = f"@includedir {FOLDER}", seen["reads"] or not seen["there"]
    return Verdict(
        ok=ok,
        expected=line,
        observed=line if seen["reads"] else "absent",
        reason="" if ok else f"no line includes {FOLDER}, so no rule there counts: by hand, visudo, and {line}",
        evidence=SUDOERS if seen["there"] else f"there is no {SUDOERS}",
    )


def _sudo(setting: Setting, seen: Observation, allow: set[str]) -> Verdict:
    evidence, broken = f"cvtsudoers {SUDOERS}", _unreadable(seen["asked"].err)
    if not seen["there"] or (seen["file_fails"] and setting["check"] == "sudo_defaults"):
        return Verdict(
            ok=True,
            expected=[],
            observed=[],
            reason="",
            evidence=evidence if seen["there"] else f"there is no {SUDOERS}",
        )
    if seen["asked"].rc == 127:
        raise Unavailable("sudo", "cvtsudoers, which comes with sudo, is not installed")
    if seen["asked"].rc != 0 and setting["check"] == "nopasswd_sudo":
        return Verdict(ok=False, expected=[], observed="unknown", reason=broken, evidence=evidence)
    if seen["asked"].rc != 0:
        raise Unavailable("sudo", f"{broken}, which the control of passwords tells")
    policy, names = (
        json.loads(seen["asked"].out or "{}"),
        {one["uid"]: one["name"] for one in reversed(seen["accounts"])},
    )
    if setting["check"] == "sudo_defaults":
        where = places(seen["lines"], rf"^\s*Defaults.*({'|'.join(map(re.escape, setting['options']))})", [])
        why = f"in what sudo reads after or beside our file{': ' + ', '.join(where) if where else ''}"
        return _nobody(overridden(policy, setting["options"]), why, evidence, where)
    offenders = [name for name in nopasswd(policy, names) if name not in allow]
    where = places(seen["lines"], r"\bNOPASSWD\b|!\s*authenticate\b|\bexempt_group\b", offenders)
    why = "may use sudo without a password" + (f": remove that from {', '.join(where)}, or allow it" if where else "")
    return _nobody(offenders, why, evidence, where)


def _unreadable(error: str) -> str:
    """What sudo's parser cannot read and how to mend it; the line itself, which it repeats, is nobody's business."""
    lines = error.strip().split("\n")
    named = next((line for line in lines if re.match(r"(?:\S+: )?/\S+:\d+", line)), lines[0])
    path = next(iter(re.findall(r"/[^\s:]+", named)), SUDOERS)
    return f"sudo cannot read its configuration: {named[:300]}. Mend it with `visudo -f {path}`"


def _judged(setting: Setting, seen: Observation, wrong: list[dict[str, Any]], why: str) -> Verdict:
    """Offenders, and of whom apply keeps its hands off."""
    left = {a["name"]: spared for a in wrong if (spared := _spared(setting["check"], a, seen))}
    names = [str(a["name"]) for a in wrong]
    verdict = _nobody(list(dict.fromkeys(names)), why, "/etc/passwd, /etc/shadow")
    if verdict.ok or not left:
        return verdict
    remedies = "; ".join(left.values())
    changed = [name for name in dict.fromkeys(names) if name not in left]
    return Verdict(
        ok=False,
        expected=verdict.expected,
        observed=verdict.observed,
        reason=f"{verdict.reason}; {remedies}",
        evidence=verdict.evidence,
        blocked_by=remedies,
        still_enforced=bool(changed),
        todo=changed,
    )


def _spared(check: str, account: dict[str, Any], seen: Observation) -> str:
    """Why apply never acts on this account, with what to do; empty where it does."""
    name, shell = account["name"], check == "system_nologin"
    if not account["first"]:
        return f"{name} has a second line in /etc/passwd: remove it there (vipw)"
    if not PLAIN.fullmatch(name):
        return f"{name!r} is a name that no program is given: correct it in /etc/passwd (vipw)"
    if name == seen["account"] and shell:
        return (
            f"Casemate logs in as {name} and leaves its shell alone: name another account in casemate_automation_user, "
            f"or list it in k3s_host_system_shell_accounts; by hand: usermod -s /usr/sbin/nologin {name}"
        )
    if name == seen["account"]:
        return f"Casemate logs in as {name} and leaves its password alone; by hand: passwd {name}, or usermod -L {name}"
    if shell and name in seen["people"]:
        return (
            f"{name} is in k3s_access_allow_users, so it keeps its shell: list it in k3s_host_system_shell_accounts too"
        )
    return ""


def _nobody(offenders: list[str], why: str, evidence: str, where: list[str] | None = None) -> Verdict:
    reason = f"{', '.join(offenders)} {why}" if offenders else ""
    where = where if offenders and where else []
    return Verdict(
        ok=not offenders, expected=[], observed=offenders, reason=reason, evidence=evidence, where=tuple(where)
    )


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, enforced_by="task", places=places_of)
