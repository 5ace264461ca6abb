"""What one run has computed and the next may take, in the account's own cache, as Python keeps what it compiled."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import marshal
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

from module_utils.casemate.host.files import replacing

UNUSED = 30 * 24 * 3600
"""Seconds after which what another version has kept is removed."""


def value(what: str, made_of: Iterable[bytes], make: Callable[[], Any]) -> Any:
    """What `make` returns, or what it returned in an earlier run for the same `made_of`, which is all that decides it.

    It consists of what Python's marshal takes: plain values and code. What is not kept whole is made again.
    """
    digest = hashlib.sha256(MAGIC_NUMBER + sys.version.encode())
    for part in made_of:
        digest.update(hashlib.sha256(part).digest())
    kept = folder(what, digest.hexdigest()[:32])
    if kept is None:
        return make()
    with contextlib.suppress(OSError, EOFError, ValueError, TypeError):
        return marshal.loads((kept / "value").read_bytes())  # noqa: S302 - the folder is the account's own
    made = make()
    with contextlib.suppress(OSError, ValueError), replacing(str(kept / "value")) as (out, _):
        out.write(marshal.dumps(made))
    tidy(kept)
    return made


@functools.cache
def folder(what: str, digest: str) -> Path | None:
    """The folder for `what` of this version, made where it lacks and marked as in use.

    None where others could write there, since what is kept is run, here or as root on hosts; and where it can't be
    made: a cache that can't be written is none.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    kept = Path(home, "casemate", what, digest)
    try:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not all(_is_mine(one) for one in (kept, *list(kept.parents)[:3])):
            return None
        os.utime(kept)
    except OSError:
        return None
    return kept


def tidy(kept: Path) -> None:
    """Remove what other versions have kept beside this folder, once nobody has used it for a while."""
    for other in kept.parent.iterdir():
        if time.time() - other.stat().st_mtime > UNUSED:
            shutil.rmtree(other, ignore_errors=True)


def _is_mine(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
