"""Kernel modules: kept out now and at the next load, or loaded now and at the next boot.

What would happen is asked of modprobe itself (`--show-depends`, which reads all of modprobe.d(5) and touches
nothing). `blacklist` alone stops only loading by alias, so a blocked module gets an `install` line too. A module that
the machine uses is told and left alone, in our file too: the next boot would be without its file system or device.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Annotated, Literal, TypedDict

from ..core.schema import Key
from ..core.verdict import Left, Observation, Unavailable, Verdict
from ..host import modules as modules_in_use
from ..host.machine import EnforceError, Host
from ..host.text import SPACE, split_lines, systemd_lines
from .kind import Kind, Owned, Pass, not_waived
from .owned_entries import entries, in_file


class Needed(TypedDict):
    """What every setting of this kind says."""

    name: Annotated[str, Key("module, such as cramfs", pattern=r"[a-z0-9][a-z0-9_-]*")]
    state: Annotated[Literal["blocked", "loaded"], Key("kept out, or there at every boot")]


class Setting(Needed):
    """What a control of this kind demands."""


BLOCKED, LOADED = "/etc/modprobe.d/casemate.conf", "/etc/modules-load.d/casemate.conf"
REFUSALS = ("/bin/false", "/bin/true", "/usr/bin/false", "/usr/bin/true")
LOAD_FOLDERS = ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
FILES = {"blocked": BLOCKED, "loaded": LOADED}
HEADER = "# Managed by Casemate (roles/k3s_host).\n"


def identity(setting: Setting) -> str:
    """Dash and underscore name the same module (modprobe(8))."""
    return str(setting["name"]).replace("-", "_")


def boot_list(host: Host) -> set[str]:
    """Modules that systemd-modules-load would load: a name in an earlier folder replaces the later one."""
    files: dict[str, str] = {}
    for folder in reversed(LOAD_FOLDERS):
        for path in host.glob(folder + "/modules-load.d/*.conf"):
            files[os.path.basename(path)] = path
    lines = (line.strip(SPACE) for path in files.values() for line in systemd_lines(host.text(path) or ""))
    return {line.replace("-", "_") for line in lines if line and line[0] not in "#;"}


def own_step(name: str, lines: str) -> list[str]:
    """The step of `modprobe --show-depends` that is about the module itself: [verb, rest], or ["none"].

    Dependencies come before it and soft ones after it, so it is found by its name.
    """
    steps = [line.split(None, 1) for line in split_lines(lines) if len(line.split(None, 1)) == 2]
    for verb, rest in steps:
        file = rest.split()[0].rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")
        if verb in ("insmod", "builtin") and file == name:
            return [verb, rest.strip()]
    return next(([verb, rest.strip()] for verb, rest in reversed(steps) if verb == "install"), ["none"])


def free(settings: list[Setting], used: dict[str, str]) -> list[Setting]:
    """The settings without the modules that should be kept out and are in use."""
    return [s for s in settings if s["state"] != "blocked" or identity(s) not in used]


def texts(settings: list[Setting]) -> dict[str, str]:
    """State -> text of the owned file for it, where one is needed."""
    blocked = sorted(s["name"] for s in settings if s["state"] == "blocked")
    loaded = sorted(s["name"] for s in settings if s["state"] == "loaded")
    made = {"blocked": "".join(f"install {name} /bin/false\nblacklist {name}\n" for name in blocked)}
    made["loaded"] = "".join(f"{name}\n" for name in loaded)
    return {state: HEADER + lines for state, lines in made.items() if lines}


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """Whether each module is loaded, what modprobe would do, and whether the boot list has it.

    Raises Unavailable where no module can be judged: no module tools, or no modules of the running kernel.
    """
    if not host.glob(f"/lib/modules/{os.uname().release}"):
        raise Unavailable("modules", "the running kernel's modules are not on this machine")
    loaded = {line.split(" ", 1)[0] for line in split_lines(host.text("/proc/modules") or "")}
    boot = boot_list(host)
    used = modules_in_use.uses(map(identity, settings), host)
    planned = texts(free(not_waived(settings, waived), used))
    ours = split_lines(host.text(BLOCKED) or "")
    bars = {s: host.barred(FILES[s]) if host.text(FILES[s]) != text else "" for s, text in planned.items()}
    seen: list[Observation] = []
    for setting in settings:
        asked = host.run(["modprobe", "--show-depends", setting["name"]])
        if asked.rc == 127:
            raise Unavailable("modules", "modprobe (package kmod) is not installed")
        if asked.rc != 0 and "not found" not in asked.err:
            raise OSError(f"modprobe cannot tell about {setting['name']}: {asked.err.strip()[:200]}")
        name = identity(setting)
        one = {"loaded": name in loaded, "next": own_step(name, asked.out), "boot": name in boot}
        written = f"blacklist {setting['name']}" in ours
        seen.append({**one, "barred": bars.get(setting["state"], ""), "used": used.get(name, ""), "written": written})
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Blocked: not in the kernel, and modprobe would refuse. Loaded: in the kernel, and on the boot list."""
    verb, target = seen["next"][0], (seen["next"] + [""])[1]
    builtin = verb == "builtin"
    evidence = f"modprobe --show-depends: {' '.join(seen['next'])}".strip()
    now = "built in" if builtin else "loaded" if seen["loaded"] else "not loaded"
    if setting["state"] == "loaded":
        ok = builtin or (seen["loaded"] and seen["boot"])
        observed = {"now": now, "next boot": "loaded" if builtin or seen["boot"] else "not loaded"}
        reason = "" if ok else "it is not loaded" if not seen["loaded"] else "no file loads it at the next boot"
        bars = "" if ok or seen["boot"] else seen["barred"]
        reason = "; ".join(filter(None, [reason, bars]))
        still_enforced = not builtin and not seen["loaded"]
        return Verdict(
            ok=ok,
            expected="loaded",
            observed="loaded" if ok else observed,
            reason=reason,
            evidence=evidence,
            blocked_by=bars,
            still_enforced=still_enforced,
        )
    refused = verb == "none" or (verb == "install" and target in REFUSALS)
    if refused and not seen["loaded"]:
        return Verdict(
            ok=True,
            expected="blocked",
            observed="blocked" if verb == "install" else "no such module",
            evidence=evidence,
        )
    reason = "it is part of the kernel" if builtin else "it is loaded; unload it, or reboot" if refused else ""
    reason = reason or "the next request would load it"
    observed = {"now": now, "next load": "refused" if refused else "loaded"}
    if seen["used"]:
        reason = f"it is in use ({seen['used']}), so it is not kept out; do without that, or waive this control"
        bars, still_enforced = seen["used"], seen["written"]
    else:
        bars, still_enforced = "" if refused else seen["barred"], seen["loaded"]
        reason = "; ".join(filter(None, [reason, bars]))
    return Verdict(
        ok=False,
        expected="blocked",
        observed=observed,
        reason=reason,
        evidence=evidence,
        blocked_by=bars,
        still_enforced=still_enforced,
    )


