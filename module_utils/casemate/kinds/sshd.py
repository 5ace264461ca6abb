"""The SSH daemon's effective settings: `sshd -T` for every kind of connection that its configuration tells apart.

What counts is what a login meets: Match blocks, files read before ours, options on the daemon's command line (of the
running one and of the next start), and whether the running daemon has read its files since they changed. Enforced by
one drop-in that is read first, since in sshd_config(5) the first value wins. Files of others are named, never edited.
"""

from __future__ import annotations

import fnmatch
import re
from typing import NamedTuple

from ..base import EnforceError, Host, Observation, Setting, Verdict
from ..schema import Field

SCHEMA = {
    "key": Field(
        "str", True, pattern=r"(?!(match|include)$)[a-z0-9]+", help="as sshd -T shows it; or daemon (value: current)"
    ),
    "value": Field("scalar", True, pattern=r"[^\r\n]+", help="value as sshd -T shows it"),
    "enforced": Field("bool", help="false: observe only"),
}
ENFORCED_BY = "engine"
MAIN, FOLDER = "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d"
OWNED, INCLUDE = FOLDER + "/00-casemate.conf", f"Include {FOLDER}/*.conf\n"
UNIT, SSHD = "ssh.service", "/usr/sbin/sshd"
RELOAD = ("systemctl", "reload", UNIT)
LISTS = ("allowusers", "allowgroups", "denyusers", "denygroups", "acceptenv", "hostkey")  # they add up, in any order
STRANGER = {"user": "casemate-stranger", "host": "stranger.invalid", "addr": "192.0.2.1", "laddr": "192.0.2.2"}
CRITERIA = {"user": "user", "host": "host", "address": "addr", "localaddress": "laddr", "localport": "lport"}


class Line(NamedTuple):
    """One directive, where it stands, and the Match block around it; an empty key stands for a file as such."""

    path: str
    match: str
    key: str
    value: str


def directives(host: Host, path: str = MAIN, match: str = "", depth: int = 0) -> list[Line]:
    """Every directive in the order in which sshd reads it. A Match block ends with the file that opened it."""
    found = [Line(path, match, "", "")]
    for text in (host.text(path) or "").splitlines():
        parts = re.match(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*?)\s*$", text)
        if not parts:
            continue
        key, value = parts[1].lower(), parts[2].replace('"', "")
        if key == "match":
            match = value
        elif key == "include" and depth < 16:
            for pattern in value.split():
                for name in host.glob(pattern if pattern.startswith("/") else "/etc/ssh/" + pattern):
                    found += directives(host, name, match, depth + 1)
        found.append(Line(path, match, key, value))
    return found


def member(host: Host, group: str) -> str | None:
    """Somebody in a group, or None where it is empty or not there."""
    for line in (host.text("/etc/group") or "").splitlines():
        name, _, gid, members = [*line.split(":"), "", "", "", ""][:4]
        if fnmatch.fnmatchcase(name, group):
            for user in (host.text("/etc/passwd") or "").splitlines():
                fields = user.split(":")
                if len(fields) > 3 and (fields[0] in members.split(",") or fields[3] == gid):
                    return fields[0]
    return None


def connections(host: Host, lines: list[Line]) -> dict[str, dict[str, str]]:
    """One connection for each way in which the configuration treats some differently: label -> specification."""
    specs: dict[str, dict[str, str]] = {"": {}}
    for block in dict.fromkeys(line.match for line in lines if line.match):
        chosen: dict[str, str] = {}
        for name, patterns in re.findall(r"(\w+)(?:\s*=\s*|\s+)(\S+)", block):
            pattern = next((p for p in patterns.split(",") if not p.startswith("!")), "*")
            if name.lower() == "group":
                chosen["user"] = member(host, pattern) or ""
            elif name.lower() in CRITERIA:
                sample = "1" if "addr" in name.lower() else "x"
                chosen[CRITERIA[name.lower()]] = re.sub(r"[*?]", sample, pattern.split("/")[0])
        for user in filter(None, [chosen["user"]] if "user" in chosen else ["root", STRANGER["user"]]):
            specs[f"Match {block} (user {user})"] = {**STRANGER, "lport": "22", **chosen, "user": user}
    return specs


def options(host: Host) -> dict[str, tuple[str, ...]]:
    """Options that override the files: of the running daemon (its title shows them) and of the next start."""
    shown = host.systemctl(UNIT, "MainPID", "ExecStart")
    title = (host.text(f"/proc/{shown['MainPID'] or '0'}/cmdline") or "").replace("\0", " ")
    running = re.match(r"(?:sshd: )?\S*sshd(?: (.*?))?\s*(?:\[listener\].*)?$", title)
    after = re.search(r"argv\[\]=\S+ (.*?) ;", shown["ExecStart"])
    default = re.search(r"^\s*SSHD_OPTS=(.*?)\s*$", host.text("/etc/default/ssh") or "", re.MULTILINE)
    later = re.sub(
        r"\$\{?SSHD_OPTS\}?", lambda _: default[1].strip("\"'") if default else "", after[1] if after else ""
    )
    return {"running": overriding(running[1] or "" if running else ""), "next start": overriding(later)}


