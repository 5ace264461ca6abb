"""The plugins of networks that containerd runs as root for each pod: K3s makes links to its own program of all.

Source: K3s' pkg/cli/cmds and cmd/k3s/main.go (extract): <data>/cni/<plugin> leads to <data>/<digest>/bin/cni.
"""

from __future__ import annotations

import os
import re
from typing import Iterator, Tuple

from ..host.machine import Host
from .services import running_unit

DATA = "/var/lib/rancher/k3s/data"
OWN = re.compile(rf"{DATA}/([0-9a-f]{{64}})/bin/[^/]+$")


def strangers(host: Host) -> Iterator[Tuple[str, str]]:
    """(path, why) of what is no link to the program of the K3s that runs, or else of the one that ran last."""
    tree = _tree(host)
    for path in host.glob(f"{DATA}/cni/*", hidden=True):
        target = host.link_target(path)
        own = OWN.match(target)
        if not own:
            yield (
                path,
                f"K3s makes links to its own program there, and this is {f'one to {target}' if target else 'none'}",
            )
        elif own[1] != tree:
            yield path, f"it leads to {target}, and the K3s of this node is {tree or 'not known'}"
        elif os.path.basename(target) not in ("cni", os.path.basename(path)):
            yield path, f"it leads to {target}, which is another program"


def _tree(host: Host) -> str:
    unit, _ = running_unit(host)
    pid = host.systemctl(f"{unit}.service", "MainPID")["MainPID"] if unit else ""
    own = OWN.match(host.link_target(f"/proc/{pid}/exe")) if pid else None
    return own[1] if own else os.path.basename(host.link_target(f"{DATA}/current"))
