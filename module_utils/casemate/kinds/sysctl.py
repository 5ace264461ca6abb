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

from ..base import EnforceError, Host, Observation, Setting, Unavailable, Verdict
from ..schema import Field

SCHEMA = {
    "key": Field("str", True, pattern=r"[a-z0-9_]+(\.[A-Za-z0-9_*-]+)+", help="name such as kernel.panic"),
    "value": Field("scalar", True, help="the exact value, as /proc/sys shows it"),
    "accept": Field("list", help="other values that are as good, so they are left alone"),
    "missing": Field("str", choices=("pass",), help="a kernel without the parameter lacks what it restricts"),
}
ENFORCED_BY = "engine"
OWNED = "/etc/sysctl.d/99-zz-casemate.conf"
FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")
PROC = "/proc/sys/"
Boot = dict[str, tuple[str, str]]


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
    return " ".join(str(value).split())


def boot_lines(host: Host) -> Boot:
    """What systemd-sysctl reads, in order: name below /proc/sys -> (value, file); "" excludes from globs."""
    files: dict[str, str] = {}
    for folder in reversed(FOLDERS):  # the same name in an earlier folder replaces the later one
        for path in host.glob(folder + "/*.conf"):
            files[os.path.basename(path)] = path
    lines: Boot = {}
    for path in (files[name] for name in sorted(files)):
        for line in (host.text(path) or "").splitlines():
            match = re.fullmatch(r"\s*(-?)\s*([^#;=\s-][^=]*?)\s*(?:=\s*(.*?))?\s*", line)
            if match and (match[1] or match[3] is not None):
                lines.pop(below_proc(match[2]), None)
                lines[below_proc(match[2])] = (normal(match[3] or ""), path)
    return lines


def boot_value(name: str, lines: Boot) -> tuple[str | None, str]:
    """Value and deciding file of one parameter: an explicit line, else the last glob that matches it."""
    if name in lines:
        value, path = lines[name]
        return value or None, path
    for pattern in reversed(list(lines)):
        if "*" in pattern and fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/"):
            return lines[pattern]
    return None, ""


def observe(settings: list[Setting], host: Host) -> list[Observation]:
    """For each matched parameter: live value, whether it can be written, value and file of the next boot."""
    lines = boot_lines(host)
    seen: list[Observation] = []
    for setting in settings:
        found = []
        for path in host.glob(PROC + below_proc(setting["key"])):
            boot, source = boot_value(path[len(PROC) :], lines)
            writable = os.access(host.path(path), os.W_OK)
            live = normal(host.text(path))
            found.append({"name": path, "live": live, "writable": writable, "boot": boot, "file": source})
        seen.append({"found": found})
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Live and next boot must both be right. Raises Unavailable where the kernel's value is not ours."""
    key, want = setting["key"], normal(setting["value"])
    good = {want, *map(normal, setting.get("accept") or ())}
    if not seen["found"]:
        if setting.get("missing") == "pass":
            return Verdict(True, want, "absent", evidence=f"this kernel has no {key}")
        raise Unavailable("kernel", f"this kernel has no {key}")
    wrong = [one for one in seen["found"] if one["live"] not in good or one["boot"] not in good]
    for one in wrong:
        if one["live"] not in good and not one["writable"]:
            raise Unavailable("kernel", f"{key} is {one['live']} and read-only here; it should be {want}")
    one = (wrong or seen["found"])[0]
    evidence = f"{one['name']}; {one['file'] or 'no file sets it for the next boot'}"
    if not wrong:
        return Verdict(True, want, one["live"], evidence=evidence)
    reason = "the live value differs" if one["live"] not in good else "the next boot would load another value"
    if one["boot"] not in (None, *good) and one["file"] != OWNED:
        reason += f"; {one['file']} sets it: remove the line there"
    return Verdict(False, want, {"live": one["live"], "next boot": one["boot"]}, reason, evidence)


def enforce(settings: list[Setting], failing: set[int], host: Host) -> None:
    """Write the owned file (all parameters, sorted last) and set the live values that differ."""
    lines = ["# Managed by Casemate (roles/k3s_host). Read last, so that it decides.\n"]
    for setting in sorted(settings, key=identity):
        lines.append(f"{setting['key']} = {normal(setting['value'])}\n")
    host.write(OWNED, "".join(lines).encode(), mode=0o644, owner=(0, 0))
    refused = []
    for setting in (settings[index] for index in sorted(failing)):
        want = normal(setting["value"])
        good = {want, *map(normal, setting.get("accept") or ())}
        for path in host.glob(PROC + below_proc(setting["key"])):
            old = normal(host.text(path))
            if old in good:
                continue
            try:
                with open(host.path(path), "w", encoding="ascii") as handle:
                    handle.write(want)
            except OSError as error:
                refused.append(f"{path} could not be set to {want}: {error.strerror}")
            else:
                host.changed(path, old + "\n", want + "\n")
    if refused:
        raise EnforceError("; ".join(refused))
