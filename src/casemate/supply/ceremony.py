"""How a release comes into the artifact lock, and goes: what channels agree on, and the lock that follows from it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from casemate.supply.artifact_lock import Lock, LockError, Release, binary_of, images_of
from casemate.supply.channel import Reading

ASSET = re.compile(r"k3s(-arm64|-armhf)?|k3s-airgap-images-(amd64|arm64|arm)\.tar(\.gz|\.zst)?|k3s-images\.txt")
"""What a release of K3s consists of, but for its files of checksums."""


class DisagreementError(Exception):
    """Channels differ, or lack something; the message names each file, what each channel says, and what to do."""


def wanted(architectures: Sequence[str], images: bool) -> list[str]:
    """The files of a release that a lock holds, for these architectures, with or without images."""
    return [binary_of(one) for one in architectures] + [images_of(one) for one in architectures if images]


def agreed(readings: Mapping[str, Reading], files: Sequence[str]) -> dict[str, str]:
    """Of these files, the digest on which all channels (name -> what it says) agree. Raises DisagreementError.

    Files that are not asked for have to agree, too, as far as channels have them: else they are of two releases.
    """
    problems = []
    for name in sorted({*files, *(name for reading in readings.values() for name in reading.digests)}):
        said = {channel: one.digests[name] for channel, one in readings.items() if name in one.digests}
        if len(set(said.values())) > 1:
            told = ", ".join(f"{channel} says {digest}" for channel, digest in said.items())
            problems.append(f"{name} differs: {told}. Use neither until you know which is the release's")
        elif name in files and len(said) < len(readings):
            lacking = ", ".join(channel for channel in readings if channel not in said)
            problems.append(
                f"{name} is missing in {lacking}: complete it, or leave it out (--architecture, --without-images)"
            )
    if problems:
        raise DisagreementError("\n".join(problems))
    first = next(iter(readings.values()))
    return {name: first.digests[name] for name in files}


def strange(readings: Mapping[str, Reading]) -> list[str]:
    """Names in any channel that no release of K3s has; they never come into a lock."""
    every = {name for reading in readings.values() for name in reading.digests}
    return sorted(name for name in every if not ASSET.fullmatch(name))


def with_release(lock: Lock | None, version: str, files: Mapping[str, str], default: bool) -> Lock:
    """A lock with these files of a release, beside what it has; a new lock where there is none.

    Raises LockError where the lock has another digest for one of them.
    """
    if lock is None:
        return Lock(version, {version: Release(version, ("api_semantics",), dict(files))})
    known = lock.releases.get(version) or Release(version, ("api_semantics",), {})
    for name, digest in files.items():
        if known.files.get(name, digest) != digest:
            said = f"the lock has {known.files[name]} for {name} of {version}, and the channels agree on {digest}"
            raise LockError(f"{said}. Find out which is wrong; `casemate lock remove` takes the release out")
    release = replace(known, files={**known.files, **files})
    return replace(lock, releases={**lock.releases, version: release}, default=version if default else lock.default)


def without_release(lock: Lock, version: str) -> Lock:
    """A lock without a release, such as one that turned out to be vulnerable. Raises LockError."""
    lock.release(version)
    if version == lock.default:
        raise LockError(f"{version} is what the lock installs by default: add a newer one by --default before")
    return replace(lock, releases={known: one for known, one in lock.releases.items() if known != version})


def reissued(lock: Lock, today: datetime.date, expires: datetime.date | None) -> Lock:
    """A changed lock, of this day and with the next serial; its last day stays as it is unless another one is given."""
    until = expires.isoformat() if expires else lock.expires
    return replace(lock, serial=lock.serial + 1, issued=today.isoformat(), expires=until)
