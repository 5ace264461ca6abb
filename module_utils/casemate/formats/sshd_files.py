"""sshd's configuration as sshd reads it: its files in order, its command lines, and what `sshd -T` makes of them.

Source: sshd_config(5): the first value of a keyword wins, that of a matching Match block beats it, and a block ends
with its file; some keywords add up. sshd(8): an option on the command line beats every file.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import tempfile
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, Optional, Tuple

from ..host.clock import after, change_time, content_time
from ..host.machine import Host, Result
from ..host.text import SPACE, split_lines, split_words
from .sshd_daemon import UNIT, next_unit
from .sshd_keys import generate
from .sshd_match import Met, Spec, connections_of, plain

MAIN, FOLDER = "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d"
OWNED, INCLUDE = FOLDER + "/00-casemate.conf", f"Include {FOLDER}/*.conf\n"
SSHD = "/usr/sbin/sshd"
CHROOT = "/run/sshd"
PRIVATE_RUN = f'mount -t tmpfs -o mode=755 casemate /run && mkdir -m 755 {CHROOT} && exec "$@"'
STDIN = ("-f", "/dev/stdin")
BEGIN, END = "# casemate: a file of its own begins", "# casemate: and ends"
LISTS = ("allowusers", "allowgroups", "denyusers", "denygroups", "acceptenv", "hostkey")  # they add up, in any order
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
    """The patterns of an Include, absolute; glob(3) finds their files, so that names with a leading dot stay out."""
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


def unwritable(host: Host, ours: str) -> str:
    """What keeps apply from writing our drop-in, or the main file where that has to change too."""
    first = host.barred(OWNED) if host.text(OWNED) != ours else ""
    return first or (host.barred(MAIN) if host.text(MAIN) != main_file(host) else "")


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
            made += [_as_file(ours) if name == OWNED else f'Include "{name}"' for name in sorted(names)]
    return "\n".join(made) + "\n"


def _as_file(text: str) -> str:
    """A text in the place of an Include. One with a Match block has to be a file of its own, where the block ends."""
    return f"{BEGIN}\n{text.rstrip()}\n{END}" if re.search(r"(?mi)^\s*match\s", text) else text.rstrip("\n")


def connections(host: Host, lines: list[Line], lists: Sequence[Collection[str]] = ()) -> list[tuple[str, Met, Spec]]:
    """One connection for each way in which the configuration treats some differently: label, blocks, specification.

    Users who are in other `lists` are kept apart, whether or not a block of the configuration does.
    """
    blocks = list(dict.fromkeys(line.match for line in lines if line.match))
    found: list[tuple[str, Met, Spec]] = [("", (), plain(blocks))]
    for met, spec in connections_of(host, blocks, lists):
        whom = f"user {spec['user']}"
        found.append((f"Match {' and '.join(met)} ({whom})" if met else whom, met, spec))
    return found


def starts(host: Host) -> dict[str, tuple[str, str]]:
    """Program and arguments, as one line, of the running daemon (its title shows them) and of the next start."""
    unit, found = next_unit(host), {}
    pid, shown = host.systemctl(UNIT, "MainPID")["MainPID"] or "0", host.systemctl(unit, "ExecStart")
    title = (host.text(f"/proc/{pid}/cmdline") or "").replace("\0", " ").strip()
    if title:
        parts = TITLE.match(title)
        found[RUNNING] = (parts[1], parts[2] or "") if parts else (title.split()[0], "")
    given = environment(host, unit) if "$" in shown["ExecStart"] else {}
    for program, line in re.findall(r"path=(.*?) ; argv\[\]=\S*(.*?) ;", shown["ExecStart"]):
        found[NEXT] = program, re.sub(r"\$\{?(\w+)\}?", lambda name: given.get(name[1], ""), line).strip()
    return found


def environment(host: Host, unit: str) -> dict[str, str]:
    """What systemd gives the unit: its own environment, then that of the unit, then that of its files."""
    shown, given = host.systemctl(unit, "Environment", "EnvironmentFiles"), {}
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


def given_by(host: Host, extra: Options) -> str:
    """The files of systemd that give the daemon such options: of its environment, its unit or a drop-in; or nothing."""
    shown = host.systemctl(next_unit(host), "EnvironmentFiles", "FragmentPath", "DropInPaths")
    paths = [shown["FragmentPath"], *shown["DropInPaths"].split()]
    for pattern in re.findall(r"(?m)^(.*) \(ignore_errors=\w+\)$", shown["EnvironmentFiles"]):
        paths += host.glob(pattern)
    sought = [re.escape((re.match(r"\w+", value) or [value or option])[0]) for option, value in extra]
    lines = {
        path: [one for one in split_lines(host.text(path) or "") if one.lstrip()[:1] not in "#;"] for path in paths
    }
    found = [
        path
        for path, there in lines.items()
        if any(re.search(rf"(?i)(?<!\w){one}(?!\w)", line) for one in sought for line in there)
    ]
    return f", given by {', '.join(found)}" if found else ""


def unreported(host: Host, given: dict[str, Options], failing: set[str]) -> list[str]:
    """Who is given which option on the command line, and by which file, less what failing keywords tell."""
    whom: dict[Tuple[str, str], list[str]] = {}
    for when, extra in given.items():
        for option in extra:
            whom.setdefault(option, []).extend([when] if keyword(*option) not in failing else [])
    return [
        f"{' '.join(option)} on the command line of the {' and the '.join(n)}{given_by(host, (option,))}"
        for option, n in whom.items()
        if n
    ]


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


def effective(host: Host, extra: Options, spec: Spec, config: str | None = None) -> dict[str, str]:
    """What `sshd -T` says of the files, or of `config`. Raises OSError where that is broken or there is no sshd.

    A check leaves out drop-ins of ours that apply removes first, wherever they sort.
    """
    if config is None and host.loses(FOLDER) and "-f" not in dict(extra):
        config = planned(host, host.text(OWNED) or "")
    said = ",".join(name if value is None else f"{name}={value}" for name, value in spec.items())
    given = [word for option in extra for word in option]
    asked = ["-T", *given, *(STDIN if config is not None else ()), *(["-C", said] if spec else [])]
    done, scratch = call(host, asked, config)
    if done.rc != 0:
        raise OSError(f"sshd cannot read its configuration: {(done.err or done.out).strip()[:300]}")
    values: dict[str, list[str]] = {}
    for line in split_lines(done.out):
        key, _, value = line.partition(" ")
        if value != scratch or key != "hostkey":
            values.setdefault(key, []).append(value)
    return {key: normal(key, value) for key, value in values.items()}


def call(host: Host, asked: list[str], stdin: Optional[str] = None) -> tuple[Result, str]:
    """Run sshd for a test of its files, also where it is stopped or has no host key, which is none of their faults.

    sshd wants /run/sshd, which goes with its unit, and a host key that it can load. What lacks is given to this call
    only: the folder in a mount namespace of its own, a key in a folder that is gone afterwards. Returns what sshd said
    and the path of that key, if there was one.
    """
    whole = re.search(rf"(?s){BEGIN}\n(.*?\n){END}", stdin or "")
    if not (stdin and whole):
        return _call(host, asked, stdin)
    with tempfile.TemporaryDirectory(prefix="casemate-") as folder:
        part = os.path.join(folder, os.path.basename(OWNED))
        with open(part, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(whole[1])
        return _call(host, asked, f'{stdin[: whole.start()]}Include "{part}"{stdin[whole.end() :]}')


def _call(host: Host, asked: list[str], stdin: Optional[str]) -> tuple[Result, str]:
    argv = [SSHD, *asked]
    done = host.run(argv, stdin=stdin)
    if done.rc not in (0, 127) and host.stat(CHROOT) is None:
        wrapped = ["unshare", "--mount", "--propagation", "private", "sh", "-c", PRIVATE_RUN, "sh", *argv]
        again = host.run(wrapped, stdin=stdin)
        argv, done = (argv, done) if again.rc == 127 else (wrapped, again)
    if done.rc in (0, 127):
        return done, ""
    with tempfile.TemporaryDirectory(prefix="casemate-") as folder:
        key = f"{folder}/key"
        again = host.run([*argv, "-h", key], stdin=stdin) if generate(host, key, "ed25519") else done
    return (again, key) if again.rc == 0 else (done, "")


def decider(host: Host, key: str, met: Met, when: str, extra: Options, lines: list[Line]) -> str:
    """What beats our drop-in where these blocks are met: `path:line` of each directive, or a command line's source."""
    deciding = tuple(option for option in extra if keyword(*option) in (key, "-f"))
    if deciding:
        command_line = " ".join(word for option in extra for word in option)
        return f"the command line of the {when} ({command_line}){given_by(host, deciding)}"
    of_others = [line for line in lines if line.key == key and line.path != OWNED]
    before = [n for n in of_others if not n.match and n.path.startswith(FOLDER) and n.path < OWNED][:1]
    inside = [line for line in of_others if line.match in met]
    chosen = of_others if key in LISTS else inside or before or of_others
    return (
        ", ".join(f"{line.path}:{line.number}" for line in chosen)
        or "no file: sshd shows another value than it is given"
    )


def changed_since_read(host: Host, lines: list[Line]) -> set[str]:
    """Files, and the folders that are included, that changed after the running daemon last read them.

    Where a control of a file fails, a later change of its mode or owner is told by that and does not count here; nor
    do those of host keys, whose content alone matters.
    """
    start = host.started(UNIT)
    if start is None:
        return set()
    read = {line.path for line in lines} | folders(lines)
    keys = {line.value for line in lines if line.key == "hostkey"}
    reported = {path for path in read if any(fnmatch.fnmatchcase(path, pattern) for pattern in host.failing_files)}
    stats = {path: host.stat(path) for path in read | keys}
    content_only = reported | keys | folders(lines)
    return {
        path
        for path, seen in stats.items()
        if seen
        and not host.loses(path)
        and after(content_time(seen) if path in content_only else change_time(seen), start)
    }


def folders(lines: list[Line]) -> set[str]:
    """The folders in which an Include looks for files: what is removed from one shows there only."""
    patterns = [pattern.rpartition("/") for line in lines if line.key == "include" for pattern in included(line.value)]
    wild = re.compile(r"[*?[]")
    return {FOLDER} | {folder for folder, _, name in patterns if wild.search(name) and not wild.search(folder)}
