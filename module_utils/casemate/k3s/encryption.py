"""What K3s really does with Secrets: the providers of its encryption configuration, and whether all servers have it.

Source: K3s, `secrets-encrypt status`. The API server encrypts with the first provider and loads a changed file within a
minute, whatever the configuration of K3s says: another `secrets-encryption-provider` alone changes nothing. A server
annotates its Node with stage and digest of the file that it wrote. Reading both here costs a hundredth of asking K3s,
which hashes its token first. Pure; no key leaves this module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.verdict import Unavailable, Verdict

CONFIG = "/var/lib/rancher/k3s/server/cred/encryption-config.json"
ANNOTATION = "k3s.io/encryption-config-hash"
ACTIVE = "active"
RESTART = "restart K3s on each server, one after the other (`systemctl restart k3s`)"
ENABLE, REWRITE = "run `k3s secrets-encrypt enable` on one server", "`k3s secrets-encrypt rotate-keys` on one server"
ENABLE_ALONE = f"{ENABLE}, then {REWRITE}, which rewrites what was stored meanwhile, then {RESTART}"
ENABLE_ALL = (
    f"{ENABLE} and {RESTART}; once all are Ready, run {REWRITE}, which rewrites what was stored meanwhile, "
    "and restart each again"
)
"""Switching on rewrites Secrets while the API server still has the old configuration, so in the clear; and keys are
rotated only while all servers have the same configuration, which another server takes over at its start."""
ALIKE = f"after a rotation {RESTART}; else put back the file that K3s wrote"
ROTATE = f"apply, then run {REWRITE}, then {RESTART}"


def look(raw: bytes | None, nodes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The providers for Secrets in their order (None: no such file), what differs from what servers wrote down, and
    whether this server is alone.
    """
    nodes = list(nodes)
    alone = len(nodes) < 2
    if raw is None:
        return {"providers": None, "differ": [], "alone": alone}
    own = hashlib.sha256(raw).hexdigest()
    marks = {node["metadata"]["name"]: (node["metadata"].get("annotations") or {}).get(ANNOTATION) for node in nodes}
    return {
        "alone": alone,
        "providers": _providers(raw),
        "differ": sorted(f"{name}: {mark[:40]}" for name, mark in marks.items() if mark and mark.split("-")[-1] != own),
    }


def _providers(raw: bytes) -> list[str]:
    """Names of the providers in the first entry for Secrets, none where there is no such entry."""
    try:
        entries = json.loads(raw)["resources"]
        listed: list[dict[str, Any]] = next(
            (entry["providers"] for entry in entries if "secrets" in entry["resources"]), []
        )
        return [name for provider in listed for name in provider]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def judge(demand: str, seen: Mapping[str, Any]) -> Verdict:
    """`active`: Secrets are encrypted, by one file on all servers; a cipher: the keys are of it (first, but identity).

    Raises Unavailable where there is no cipher. What fails is foreign: K3s takes such a change by its own command only,
    never by a setting and a restart.
    """
    providers, reason, advice = seen["providers"], "", ENABLE_ALONE if seen["alone"] else ENABLE_ALL
    if demand != ACTIVE:
        ciphers = [name for name in providers or () if name != "identity"]
        if not ciphers:
            raise Unavailable("k3s", "K3s encrypts no Secrets, so there is no cipher to judge")
        if ciphers[0] != demand:
            advice = ALIKE if seen["differ"] else ROTATE  # a second rotation in the midst of one would be refused
            reason = f"Secrets are encrypted with {', '.join(ciphers)}, not {demand}"
    elif providers is None:
        reason = "K3s has no encryption configuration"
    elif providers[:1] in ([], ["identity"]):
        reason = f"new Secrets are written in the clear: the providers are {', '.join(providers) or 'none'}"
    elif seen["differ"]:
        reason, advice = f"this server's configuration is not the one of {', '.join(seen['differ'])}", ALIKE
    blocked_by = CONFIG if reason else ""
    return Verdict(
        ok=not reason,
        expected=demand,
        observed=providers,
        reason=f"{reason}; {advice}" if reason else "",
        evidence=CONFIG,
        blocked_by=blocked_by,
    )
