"""Our own drop-ins of K3s' configuration: their text, and whether they can be written."""

from __future__ import annotations

from typing import Any, Dict, List

from ..formats.yaml_subset import parse, render
from ..host.clock import stays_ahead
from ..host.machine import EnforceError, Host
from .files import FOLDER, text_of

HEADER = "# Managed by Casemate. Settings of your own belong into the inventory (k3s_node_config).\n"
Files = Dict[str, Dict[str, Any]]
"""Name of a drop-in -> key -> value."""


def unwritable(host: Host, name: str, plan: Files) -> str:
    """What keeps apply from writing a drop-in, where it would."""
    differs = name in plan and host.text(f"{FOLDER}/{name}") != HEADER + render(plan[name])
    return host.barred(f"{FOLDER}/{name}") if differs else ""


def write(host: Host, name: str, keys: Dict[str, Any], secret: bool) -> None:
    """Write a drop-in. Raises EnforceError where K3s would not read it as it is meant."""
    text = HEADER + render(keys)
    if dict(parse(text)) != {k: text_of(v) for k, v in keys.items()}:
        raise EnforceError(f"{name} was not written: it would not be read back as it is meant")
    host.write(f"{FOLDER}/{name}", text.encode(), mode=0o600, owner=(0, 0), sensitive=secret)


def ours(files: Files) -> List[str]:
    """What Casemate itself dates: its drop-ins and their folder."""
    return [FOLDER, *(f"{FOLDER}/{name}" for name in files)]


def stuck(host: Host, late: List[str], files: Files) -> List[str]:
    """Paths of others that would stay younger than K3s whatever is restarted, since their date lies ahead."""
    return [path for path in late if path not in ours(files) and stays_ahead(host.stat(path))]


def bring_back(host: Host, files: Files) -> None:
    """Date with the present what is ours and dated ahead."""
    for path in ours(files):
        if stays_ahead(host.stat(path)):
            host.touch(path)
