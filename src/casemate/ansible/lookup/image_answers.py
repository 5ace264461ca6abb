"""What registries have answered, as it is kept on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
name: image_answers
short_description: What registries have answered, as it is kept on the controller
description: HOST/PATH:TAG to platform to digests and configuration to which it leads. Empty where none is to be asked.
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

from casemate.supply import registry_answers


class LookupModule(LookupBase):  # type: ignore[misc]
    """Takes nothing: a variable of the host says where answers lie, and which count."""

    def run(self, terms: list[str], variables: Any = None, **options: Any) -> list[Any]:
        """Return one mapping."""
        given = self._templar.template((variables or {}).get(registry_answers.VARIABLE))
        try:
            return [registry_answers.known(given, datetime.datetime.now(datetime.UTC))]
        except (KeyError, TypeError, ValueError) as wrong:  # preflight says it better, before any host is touched
            raise AnsibleError(f"{registry_answers.VARIABLE} is malformed: {wrong}") from wrong
        except registry_answers.AnswersError as broken:
            raise AnsibleError(str(broken)) from broken
