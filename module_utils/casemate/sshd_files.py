"""sshd's configuration as sshd reads it: its files in order, its command lines, and what `sshd -T` makes of them.

Source: sshd_config(5): the first value of a keyword wins, that of a matching Match block beats it, and a block ends
with its file; some keywords add up. sshd(8): an option on the command line beats every file.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
from pathlib import PurePosixPath
from typing import NamedTuple, Tuple

from .accounts import number, passwd
from .base import Host
from .text import SPACE, split_lines, split_words

MAIN, FOLDER = "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d"
OWNED, INCLUDE = FOLDER + "/00-casemate.conf", f"Include {FOLDER}/*.conf\n"
UNIT, SSHD = "ssh.service", "/usr/sbin/sshd"
STDIN = ("-f", "/dev/stdin")
LISTS = ("allowusers", "allowgroups", "denyusers", "denygroups", "acceptenv", "hostkey")  # they add up, in any order
STRANGER = {"user": "casemate-stranger", "host": "stranger.invalid", "addr": "192.0.2.1", "laddr": "192.0.2.2"}
CRITERIA = {"user": "user", "host": "host", "address": "addr", "localaddress": "laddr", "localport": "lport"}
RUNNING, NEXT = "running daemon", "next start"
Options = Tuple[Tuple[str, str], ...]  # option, such as -o, and its value
OPTION = re.compile(r"-[46DGQRTVdeiqrt]*([cfghop])\s*(.+)")  # getopt lets several stand in one word
TITLE = re.compile(r"(?:sshd: )?(\S*sshd)(?: (.*?))?\s*(?:\[listener\].*)?$")
DIRECTIVE = re.compile(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*?)\s*$", re.ASCII)


class Line(NamedTuple):
    """One directive, where it stands, and the Match block around it; an empty key stands for a file as such."""

    path: str
    match: str
    key: str
    value: str
    number: int = 0


def included(value: str) -> list[str]:
    """The patterns of an Include, absolute."""
    return [one if one.startswith("/") else "/etc/ssh/" + one for one in split_words(value.replace('"', ""))]


def directives(host: Host, path: str = MAIN, match: str = "", depth: int = 0) -> list[Line]:
    """Every directive in the order in which sshd reads it. A Match block ends with the file that opened it."""
    found = [Line(path, match, "", "")]
    for place, text in enumerate(split_lines(host.text(path) or ""), 1):
        parts = DIRECTIVE.match(text)
        if not parts:
            continue
        key, value = parts[1].lower(), parts[2].replace('"', "")
        if key == "match":
            match = value
        elif key == "include" and depth < 16:
            for pattern in included(value):
                for name in host.glob(pattern):
                    found += directives(host, name, match, depth + 1)
        found.append(Line(path, match, key, value, place))
    return found


def main_file(host: Host) -> str:
    """The main file with the Include that reads the drop-ins before anything else, added where it lacks."""
    main = host.text(MAIN) or ""
    lines = (line for line in split_lines(main) if line.strip(SPACE) and not line.lstrip(SPACE).startswith("#"))
    first = next(lines, "")
    return main if split_words(first) == split_words(INCLUDE) else INCLUDE + main


def planned(host: Host, ours: str) -> str:
    """The whole configuration for `sshd -f /dev/stdin` as if `ours` stood in the owned drop-in, at its place."""
    made: list[str] = []
    for line in split_lines(main_file(host)):
        parts = DIRECTIVE.match(line)
        if not parts or parts[1].lower() != "include":
            made.append(line)
            continue
        for pattern in included(parts[2]):
            names = {*host.glob(pattern), *([OWNED] if PurePosixPath(OWNED).match(pattern) else [])}
            made += [ours.rstrip("\n") if name == OWNED else f'Include "{name}"' for name in sorted(names)]
    return "\n".join(made) + "\n"


def member(host: Host, group: str) -> str | None:
    """Somebody in a group, or None where it is empty or not there."""
    for line in split_lines(host.text("/etc/group") or ""):
        name, _, gid, members = [*line.split(":"), "", "", "", ""][:4]
        if fnmatch.fnmatchcase(name, group):
            for account in passwd(host.text("/etc/passwd") or ""):
                if account.name in members.split(",") or account.gid == number(gid):
                    return account.name
    return None


def connections(host: Host, lines: list[Line]) -> list[tuple[str, str, dict[str, str]]]:
    """One connection for each way in which the configuration treats some differently: label, block, specification."""
    specs: dict[str, tuple[str, dict[str, str]]] = {"": ("", {})}
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
            specs[f"Match {block} (user {user})"] = block, {**STRANGER, "lport": "22", **chosen, "user": user}
    return [(label, block, spec) for label, (block, spec) in specs.items()]


def starts(host: Host) -> dict[str, tuple[str, str]]:
    """Program and arguments, as one line, of the running daemon (its title shows them) and of the next start."""
    shown, found = host.systemctl(UNIT, "MainPID", "ExecStart"), {}
    title = (host.text(f"/proc/{shown['MainPID'] or '0'}/cmdline") or "").replace("\0", " ").strip()
    if title:
        parts = TITLE.match(title)
        found[RUNNING] = (parts[1], parts[2] or "") if parts else (title.split()[0], "")
    given = environment(host) if "$" in shown["ExecStart"] else {}
    for program, line in re.findall(r"path=(.*?) ; argv\[\]=\S*(.*?) ;", shown["ExecStart"]):
        found[NEXT] = program, re.sub(r"\$\{?(\w+)\}?", lambda name: given.get(name[1], ""), line).strip()
    return found


def environment(host: Host) -> dict[str, str]:
    """What systemd gives the unit: its own environment, then that of the unit, then that of its files."""
    shown, given = host.systemctl(UNIT, "Environment", "EnvironmentFiles"), {}
    texts = [host.run(["systemctl", "show-environment"]).out, "\n".join(words(shown["Environment"]))]
    for pattern in re.findall(r"(?m)^(.*) \(ignore_errors=\w+\)$", shown["EnvironmentFiles"]):
        texts += [host.text(path) or "" for path in host.glob(pattern)]
    for line in "\n".join(texts).replace("\\\n", "").split("\n"):
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith(("#", ";")):
            given[name] = " ".join(words(value[1:] if value.startswith("$'") else value))
    return given


def words(line: str) -> list[str]:
    """A line as words without their quotes; as it stands where the quotes do not match."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def options(host: Host) -> dict[str, Options]:
    """Options that override the files, of the running daemon and of the next start; a wrapper's are not sshd's."""
    found = {when: line for when, (program, line) in starts(host).items() if program.endswith("sshd")}
    return {when: overriding(found.get(when, "")) for when in (RUNNING, NEXT)}


