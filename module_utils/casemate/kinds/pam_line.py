"""A line of PAM that has to be asked in every service that takes a password, as PAM really goes through its stacks.

Where Casemate brings the line, it comes as a profile of pam-auth-update, which keeps it whatever package asks for a
profile of its own later. Sources: pam-auth-update(8), and "PAMConfigFrameworkSpec" of Ubuntu, on which it is built;
pam.conf(5); pam_faillock(8), pam_pwhistory(8), pam_wheel(8), pam_succeed_if(8).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Dict, List, Literal, TypedDict

from ..core.schema import Key
from ..core.verdict import Left, Observation, Verdict
from ..formats import pam_profiles, pam_stack
from ..formats.pam_stack import IGNORE, SUCCESS, Line
from ..host.machine import EnforceError, Host
from ..host.text import split_lines
from . import pam_stack as proofs
from .kind import Enforceable, Kind, Owned, Pass

REFUSED = "auth_err"
PREFIX = "casemate-"
"""How names of profiles of ours begin."""


class Needed(TypedDict):
    """What every setting of this kind says."""

    facility: Annotated[Literal["auth", "password"], Key("what is asked of PAM")]
    module: Annotated[str, Key("file name of the module that is asked", pattern=r"pam_\w+\.so")]
    options: Annotated[List[str], Key("its options: all of them where Casemate brings the line, else some")]
    asked: Annotated[
        Literal["refuses", "after_failure", "after_success"],
        Key("refuses: where it says no the service does; else whether it is asked once a password was wrong, or right"),
    ]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind may demand."""

    conf: Annotated[str, Key("file that the module reads before its options", pattern=r"/\S+")]
    without: Annotated[List[str], Key("what no line of that file may set, since the options do not take it back")]
    needed_by: Annotated[List[str], Key("who needs it; where nobody does, nothing is demanded and written")]
    services: Annotated[List[str], Key("services that have to ask it; default: all that take a password")]
    profile: Annotated[str, Key("name of the profile by which Casemate brings the line", pattern=r"casemate-[a-z-]+")]
    title: Annotated[str, Key("what pam-auth-update shows of it; no comma", pattern=r"[^,]+")]
    priority: Annotated[int, Key("lines of a higher one come first; that of pam_unix is 256")]
    block: Annotated[Literal["Primary", "Additional"], Key("Additional comes once a password was right")]
    control: Annotated[str, Key("what follows from its answer (pam.conf(5))")]
    ahead: Annotated[List[str], Key("lines of the profile before it, without their facility")]
    first: Annotated[List[str], Key("its options where no other line of the block comes before it, if they differ")]


def identity(setting: Setting) -> str:
    """The module and the word by which it is told what to do."""
    return " ".join([setting["facility"], setting["module"], *setting["options"][:1]])


def is_needed(setting: Setting) -> bool:
    """Whether anybody needs the line."""
    return setting.get("needed_by") != []


def path_of(setting: Setting) -> str:
    """The profile of ours, or nothing where a package brings the line."""
    return f"{pam_profiles.PROFILES}/{setting['profile']}" if "profile" in setting else ""


def common_of(setting: Setting) -> str:
    """The file that pam-auth-update writes the line to."""
    return f"/etc/pam.d/common-{setting['facility']}"


def lines_of(setting: Setting, options: List[str]) -> List[str]:
    """The lines of the profile with these options of the module."""
    line = " ".join([f"{setting['control']}\t{setting['module']}", *options])
    return [*setting.get("ahead", []), line]


def content_of(setting: Setting) -> str:
    """The profile as pam-auth-update reads it. It takes no comments, but passes over a field that it does not know."""
    facility = setting["facility"].capitalize()
    text = [
        f"Name: Casemate: {setting['title']}",
        "Comment: Managed by Casemate (roles/k3s_host).",
        "Default: yes",
        f"Priority: {setting['priority']}",
        f"{facility}-Type: {setting['block']}",
        f"{facility}:",
        *(f"\t{line}" for line in lines_of(setting, setting["options"])),
    ]
    if "first" in setting:
        text += [f"{facility}-Initial:", *(f"\t{line}" for line in lines_of(setting, setting["first"]))]
    return "\n".join([*text, ""])


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """For each setting: the services that do not ask it, whether our profile holds, and what bars pam-auth-update."""
    seen: List[Observation] = []
    for setting in settings:
        if not is_needed(setting):
            seen.append({"unasked": {}, "lacking": [], "brought": True, "bar": "", "undone": {}})
            continue
        profile = path_of(setting)
        wanted = (lines_of(setting, setting[name]) for name in ("options", "first") if profile and name in setting)
        brought = not profile or any(pam_profiles.holds(setting["facility"], lines, host) for lines in wanted)
        kept = host.text(profile) == content_of(setting) if profile else True
        seen.append(
            {
                "unasked": _unasked(setting, host),
                "lacking": [] if kept else [profile],
                "brought": brought,
                "bar": pam_profiles.left_alone(host) if profile and not (kept and brought) else "",
                "undone": _undone(setting, host),
            }
        )
    return seen


