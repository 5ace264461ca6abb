"""Hosts in batches, as `serial` of a play would have them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: turns
short_description: Hosts in batches
description: Which hosts have their turn together, one batch after the other.
options:
  _terms: {description: "How many, or which share such as 25%; the last item goes for the rest.", required: true}
  hosts: {description: "Names of the hosts, in their order.", type: list, elements: str, required: true}
  of: {description: The number that a share is a share of., type: int, required: true}
author: Casemate maintainers (!UNKNOWN)
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible.utils.helpers import pct_to_int


class LookupModule(LookupBase):  # type: ignore[misc]
    """Takes from the front until nobody is left."""

    def run(self, terms: list[Any], variables: Any = None, *, hosts: list[str], of: int, **_: Any) -> list[list[str]]:
        """Return the batches; a share is of one host at least."""
        sizes = [size for term in terms for size in (term if isinstance(term, list) else [term])]
        turns: list[list[str]] = []
        rest = list(hosts)
        while rest:
            size = pct_to_int(sizes[min(len(turns), len(sizes) - 1)], of)
            turns.append(rest[:size])
            rest = rest[size:]
        return turns
