"""Kernel parameters: the live value, and what the next boot would load.

Source: sysctl.d(5) (precedence of folders and names), sysctl(8). A file of somebody else that sorts after
ours and sets another value is drift that is named, never edited.
"""

from __future__ import annotations

import os
import re
from typing import Dict, List, Set, Tuple

from ..base import EnforceError, Host, Observation, Setting, Unavailable, Verdict
from ..schema import Field

SCHEMA = {
    "key": Field("str", True, pattern=r"[a-z0-9_]+(\.[A-Za-z0-9_*-]+)+", help="dotted name, such as kernel.panic"),
    "value": Field("scalar", True, help="the exact value, as /proc/sys shows it"),
}
ENFORCED_BY = "engine"
OWNED = "/etc/sysctl.d/99-zz-casemate.conf"
FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")


def identity(setting: Setting) -> str:
    """Two controls may not set one parameter."""
    return str(setting["key"])


def proc_path(key: str) -> str:
    """kernel.panic -> /proc/sys/kernel/panic."""
    return "/proc/sys/" + key.replace(".", "/")


def normal(value: object) -> str:
    """White space between the numbers of a parameter carries no meaning."""
    return " ".join(str(value).split())


def boot_values(host: Host) -> Dict[str, Tuple[str, str]]:
    """What systemd-sysctl would load: parameter -> (value, file that decides)."""
    files: Dict[str, str] = {}
    for folder in reversed(FOLDERS):  # the same name in an earlier folder replaces the later one
        for path in host.glob(folder + "/*.conf"):
            files[os.path.basename(path)] = path
    order = [files[name] for name in sorted(files)]
    loaded: Dict[str, Tuple[str, str]] = {}
    for path in order:
        for line in (host.text(path) or "").splitlines():
            match = re.match(r"\s*-?\s*([^#;=\s][^=]*?)\s*=\s*(.*?)\s*$", line)
            if match:
                loaded[match[1].replace("/", ".")] = (normal(match[2]), path)
    return loaded


def observe(settings: List[Setting], host: Host) -> List[Observation]:
    """Live value, whether it can be written here, and the value and file of the next boot."""
    boot = boot_values(host)
    seen: List[Observation] = []
    for setting in settings:
        path = proc_path(setting["key"])
        live = host.text(path)
        value, source = boot.get(setting["key"], (None, None))
        seen.append(
            {
                "live": None if live is None else normal(live),
                "writable": os.access(host.path(path), os.W_OK),
                "boot": value,
                "boot_file": source,
            }
        )
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Live and next boot must both be the value. Raises Unavailable where the kernel's value is not ours to set."""
    want = normal(setting["value"])
    observed = {"live": seen["live"], "next boot": seen["boot"]}
    evidence = f"{proc_path(setting['key'])}; {seen['boot_file'] or 'no file sets it for the next boot'}"
    if seen["live"] is None:
        raise Unavailable("kernel", f"this kernel has no {setting['key']}")
    if seen["live"] != want and not seen["writable"]:
        raise Unavailable("kernel", f"{setting['key']} is {seen['live']} and read-only here; it should be {want}")
    if seen["live"] == want and seen["boot"] == want:
        return Verdict(True, want, want, evidence=evidence)
    reason = "the live value differs" if seen["live"] != want else "the next boot would load another value"
    if seen["boot"] not in (None, want) and seen["boot_file"] != OWNED:
        reason += f"; {seen['boot_file']} sets it: remove the line there"
    return Verdict(False, want, observed, reason, evidence)


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Write the owned file (all parameters, sorted last) and set the live values that differ."""
    lines = ["# Managed by Casemate (roles/k3s_host). Read last, so that it decides.\n"]
    lines += [f"{s['key']} = {normal(s['value'])}\n" for s in sorted(settings, key=identity)]
    host.write(OWNED, "".join(lines).encode(), mode=0o644, owner=(0, 0))
    for index in sorted(failing):
        setting = settings[index]
        path = host.path(proc_path(setting["key"]))
        want = normal(setting["value"])
        try:
            with open(path, "r+", encoding="ascii") as handle:
                old = normal(handle.read())
                if old == want:
                    continue
                handle.seek(0)
                handle.write(want)
        except OSError as error:
            raise EnforceError(f"{setting['key']} could not be set to {want}: {error.strerror}") from error
        host.changed(proc_path(setting["key"]), old + "\n", want + "\n")
