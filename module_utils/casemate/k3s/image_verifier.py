"""Whether containerd may pull an image: its digest has to stand on the signed list of images, and not be over there.

containerd runs this file before each pull, as every program of its `bin_dir`, with `-name REFERENCE -digest DIGEST
-stdin-media-type TYPE`; the digest is what the registry resolved the reference to, of an index where there is one.
Exit code 0 lets it pull; what is printed is the reason that an event of the pod shows. Source: containerd's
docs/image-verification.md.

It lies on hosts as it stands behind `HEAD`, run by the host's own Python without anything of ours beside it: so it
imports nothing of ours, and what it repeats of signature.py is what a host has to ask by itself. The controller reads
lists by it, too. Whatever it does not understand, it refuses.
"""

from __future__ import annotations

import base64
import collections
import datetime
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

HEAD = "#!/usr/bin/python3 -IS\n# Managed by Casemate.\n"
"""What stands before this text where containerd runs it: without anybody's environment, folder or site-packages."""
FOLDER = "/etc/casemate/images"
LIST, SIGNATURE, SIGNERS, FURTHER = "list.json", "list.json.sig", "allowed_signers", "verifiers.json"
REVOKED = "revoked_signers"
"""Keys whose signatures count no more, as `ssh-keygen -Y verify -r` takes them, in base64: they may be no text."""
NAMESPACE = "casemate-images"
SECONDS = 3.0
"""How long ssh-keygen may take; it is asked twice."""
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root"}
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

DIGEST = r"sha256:[0-9a-f]{64}"
HOST = r"(?:[a-z0-9]+(?:-+[a-z0-9]+)*\.)*[a-z0-9]+(?:-+[a-z0-9]+)*(?::[0-9]{1,5})?|\[[0-9a-f:]+\](?::[0-9]{1,5})?"
PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = rf"(?:{HOST})(?:/{PART})+"
"""As containerd writes it: with its host, in small letters. Source: github.com/distribution/reference."""
TEXTS = ("image", "digest", "owner", "reason", "until")
NEEDED, FREE = {"schema", "expires", "images"}, {"serial", "issued"}
"""What a list has to say, and what it may say."""


class Refused(Exception):  # noqa: N818 - not an error but an answer
    """Why an image may not be pulled, or what is wrong with a list."""


class Entry(NamedTuple):
    """One digest that may be pulled from a repository, to the end of a day in UTC."""

    image: str
    digest: str
    owner: str
    reason: str
    until: datetime.date


class Images(NamedTuple):
    """A list of images, and the last day on which it counts; `issued` is the day of its last change, and `serial`
    rises with each, so that an older list is known. Lists that people wrote themselves may have neither.
    """

    expires: datetime.date
    entries: Tuple[Entry, ...]
    serial: int = 0
    issued: Optional[datetime.date] = None


def read(text: str) -> Images:
    """The list that a text holds. Raises Refused, which names every fault."""
    try:
        raw = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as broken:
        raise Refused(f"it is not JSON: {broken}") from None
    if not isinstance(raw, dict) or not NEEDED <= set(raw) <= NEEDED | FREE or raw["schema"] != 1:
        raise Refused('it is no list of images: {"schema": 1, "expires": a date, "images": [...]}')
    if not isinstance(raw["images"], list):
        raise Refused("its images are no list")
    faults: List[str] = []
    expires = _day(raw["expires"], "expires", faults)
    issued = _day(raw["issued"], "issued", faults) if "issued" in raw else None
    serial = raw.get("serial", 1)
    if type(serial) is not int or serial < 1:
        faults.append(f"serial {serial!r} is no whole number from 1 on")
    entries = [_entry(one, f"images[{place}]", faults) for place, one in enumerate(raw["images"])]
    times = collections.Counter(entry[:2] for entry in entries)
    faults += [f"{one[0]}@{one[1]} stands twice in it" for one, many in sorted(times.items()) if many > 1]
    if faults:
        raise Refused("; ".join(faults[:5]))
    return Images(expires, tuple(entries), serial if "serial" in raw else 0, issued)