def _undone(setting: Setting, host: Host) -> Dict[str, str]:
    """Place -> what the file of the module sets that it may not (read_config_file of pam_faillock: name, =, value)."""
    path, found = setting.get("conf", ""), {}
    for number, line in enumerate(split_lines(host.text(path) or "") if path else (), 1):
        name = re.split(r"[\s=]", line.partition("#")[0].strip(), maxsplit=1)[0]
        if name in setting.get("without", ()):
            found[f"{path}:{number}"] = name
    return found


def _unasked(setting: Setting, host: Host) -> Dict[str, str]:
    """Service -> the place that decides without asking."""
    facility, found = setting["facility"], {}
    stacks = pam_stack.in_use(facility, host)
    for service in setting.get("services") or stacks:
        lines = stacks.get(service, [])
        passwords = any(one.module == "pam_unix.so" for one in pam_stack.flat(lines))
        takes = bool(lines) if "services" in setting else passwords
        if not takes or (facility == "auth" and pam_stack.end_of(lines, proofs.returns).admits):
            continue  # who lets in whoever comes is told as that
        place = _decides(setting, service, lines)
        if place is not None:
            found[service] = place
    return found


def _decides(setting: Setting, service: str, lines: List[Line]) -> str | None:
    """Where a stack ends without what is demanded; None where it is met."""
    asked: List[Line] = []

    def returns(line: Line) -> str:
        if line.module == "pam_succeed_if.so" and "service" in line.options:
            return SUCCESS if _is_for(service, line.options) else REFUSED
        if _is_line(setting, line):
            asked.append(line)
            return SUCCESS if setting["asked"] == "after_success" else REFUSED
        if line.module in ("pam_deny.so", "pam_rootok.so"):
            return REFUSED  # who asks is not root
        if setting["asked"] == "after_failure":
            return proofs.returns(line)
        if "authfail" in line.options:
            return REFUSED
        return IGNORE if line.module in ("pam_wheel.so", *proofs.SILENT) else SUCCESS

    end = pam_stack.end_of(lines, returns)
    if setting["module"] not in proofs.CODES and end.place in _of_codes(lines):
        return None  # a code is asked for there, and no password is taken
    met = bool(asked) and not (setting["asked"] == "refuses" and end.admits)
    return None if met else end.place or f"/etc/pam.d/{service}"


def _of_codes(lines: List[Line]) -> List[str]:
    return [line.place for line in pam_stack.flat(lines) if line.module in proofs.CODES]


def _is_line(setting: Setting, line: Line) -> bool:
    if line.module != setting["module"]:
        return False
    if "profile" not in setting:
        return set(setting["options"]) <= set(line.options)
    return list(line.options) in (setting["options"], setting.get("first"))


