"""Casemate: one command gives a hardened K3s cluster, and proves it."""

from __future__ import annotations

import sys
from pathlib import Path

__version__ = "0.1.0"


def content() -> Path:
    """The folder of the project's content: roles, playbooks, the engine, the attacks.

    Installed, it is `project` in this package; in a checkout, the folder above `src`; in a collection, the collection.
    """
    here = Path(__file__).resolve().parent
    return next(folder for folder in (here / "project", *here.parents) if (folder / "roles").is_dir())


ROOT = content()

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # module_utils, which runs on hosts, serves the controller, too
