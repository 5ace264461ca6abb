"""registries.yaml of K3s, and what K3s makes of it for containerd.

Source: pkg/agent/containerd/config.go of K3s (getHostConfigs) with `disable-default-registry-endpoint`. containerd
takes the settings of `_default` for each registry that has none of its own, so a registry that is not listed there is
asked for where nobody listens: port 1 of the node itself, which no proxy is asked for and only root could listen on.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, List, Mapping, Optional
from urllib.parse import urlsplit

from ..host.text import split_lines

PATH = "/etc/rancher/k3s/registries.yaml"
FOLDER = "/var/lib/rancher/k3s/agent/etc/containerd/certs.d"
AUTHORITIES = "/etc/casemate/registries"
HEADER = "# Managed by Casemate (roles/k3s_node), from casemate_registries."
ALL, DEFAULT = "*", "_default"
NOWHERE = "https://127.0.0.1:1/casemate_registries-does-not-list-this-registry"
HUB, HUBS_HOST = "docker.io", "registry-1.docker.io"
ROUNDS = 100_000

Document = Dict[str, Any]


def text(document: Mapping[str, Any]) -> str:
    """The file: JSON, which is YAML, after a line by which it is known as ours.

    Characters stand there as they are: K3s' reader of YAML takes no pair of surrogates, by which JSON escapes some.
    """
    return f"{HEADER}\n{json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)}\n"


def is_ours(found: str) -> bool:
    """Whether a file is one that `text` made."""
    return found.startswith(HEADER.partition(" (")[0])


def parse(found: str) -> Optional[Document]:
    """What a file of ours says; None for anything else."""
    lines = [line for line in split_lines(found) if not line.startswith("#")]
    try:
        document = json.loads("\n".join(lines))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def digest(host: str, username: str, password: str) -> str:
    """By what a login is known. It is slow to make, since a password may be one that can be guessed."""
    login = json.dumps([username, password]).encode()
    return hashlib.pbkdf2_hmac("sha256", login, host.encode(), ROUNDS).hex()


def logins(document: Mapping[str, Any]) -> Dict[str, str]:
    """Host -> digest of the login that a file has for it."""
    found = {host: (config or {}).get("auth") for host, config in (document.get("configs") or {}).items()}
    return {
        host: digest(host, str(auth.get("username", "")), str(auth.get("password", "")))
        for host, auth in found.items()
        if auth
    }


def without_logins(document: Mapping[str, Any]) -> Document:
    """What a file says beside logins; a host of which it says nothing else stays, with nothing."""
    configs = {
        host: {key: value for key, value in (config or {}).items() if key != "auth"}
        for host, config in (document.get("configs") or {}).items()
    }
    return {**document, **({"configs": configs} if configs else {})}


def asked(document: Mapping[str, Any]) -> Dict[str, List[str]]:
    """Name of a folder of certs.d -> whom containerd then asks there, in order, as URLs."""
    configs, mirrors = document.get("configs") or {}, document.get("mirrors") or {}
    own = {host: url(f"https://{HUBS_HOST if host == HUB else host}") for host in configs}
    found = {host: [one] for host, one in own.items()}
    for host, mirror in mirrors.items():
        endpoints = list(dict.fromkeys(url(one) for one in mirror["endpoint"]))
        if host in own and endpoints[-1] != own[host]:
            endpoints.append(own[host])
        found[DEFAULT if host == ALL else host] = endpoints
    return found


def url(endpoint: str) -> str:
    """An endpoint as K3s writes it for containerd: with the path of the API, unless it has one of its own."""
    return f"{endpoint.rstrip('/')}/v2" if urlsplit(endpoint).path in ("", "/") else endpoint
