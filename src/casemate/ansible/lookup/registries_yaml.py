"""registries.yaml of K3s, with logins."""

from __future__ import annotations

DOCUMENTATION = r"""
name: registries_yaml
short_description: The text of registries.yaml
description: What K3s reads about registries, with the logins that the files of the controller have. Never show it.
options:
  _terms: {description: Lists as C(casemate_registries) is., required: true, type: list, elements: list}
author: Casemate maintainers (!UNKNOWN)
"""

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from casemate.supply.registries import RegistryError, document
from module_utils.casemate.k3s.registries import text


class LookupModule(LookupBase):  # type: ignore[misc]
    """Writes each list out."""

    def run(self, terms: list[list[dict[str, Any]]], variables: Any = None, **_: Any) -> list[str]:
        """Return one text for each list; a file that cannot be used is refused, as preflight does before."""
        try:
            return [text(document(term, with_logins=True)) for term in terms]
        except RegistryError as why:
            raise AnsibleError(str(why)) from why
