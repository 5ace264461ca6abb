"""Findings on their way from Ansible's workers to the run: a file for each host, in the private folder of the run.

As a part of Ansible's results each byte of them would be encoded and decoded five times over, between the worker, its
parent, the callback of ansible-runner, ansible-runner and us. Where no run of ours listens, they stay in the result.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

from module_utils.casemate.core.finding import KEYS

FOLDER = "CASEMATE_FINDINGS"
"""Variable of the environment that names the folder of the run that listens."""
NAME = re.compile(r"[0-9a-f]{32}")


def over(findings: list[dict[str, Any]]) -> str:
    """Write findings where the run looks for them; return the name to ask for, or, where none listens, their text."""
    text, folder = json.dumps(findings), os.environ.get(FOLDER, "")
    if not os.path.isdir(folder):
        return text
    name = secrets.token_hex(16)
    with open(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    return name


def taken(found: Any, folder: Path) -> list[dict[str, Any]]:
    """The findings of a result: as they are, of their text, or of the file that was named. The file is gone then.

    A host decides what many results say: nothing but a name that a worker of ours makes is looked for, and what can't
    be read are no findings, so that its run ends as one that judged nothing, and the others' goes on.
    """
    if isinstance(found, str):
        try:
            if NAME.fullmatch(found):
                named, found = folder / found, (folder / found).read_text()
                named.unlink()
            found = json.loads(found)
        except (OSError, ValueError):
            return []
    every = found if isinstance(found, list) else []
    return [made for made in every if isinstance(made, dict) and made.keys() >= set(KEYS)]
