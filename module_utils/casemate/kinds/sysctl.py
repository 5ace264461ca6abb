"""Kernel parameters: the live value, and what the next boot would load.

Source: sysctl.d(5) (precedence of folders and names, globs, exclusions), sysctl(8). A file of somebody else
that sorts after ours and sets another value is drift that is named, never edited. `key` may hold `*` for an
interface: every match is judged, because `all` does not reach the interfaces for most IPv6 parameters and
for those of IPv4 that are OR-ed (ip-sysctl).
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypedDict

from ..core.schema import Key, Scalar
from ..core.verdict import Left, Observation, Unavailable, Verdict
from ..host.machine import EnforceError, Host
from ..host.text import split_words, systemd_lines
from .kind import Kind, Owned, Pass, not_waived
from .owned_entries import beyond, entries, in_file


class Needed(TypedDict):
    """What every setting of this kind says."""

    key: Annotated[str, Key("name such as kernel.panic", pattern=r"[a-z0-9_]+(\.[A-Za-z0-9_*-]+)+")]
    value: Annotated[Scalar, Key("the exact value, as /proc/sys shows it")]


class Setting(Needed, total=False):
    """What a control of this kind may demand."""

    accept: Annotated[list[Any], Key("other values that are as good, so they are left alone")]
    missing: Annotated[Literal["pass"], Key("a kernel without the parameter lacks what it restricts")]


OWNED = "/etc/sysctl.d/99-zz-casemate.conf"
FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")
PROC = "/proc/sys/"
Boot = dict[str, tuple[str, str]]  # name below /proc/sys -> (value, "file:line"); no value excludes it from globs


def identity(setting: Setting) -> str:
    """Two controls may not set one parameter."""
    return str(setting["key"])


def below_proc(key: str) -> str:
    """Name below /proc/sys: kernel.panic -> kernel/panic; a first "/" makes dots literal (sysctl.d(5))."""
    if "/" in key and key.find("/") < (key.find(".") if "." in key else len(key)):
        return key
    return key.translate(str.maketrans("./", "/."))


def normal(value: object) -> str:
    """White space between the numbers of a parameter carries no meaning."""
    return " ".join(split_words(str(value)))


def boot_lines(host: Host, ours: str | None = None) -> Boot:
    """What systemd-sysctl reads, in order; with `ours` as if that stood in the owned file already."""
    files: dict[str, str] = {}
    for folder in reversed(FOLDERS):  # the same name in an earlier folder replaces the later one
        for path in host.glob(folder + "/*.conf"):
            files[os.path.basename(path)] = path
    if ours is not None:
        files[os.path.basename(OWNED)] = OWNED
    lines: Boot = {}
    for path in (files[name] for name in sorted(files)):
        text = ours if ours is not None and path == OWNED else host.text(path) or ""
        for number, line in enumerate(systemd_lines(text), 1):
            match = re.fullmatch(r"\s*(-?)\s*([^#;=\s-][^=]*?)\s*(?:=\s*(.*?))?\s*", line, re.ASCII)
            if match and (match[1] or match[3] is not None):
                lines.pop(below_proc(match[2]), None)
                lines[below_proc(match[2])] = (normal(match[3] or ""), f"{path}:{number}")
    return lines


def boot_value(name: str, lines: Boot) -> tuple[str | None, str]:
    """Value and deciding line of one parameter: an explicit one, else the last glob that matches it."""
    if name in lines:
        value, where = lines[name]
        return value or None, where
    for pattern in reversed(list(lines)):
        if "*" in pattern and fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/"):
            return lines[pattern]
    return None, ""


def written(settings: list[Setting]) -> str:
    """The owned file that holds these settings; "-" has a kernel without the parameter pass the line over."""
    lines = [
        f"{'-' if setting.get('missing') == 'pass' else ''}{setting['key']} = {normal(setting['value'])}\n"
        for setting in sorted(settings, key=identity)
    ]
    return "# Managed by Casemate (roles/k3s_host). Read last, so that it decides.\n" + "".join(lines)


def acceptable(setting: Setting) -> set[str]:
    """The demanded value and those that are as good."""
    return {normal(value) for value in (setting["value"], *(setting.get("accept") or ()))}


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """For each matched parameter: live value, whether it can be written, and what the next boot would load from where.

    `after` and `source` are value and deciding line of the next boot once the owned file is written; `barred` says what
    keeps it from being written.
    """
    lines = boot_lines(host)
    ours = written(not_waived(settings, waived))
    planned, bars = boot_lines(host, ours), host.barred(OWNED) if host.text(OWNED) != ours else ""
    seen: list[Observation] = []
    for setting in settings:
        found = []
        for path in host.glob(PROC + below_proc(setting["key"])):
            boot, where = boot_value(path[len(PROC) :], lines)
            after, source = boot_value(path[len(PROC) :], planned)
            one = {"name": path, "live": normal(host.text(path)), "writable": os.access(host.path(path), os.W_OK)}
            found.append({**one, "boot": boot, "where": where, "after": after, "source": source})
        seen.append({"found": found, "barred": bars})
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Live and next boot must both be right. Raises Unavailable where the kernel's value is not ours."""
    key, want, good = setting["key"], normal(setting["value"]), acceptable(setting)
    if not seen["found"]:
        if setting.get("missing") == "pass":
            return Verdict(ok=True, expected=want, observed="absent", evidence=f"this kernel has no {key}")
        raise Unavailable("kernel", f"this kernel has no {key}")
    wrong = [one for one in seen["found"] if one["live"] not in good or one["boot"] not in good]
    for one in wrong:
        if one["live"] not in good and not one["writable"]:
            raise Unavailable("kernel", f"{key} is {one['live']} and read-only here; it should be {want}")
    theirs = [one for one in wrong if one["after"] not in good and not one["source"].startswith(OWNED)]
    one = (theirs or wrong or seen["found"])[0]
    evidence = f"{one['name']}; {one['where'] or 'no file sets it for the next boot'}"
    if not wrong:
        return Verdict(ok=True, expected=want, observed=one["live"], evidence=evidence)
    reason = "the live value differs" if one["live"] not in good else "the next boot would load another value"
    if theirs:
        reason += f"; {one['source']} decides at the next boot: remove the line there"
    bars = seen["barred"] if any(one["boot"] not in good for one in wrong) else ""
    if bars and not theirs:
        reason += f"; {bars}"
    written_differs = not seen["barred"] and any(one["boot"] != one["after"] for one in wrong)
    return Verdict(
        ok=False,
        expected=want,
        observed={"live": one["live"], "next boot": one["boot"]},
        reason=reason,
        evidence=evidence,
        blocked_by=theirs[0]["source"] if theirs else bars,
        still_enforced=written_differs or any(one["live"] not in good for one in wrong),
        where=tuple(
            dict.fromkeys(one["where"] if one["boot"] not in good and one["where"] else one["name"] for one in wrong)
        ),
    )