def overriding(line: str) -> tuple[str, ...]:
    """The options of a command line that change settings, without those that change how it runs."""
    kept = [part.strip() for part in re.split(r"(?:^|\s)(?=-)", line.strip()) if re.match(r"-[ofpchg46]", part.strip())]
    return tuple(word for part in kept for word in ([part[:2], part[2:].strip()] if part[2:] else [part]))


def normal(key: str, values: list[str]) -> str:
    """One string for one setting, whether sshd shows it on one line or on several."""
    words = " ".join(values).split()
    return " ".join(sorted(words) if key in LISTS else words)


def effective(host: Host, extra: tuple[str, ...], spec: dict[str, str]) -> dict[str, str]:
    """What `sshd -T` says. Raises OSError where the configuration is broken or there is no sshd."""
    connection = ["-C", ",".join(f"{k}={v}" for k, v in spec.items())] if spec else []
    done = host.run([SSHD, "-T", *extra, *connection])
    if done.rc != 0:
        raise OSError(f"sshd cannot read its configuration: {(done.err or done.out).strip()[:300]}")
    values: dict[str, list[str]] = {}
    for line in done.out.splitlines():
        key, _, value = line.partition(" ")
        values.setdefault(key, []).append(value)
    return {key: normal(key, value) for key, value in values.items()}


def newer(host: Host, lines: list[Line]) -> set[str]:
    """Files, and the folder of drop-ins, that changed after the running daemon last read them."""
    loaded = host.started(UNIT)
    if loaded is None:
        return set()
    stats = {path: host.stat(path) for path in [FOLDER, *(line.path for line in lines)]}
    return {p for p, s in stats.items() if s and max(s.st_mtime, s.st_ctime if p != FOLDER else 0) > loaded}


def observe(settings: list[Setting], host: Host) -> list[Observation]:
    """Values by connection and command line, the files of others that set them, and what the daemon has not read.

    A file that changes a value and was not read yet counts against that value, not against the daemon as well.
    """
    lines = directives(host)
    given = options(host)
    seen = {
        (label, when): effective(host, extra, spec)
        for label, spec in connections(host, lines).items()
        for when, extra in given.items()
        if when == "running" or extra != given["running"]
    }
    unread = newer(host, lines)
    found: list[Observation] = []
    for setting in settings:
        values = {
            ", ".join(part for part in (label, when if given[when] else "") if part): got.get(setting["key"], "not set")
            for (label, when), got in seen.items()
        }
        files = list(dict.fromkeys(line.path for line in lines if line.key == setting["key"]))
        found.append({"values": values, "others": [path for path in files if path != OWNED]})
        if unread.intersection(files) and any(value != wanted(setting) for value in values.values()):
            unread = set()
    for setting, one in zip(settings, found):
        if setting["key"] == "daemon":
            one.update(values={"": "current" if not unread else "older files"}, others=sorted(unread))
    return found


def wanted(setting: Setting) -> str:
    """The value as `effective` would show it."""
    return normal(setting["key"], [str(setting["value"])])


def identity(setting: Setting) -> str:
    """One control per keyword."""
    return str(setting["key"])


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Every kind of connection must meet the value. `daemon` is whether the running one has read its files."""
    want = wanted(setting)
    evidence = f"sshd -T ({len(seen['values'])} kinds of connection)"
    wrong = {label: value for label, value in seen["values"].items() if value != want}
    if not wrong:
        return Verdict(True, want, want, evidence=evidence)
    label, value = next(iter(wrong.items()))
    if setting["key"] == "daemon":
        reason = f"{UNIT} has not read {', '.join(seen['others'])} since it changed"
        return Verdict(False, want, value, reason, f"systemctl show {UNIT}", (UNIT,))
    reason = f"{label or 'logins'}: {value}"
    if seen["others"]:
        reason += f"; also set in {', '.join(seen['others'])}"
    return Verdict(False, want, value, reason, evidence)


def enforce(settings: list[Setting], failing: set[int], host: Host) -> None:
    """Write the drop-in and, where it lacks, the Include that reads it first; validate the whole; reload."""
    ours = [s for s in settings if s.get("enforced") is not False and s["key"] != "daemon"]
    text = "# Managed by Casemate (roles/k3s_access). Read first, so that it decides.\n"
    text += "".join(f"{s['key']} {s['value']}\n" for s in sorted(ours, key=identity))
    main = host.text(MAIN) or ""
    first = next((line for line in main.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    whole = main if first.split() == INCLUDE.split() else INCLUDE + main
    if host.text(OWNED) == text and main == whole and not newer(host, directives(host)):
        return  # what still fails is set by a file of somebody else, which assess names
    host.arm([MAIN, OWNED])
    checked = host.run([SSHD, "-t", "-f", "/dev/stdin"], stdin=text + whole)
    if checked.rc != 0:
        raise EnforceError(f"{OWNED} was not written: sshd -t refused it: {(checked.err or checked.out).strip()[:400]}")
    host.write(OWNED, text.encode("utf-8", "surrogateescape"), mode=0o600, owner=(0, 0))
    host.write(MAIN, whole.encode("utf-8", "surrogateescape"))
    if host.started(UNIT) is not None:
        done = host.run(RELOAD)
        if done.rc != 0:
            raise EnforceError(f"{' '.join(RELOAD)} failed: {(done.err or done.out).strip()[:300]}")
        host.changed(UNIT, "older files\n", "reloaded\n")
