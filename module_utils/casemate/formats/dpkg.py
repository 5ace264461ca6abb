"""What Debian's package database says of files: whose they are, and what is in them.

Sources: dpkg(1), dpkg-divert(1), deb-md5sums(5), the list and md5sums files of /var/lib/dpkg/info, and `Conffiles` in
/var/lib/dpkg/status. The database knows neither modes nor where links lead to. Configuration that a package's script
writes by ucf(1) and ucfr(1), so as to keep what administrators change, stands in a database of its own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator

from ..host.files import names_in
from ..host.machine import Host
from ..host.text import split_lines
from .dpkg_status import STATUS

INFO, DIVERSIONS = "/var/lib/dpkg/info", "/var/lib/dpkg/diversions"
UCF_OWNERS, UCF_SUMS = "/var/lib/ucf/registry", "/var/lib/ucf/hashfile"
ALTERNATIVES, CHOSEN = "/var/lib/dpkg/alternatives", "/etc/alternatives/"
MERGED = ("/usr/bin/", "/usr/sbin/", "/usr/lib/", "/usr/lib32/", "/usr/lib64/", "/usr/libx32/")
"""Folders of which the database may still say where they were before the merge of / and /usr."""
CONFFILE = re.compile(r"^ (/.+) ([0-9a-f]{32})(?: obsolete)?$", re.MULTILINE)


def owners(paths: Iterable[str], host: Host) -> dict[str, str]:
    """Path -> package, for those that a package brought."""
    wanted = {spelled: path for path in paths for spelled in spellings(path)}
    diverted = _diversions(host)
    asked = set(wanted) | {original for original, (there, _) in diverted.items() if there in wanted}
    found: dict[str, str] = {path: name for name, path in _words(UCF_OWNERS, host) if path in wanted}
    for name, lines in _lists(host):
        for path in asked.intersection(lines):
            there, by = diverted.get(path, (path, name))
            there = path if by == name.split(":")[0] else there
            if there in wanted:
                found[wanted[there]] = name
    return found


def sums(paths: Iterable[str], packages: Iterable[str], host: Host) -> dict[str, str]:
    """Path -> MD5 sum in hexadecimal with which one of these packages brought it, or any package a conffile."""
    wanted = {spelled: path for path in paths for spelled in spellings(path)}
    diverted = _diversions(host)
    found = {wanted[path]: made for path, made in CONFFILE.findall(host.text(STATUS) or "") if path in wanted}
    found.update({wanted[path]: made for made, path in _words(UCF_SUMS, host) if path in wanted})
    for name in set(packages):
        for line in split_lines(host.text(f"{INFO}/{name}.md5sums") or ""):
            made, _, path = line.partition("  ")
            there, by = diverted.get(f"/{path}", (f"/{path}", name))
            there = f"/{path}" if by == name.split(":")[0] else there
            if there in wanted:
                found[wanted[there]] = made
    return found


def sources(packages: Iterable[str], host: Host) -> dict[str, str]:
    """Package -> the source that it is built from: a daemon and its unit are often in two packages of one source."""
    status = host.text(STATUS) or ""
    found = {}
    for name in packages:
        plain = name.split(":")[0]
        stanza = re.search(rf"(?m)^Package: {re.escape(plain)}\n(?:.+\n)*", status) if name else None
        source = re.search(r"(?m)^Source: (\S+)", stanza[0]) if stanza else None
        found[name] = source[1] if source else plain
    return found


def changed_since(path: str, package: str, host: Host) -> bool:
    """Whether the kernel's own date of a file, which no program sets, is after that of its package's list.

    dpkg writes the list once the files are there. What a package's script touches, and an image that was copied file by
    file, look the same; so this says of which files to look at the bytes, and nothing more.
    """
    seen, listed = host.stat(path), host.stat(f"{INFO}/{package}.list")
    return seen is not None and listed is not None and seen.st_ctime_ns > listed.st_ctime_ns


def reinstall(path: str, package: str, host: Host) -> str:
    """The command that brings back what a package brought.

    dpkg asks about configuration that was changed only where it is told to (--force-confask), and takes its own then
    (--force-confnew); ucf takes its own only where there is none.
    """
    command = f"apt-get install --reinstall {shlex.quote(package)}"
    spelled = set(spellings(path))
    if any(known in spelled for known, _ in CONFFILE.findall(host.text(STATUS) or "")):
        return command.replace("--reinstall", "--reinstall -o DPkg::Options::=--force-confask,confnew")
    if any(known in spelled for _, known in _words(UCF_OWNERS, host)):
        return f"mv {shlex.quote(path)} /root && UCF_FORCE_CONFFMISS=1 {command}"
    return command


def is_alternative(path: str, host: Host) -> bool:
    """Whether a link and what is chosen for it are what update-alternatives(1) knows."""

    def known() -> set[str]:
        return {
            line
            for name in names_in(host.path(ALTERNATIVES))
            for line in split_lines(host.text(f"{ALTERNATIVES}/{name}") or "")
        }

    chosen = host.link_target(path)
    lines = host.cached("alternatives", known)
    both = ([*spellings(path)], [*spellings(host.link_target(chosen))])
    return chosen.startswith(CHOSEN) and all(not lines.isdisjoint(one) for one in both)


def spellings(path: str) -> Iterator[str]:
    """How the database may call a path."""
    yield path
    if path.startswith(MERGED):
        yield path[len("/usr") :]


def _lists(host: Host) -> list[tuple[str, list[str]]]:
    """(package, the paths that it brought) of every package that is there."""

    def read() -> list[tuple[str, list[str]]]:
        names = (name for name in names_in(host.path(INFO)) if name.endswith(".list"))
        return [(name[: -len(".list")], (host.text(f"{INFO}/{name}") or "").split("\n")) for name in names]

    return host.cached("dpkg", read)


def _diversions(host: Host) -> dict[str, tuple[str, str]]:
    """Path -> (where other packages' file of that name lies instead, the package whose own stays)."""
    lines = split_lines(host.text(DIVERSIONS) or "")
    return {lines[i]: (lines[i + 1], lines[i + 2]) for i in range(0, len(lines) - 2, 3)}


def _words(path: str, host: Host) -> list[tuple[str, str]]:
    """The two words of each line of one of ucf's files."""
    lines = (line.split(None, 1) for line in split_lines(host.text(path) or ""))
    return [(words[0], words[1].strip()) for words in lines if len(words) == 2]
