"""Who is let in by PAM without any proof: each service is gone through as by somebody whose password is wrong."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, List, Literal, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..formats import pam_stack
from ..formats.pam_stack import IGNORE, SUCCESS, Line
from ..host.machine import Host
from .kind import Kind


class Setting(TypedDict):
    """What a control of this kind demands."""

    facility: Annotated[Literal["auth", "account"], Key("what is asked of PAM")]
    known: Annotated[List[str], Key("services that only root may use, and that are to let it in")]


ADMITS = {
    "pam_access.so", "pam_debug.so", "pam_echo.so", "pam_env.so", "pam_exec.so", "pam_issue.so", "pam_listfile.so",
    "pam_localuser.so", "pam_mkhomedir.so", "pam_motd.so", "pam_nologin.so", "pam_permit.so", "pam_rhosts.so",
    "pam_script.so", "pam_securetty.so", "pam_setquota.so", "pam_shells.so", "pam_succeed_if.so", "pam_time.so",
    "pam_umask.so", "pam_usertype.so", "pam_warn.so",
}  # fmt: skip
"""Modules that may say yes to somebody who has proved nothing. Sources: their manual pages, RETURN VALUES."""
CODES = {"pam_google_authenticator.so"}
"""Modules that ask for a code of a second factor, and for no password."""
SILENT = {"pam_cap.so", "pam_faildelay.so", "pam_group.so", "pam_keyinit.so", "pam_mail.so"}
"""Modules that say neither yes nor no."""


def returns(line: Line) -> str:
    """What a module returns to somebody whose proof is wrong. One that is not known refuses: it is no package's."""
    if line.module == "pam_faillock.so":  # it says yes to everybody who is not locked
        return "auth_err" if "authfail" in line.options else SUCCESS
    if line.module in CODES:  # nullok: one who has no secret is asked for nothing
        return IGNORE if "nullok" in line.options else "auth_err"
    trusts = line.module == "pam_wheel.so" and "trust" in line.options
    if line.module in ADMITS or trusts:
        return SUCCESS
    return IGNORE if line.module in SILENT or line.module == "pam_wheel.so" else "auth_err"


def identity(setting: Setting) -> str:
    """One control for each facility."""
    return setting["facility"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """For each service that lets somebody in without proof, the line that does."""
    seen = []
    for setting in settings:
        admits = {}
        for service in pam_stack.services(host):
            end = pam_stack.end_of(pam_stack.stack(service, setting["facility"], host), returns)
            if end.admits and service not in setting["known"]:
                admits[service] = end.place
        seen.append({"admits": admits})
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that every service refuses."""
    lines: dict[str, list[str]] = {}
    for service, place in seen["admits"].items():
        lines.setdefault(place, []).append(service)
    sentences = [f"{place} lets in whoever uses {', '.join(services)}" for place, services in lines.items()]
    what = "without any proof" if setting["facility"] == "auth" else "although their account has ended"
    return Verdict(
        ok=not lines,
        expected="every service refuses",
        observed=seen["admits"] or "every service refuses",
        reason=f"{'; '.join(sentences)}, {what}: remove the line, or run pam-auth-update --force" if sentences else "",
        evidence="the stacks of /etc/pam.d, as PAM goes through them",
        where=tuple(lines),
    )


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, places=lambda setting: ["/etc/pam.d"])
