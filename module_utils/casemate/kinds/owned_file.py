"""What of a file of ours still stands once its control is waived, and why it may have to stay."""

from __future__ import annotations

import json
import os
import stat as statmod
from typing import TYPE_CHECKING

from ..core.verdict import Left
from ..host.machine import Host
from ..k3s import files as k3s_files
from .kind import Pass
from .owned_entries import in_file

if TYPE_CHECKING:
    from .file import Setting


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """A file that is ours, by its name or its first line, unless something still needs it."""
    path, seen = setting["path"], host.stat(setting["path"])
    if "content" not in setting or seen is None or not statmod.S_ISREG(seen.st_mode):
        return Left()
    if "casemate" not in os.path.basename(path) and not path.startswith(os.path.dirname(k3s_files.BASE) + "/"):
        return Left(path, "it belongs to the system, and what it held before is not known")
    if b"Managed by Casemate" not in (host.read(path) or b"")[:300]:
        return Left()  # somebody has put another one in its place
    if path in json.dumps(run.wanted, default=str):
        return Left(path, "a control that is not waived names it")
    for source in k3s_files.sources(host):
        rewritten = run.check and os.path.basename(source.path).startswith("casemate-")
        if path in (host.text(source.path) or "") and not rewritten:
            return Left(path, f"{source.path} still names it")
    return in_file(path, path, host)
