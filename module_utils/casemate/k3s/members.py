"""The members of a cluster as one of its servers sees them: who of etcd votes and is well, and whose node is Ready."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..core.verdict import Unavailable
from ..host.machine import Host
from .api import Api
from .etcd import Etcd

TIMEOUT = 5.0


@dataclass(frozen=True)
class EtcdMember:
    """A member of etcd: its address, whether it has a vote, and whether its API server is ready."""

    name: str
    address: str
    votes: bool = True
    well: bool = True


def etcd_members(host: Host) -> list[EtcdMember]:
    """Each member of etcd; it is well when its own API server is ready, which it is not without etcd.

    Raises Unavailable where this server cannot tell: it runs no API server, or etcd has no majority.
    """
    Api(host).get("/api/v1/nodes?limit=1")  # from etcd by majority; the list of members would come from memory
    found = []
    for one in Etcd(host).members():
        address = one_spelling(urlsplit((one.get("peerURLs") or [""])[0]).hostname or "")
        name = str(one.get("name") or address).rsplit("-", 1)[0]  # K3s adds eight letters to the node's name
        found.append(EtcdMember(name, address, not one.get("isLearner"), serves(host, address)))
    return found


def one_spelling(address: str) -> str:
    """An address as etcd and Kubernetes write it: FD00:0::2 is fd00::2. What is none stays as it is."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def serves(host: Host, address: str) -> bool:
    """Whether the API server at an address calls itself ready; servers share their authorities."""
    try:
        status, _ = Api(host, address, timeout=TIMEOUT).call("GET", "/readyz")
    except (Unavailable, OSError):
        return False
    return status == 200


def ready_nodes(host: Host) -> dict[str, bool]:
    """Address of each node -> whether it is Ready. Raises Unavailable where the API does not say."""
    found = {}
    for item in Api(host).get("/api/v1/nodes")["items"]:
        status: dict[str, Any] = item.get("status") or {}
        states = {one["type"]: one["status"] for one in status.get("conditions") or ()}
        for one in status.get("addresses") or ():
            if one["type"] == "InternalIP":
                found[one_spelling(one["address"])] = states.get("Ready") == "True"
    return found
