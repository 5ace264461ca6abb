"""What a release of K3s is made of, as far as this controller can know before it is installed anywhere.

K3s is a wrapper with an archive in it, which holds the programs that run; they are read, never run. Without the file
only its version is known, which is that of Kubernetes, too.
"""

from __future__ import annotations

import io
import json
import mmap
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from casemate import kept
from casemate.supply.advisories import K3S
from casemate.supply.artifact_lock import Lock
from casemate.supply.component import Component, merged, of_go
from casemate.supply.inventory import build_of
from module_utils.casemate.formats import go_build
from module_utils.casemate.formats.zstd import Reader
from module_utils.casemate.k3s.artifact import digest_of, mapped

ARCHIVE = b"\x28\xb5\x2f\xfd"
"""How what is compressed with Zstandard begins."""
PLACES = 20
"""Places that begin so and are tried: the wrapper's own code has some, too."""


class ContentsError(Exception):
    """A file cannot be read as a release of K3s; the message names it."""


def by_version(version: str) -> list[Component]:
    """The parts of a K3s whose versions its own says."""
    release = version.partition("+")[0]
    return [
        Component("go", K3S, version, ("its version",)),
        Component(
            "go",
            "github.com/k3s-io/kubernetes",
            f"{release}-k3s1",
            ("its version",),
            replaces="k8s.io/kubernetes",
        ),
    ]


def by_file(path: Path, digest: str) -> list[Component]:
    """The Go modules of all programs in a K3s file with this digest. Raises ContentsError.

    What was read once is kept by the digest, which the caller has compared.
    """
    code = [Path(str(one)).read_bytes() for one in (__file__, go_build.__file__)]
    text = kept.value("contents", [digest.encode(), *code], lambda: _text(path))
    return merged(one for name, told in json.loads(text) for one in of_go(build_of(told), name))


def at_hand(folder: Path, lock: Lock, machine: str) -> tuple[str, list[Component]]:
    """(version, components) of the K3s in a folder laid out like a release, for a GOARCH, where the lock names it.

    Raises ContentsError.
    """
    path = folder / ("k3s" if machine == "amd64" else f"k3s-{machine}")
    digest = digest_of(str(path))
    found = [one.version for one in lock.releases.values() if digest and one.files.get(path.name) == digest]
    if not found:
        raise ContentsError(f"{path} is no K3s that the artifact lock names: " + (digest or "it is not there"))
    return found[0], by_file(path, digest)


def _text(path: Path) -> str:
    """(name, build) of each program, as JSON."""
    return json.dumps([(name, build._asdict()) for name, build in _programs(path)])


def _programs(path: Path) -> Iterator[tuple[str, go_build.Build]]:
    try:
        Reader(io.BytesIO()).close()
    except OSError as lacking:
        raise ContentsError(f"{path} cannot be unpacked on this controller: {lacking}") from lacking
    with mapped(str(path)) as whole:
        places = [
            found.start() for _, found in zip(range(PLACES), re.finditer(re.escape(ARCHIVE), whole), strict=False)
        ]
        try:
            wrapper = go_build.build(whole)
        except ValueError as odd:
            raise ContentsError(f"{path} is no K3s: {odd}") from odd
    if wrapper is not None:
        yield path.name, wrapper
    for place in places:
        try:
            found = list(_archived(path, place))
        except (OSError, tarfile.TarError):
            continue  # what only begins like one
        except ValueError as odd:
            raise ContentsError(f"{path} holds a program that cannot be read: {odd}") from odd
        if found:
            yield from found
            return
    raise ContentsError(f"{path} holds no archive of programs, as a K3s does")


def _archived(path: Path, place: int) -> Iterator[tuple[str, go_build.Build]]:
    """The programs in the archive at a place of the file. Raises OSError and tarfile.TarError where there is none."""
    with path.open("rb") as file:
        file.seek(place)
        with io.BufferedReader(Reader(file), 1 << 20) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
            for entry in archive:
                held = archive.extractfile(entry) if entry.isreg() and entry.size else None
                if held is not None and (build := _build(held)):
                    yield entry.name, build


def _build(program: IO[bytes]) -> go_build.Build | None:
    """What a program says of its build; K3s' own is 200 MB, which need not be in memory."""
    with tempfile.TemporaryFile() as out:
        shutil.copyfileobj(program, out)
        out.flush()
        with mmap.mmap(out.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return go_build.build(data)
