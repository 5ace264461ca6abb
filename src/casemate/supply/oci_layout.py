"""Images in files of the operator's: OCI layouts, as folders or as tar archives, such as `ctr images export` writes.

What is handed to a scanner is a layout of one image, in which every blob was compared with its digest: so it is the
image that runs, whoever wrote the archive. Source: OCI image specification 1.1, image-layout.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from casemate.supply.scan_report import DIGEST

INDEX, BLOBS = "index.json", "blobs/sha256"
JSON_MOST = 16 * 2**20
"""Bytes of JSON that are read: indexes and manifests are far smaller."""
CHUNK = 2**20
DEPTH = 4


class LayoutError(Exception):
    """An image cannot be taken from an archive; the message says why."""


class Found(NamedTuple):
    """A manifest within an archive: its descriptor, and the digest of the configuration that it names."""

    descriptor: dict[str, Any]
    config: str


class Archive:
    """A layout, open for reading."""

    def __init__(self, path: Path, tar: tarfile.TarFile | None) -> None:
        """A folder, or a tar archive that is open."""
        self.path, self.tar = path, tar

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A member; raises LayoutError where it is not there."""
        try:
            if self.tar is None:
                with (self.path / name).open("rb") as file:
                    yield file
                return
            member = self.tar.extractfile(name)
        except (KeyError, OSError, tarfile.TarError) as lacking:
            raise LayoutError(f"{self.path} has no {name}") from lacking
        if member is None:
            raise LayoutError(f"{name} of {self.path} is no file")
        with member:
            yield member

    def json(self, name: str) -> dict[str, Any]:
        """A member that is a mapping in JSON; raises LayoutError."""
        with self.open(name) as file:
            data = file.read(JSON_MOST)
        try:
            made = json.loads(data)
        except (ValueError, RecursionError) as broken:
            raise LayoutError(f"{name} of {self.path} is not JSON") from broken
        if not isinstance(made, dict):
            raise LayoutError(f"{name} of {self.path} is no mapping")
        return made

    def blob(self, digest: Any) -> dict[str, Any]:
        """A blob that is a mapping in JSON; raises LayoutError."""
        return self.json(_member(digest))


def _member(digest: Any) -> str:
    if not DIGEST.fullmatch(str(digest)):
        raise LayoutError(f"{digest} is no digest of sha256")
    return f"{BLOBS}/{str(digest).partition(':')[2]}"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Archive]:
    if path.is_dir():
        yield Archive(path, None)
        return
    try:
        with tarfile.open(path) as tar:
            yield Archive(path, tar)
    except (tarfile.TarError, EOFError, zlib.error) as broken:
        raise LayoutError(f"{path} is no tar archive that can be read: {broken}") from broken


def archives(folder: Path) -> list[Path]:
    """The layouts of a folder: folders and tar archives in it, or the folder itself."""
    if (folder / INDEX).is_file():
        return [folder]
    return sorted(path for path in folder.iterdir() if path.suffix == ".tar" or (path / INDEX).is_file())


def extract(folder: Path, digest: str, config: str, platform: str, into: Path) -> tuple[str, str]:
    """Write the layout of one image into a new folder `into`; returns the digests of its configuration and manifest.

    Wanted is what `digest` names in one of the archives of `folder`, for that platform where it is an index; or, where
    `config` is known, what has that configuration. Returns "" for both where no archive has it; raises LayoutError
    where one has it by half, or changed.
    """
    for path in archives(folder):
        with _opened(path) as archive:
            try:
                listed = archive.json(INDEX).get("manifests") or ()
            except LayoutError:
                continue  # a tar archive of something else
            try:
                found = [one for top in listed for one in _manifests(archive, top, digest, False, DEPTH)]
                fitting = [one for one in found if _fits(archive, one, config, platform)]
                if fitting:
                    _write(archive, fitting[0], into)
                    return fitting[0].config, str(fitting[0].descriptor["digest"])
            except (AttributeError, KeyError, TypeError) as odd:
                raise LayoutError(f"{path} is no layout of images: {odd!r}. Export it again, or remove it") from odd
    return "", ""


def _manifests(archive: Archive, descriptor: Any, digest: str, below: bool, depth: int) -> Iterator[Found]:
    """The manifests that a digest names, or that stand below it; all of them where the digest is ""."""
    below = below or descriptor.get("digest") == digest
    try:
        made = archive.blob(descriptor.get("digest"))
    except LayoutError:
        return  # an export leaves out the platforms that it lacks
    if "manifests" in made and depth:
        for one in made["manifests"]:
            yield from _manifests(archive, one, digest, below, depth - 1)
    elif below and isinstance(made.get("config"), dict):
        yield Found(descriptor, str(made["config"].get("digest")))


def _fits(archive: Archive, found: Found, config: str, platform: str) -> bool:
    if config:
        return found.config == config
    with contextlib.suppress(LayoutError):
        about = archive.blob(found.config)
        return f"{about.get('os')}/{about.get('architecture')}" == "/".join(platform.split("/")[:2])
    return False


def _write(archive: Archive, found: Found, into: Path) -> None:
    (into / BLOBS).mkdir(parents=True)
    manifest = archive.blob(found.descriptor["digest"])
    for digest in [found.descriptor["digest"], found.config, *(one["digest"] for one in manifest.get("layers") or ())]:
        _copy(archive, str(digest), into)
    (into / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (into / INDEX).write_text(json.dumps({"schemaVersion": 2, "manifests": [found.descriptor]}))


def _copy(archive: Archive, digest: str, into: Path) -> None:
    name, hashed = _member(digest), hashlib.sha256()
    with archive.open(name) as source, (into / name).open("wb") as out:
        while chunk := source.read(CHUNK):
            hashed.update(chunk)
            out.write(chunk)
    if f"sha256:{hashed.hexdigest()}" != digest:
        raise LayoutError(f"{name} of {archive.path} has sha256 {hashed.hexdigest()}: it was changed, export it again")
