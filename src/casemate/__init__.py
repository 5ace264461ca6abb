"""Casemate: one command gives a hardened K3s cluster, and proves it."""

from __future__ import annotations

import sys
from pathlib import Path

__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parents[2]
"""The project: roles, playbooks, the engine and the attacks stand next to `src`."""

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # module_utils, which runs on hosts, serves the controller, too