def overriding(line: str) -> Options:
    """The options of a command line that change settings, without those that change how it runs."""
    parts = (OPTION.match(part.strip()) for part in re.split(r"(?:^|\s)(?=-)", line))
    found = [(f"-{part[1]}", part[2].strip()) for part in parts if part]
    return tuple(one for one in found if one != ("-f", MAIN))


def keyword(option: str, value: str) -> str:
    """The keyword that an option sets; the option itself where it sets none."""
    set_by = re.match(r"\w+", value) if option == "-o" else None
    return set_by[0].lower() if set_by else {"-g": "logingracetime", "-h": "hostkey"}.get(option, option)


def untold(given: dict[str, Options], told: set[str]) -> list[str]:
    """Who is given which option on the command line, less what failing keywords tell."""
    whom: dict[str, list[str]] = {}
    for when, extra in given.items():
        for option in extra:
            whom.setdefault(" ".join(option), []).extend([when] if keyword(*option) not in told else [])
    return [f"{option} on the command line of the {' and the '.join(n)}" for option, n in whom.items() if n]


def past_files(host: Host, lines: list[Line]) -> list[str]:
    """What takes logins past the files that we read: another program, mounts of the daemon's own, another listener.

    Who logs in has the daemon's mounts, and so have we: they are compared with those of the machine's first process. A
    container's sshd is in a process namespace of its own, and is its image's matter.
    """
    found = [f"the {when} is {program}" for when, (program, _) in starts(host).items() if program != SSHD]
    main = host.systemctl(UNIT, "MainPID")["MainPID"]
    if namespace(host, main, "mnt") not in ("", namespace(host, "1", "mnt")):
        roots = [f"/proc/{pid}/root" for pid in (main, "1")]
        paths = {p[len(root) :] for root in roots for p in host.glob(f"{root}{FOLDER}/*.conf")}
        other = [
            p for p in sorted({*paths, *(line.path for line in lines)}) if len({host.read(r + p) for r in roots}) > 1
        ]
        found += [f"the {RUNNING} has mounts of its own, and another {path}" for path in other]
    for path in host.glob("/proc/[0-9]*"):
        pid, seen = path.rsplit("/", 1)[-1], host.stat(path)
        title = host.text(f"{path}/cmdline") if seen and seen.st_uid == 0 and pid != main else None
        if (
            title
            and re.match(r"sshd: .*\[listener\]", title)
            and namespace(host, pid, "pid") == namespace(host, "1", "pid")
        ):
            found.append(f"process {pid} listens beside {UNIT} ({title.split('[')[0].strip()})")
    return found


