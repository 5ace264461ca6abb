"""What K3s says while its cluster refuses this node: it tries on for ever, so waiting for it brings nothing.

Sources: K3s, join in pkg/etcd/etcd.go, pkg/agent/config/config.go (403 to a password), pkg/clientaccess/token.go.
"""

from __future__ import annotations

import time

from ..host.machine import Host

REFUSALS = {
    "duplicate node name found": "etcd still has a member of this name. If this machine was wiped or replaced, run "
    "`k3s kubectl delete node {node}` on a server that is well, and apply again",
    "Node password rejected": "the cluster knows another machine as {node}. If this one replaces it, run "
    "`k3s kubectl delete node {node}` on a server that is well, and apply again; else give this one another name by "
    "hostnamectl, or by node-name in k3s_node_config",
    "token CA hash does not match": "the token is another cluster's. Apply again, which fetches it anew from the first "
    "server",
}
"""Words of K3s -> what they mean and what to do."""
AGAIN, PAUSE = 2, 5.0
"""How often K3s has to say it, and how many seconds lie between two looks into the journal."""


class Refusal:
    """Looks for such words in what a unit has said since this was made."""

    def __init__(self, host: Host, unit: str, node: str) -> None:
        """Begin to listen now."""
        self.host, self.unit, self.node = host, unit, node
        self.since = time.time()
        self.looked = time.monotonic()

    def __call__(self) -> str:
        """What to do about a refusal that K3s repeats, or nothing."""
        if time.monotonic() - self.looked < PAUSE:
            return ""
        self.looked = time.monotonic()
        asked = [
            "journalctl",
            "--no-pager",
            "--quiet",
            "--output=cat",
            f"--since=@{self.since:.0f}",
            f"--unit={self.unit}",
        ]
        return meaning(self.host.run(asked).out, self.node)


def meaning(said: str, node: str) -> str:
    """What to do about the last refusal that is said more than once, or nothing."""
    lines = said.split("\n")
    found = [words for line in lines for words in REFUSALS if words in line]
    return REFUSALS[found[-1]].format(node=node) if found and found.count(found[-1]) >= AGAIN else ""
