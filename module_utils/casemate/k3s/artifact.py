"""Bringing verified bytes to a path: streamed to a temporary file beside it, compared, only then renamed.

Whatever goes wrong (a flipped byte, a short or endless answer, a full disk, a foreign redirect) leaves the old file
in place and nothing else behind. Every refusal is an ArtifactError whose text says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import mmap
import os
import re
import stat
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from typing import IO, Any, Optional, Tuple

from ..host.files import replace_link, replacing

OFFICIAL = "https://github.com/k3s-io/k3s/releases/download"
ASSET_HOSTS = ("objects.githubusercontent.com", "release-assets.githubusercontent.com")
CAP = 1024 * 1024 * 1024
CHUNK = 1024 * 1024


class ArtifactError(Exception):
    """Nothing was installed; the message names the artifact, what is wrong and what to do."""


def url_of(version: str, name: str, mirror: str = "") -> str:
    """Address of a release's file at the official place, or at a mirror laid out like it."""
    return "/".join([(mirror or OFFICIAL).rstrip("/"), urllib.parse.quote(version, safe=""), name])


def may_redirect(start: str, target: str) -> bool:
    """Whether a redirect stays with the source: the same host, or GitHub's own asset hosts; never to plain HTTP."""
    old, new = urllib.parse.urlsplit(start), urllib.parse.urlsplit(target)
    if new.scheme != "https" and new.scheme != old.scheme:
        return False
    return new.netloc == old.netloc or (old.netloc == "github.com" and new.netloc in ASSET_HOSTS)


class _Pinned(urllib.request.HTTPRedirectHandler):
    """Follows redirects within the source only."""

    def __init__(self, start: str) -> None:
        self.start = start

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Optional[urllib.request.Request]:
        if not may_redirect(self.start, newurl):
            host = urllib.parse.urlsplit(newurl).netloc
            raise ArtifactError(f"{self.start} redirects to {host}, which is not the source: refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, timeout: float = 60) -> IO[bytes]:
    """Open an http(s) address as a stream; raises ArtifactError when it cannot be had."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ArtifactError(f"{url} is not an http(s) address")
    try:
        opener = urllib.request.build_opener(_Pinned(url))
        stream: IO[bytes] = opener.open(url, timeout=timeout)
        return stream
    except (OSError, HTTPException) as error:
        raise ArtifactError(f"{url} cannot be fetched: {getattr(error, 'reason', error)}") from error


@contextlib.contextmanager
def regular(path: str) -> Iterator[Optional[IO[bytes]]]:
    """A regular file, open, or None: links are not followed, and a pipe that somebody planted makes nobody wait."""
    try:
        source = open(path, "rb", opener=lambda p, f: os.open(p, f | os.O_NOFOLLOW | os.O_NONBLOCK))  # noqa: SIM115
    except OSError:
        yield None
        return
    with source:
        yield source if stat.S_ISREG(os.fstat(source.fileno()).st_mode) else None


@contextlib.contextmanager
def mapped(path: str) -> Iterator[bytes | mmap.mmap]:
    """The bytes of a regular file to search in, without reading them all; none where there is no such file."""
    with regular(path) as source:
        if source is None or not os.fstat(source.fileno()).st_size:
            yield b""
            return
        with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as held:
            yield held


def digest_of(path: str) -> str:
    """SHA-256 of a regular file in hex, or "" where there is none; read in pieces."""
    with regular(path) as source:
        if source is None:
            return ""
        digest = hashlib.sha256()
        for piece in iter(lambda: source.read(CHUNK), b""):
            digest.update(piece)
        return digest.hexdigest()


def stated_version(path: str) -> str:
    """The version that the bytes of a K3s name, or "": read and never run, because they may be anybody's.

    Go keeps the linker's `-X …/pkg/version.Version=` in the build information of every program.
    """
    with mapped(path) as held:
        found = re.search(rb"pkg/version\.Version=(v\d+\.\d+\.\d+(?:-[0-9A-Za-z.]+)?\+k3s\d+)", held)
        return found[1].decode() if found else ""


def at_least(version: str, floor: str) -> bool:
    """Whether a K3s version such as v1.36.3+k3s1 is at least another one; a candidate is older than its release."""
    return _numbers(version) >= _numbers(floor)


def _numbers(version: str) -> Tuple[int, ...]:
    match = re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z.]+)?\+k3s(\d+)", version)
    if match is None:
        raise ArtifactError(f"{version!r} is not a K3s version such as v1.36.3+k3s1")
    major, minor, patch, candidate, build = match.groups()
    return int(major), int(minor), int(patch), int(candidate is None), int(build)


def install(source: IO[bytes], path: str, sha256: str, mode: int = 0o755, previous: str = "", cap: int = CAP) -> None:
    """Put the stream's bytes at `path` when their SHA-256 is `sha256`; the old file is kept as `previous`.

    At most `cap` bytes are read. Raises ArtifactError; then `path` and its folder are as before.
    """
    folder, name = os.path.split(path)
    try:
        os.makedirs(folder, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with replacing(path) as (out, _):
            for piece in iter(lambda: source.read(CHUNK), b""):
                size += len(piece)
                if size > cap:
                    raise ArtifactError(f"{name} is larger than {cap >> 20} MiB: refused")
                digest.update(piece)
                out.write(piece)
            if digest.hexdigest() != sha256:
                raise ArtifactError(
                    f"{name} is refused: its SHA-256 is {digest.hexdigest()} ({size} bytes), the lock demands {sha256}"
                )
            os.fchmod(out.fileno(), mode)
            out.flush()
            os.fsync(out.fileno())  # the old file is given up once the new one is there whole
            if previous and os.path.isfile(path) and not os.path.islink(path):
                replace_link(previous, functools.partial(os.link, path))
    except (OSError, HTTPException) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ArtifactError(f"no space left in {folder}; {name} was not installed: free some and retry") from error
        raise ArtifactError(f"{name} could not be installed in {folder}: {error}") from error
