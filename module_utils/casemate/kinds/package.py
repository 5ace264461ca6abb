"""Debian packages: installed, absent, not older than a floor; one read of dpkg's status file.

Packages are installed and removed by `ansible.builtin.apt` tasks of the role. Source: dpkg(1) for package states.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection
from typing import Annotated, Literal, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..formats.deb_version import older
from ..formats.dpkg_status import STATUS, known
from ..host.machine import Host
from .kind import Enforceable, Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    name: Annotated[str, Key("package; for absent also a pattern", pattern=r"[a-z0-9*][a-z0-9+.*-]*")]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind may demand."""

    state: Annotated[Literal["present", "absent"], Key("default: present")]
    instead: Annotated[list[str], Key("present: other packages that do the same")]
    needed_by: Annotated[list[str], Key("present: who needs it; where nobody does, nothing is demanded")]
    version: Annotated[str, Key("not older than this", pattern=r"[0-9][A-Za-z0-9.+:~-]*")]


def identity(setting: Setting) -> str:
    """One control for each package."""
    return str(setting["name"])


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """The installed packages that match each name, with versions, and what would go with those that nobody may have.

    Raises OSError where there is no dpkg.
    """
    # What is unpacked or half-configured is not installed.
    have = {one.name: one.version for one in known(host) if (one.error, one.state) == ("ok", "installed")}
    found = [
        {n: v for n, v in have.items() if fnmatch.fnmatchcase(n, s["name"]) or n in s.get("instead", ())}
        for s in settings
    ]
    unwanted = [s.get("state") == "absent" and n not in waived for n, s in enumerate(settings)]
    named = {name for there, gone in zip(found, unwanted) if gone for name in there}
    return [
        {"found": there, "bars": bars(there, named, host) if gone and there else ""}
        for there, gone in zip(found, unwanted)
    ]


def bars(names: dict[str, str], named: set[str], host: Host) -> str:
    """Why some packages are not removed: with them others would go, as apt says; empty where none would."""
    asked = host.run(["apt-get", "-s", "-q", "-o", "Debug::NoLocking=1", "remove", "--", *sorted(names)])
    by_hand = f"by hand: apt-get remove {' '.join(sorted(names))}"
    if asked.rc not in (0, 127):  # without apt-get the role's task says so
        return f"apt-get cannot remove it: {(asked.err or asked.out).strip()[:200]}; {by_hand}"
    gone = {name.split(":")[0] for name in re.findall(r"(?m)^Remv (\S+)", asked.out)}
    others = sorted(gone - named)
    return f"with it would go {', '.join(others)}, so nothing is removed; {by_hand}" if others else ""


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Present (and new enough); or absent, then `observed` lists what is to be removed."""
    name, floor, found = setting["name"], setting.get("version"), seen["found"]
    shown = ", ".join(f"{n} {v}" for n, v in sorted(found.items())) or "absent"
    if setting.get("state") == "absent":
        reason = "; ".join(filter(None, [f"installed: {shown}" if found else "", seen["bars"]]))
        return Verdict(
            ok=not found, expected=[], observed=sorted(found), reason=reason, evidence=STATUS, blocked_by=seen["bars"]
        )
    if setting.get("needed_by") == []:
        return Verdict(ok=True, expected="nobody needs it", observed=shown, evidence=STATUS)
    expected = f"{name} >= {floor}" if floor else f"{name} installed"
    if not found:
        return Verdict(
            ok=False, expected=expected, observed=shown, reason="it is not (completely) installed", evidence=STATUS
        )
    old = sorted(n for n, v in found.items() if floor and older(v, floor))
    return Verdict(
        ok=not old, expected=expected, observed=shown, reason=f"older than {floor}" if old else "", evidence=STATUS
    )


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, enforced_by="task", places=lambda setting: [f"package {setting['name']}"]
)
