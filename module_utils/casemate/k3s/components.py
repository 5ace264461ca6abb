"""What a host is made of: K3s' programs with the Go modules in them, packages, the kernel, and the images that run.

One pass reads it all. What cannot be read is said beside it, so that nobody takes a part for the whole.
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Iterator, List, Optional

from ..core.verdict import Unavailable
from ..formats import dpkg_status, go_build
from ..host.machine import Host
from . import images
from .artifact import digest_of, mapped, stated_version
from .files import PROGRAM
from .plugins import DATA

CURRENT = f"{DATA}/current"
"""The link to the folder that the newest K3s has unpacked itself to."""
OS_RELEASE = re.compile(r"""(?m)^(ID|VERSION_ID|VERSION_CODENAME|PRETTY_NAME)=["']?(.*?)["']?$""")
KERNEL_PACKAGE = re.compile(r" Debian (\S+) \(")
"""What a kernel of Debian says of the version of its package, as in `uname -v`."""


def gathered(host: Host) -> Dict[str, Any]:
    """What the host is made of, as JSON has it; each program is read and hashed once in a pass.

    `os` and `kernel`: what runs, with `kernel_package`, the version of its package where Debian built it; `k3s`: the
    version that the installed file states; `files`: those of K3s, each with `path`, `sha256` and, where Go built it,
    `build` (see formats/go_build.py); `packages`: those that are installed, as dpkg knows them; `images`: those that
    run, as k3s/images.py has them; `unread`: place or part -> why it is not among the rest.
    """
    made = versions(host, hashed=True)
    return {**made, "images": _images(host, made["unread"])}


def versions(host: Host, hashed: bool = False) -> Dict[str, Any]:
    """The same without images and, unless `hashed`, without digests, which take ten times as long to find out."""
    unread: Dict[str, str] = {}
    files = [_file(host, path, hashed, unread) for path in _paths(host, unread)]
    package = KERNEL_PACKAGE.search(os.uname().version)
    return {
        "os": dict(OS_RELEASE.findall(host.text("/etc/os-release") or "")),
        "machine": os.uname().machine,
        "kernel": os.uname().release,
        "kernel_package": package[1] if package else "",
        "k3s": stated_version(host.path(PROGRAM)),
        "files": [one for one in files if one and (hashed or "build" in one)],
        "packages": _packages(host, unread),
        "images": [],
        "unread": unread,
    }


def _paths(host: Host, unread: Dict[str, str]) -> Iterator[str]:
    """The installed file of K3s, and all regular files that it has unpacked."""
    if host.stat(PROGRAM) is None:
        unread["k3s"] = f"there is no {PROGRAM}"
        return
    yield PROGRAM
    tree = host.link_target(CURRENT)
    if not re.fullmatch(rf"{DATA}/[0-9a-f]{{64}}", tree) or host.stat(tree) is None:
        unread[DATA] = "K3s has not unpacked itself here: it has not run yet"
        return
    top = host.path(tree)
    for parent, folders, names in os.walk(top):
        folders.sort()
        below = os.path.relpath(parent, top)
        yield from (os.path.normpath(f"{tree}/{below}/{name}") for name in sorted(names))


def _file(host: Host, path: str, hashed: bool, unread: Dict[str, str]) -> Optional[Dict[str, Any]]:
    """A regular file; None for what is none, such as the links by which a program has several names."""
    real = host.path(path)
    digest = host.cached(f"digest:{real}", lambda: digest_of(real)) if hashed else ""
    if hashed and not digest:
        return None
    made: Dict[str, Any] = {"path": path, "sha256": digest}
    try:
        with mapped(real) as data:
            built = go_build.build(data)
    except ValueError as broken:
        unread[path] = f"which modules are in it is not known: {broken}"
        return made
    return {**made, "build": built._asdict()} if built else made


def _packages(host: Host, unread: Dict[str, str]) -> List[Dict[str, str]]:
    try:
        known = dpkg_status.known(host)
    except FileNotFoundError as missing:
        unread["packages"] = str(missing)
        return []
    return [
        {
            "name": one.name,
            "version": one.version,
            "architecture": one.architecture,
            "source": one.source,
            "source_version": one.source_version,
        }
        for one in known
        if one.state not in dpkg_status.ABSENT
    ]


def _images(host: Host, unread: Dict[str, str]) -> List[Dict[str, Any]]:
    if "k3s" in unread:
        return []
    try:
        return [
            {"digest": one.digest, "names": one.names, "id": one.id, "platform": one.platform, "pods": one.pods}
            for one in images.running(host)
        ]
    except Unavailable as why:
        unread["images"] = why.why
        return []
