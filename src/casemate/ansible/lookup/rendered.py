"""Render a role's template with the variables at hand.

`lookup('template', ...)` copies every variable first, which the catalogue makes large: 0.5 s for each call.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: rendered
short_description: Render a template file of the project
description: The same as M(ansible.builtin.template) without its options, and without copying all variables.
options:
  _terms: {description: Absolute paths., required: true, type: list, elements: path}
author: Casemate maintainers (!UNKNOWN)
"""

from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible.template import trust_as_template

from casemate.run import compiled


class LookupModule(LookupBase):  # type: ignore[misc]
    """Reads, trusts (a role's own file) and renders."""

    def run(self, terms: list[str], variables: Any = None, **_: Any) -> list[Any]:
        """Return the text of each file, rendered."""
        compiled.remember(self._templar)
        return [self._templar.template(trust_as_template(Path(term).read_text(encoding="utf-8"))) for term in terms]