def enforce(settings: list[Setting], failing: set[int], host: Host) -> None:
    """Write the owned files, then load or unload what differs; a module in use stays, and is named.

    Of a file that would be empty the head stays.
    """
    refused = []
    used = modules_in_use.uses(map(identity, settings), host)
    before, planned = host.text(BLOCKED) or "", texts(free(settings, used))
    if before and "blocked" not in planned and any(s["state"] == "blocked" for s in settings):
        planned["blocked"] = HEADER
    for state, text in planned.items():
        bars = host.barred(FILES[state]) if host.text(FILES[state]) != text else ""
        if bars:
            refused.append(bars)
        else:
            host.write(FILES[state], text.encode(), mode=0o644, owner=(0, 0))
    present = {line.split(" ", 1)[0] for line in split_lines(host.text("/proc/modules") or "")}
    for setting in (settings[index] for index in sorted(failing)):
        wanted = setting["state"] == "loaded"
        if not wanted and identity(setting) in used:
            if f"blacklist {setting['name']}" not in split_lines(before):
                refused.append(f"{setting['name']} is in use: {used[identity(setting)]}")
            continue
        if (identity(setting) in present) == wanted:
            continue
        done = host.run(["modprobe", *([] if wanted else ["-r"]), setting["name"]])
        if done.rc == 0:
            host.changed(f"module {setting['name']}", "loaded\n" * (not wanted), "loaded\n" * wanted)
        else:
            refused.append(done.err.strip()[:200])
    if refused:
        raise EnforceError("; ".join(refused))


def _listed(host: Host) -> list[tuple[str, str]]:
    """(file, module) of the two owned files."""
    blocked = [line.split() for line in entries(BLOCKED, host)]
    found = [(BLOCKED, words[1]) for words in blocked if len(words) > 1]
    return list(dict.fromkeys([*found, *((LOADED, line) for line in entries(LOADED, host))]))


def written(setting: Setting) -> str:
    """The owned file for a module."""
    return FILES["blocked" if setting["state"] == "blocked" else "loaded"]


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """A line of the owned files. What is loaded or not stays as it is until the next boot."""
    path = written(setting)
    return in_file(path, f"{path} names {setting['name']}" if (path, setting["name"]) in _listed(host) else "", host)


def take_back(waived: list[Setting], wanted: list[Setting], host: Host) -> None:
    """Write the owned files without them; one that would be empty goes."""
    enforce(wanted, set(), host)
    for path in {BLOCKED, LOADED} - {written(setting) for setting in wanted}:
        host.remove(path)


def unasked(settings: list[Setting], host: Host) -> str:
    """Modules in the owned files that no control has."""
    asked = [(written(setting), setting["name"]) for setting in settings]
    extra = [(path, name) for path, name in _listed(host) if (path, name) not in asked]
    return f"{extra[0][0]} holds {', '.join(name for _, name in extra)}, which no control asks for" if extra else ""


OURS: Owned[Setting] = Owned(left, take_back, unasked, written=written)
KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    places=lambda setting: [FILES[setting["state"]]],
    owned=OURS,
)
