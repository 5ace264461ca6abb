"""Channels by which digests of a release of K3s are had: a folder, a file of checksums, or the address of one.

Two that come from the same place say nothing more than one: whoever changed it, changed both.
"""

from __future__ import annotations

import functools
import os
import socket
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from casemate.supply import checksum_file
from casemate.supply.address import SlowError, is_loopback, of_ip, refusal, whole
from casemate.supply.checksum_file import ChecksumError
from module_utils.casemate.k3s.artifact import ArtifactError, digest_of, fetch, stated_version

SECONDS = 30
"""How long an address may take for its whole answer."""
CAP = 1024 * 1024
"""The most bytes of a file of checksums: those of a release have about 500."""
GITHUB = ("github.com", "githubusercontent.com")
"""Its downloads are sent on from the first to hosts below the second."""
SUMS = "sha256sum-{}.txt"
"""How a release of K3s names its files of checksums."""


class ChannelError(Exception):
    """A channel cannot be read, contradicts itself, or is not independent of another one; says what to do."""


@dataclass(frozen=True)
class Channel:
    """A channel as the operator names it, with the places that belong to it: paths and addresses."""

    name: str
    places: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """What a channel says: name of a file -> SHA-256; and whether the bytes of K3s themselves were there to be read."""

    digests: Mapping[str, str]
    has_bytes: bool


def is_address(place: str) -> bool:
    """Whether a place is an address and no path."""
    return "://" in place


def demand_independent(channels: Sequence[Channel]) -> None:
    """Raise ChannelError unless there are two channels or more, no two of which have a place in common.

    So it does for an address at which nothing is asked.
    """
    if len(channels) < 2:
        raise ChannelError("one channel is compared with nothing. Name a second one, which somebody else keeps")
    refused = [refusal(place) for one in channels for place in one.places if is_address(place)]
    if any(refused):
        raise ChannelError("\n".join(filter(None, refused)))
    for number, one in enumerate(channels):
        for other in channels[:number]:
            for place in one.places:
                for theirs in other.places:
                    if why := _in_common(place, theirs):
                        said = f"the channels {other.name} ({theirs}) and {one.name} ({place}) are one: {why}"
                        raise ChannelError(f"{said}. Name a channel that somebody else keeps")


def at_one_place(channels: Sequence[Channel]) -> list[str]:
    """What makes two channels look like one although their names differ: hosts that lead to the same address of IP.

    Two keepers may rent the same one, so it is for people to judge. Names that lead nowhere now are left alone.
    """
    told = []
    found = [
        (one.name, host) for one in channels for host in sorted({_host(at) for at in one.places if is_address(at)})
    ]
    for number, (name, host) in enumerate(found):
        for other, theirs in found[:number]:
            if other != name and (both := sorted(_addresses(host) & _addresses(theirs))):
                told.append(f"the channels {other} ({theirs}) and {name} ({host}) are both at {both[0]}")
    return told


