"""Findings, and what else is large, on their way from Ansible's workers to the run: a file for each host, in the
private folder of the run.

As a part of Ansible's results each byte of them would be encoded and decoded five times over, between the worker, its
parent, the callback of ansible-runner, ansible-runner and us. Where no run of ours listens, they stay in the result.

Each finding is a line. Most hosts say much the same, so that a line is read once, and all that say it have one finding.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

from module_utils.casemate.core.finding import KEYS, Finding

FOLDER = "CASEMATE_FINDINGS"
"""Variable of the environment that names the folder of the run that listens."""
NAME = re.compile(r"[0-9a-f]{32}")
NEEDED = frozenset(KEYS)


def over(findings: list[dict[str, Any]]) -> str:
    """Write findings, or other dicts, where the run looks for them.

    Returns the name to ask for, or, where none listens, their text.
    """
    folder = os.environ.get(FOLDER, "")
    if not os.path.isdir(folder):
        return json.dumps(findings)
    name = secrets.token_hex(16)
    with open(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.writelines(f"{json.dumps(made)}\n" for made in findings)
    return name


def taken(found: Any, folder: Path, known: dict[str, Finding] | None = None) -> list[Finding]:
    """The findings of a result, as `lines` takes them; what is none is left out."""
    return [made for made in lines(found, folder, known) if made.keys() >= NEEDED]


def lines(found: Any, folder: Path, known: dict[str, dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """The dicts of a result: as they are, of their text, or of the file that was named. The file is gone then.

    `known` holds what was read before in this run, by its line, and takes in what is new: nobody changes any of it.

    A host decides what many results say: nothing but a name that a worker of ours makes is looked for, and what can't
    be read is left out, so that its run ends as one that said nothing, and the others' goes on.
    """
    known = {} if known is None else known
    if isinstance(found, str):
        try:
            if NAME.fullmatch(found):
                read = (folder / found).read_text().splitlines()
                (folder / found).unlink()
                known.update({line: json.loads(line) for line in set(read) - known.keys()})
                found = [known[line] for line in read]
            else:
                found = json.loads(found)
        except (OSError, ValueError):
            return []
    return [made for made in found if isinstance(made, dict)] if isinstance(found, list) else []
