"""Homes of people and the files in them that decide what their logins do: whose they are, and who else may use them.

Modes are restricted where nothing else is wrong; whose a home is stays for people to decide. Sources: sshd(8)
(StrictModes), netrc(5), bash(1).
"""

from __future__ import annotations

import stat as statmod
from collections.abc import Collection
from typing import Annotated, Dict, List, Literal, NamedTuple, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host.accounts import NO_SHELL, Account, passwd
from ..host.machine import EnforceError, Host
from .account import LOGIN_DEFS, least_uid, login_defs
from .kind import Enforceable, Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    of: Annotated[Literal["homes", "dot_files"], Key("the folders, or what lies in them and begins with a dot")]


class Setting(Needed, Enforceable):
    """What a control of this kind demands."""


HOME, DOT_FILE, SECRET = 0o750, 0o755, 0o600
SECRETS = (".netrc", ".bash_history", ".pgpass", ".git-credentials")
TRUSTING = (".rhosts", ".shosts", ".forward")
"""Files that let others in, or mail out, because they are there."""


class Fault(NamedTuple):
    """What is wrong with a path, and the mode that mends it; none where people have to decide."""

    why: str
    mode: int = -1


def identity(setting: Setting) -> str:
    """One control for the folders, one for the files."""
    return setting["of"]


def people(host: Host) -> List[Account]:
    """Accounts that are people's: with a shell, and a uid that is not the system's."""
    least = least_uid(login_defs(host.text(LOGIN_DEFS) or "").get("UID_MIN", ""))
    found = [one for one in passwd(host.text("/etc/passwd") or "") if least <= one.uid != 65534 and one.first]
    return [one for one in found if one.shell.rsplit("/", 1)[-1] not in NO_SHELL]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """For each setting what is wrong, by path."""
    return [{"faults": faults(setting, host)} for setting in settings]


def faults(setting: Setting, host: Host) -> Dict[str, Fault]:
    """Path -> what is wrong with it. The home by which Casemate comes in stays: sshd's needs are judged there."""
    found: Dict[str, Fault] = {}
    for account in people(host):
        if setting["of"] == "homes":
            if account.name != host.context.get("account"):
                _home(account, host, found)
        else:
            for path in host.glob(f"{account.home}/.*"):
                _dot_file(path, account, host, found)
    return found


def _home(account: Account, host: Host, found: Dict[str, Fault]) -> None:
    seen = host.stat(account.home)
    if seen is None or not statmod.S_ISDIR(seen.st_mode):
        found[account.home or f"home of {account.name}"] = Fault(
            f"{account.name} has no home there; make it, or change it"
        )
    elif seen.st_uid != account.uid:
        found[account.home] = Fault(f"it is not {account.name}'s; by hand: chown {account.name} {account.home}")
    elif statmod.S_IMODE(seen.st_mode) & ~HOME:
        mode = statmod.S_IMODE(seen.st_mode)
        found[account.home] = Fault(f"mode {mode:04o} allows more than {HOME:04o}", mode & HOME)


def _dot_file(path: str, account: Account, host: Host, found: Dict[str, Fault]) -> None:
    seen, name = host.stat(path), path.rsplit("/", 1)[-1]
    if seen is None or not statmod.S_ISREG(seen.st_mode):
        return
    mode, most = statmod.S_IMODE(seen.st_mode), SECRET if name in SECRETS else DOT_FILE
    if name in TRUSTING:
        found[path] = Fault("it lets others in, or mail out; remove it")
    elif seen.st_uid not in (account.uid, 0):
        found[path] = Fault(f"it is neither {account.name}'s nor root's; by hand: chown {account.name} {path}")
    elif mode & ~most:
        found[path] = Fault(f"mode {mode:04o} allows more than {most:04o}", mode & most)


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that nothing is wrong; what people have to decide is named and stays."""
    wrong: Dict[str, Fault] = dict(sorted(seen["faults"].items()))
    stays = [f"{path}: {fault.why}" for path, fault in wrong.items() if fault.mode < 0]
    return Verdict(
        ok=not wrong,
        expected="nothing",
        observed=list(wrong) or "nothing",
        reason=several([f"{path}: {fault.why}" for path, fault in wrong.items()]),
        evidence="lstat",
        blocked_by="; ".join(stays),
        still_enforced=len(stays) < len(wrong),
        where=tuple(wrong),
    )


def enforce(settings: List[Setting], failing: set[int], host: Host) -> None:
    """Restrict the modes; one refusal does not stop the others."""
    refused = []
    for setting in (settings[i] for i in sorted(failing)):
        for path, fault in faults(setting, host).items():
            if fault.mode < 0:
                continue
            try:
                host.restrict(path, fault.mode)
            except (EnforceError, OSError) as error:
                refused.append(str(error))
    if refused:
        raise EnforceError("; ".join(refused))


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, enforced_by="engine", enforce=enforce, places=lambda setting: ["/home"]
)