def enforce(settings: list[Setting], failing: set[int], host: Host) -> None:
    """Write the owned file (all parameters, sorted last) and set the live values that differ."""
    refused = [host.barred(OWNED)] if host.text(OWNED) != written(settings) and host.barred(OWNED) else []
    if not refused:
        host.write(OWNED, written(settings).encode(), mode=0o644, owner=(0, 0))
    for setting in (settings[index] for index in sorted(failing)):
        want, good = normal(setting["value"]), acceptable(setting)
        for path in host.glob(PROC + below_proc(setting["key"])):
            if normal(host.text(path)) in good:
                continue
            try:
                set_live(path, want, host)
            except OSError as error:
                refused.append(f"{path} could not be set to {want}: {error.strerror}")
    if refused:
        raise EnforceError("; ".join(refused))


def set_live(path: str, value: str, host: Host) -> None:
    """Give a parameter of the running kernel, by its file, another value; the one before is kept. Raises OSError."""
    before = normal(host.text(path))
    host.about_to_change(path, "value")
    with open(host.path(path), "w", encoding="ascii") as handle:
        handle.write(value)
    host.changed(path, before + "\n", value + "\n")


def _names(host: Host) -> list[str]:
    """The parameters of the owned file."""
    return [line.partition("=")[0].strip(" -") for line in entries(OWNED, host)]


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """A line of the owned file."""
    return in_file(OWNED, f"{OWNED} sets {setting['key']}" if setting["key"] in _names(host) else "", host)


def take_back(waived: list[Setting], wanted: list[Setting], host: Host) -> None:
    """Write the owned file without them. The live value becomes that of the next boot, where a file names one."""
    enforce(wanted, set(), host)
    lines = boot_lines(host)
    for setting in waived:
        for path in host.glob(PROC + below_proc(setting["key"])):
            value, _ = boot_value(path[len(PROC) :], lines)
            live = normal(host.text(path))
            if value is not None and live != value and os.access(host.path(path), os.W_OK):
                set_live(path, value, host)


def unasked(settings: list[Setting], host: Host) -> str:
    """Parameters in the owned file that no control has."""
    return beyond(OWNED, _names(host), [setting["key"] for setting in settings])


OURS: Owned[Setting] = Owned(left, take_back, unasked, written=lambda setting: OWNED)
KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    places=lambda setting: [f"/proc/sys/{below_proc(setting['key'])}"],
    owned=OURS,
)