def _is_for(service: str, options: Collection[str]) -> bool:
    """Whether a condition such as `service in su:su-l` holds; any other on the service counts as one that does not."""
    words = " ".join(options).partition("service in ")[2].split(" ")
    return service in words[0].split(":")


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that every service asks it, and that pam-auth-update writes it, and will go on to."""
    unasked, line = seen["unasked"], " ".join([setting["module"], *setting["options"]])
    places: Dict[str, List[str]] = {}
    for service, place in unasked.items():
        places.setdefault(place, []).append(service)
    heals = bool(seen["lacking"]) or not seen["brought"]
    said = [f"{path} is not as declared" for path in seen["lacking"]]
    # That a service does without a line of ours may be hidden by another one today: it is told whatever they decide.
    hidden = not (unasked or seen["lacking"] or seen["brought"] or seen["bar"])
    changed = [common_of(setting)] if hidden else []
    said += [f"{path} does not have the lines of {setting['profile']} as it brings them" for path in changed]
    if "profile" in setting and heals and unasked:
        said.append(f"{', '.join(unasked)} do without {line}")
    else:
        said += [f"{', '.join(services)} do without {line} (see {place})" for place, services in places.items()]
    by_hand = f"remove the line that decides before it, or that was changed: {', '.join(places)}"
    if "profile" not in setting:
        said += [f"{by_hand}; pam-auth-update --force writes all anew"] if places else []
        blocked = ""
    elif said and heals:
        blocked = f"pam-auth-update leaves its files alone: {seen['bar']}" if seen["bar"] else ""
    else:
        blocked = by_hand if places else ""
    alone = not said  # whether apply has nothing to do
    undone = [f"{place} sets {name}: remove that line" for place, name in seen["undone"].items()]
    said += undone
    reason = "; ".join([*said, blocked] if blocked else said)
    return Verdict(
        ok=not said,
        expected=f"every service asks {line}",
        observed=unasked or seen["lacking"] or changed or seen["undone"] or f"every service asks {line}",
        reason=reason,
        evidence="the stacks of /etc/pam.d, as PAM goes through them",
        where=(*seen["lacking"], *changed, *places, *seen["undone"]),
        blocked_by="; ".join([*([blocked] if blocked else []), *undone]),
        still_enforced=bool(undone) and not (alone or blocked),
    )


def enforce(settings: List[Setting], failing: Collection[int], host: Host) -> None:
    """Write the profiles and have pam-auth-update use them, and no other of ours."""
    chosen = [settings[i] for i in sorted(failing)]
    _update(host, [one for one in chosen if "profile" in one and is_needed(one)], settings, _others(settings, host))


def _update(host: Host, chosen: List[Setting], wanted: List[Setting], gone: List[str]) -> None:
    """Write the profiles of `chosen`, have pam-auth-update use those of `wanted`, and no longer those named `gone`.

    All lines of ours are made anew at once. Raises EnforceError where it may not.
    """
    hindrance = pam_profiles.left_alone(host)
    if hindrance:
        raise EnforceError(f"pam-auth-update leaves its files alone: {hindrance}")
    names = [one["profile"] for one in wanted if "profile" in one and is_needed(one)]
    folder, before = pam_profiles.PROFILES, {path: host.text(path) or "" for path in pam_profiles.COMMON}
    host.arm([*pam_profiles.COMMON, *pam_profiles.STATE, *(f"{folder}/{name}" for name in (*names, *gone))])
    for name in pam_profiles.TYPES:
        host.write(f"{pam_profiles.SAVED}/{name}", pam_profiles.as_it_stands(name, PREFIX, host).encode())
    for setting in chosen:
        host.write(path_of(setting), content_of(setting).encode(), 0o644, (0, 0))
    argv = ["env", "DEBIAN_FRONTEND=noninteractive", "pam-auth-update", "--package"]
    argv += ["--remove", *gone] if gone else []
    argv += ["--enable", *names] if names else []
    done = host.run(argv, timeout=120)
    if done.rc != 0:
        raise EnforceError(f"pam-auth-update failed: {(done.err or done.out).strip()[-300:]}")
    for name in gone:
        host.remove(f"{folder}/{name}")
    for path, old in before.items():
        new = host.text(path) or ""
        if new != old:
            host.changed(path, old, new)


def _others(settings: List[Setting], host: Host) -> List[str]:
    """Names of profiles of ours that none of these settings asks for."""
    wanted = {setting["profile"] for setting in settings if "profile" in setting and is_needed(setting)}
    there = (path.rsplit("/", 1)[1] for path in host.glob(f"{pam_profiles.PROFILES}/{PREFIX}*"))
    return [name for name in there if name not in wanted]


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """The profile, as long as it is there."""
    path = path_of(setting)
    return Left(path) if path and host.stat(path) is not None else Left()


def take_back(waived: List[Setting], wanted: List[Setting], host: Host) -> None:
    """Have pam-auth-update forget the profiles, and remove them."""
    _update(host, [], wanted, [setting["profile"] for setting in waived if "profile" in setting])


def unasked_profiles(settings: List[Setting], host: Host) -> str:
    """Profiles of ours that no control of this host asks for."""
    paths = ", ".join(f"{pam_profiles.PROFILES}/{name}" for name in _others(settings, host))
    return f"no control asks for {paths} any more" if paths else ""


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    places=lambda setting: [path_of(setting) or common_of(setting)],
    owned=Owned(left, take_back, unasked_profiles, written=path_of),
)
