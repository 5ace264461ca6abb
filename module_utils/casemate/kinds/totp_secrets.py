"""The secrets of which people's codes are made (TOTP, RFC 6238), as pam_google_authenticator keeps them: one file each.

No secret ever stands in a setting: what is declared is known by its digest, and tasks of the role, which show nothing,
write it. The module notes in each file which codes were used and when, so what follows an option there is its own.
Sources: pam_google_authenticator(8), and FILEFORMAT of its package.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat as statmod
from collections.abc import Collection
from typing import Annotated, Dict, List, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host.machine import Host
from ..host.text import split_lines, split_words
from . import declared_folder
from .kind import Enforceable, Kind

FOLDER_MODE, MODE = 0o700, 0o600
"""That of a file may be less: the module writes it anew with 0400."""


class Needed(TypedDict):
    """What every setting of this kind says."""

    path: Annotated[str, Key("absolute path of the folder", pattern=r"/[^*?\[\s]*")]
    secrets: Annotated[Dict[str, str], Key("name -> digest of the secret, as `digest` makes it; never a secret")]
    options: Annotated[List[str], Key("what the module is told in each file, one option with its numbers each")]


class Setting(Needed, Enforceable):
    """What a control of this kind demands."""


def digest(secret: str) -> str:
    """By what a secret is known that is in base32. It has 128 bits or more, so nobody finds it by trying."""
    return hashlib.sha256(secret.strip().upper().encode("utf-8", "surrogateescape")).hexdigest()


def identity(setting: Setting) -> str:
    """One control for a folder."""
    return setting["path"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """By path what is wrong, and what keeps apply from mending it."""
    return [_seen(setting, host) for setting in settings]


def _seen(setting: Setting, host: Host) -> Observation:
    folder = setting["path"]
    if declared_folder.is_other(folder, host):
        return {"faults": {folder: "it is no folder"}, "barred": [f"{folder} is no folder: remove it"]}
    of_file = functools.partial(_fault, setting, host)
    faults = declared_folder.faults(folder, setting["secrets"], host, _fault_of_folder, of_file)
    folders = [path for path in faults if path != folder and declared_folder.is_folder(path, host)]
    barred = [host.barred(path) or f"{path} is a folder: remove it" * (path in folders) for path in faults]
    return {"faults": faults, "barred": [one for one in barred if one]}


def _fault_of_folder(found: os.stat_result) -> str:
    return "" if _is_roots_alone(found, FOLDER_MODE) else f"it is not root's with mode {FOLDER_MODE:04o} at most"


def _fault(setting: Setting, host: Host, name: str) -> str:
    path = f"{setting['path']}/{name}"
    found = host.stat(path)
    if name not in setting["secrets"]:
        return "nobody who is declared has it"
    if found is None:
        return "it is missing, so no code is right"
    if not statmod.S_ISREG(found.st_mode):
        return "it is no regular file"
    if not _is_roots_alone(found, MODE) or host.has_acl(path):
        return f"it is not root's with mode {MODE:04o} at most"
    lines = split_lines(host.text(path) or "")
    if not lines or digest(lines[0]) != setting["secrets"][name]:
        return "its secret is another one than is declared" if lines and lines[0].strip() else "it holds no secret"
    return _of_options(lines[1:], setting["options"])


def _of_options(lines: List[str], options: List[str]) -> str:
    """What is wrong with the lines after the secret. Another line is a code that is right once, so a secret."""
    left = [split_words(option) for option in options]
    more = 0
    for words in (split_words(line) for line in lines):
        known = next((option for option in left if words[:1] == ['"'] and words[1 : len(option) + 1] == option), None)
        if known is not None:
            left.remove(known)
        else:
            more += bool(words)
    faults = [f"it lacks {' '.join(option)}" for option in left]
    return " and ".join([*faults, f"it has {more} lines more than are declared"] if more else faults)


def _is_roots_alone(found: os.stat_result, most: int) -> bool:
    return (found.st_uid, found.st_gid) == (0, 0) and not statmod.S_IMODE(found.st_mode) & ~most


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that the folder holds the secrets that are declared and nothing else. None of them is shown."""
    faults: Dict[str, str] = seen["faults"]
    return Verdict(
        ok=not faults,
        expected=dict.fromkeys(sorted(setting["secrets"]), "as declared") or "none",
        observed=faults or "as declared",
        reason=several([f"{path}: {why}" for path, why in faults.items()] + seen["barred"]),
        evidence=f"ls {setting['path']}",
        blocked_by="; ".join(seen["barred"]),
        still_enforced=len(seen["barred"]) < len(faults),
        where=tuple(faults),
        todo=list(faults),
    )


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, enforced_by="task")
