"""Secrets as they are stored: in etcd key by key, and in copies of the database that lie beside it.

Source: Kubernetes, "Encrypting confidential data at rest": an encrypted value begins with
`k8s:enc:<provider>:v1:<key>:`, one in the clear with `k8s` and a zero byte. Both follow their key in etcd's files
(mvccpb.KeyValue) as in SQLite's.
K3s leaves copies behind: `state.db.migrated` (pkg/etcd/etcd.go, migrateFromSQLite), `etcd-old-*` after a restore and
`etcd-backup-*` after a member joined again. Of a value only its beginning is kept.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import zipfile
from collections.abc import Collection, Iterator
from typing import IO, Annotated, Any, Literal, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..host.machine import Host
from ..k3s.encryption import CONFIG, ROTATE
from ..k3s.etcd import Etcd
from .kind import Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    where: Annotated[Literal["etcd", "files"], Key("the running database, or copies of one")]


class Setting(Needed, total=False):
    """What a control of this kind may demand."""

    globs: Annotated[list[str], Key("files that may be such copies")]
    advice: Annotated[str, Key("what to do with a file; {path} stands for it")]


PREFIX = b"/registry/secrets/"
NAME = re.compile(rb"/registry/secrets/[-a-z0-9./]+")
MARK = re.compile(rb"k8s(:enc:|\x00)")
NEAR, CHUNK = 64, 1 << 24
"""Bytes after a key within which its value begins; how much of a packed copy is unpacked at a time."""
SEALED = b"k8s:enc:"
CLEAR, UNKNOWN = "in the clear", "with a key that is not known here"


def identity(setting: Setting) -> str:
    """The database is one setting, each set of files another."""
    return f"{setting['where']}:{' '.join(setting.get('globs') or ())}"


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """For etcd how many Secrets are stored with which key, and whose are not with the active one; for files which."""
    seen: list[Observation] = []
    for setting in settings:
        try:
            seen.append(_in_etcd(host) if setting["where"] == "etcd" else _in_files(setting["globs"], host))
        except Unavailable as lacking:
            seen.append({"code": lacking.code, "why": lacking.why})
    return seen


def _in_etcd(host: Host) -> Observation:
    keys = _keys(host.read(CONFIG))
    counts: dict[str, int] = {}
    others: list[str] = []
    for key, value in Etcd(host).below(PREFIX):
        stored = next((name for name, begins in keys.items() if value.startswith(begins)), UNKNOWN)
        stored = stored if value.startswith(SEALED) else CLEAR
        counts[stored] = counts.get(stored, 0) + 1
        if stored != next(iter(keys)):
            others.append(key[len(PREFIX) :].decode("utf-8", "replace"))
    return {"active": next(iter(keys)), "counts": counts, "others": others}


def _keys(raw: bytes | None) -> dict[str, bytes]:
    """Provider and name of each key -> how values begin that it encrypted; the first is the active one.

    The name of a key may hold colons. Raises Unavailable where nothing is encrypted.
    """
    try:
        entries = json.loads(raw or b"")["resources"]
        providers = next(entry["providers"] for entry in entries if "secrets" in entry["resources"])
        named = [
            (cipher, key["name"]) for one in providers for cipher, made in one.items() for key in made.get("keys", ())
        ]
        if "identity" not in providers[0] and named:
            return {f"{cipher} {name}": f"k8s:enc:{cipher}:v1:{name}:".encode() for cipher, name in named}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, StopIteration):
        pass
    raise Unavailable("k3s", "K3s encrypts no Secrets, so nothing can be stored with its key")


def _in_files(globs: list[str], host: Host) -> Observation:
    """Copies with a Secret in the clear: path -> its name. An unreadable file is told as such, never passed over."""
    found: dict[str, str] = {}
    for path in sorted({path for pattern in globs for path in host.glob(pattern)}):
        real = host.path(path)
        if not os.path.isfile(real) or os.path.islink(real):
            continue
        try:
            clear = next(_clear(real), "")
        except (OSError, zipfile.BadZipFile) as unread:
            clear = f"(cannot be read: {unread})"
        if clear:
            found[path] = clear
    return {"clear": found}


def _clear(real: str) -> Iterator[str]:
    with open(real, "rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as packed:
                for inner in packed.infolist():
                    with packed.open(inner) as stream:
                        yield from _clear_in_stream(stream)
        elif os.fstat(file.fileno()).st_size:
            with contextlib.closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as data:
                yield from _clear_in(data)


def _clear_in_stream(stream: IO[bytes]) -> Iterator[str]:
    kept = b""
    while chunk := stream.read(CHUNK):
        yield from _clear_in(kept + chunk)
        kept = chunk[-1024:]  # a key is no longer than that, and its value begins close to it


def _clear_in(data: Any) -> Iterator[str]:
    """Names of the Secrets whose value follows in the clear."""
    place = data.find(PREFIX)
    while place >= 0:
        name = NAME.match(data, place)
        end = name.end() if name else place + len(PREFIX)
        mark = MARK.search(data[place : end + NEAR])  # no name can hold a mark, but the pattern may run into one
        if name and mark and mark[1] == b"\0":
            yield name[0][len(PREFIX) : mark.start()].decode("ascii")
        place = data.find(PREFIX, end)


def assess(setting: Setting, seen: Observation) -> Verdict:
    """All Secrets are stored with the active key; no copy holds one in the clear."""
    if "code" in seen:
        raise Unavailable(seen["code"], seen["why"])
    if setting["where"] == "files":
        wrong = [
            f"{path} holds Secrets in the clear, such as {name}: {setting['advice'].format(path=path)}"
            for path, name in seen["clear"].items()
        ]
        observed = sorted(seen["clear"]) or "none"
        return Verdict(
            ok=not wrong,
            expected="none",
            observed=observed,
            reason=several(wrong),
            evidence=f"read {', '.join(setting['globs'])}",
        )
    others, counts = seen["others"], seen["counts"]
    expected = {seen["active"]: sum(counts.values())}
    if not others:
        return Verdict(ok=True, expected=expected, observed=counts, evidence=PREFIX.decode())
    ways = [f"{count} {how}" for how, count in counts.items() if how != seen["active"]]
    reason = f"Secrets are stored otherwise than with {seen['active']}: {', '.join(ways)} ({several(others)}); {ROTATE}"
    return Verdict(ok=False, expected=expected, observed=counts, reason=reason, evidence=PREFIX.decode())


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, places=lambda setting: setting.get("globs") or [PREFIX.decode()]
)