@functools.cache
def _addresses(host: str) -> frozenset[str]:
    """The addresses of IP to which the name of a host leads; none where nobody knows it."""
    try:
        return frozenset(str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        return frozenset()


def _in_common(one: str, other: str) -> str:
    """Why two places are one, or nothing."""
    if is_address(one) != is_address(other):
        return ""
    if is_address(one):
        host, same = _host(one), _host(one) == _host(other)
        return f"both are on {host}" if same else ""
    first, second = (Path(place).expanduser().resolve() for place in (one, other))
    if first == second or first in second.parents or second in first.parents:
        return f"both are in {first if first in (second, *second.parents) else second}"
    mine, theirs = _inodes(first), _inodes(second)
    twins = sorted(str(mine[inode]) for inode in mine.keys() & theirs.keys())
    return f"{twins[0]} is the same file in both" if twins else ""


def _host(address: str) -> str:
    """The host of an address, however it is written; all of this machine are one, and so are all of GitHub."""
    host = _ascii(urllib.parse.unquote(urllib.parse.urlsplit(address).hostname or "")).rstrip(".").lower()
    if is_loopback(host):
        return "localhost"
    if host in GITHUB or host.endswith(tuple(f".{one}" for one in GITHUB)):
        return GITHUB[0]
    try:
        found = of_ip(host)
    except ValueError:
        return host
    return "localhost" if found.is_unspecified else str(found)  # to 0.0.0.0 leads what leads to this machine


def _ascii(host: str) -> str:
    """A name as the domain name system has it, in which others than those of ASCII are written with these."""
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host


def _inodes(path: Path) -> dict[tuple[int, int], Path]:
    """The files of a folder, or a file itself, as the kernel tells them apart, whatever names and links lead there."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    seen = [(file, file.stat()) for file in files if file.is_file()]
    return {(found.st_dev, found.st_ino): file for file, found in seen}


def read(channel: Channel, files: Sequence[str], architectures: Sequence[str], version: str) -> Reading:
    """What a channel says of a release. Of folders, `files` are hashed, and compared with the checksums beside them.

    Raises ChannelError for what cannot be read, for a contradiction, and for a K3s that calls itself another version.
    """
    found: dict[str, str] = {}
    said_by: dict[str, str] = {}
    sources = [source for place in channel.places for source in _sources(place, files, architectures, version)]
    for source in sources:
        for name, digest in source.digests.items():
            if found.setdefault(name, digest) != digest:
                said = f"the channel {channel.name} contradicts itself about {name}: {said_by[name]} gives"
                raise ChannelError(f"{said} {found[name]}, and {source.where} {digest}. Use neither until you know why")
            said_by.setdefault(name, source.where)
    return Reading(found, any(source.is_bytes for source in sources))


class _Source(NamedTuple):
    """One file of checksums, or one file of the release itself."""

    where: str
    digests: Mapping[str, str]
    is_bytes: bool = False


def _sources(place: str, files: Sequence[str], architectures: Sequence[str], version: str) -> list[_Source]:
    if is_address(place):
        addresses = [place]
        if place.endswith("/"):
            addresses = [place + SUMS.format(architecture) for architecture in architectures]
        return [_Source(address, _parsed(address, _fetched(address))) for address in addresses]
    path = Path(place).expanduser()
    if not path.is_dir():
        return [_checksums(path)]
    hashed = [_hashed(path / name, version) for name in files if os.path.lexists(path / name)]
    sums = [_checksums(one) for one in sorted(path.glob(SUMS.format("*")))]
    if not hashed and not sums:
        raise ChannelError(f"{path} has nothing of a release of K3s: neither {', '.join(files)} nor {SUMS.format('*')}")
    return [*hashed, *sums]


def _checksums(path: Path) -> _Source:
    try:
        with path.open("rb") as file:
            return _Source(str(path), _parsed(str(path), file.read(CAP + 1)))
    except OSError as unread:
        raise ChannelError(f"{path} cannot be read: {unread.strerror}. Name a folder, a file or an address") from unread


def _hashed(path: Path, version: str) -> _Source:
    digest = digest_of(str(path))
    if not digest:
        raise ChannelError(f"{path} is no regular file that can be read: copy the file itself into that folder")
    stated = stated_version(str(path)) if "." not in path.name else ""
    if stated and stated != version:
        raise ChannelError(f"{path} calls itself {stated}, and not {version}: it belongs to another release")
    return _Source(str(path), {path.name: digest}, is_bytes=bool(stated))


def _parsed(where: str, data: bytes) -> dict[str, str]:
    if len(data) > CAP:
        raise ChannelError(f"{where} is larger than {CAP >> 20} MiB, which no file of checksums of a release is")
    try:
        return checksum_file.parse(data)
    except ChecksumError as wrong:
        raise ChannelError(f"{where} is refused: {wrong}. Have it again from where it comes") from wrong


def _fetched(address: str) -> bytes:
    """The first bytes of what an address answers, at most CAP and one more; raises ChannelError."""
    if refused := refusal(address):
        raise ChannelError(refused)
    end = time.monotonic() + SECONDS
    try:
        with fetch(address, timeout=SECONDS) as answer:
            return whole(answer, CAP, end)
    except SlowError as slow:
        raise ChannelError(f"{address} has not answered whole within {SECONDS} s: try it again") from slow
    except (ArtifactError, OSError, HTTPException) as failed:
        raise ChannelError(f"{failed}. Correct the address, or try it again") from failed
