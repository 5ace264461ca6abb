"""Whether a variable comes from a vault: whoever encrypts a value wants it shown to nobody, whatever it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible.parsing.vault import VaultHelper


def is_vaulted(value: Any) -> bool:
    """Whether a variable of Ansible, or anything in it, was encrypted. A vault of a whole file leaves no mark."""
    if isinstance(value, Mapping):
        return any(map(is_vaulted, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(is_vaulted, value))
    return VaultHelper.get_ciphertext(value, with_tags=False) is not None


def veiled(
    known: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any], variables: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """The specifications of inputs, with those secret whose values come from a vault, or are made with one that does.

    `values` are inputs as they resolve, `variables` all those of the host, which may be expressions.
    """

    def uses_one(name: str) -> bool:
        named = set(re.findall(r"\w+", str(variables.get(name, "")))) - {name}
        return any(is_vaulted(variables[other]) for other in named & variables.keys())

    secret = [name for name in values if name in known and (is_vaulted(values[name]) or uses_one(name))]
    return {**known, **{name: {**known[name], "no_log": True} for name in secret}}
