"""What the kernel was started with, and what the boot loader will start it with next. Observe-only.

Sources: proc(5) (cmdline), grub.cfg as update-grub writes it, GRUB's manual (superusers, password_pbkdf2).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Dict, List, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..host.machine import Host
from .kind import Kind


class Setting(TypedDict, total=False):
    """What a control of this kind may demand."""

    arguments: Annotated[List[str], Key("arguments that the kernel must get, such as init_on_alloc=1")]
    without: Annotated[List[str], Key("arguments that it must not get, such as mitigations=off")]
    password: Annotated[bool, Key("true: whoever changes an entry at boot needs a password")]


GRUB = "/boot/grub/grub.cfg"
ENTRY = re.compile(r"(?m)^\s*linux(?:efi|16)?\s+\S+\s*(.*)$")
RESCUE = ("single", "recovery", "rescue", "systemd.unit=rescue.target")


def identity(setting: Setting) -> str:
    """A set of arguments, or the password."""
    names = [*setting.get("arguments", ()), *(f"no {name}" for name in setting.get("without", ()))]
    return ",".join(names) or "password"


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """The arguments now and of each entry of the boot loader, but those that rescue; None where there is no GRUB."""
    now, grub = (host.text("/proc/cmdline") or "").split(), host.text(GRUB)
    entries = None if grub is None else [line.split() for line in ENTRY.findall(grub)]
    entries = entries and [counting(one) for one in entries if not set(one) & set(RESCUE)]
    guarded = grub is not None and bool(re.search(r"(?m)^\s*set\s+superusers=\"?\w", grub))
    guarded = guarded and bool(re.search(r"(?m)^\s*password_pbkdf2\s+\S+\s+grub\.pbkdf2\.", grub or ""))
    return [{"now": counting(now), "entries": entries, "guarded": guarded}] * len(settings)


def counting(words: List[str]) -> List[str]:
    """The arguments that count: of several for one parameter the last; what follows -- is for the first process.

    Source: kernel/params.c, parse_args and parameq, to which - and _ in a name are the same.
    """
    of_kernel = words[: words.index("--")] if "--" in words else words
    last: Dict[str, str] = {}
    for word in of_kernel:
        name, equals, value = word.partition("=")
        name = name.replace("-", "_")
        last.pop(name, None)
        last[name] = f"{name}{equals}{value}"
    return list(last.values())


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that it is so now, and at the next boot as far as GRUB decides it."""
    if setting.get("password"):
        if seen["entries"] is None:
            raise Unavailable("boot_loader", f"there is no {GRUB}: another boot loader starts this machine")
        advice = (
            "grub-mkpasswd-pbkdf2 makes the hash; set superusers and password_pbkdf2 in a file of /etc/grub.d, give "
            "menu entries --unrestricted so that the machine starts by itself, then: update-grub"
        )
        ok = bool(seen["guarded"])
        return Verdict(
            ok=ok,
            expected="a password",
            observed="a password" if ok else "none",
            reason="" if ok else f"whoever sits at the console becomes root by another entry; by hand: {advice}",
            evidence=GRUB,
        )
    wanted, banned = setting.get("arguments", []), setting.get("without", [])
    faults = []
    for when, given in [("now", seen["now"]), *(("at the next boot", entry) for entry in seen["entries"] or ())]:
        faults += [f"{name} is missing {when}" for name in wanted if name not in given]
        faults += [f"{name} is given {when}" for name in banned if name in given]
    faults = list(dict.fromkeys(faults))
    by_hand = (
        "set k3s_host_kernel_arguments, and reboot" if wanted else "take it out of /etc/default/grub, then: update-grub"
    )
    return Verdict(
        ok=not faults,
        expected=[*wanted, *(f"not {name}" for name in banned)],
        observed=faults or "so",
        reason=f"{'; '.join(faults)}; {by_hand}" if faults else "",
        evidence=f"/proc/cmdline: {' '.join(seen['now'])}",
    )


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, places=lambda setting: [GRUB if setting.get("password") else "/proc/cmdline"]
)
