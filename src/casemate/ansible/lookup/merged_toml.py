"""Several named texts of TOML as one text."""

from __future__ import annotations

DOCUMENTATION = r"""
name: merged_toml
short_description: Merge texts of TOML
description: What the texts say together, without their C(version) and comments. Fails where they contradict each other.
options:
  _terms: {description: Mappings of names to texts., required: true, type: list, elements: dict}
author: Casemate maintainers (!UNKNOWN)
"""

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from casemate.preflight.merged_toml import merge, render


class LookupModule(LookupBase):  # type: ignore[misc]
    """Merges each mapping."""

    def run(self, terms: list[dict[str, str]], variables: Any = None, **_: Any) -> list[str]:
        """Return one text for each mapping; what contradicts itself is refused, as preflight does before."""
        texts = []
        for term in terms:
            merged, problems = merge({str(name): str(text) for name, text in term.items()})
            if problems:
                raise AnsibleError("; ".join(problems))
            texts.append(render(merged))
        return texts