def namespace(host: Host, pid: str, sort: str) -> str:
    """Which namespace a process is in; empty where it ended."""
    try:
        return os.readlink(host.path(f"/proc/{pid}/ns/{sort}"))
    except OSError:
        return ""


def normal(key: str, values: list[str]) -> str:
    """One string for one setting, whether sshd shows it on one line or on several."""
    words = split_words(" ".join(values))
    return " ".join(sorted(words) if key in LISTS else words)


def effective(host: Host, extra: Options, spec: dict[str, str], config: str | None = None) -> dict[str, str]:
    """What `sshd -T` says of the files, or of `config`. Raises OSError where that is broken or there is no sshd."""
    connection = ["-C", ",".join(f"{k}={v}" for k, v in spec.items())] if spec else []
    given = [word for option in extra for word in option]
    done = host.run([SSHD, "-T", *given, *(STDIN if config is not None else ()), *connection], stdin=config)
    if done.rc != 0:
        raise OSError(f"sshd cannot read its configuration: {(done.err or done.out).strip()[:300]}")
    values: dict[str, list[str]] = {}
    for line in split_lines(done.out):
        key, _, value = line.partition(" ")
        values.setdefault(key, []).append(value)
    return {key: normal(key, value) for key, value in values.items()}


def decider(key: str, block: str, when: str, extra: Options, lines: list[Line]) -> str:
    """What beats our drop-in for such connections: `path:line` of each directive, or a command line."""
    if any(keyword(*option) in (key, "-f") for option in extra):
        return f"the command line of the {when} ({' '.join(word for option in extra for word in option)})"
    foreign = [line for line in lines if line.key == key and line.path != OWNED]
    before = [n for n in foreign if not n.match and n.path.startswith(FOLDER) and n.path < OWNED][:1]
    inside = [line for line in foreign if line.match == block]
    chosen = foreign if key in LISTS else (inside if block else before) or foreign
    return (
        ", ".join(f"{line.path}:{line.number}" for line in chosen)
        or "no file: sshd shows another value than it is given"
    )


def newer(host: Host, lines: list[Line]) -> set[str]:
    """Files, and the folder of drop-ins, that changed after the running daemon last read them.

    Where a control of a file fails, a later change of its mode or owner is told by that and does not count here.
    """
    loaded = host.started(UNIT)
    if loaded is None:
        return set()
    stats = {path: host.stat(path) for path in [FOLDER, *(line.path for line in lines)]}
    told = {path for path in stats if path == FOLDER or any(fnmatch.fnmatchcase(path, p) for p in host.differing)}
    return {p for p, s in stats.items() if s and (s.st_mtime if p in told else max(s.st_mtime, s.st_ctime)) > loaded}
