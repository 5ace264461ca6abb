"""How images stand by the scans that are kept on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
name: image_scans
short_description: How images stand by the scans that are kept on the controller
description: Digest of an image to platform to state and reason, by the policy of the inventory. Empty without one.
options: {}
author: Casemate maintainers (!UNKNOWN)
"""

import datetime
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

PROJECT = Path(__file__).resolve().parents[4]
for folder in (PROJECT, PROJECT / "src"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from casemate.supply import scan_gate


class LookupModule(LookupBase):  # type: ignore[misc]
    """Takes nothing: the variables of the host say where results lie, and what counts."""

    def run(self, terms: list[str], variables: Any = None, **options: Any) -> list[Any]:
        """Return one mapping."""
        known = variables or {}
        given, waivers = (self._templar.template(known.get(name)) for name in (scan_gate.VARIABLE, scan_gate.WAIVERS))
        try:
            asked = scan_gate.settings(given, waivers)
        except (KeyError, TypeError, ValueError) as wrong:  # preflight says it better, before any host is touched
            raise AnsibleError(f"{scan_gate.VARIABLE} is malformed: {wrong}") from wrong
        return [scan_gate.standings(asked, datetime.datetime.now(datetime.UTC))]
