"""A file of the controller whose bytes need not be text."""

from __future__ import annotations

DOCUMENTATION = r"""
name: encoded_file
short_description: The bytes of files on the controller
description: What each file holds, in base64, as a list of revoked keys may be no text.
options:
  _terms: {description: Paths of files., required: true, type: list, elements: path}
author: Casemate maintainers (!UNKNOWN)
"""

import base64
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):  # type: ignore[misc]
    """Reads each file."""

    def run(self, terms: list[str], variables: Any = None, **_: Any) -> list[str]:
        """Return one text for each path."""
        try:
            return [base64.b64encode(Path(term).expanduser().read_bytes()).decode() for term in terms]
        except OSError as unread:
            raise AnsibleError(f"{unread.filename} cannot be read: {unread.strerror}") from unread
