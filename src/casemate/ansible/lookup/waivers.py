"""The waivers of a host, of all its groups, or what is vouched for there."""

from __future__ import annotations

DOCUMENTATION = r"""
name: waivers
short_description: The waivers of a host, added up over all its groups
description: Control id to waiver. What is set in a more specific place wins for the control that it is about.
options:
  _terms: {description: The variable that holds them., type: list, elements: str, default: [casemate_waivers]}
  holding: {description: Leave out those that have expired., type: bool, default: false}
author: Casemate maintainers (!UNKNOWN)
"""

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase

PROJECT = Path(__file__).resolve().parents[4]
for folder in (PROJECT, PROJECT / "src"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from casemate.run import waivers
from module_utils.casemate.core import waiver


class LookupModule(LookupBase):  # type: ignore[misc]
    """Takes the name of a variable."""

    def run(self, terms: list[str], variables: Any = None, **options: Any) -> list[Any]:
        """Return one mapping."""
        places = waivers.places(variables, *terms[:1])
        made = waiver.added_up(self._templar.template(value) for _, value in places)
        return [waiver.holding(made, waiver.today_in_utc()) if options.get("holding") else made]