def over(images: Images, today: datetime.date) -> str:
    """Why a list does not count on this day in UTC, or nothing: a clock that was set back makes no list count again."""
    if images.expires < today:
        return f"ended on {images.expires}"
    if images.issued is not None and today < images.issued:
        return f"was issued on {images.issued}, and the clock of this machine says {today}"
    return ""


def _once(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """Refuse a key that stands twice: two readers could take different ones."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Refused("a key stands twice in it")
    return made


def _entry(raw: Any, where: str, faults: List[str]) -> Entry:
    if not isinstance(raw, dict) or set(raw) != set(TEXTS) or not all(isinstance(one, str) for one in raw.values()):
        faults.append(f"{where} is not {{{', '.join(TEXTS)}}}, each a text")
        return Entry("", where, "", "", datetime.date.min)
    if not re.fullmatch(REPOSITORY, raw["image"]):
        faults.append(f"{where}: {raw['image']!r} is no repository with its host, such as docker.io/library/busybox")
    if not re.fullmatch(DIGEST, raw["digest"]):
        faults.append(f"{where}: {raw['digest']!r} is not sha256: and 64 digits of hexadecimal in small letters")
    faults += [f"{where}: its {name} is empty" for name in ("owner", "reason") if not raw[name].strip()]
    return Entry(
        raw["image"], raw["digest"], raw["owner"], raw["reason"], _day(raw["until"], f"{where}: until", faults)
    )


def _day(value: Any, what: str, faults: List[str]) -> datetime.date:
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            return datetime.date.fromisoformat(value)
    except (TypeError, ValueError):
        pass
    faults.append(f"{what} {value!r} is no date such as 2027-03-31")
    return datetime.date.min


def parts(reference: str) -> Tuple[str, str]:
    """The repository of a reference as containerd writes it, and its digest where it names one."""
    name, _, digest = reference.partition("@")
    path, slash, last = name.rpartition("/")
    return path + slash + last.partition(":")[0], digest


def judged(images: Images, name: str, digest: str, today: datetime.date) -> Entry:
    """The entry by which a reference that was resolved to a digest may be pulled today. Raises Refused."""
    repository, named = parts(name)
    if not re.fullmatch(DIGEST, digest):
        raise Refused(f"{digest!r} is no digest of SHA-256")
    if named and named != digest:
        raise Refused(f"{name} was resolved to {digest}")
    if why := over(images, today):
        raise Refused(f"the list of images {why}")
    same = [entry for entry in images.entries if entry.digest == digest]
    for entry in same:
        if entry.image == repository:
            if entry.until < today:
                raise Refused(f"{repository}@{digest} was allowed until {entry.until}")
            return entry
    elsewhere = f"; that digest is, for {', '.join(sorted(entry.image for entry in same))}" if same else ""
    raise Refused(f"{repository}@{digest} is not on the list of images{elsewhere}")


def signed(folder: str) -> str:
    """The text of the list, once somebody who may has signed these very bytes. Raises Refused.

    A key that is revoked may not, whoever lists it. Where nobody can say which are, the list is not signed.
    """
    for name in (LIST, SIGNATURE, SIGNERS, REVOKED):
        if not _is_plain(os.path.join(folder, name)):
            raise Refused(f"{os.path.join(folder, name)} is missing, or no regular file")
    for name in ("", LIST, SIGNATURE, SIGNERS, REVOKED):
        _demand_own(os.path.join(folder, name))
    with open(os.path.join(folder, LIST), "rb") as file:
        document = file.read()
    by = ["-s", os.path.join(folder, SIGNATURE), "-f", os.path.join(folder, SIGNERS)]
    found = _run(["/usr/bin/ssh-keygen", "-Y", "find-principals", *by], b"", SECONDS)
    names = found.stdout.decode("utf-8", "replace").replace(",", "\n").split("\n") if found.returncode == 0 else []
    if names:  # of the first line that has the key, and another one may let it sign for this
        with open(os.path.join(folder, SIGNERS), encoding="utf-8", errors="replace") as lines:
            names += [name for line in lines if line.strip() for name in line.split()[0].split(",")]
    with open(os.path.join(folder, REVOKED), "rb") as file:
        revoked = base64.b64decode(file.read(), validate=True)
    with open(os.memfd_create("revoked"), "r+b") as held:
        held.write(revoked)
        held.flush()
        by += ["-r", f"/proc/self/fd/{held.fileno()}"]
        for name in filter(None, dict.fromkeys(map(str.strip, names))):
            verify = ["/usr/bin/ssh-keygen", "-Y", "verify", "-I", name, "-n", NAMESPACE, *by]
            if _run(verify, document, SECONDS, held.fileno()).returncode == 0:
                return document.decode("utf-8")
    raise Refused("the list of images is not signed by anybody who may, or was changed since")


def _is_plain(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _demand_own(path: str) -> None:
    """Raise Refused where somebody else may write: whoever says who may sign could let anything through."""
    found = os.stat(path)
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused(f"{path} may be written by others than root")


def ask_further(folder: str, image: str) -> List[str]:
    """The names of the operator's own verifiers, all of which let the image pass. Raises Refused.

    Each is run as the file that was looked at, whatever its name leads to by then.
    """
    path = os.path.join(folder, FURTHER)
    if not _is_plain(path):
        raise Refused(f"{path} is missing, or no regular file")
    _demand_own(path)
    with open(path, encoding="utf-8") as file:
        listed = json.load(file)
    for one in listed:
        with open(one["path"], "rb") as program:
            made = hashlib.sha256()
            for block in iter(lambda: program.read(1 << 20), b""):
                made.update(block)
            if made.hexdigest() != one["sha256"]:
                raise Refused(f"{one['path']} has not the digest of the verifier {one['name']}")
            argv = [one["path"], *(part.replace("{image}", image) for part in one["arguments"])]
            executable = f"/proc/self/fd/{program.fileno()}"
            said = _run(argv, b"", float(one["timeout"]), program.fileno(), executable)
        if said.returncode != 0:
            words = (said.stderr or said.stdout).decode("utf-8", "replace").strip().split("\n")[-1][:300]
            raise Refused(f"{one['name']} refuses {image}: {words}")
    return [str(one["name"]) for one in listed]


def _run(
    argv: Sequence[str], data: bytes, seconds: float, handed: int = -1, executable: Optional[str] = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a program with nothing of containerd's environment but its proxies, and with one more open file, `handed`."""
    given = {name: os.environ[name] for name in PROXIES if name in os.environ}
    return subprocess.run(
        list(argv),
        executable=executable,
        pass_fds=(handed,) if handed >= 0 else (),
        input=data,
        capture_output=True,
        timeout=seconds,
        env={**ENVIRONMENT, **given},
        check=False,
    )


def main(arguments: Sequence[str]) -> int:
    """Judge one pull: print why, and return the exit code."""
    try:
        asked = dict(zip(arguments[::2], arguments[1::2]))
        name, digest = asked["-name"], asked["-digest"]
        today = datetime.datetime.now(datetime.timezone.utc).date()
        text = signed(FOLDER)
        try:
            images = read(text)
        except Refused as refusal:
            raise Refused(f"the list of images is broken: {refusal}") from None
        entry = judged(images, name, digest, today)
        further = ask_further(FOLDER, f"{entry.image}@{entry.digest}")
    except Refused as refusal:
        print(refusal)
        return 1
    except Exception as broken:  # noqa: BLE001 - whatever goes wrong here must not let an image through
        print(f"the verifier of images failed, so nothing is pulled: {type(broken).__name__}: {broken}")
        return 1
    print(f"it is on the list of images until {entry.until}" + "".join(f", and {one} lets it pass" for one in further))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
