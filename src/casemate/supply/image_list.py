"""The signed list of images: which digests nodes may pull. Its format is that of the verifier, which reads it on hosts.

Format: {"schema": 1, "serial": NUMBER, "issued": DATE, "expires": DATE,
"images": [{"image": REPOSITORY, "digest": SHA256, "owner", "reason", "until"}]}. Serial and issued may be left out: a
list without a serial is older than any that has one.
"""

from __future__ import annotations

import datetime
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from module_utils.casemate.formats.image_reference import LOCAL, repository
from module_utils.casemate.host.machine import Host
from module_utils.casemate.host.signature import SignatureError, signer
from module_utils.casemate.k3s.image_verifier import DIGEST, NAMESPACE, REPOSITORY, Entry, Images, Refused, over, read

VARIABLE = "casemate_image_list"
PAUSE = "docker.io/rancher/mirrored-pause"
"""The image of every pod's sandbox, unless K3s is given another one (`pause-image`); without it no pod starts."""
SIGN = "ssh-keygen -Y sign -f ~/.ssh/id_ed25519 -n {namespace} {path}"


class ListError(Exception):
    """The list of images is missing, malformed, unsigned, changed, signed by a stranger, or over; says what to do."""


def load(path: str | Path) -> Images:
    """Read a list, without looking at its signature; raises ListError."""
    file = Path(path).expanduser()
    try:
        return read(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ListError(f"the list of images {file} cannot be read: {error.strerror}") from error
    except (Refused, UnicodeDecodeError) as fault:
        raise ListError(f"the list of images {file} is refused: {fault}") from fault


def verify(path: str | Path, allowed_signers: str | Path, revoked: str | Path = "") -> str:
    """The principal who signed the list (its signature is PATH.sig); raises ListError.

    `revoked` is a file of keys that count no more, or "".
    """
    given = (path, allowed_signers, revoked)
    document, signers, gone = (str(Path(one).expanduser()) if one else "" for one in given)
    try:
        return signer(Host().run, document, signers, namespace=NAMESPACE, revoked=gone)
    except SignatureError as refusal:
        raise ListError(f"the list of images is refused: {refusal}") from refusal


def command(path: str | Path) -> str:
    """What signs a list, beside which the signature then lies."""
    return SIGN.format(namespace=NAMESPACE, path=shlex.quote(str(path)))


def text(images: Images) -> str:
    """A list as a file: always in the same order, and a line for each part, so that a diff shows what is new."""
    entries = [{**one._asdict(), "until": one.until.isoformat()} for one in sorted(images.entries)]
    issued = images.issued.isoformat() if images.issued else ""
    head = {"serial": images.serial, "issued": issued, "expires": images.expires.isoformat()}
    said = {name: value for name, value in head.items() if value}
    return json.dumps({"schema": 1, **said, "images": entries}, indent=2) + "\n"


def named(reference: str) -> tuple[str, str]:
    """Repository and digest of an image that is named by digest, the host added where it is Docker Hub's.

    Raises ListError for a tag, another form of digest, or what is no reference at all.
    """
    if reference.count("@") > 1:  # not shown: what stands before the first may be a password
        raise ListError("a name has more than one @: write HOST/PATH@sha256:…, without an account and with one digest")
    name, at, digest = reference.partition("@")
    if re.fullmatch(LOCAL, name):
        raise ListError(f"{reference} names no repository, by which containerd asks: write HOST/PATH@sha256:…")
    if ":" in name.rpartition("/")[2]:
        raise ListError(f"{reference} has a tag, which may be moved to other bytes: write {_untagged(name)}@sha256:…")
    if not at:
        raise ListError(f"{reference} names no digest, so any bytes may hide behind it: write {name}@sha256:…")
    if not re.fullmatch(DIGEST, digest):
        raise ListError(f"the digest of {reference} is not sha256: and 64 digits of hexadecimal in small letters")
    found = repository(name)
    if not re.fullmatch(REPOSITORY, found):
        raise ListError(f"{reference} is no image as registries name them: small letters, digits, ., _, - and /")
    return found, digest


def _untagged(name: str) -> str:
    path, slash, last = name.rpartition("/")
    return path + slash + last.partition(":")[0]


def added(images: Images, entries: Iterable[Entry], today: datetime.date) -> Images:
    """A list of this day with more entries, which is the next one after the given; an entry of the same image and
    digest takes the place of the earlier.
    """
    made = {entry[:2]: entry for entry in (*images.entries, *entries)}
    return images._replace(entries=tuple(made.values()), serial=images.serial + 1, issued=today)


def accepted_problems(values: Mapping[str, Any], accepted: Any) -> list[str]:
    """Why a node, which says that its list has this serial, is not given an older one, which is rightly signed, too.

    `accepted` is 0 where it has none, and anything else where the node is not what it should be.
    """
    path = values.get(VARIABLE)
    serial = load(path).serial if path else 0
    if not path or not isinstance(accepted, int) or serial >= accepted:
        return []
    has = f"has the serial {serial}" if serial else "has no serial"
    todo = f"Where going back is meant, give it a serial above {accepted} and {command(path)}"
    return [f"{VARIABLE} {path} {has}, and this node goes by one with {accepted}: it is an older list. {todo}"]


def problems(values: Mapping[str, Any], today: datetime.date, changes: bool) -> list[str]:
    """What is wrong with the inputs about images, and with the list on the controller.

    `changes`: whether hosts are about to be changed; else a list that is over or unsigned is a finding of its control.
    """
    path, further = values.get(VARIABLE), values.get("casemate_image_verifiers") or []
    if not path:
        alone = [name for name in ("casemate_image_verifiers", "casemate_image_digests_only") if values.get(name)]
        return [f"{name} is set without {VARIABLE}, which it adds to. Set that, too, or remove it" for name in alone]
    found = [
        f"casemate_image_verifiers: the arguments of {one['name']} do not say where the image stands. "
        "Write {image} there, which becomes its repository and digest"
        for one in further
        if not any("{image}" in part for part in one["arguments"])
    ]
    found += [
        f"casemate_registries has a login (credentials_file) for {entry.get('host')}, while {VARIABLE} is set: as K3s "
        "hands logins on (registry.configs), containerd asks no verifier. Give pods the login by imagePullSecrets, or "
        "the kubelet a credential provider"
        for entry in values.get("casemate_registries") or []
        if isinstance(entry, Mapping) and entry.get("credentials_file")
    ]
    signers = str(values.get("casemate_allowed_signers") or "")
    if not signers:
        found.append(
            f"{VARIABLE} is set, and nobody may sign it. Set casemate_allowed_signers to your allowed_signers file"
        )
    elif not Path(f"{path}.sig").expanduser().is_file():
        found.append(f"{VARIABLE} {path} has no signature {path}.sig. Sign it: {command(path)}")
    try:
        images = load(path)
        if changes and not found:
            verify(path, signers, str(values.get("casemate_revoked_signers") or ""))
            found += _over(images, str(path), today) + _never_asked(images, str(path))
    except ListError as refusal:
        return [*found, f"{refusal}. Review, correct and sign it: {command(path)}"]
    return found


def pause_problems(values: Mapping[str, Any], today: datetime.date) -> list[str]:
    """Why no pod could start on a host to which no images of K3s' release are brought, or nothing."""
    path = values.get(VARIABLE)
    pause = str((values.get("k3s_node_config") or {}).get("pause-image") or PAUSE)
    if not path or any(_is_of(entry, pause) and entry.until >= today for entry in load(path).entries):
        return []
    lacks = f"{VARIABLE} has no image of {pause}, which every pod needs, and the release brings none"
    todo = "Put the release's k3s-airgap-images into casemate_artifact_dir, or allow K3s' own images by their digests"
    return [f"{lacks}. {todo}"]


def _over(images: Images, path: str, today: datetime.date) -> list[str]:
    if images.expires < today:
        return [f"{VARIABLE} {path} ended on {images.expires}. Review it, give it a new `expires`, and {command(path)}"]
    if why := over(images, today):
        return [f"{VARIABLE} {path} {why}. Set that clock, or correct `issued`, and {command(path)}"]
    if not any(entry.until >= today for entry in images.entries):
        return [f"{VARIABLE} {path} allows no image today, so nothing could be pulled. Add some: casemate images allow"]
    return []


def _never_asked(images: Images, path: str) -> list[str]:
    """Entries by names that are never what containerd asks for, which names Docker Hub's images in one way alone."""
    return [
        f"{VARIABLE} {path} has {name}, by which containerd never asks, so that it lets nothing in. Write "
        f"{repository(name) or 'host and path'} there, as casemate images allow does, and {command(path)}"
        for name in sorted({entry.image for entry in images.entries})
        if repository(name) != name
    ]


def _is_of(entry: Entry, image: str) -> bool:
    """Whether an entry is about the repository of an image, whichever way that is written."""
    repository = _untagged(image.partition("@")[0])
    return entry.image == repository or entry.image.partition("/")[2] == repository
