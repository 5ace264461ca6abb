"""The families of drifts in K3s' own folders that are more than a text in a file."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator

from . import planting
from .drift import Drift, Family, a_name
from .hosts import sample
from .planting import Tree

DATA, ETC = "/var/lib/rancher/k3s", "/etc/rancher/k3s"
NODE = frozenset({"T2.5", "T7.1", "T7.2", "T4.1", "T4.2", "T5.1", "T5.2", "T5.3", "T6.1"})
CLUSTER = frozenset({"T1.2", "T2.1", "T2.2", "T3.2", "T4.2", "T4.3"})
AGENT, SERVER = f"{DATA}/agent", f"{DATA}/server"


def unpacked(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """The tree that K3s unpacked out of itself: programs that it runs as root."""
    make = functools.partial(Drift, "the unpacked tree")
    for path in sample(rng, tree.files(f"{DATA}/data/[0-9a-f][0-9a-f]*/bin/[!k]*")):
        data = tree.read(path)
        yield make("last byte", (path,), functools.partial(planting.disguised, tree, path, bytes([data[-1] ^ 1])))
        other = f"{path.rpartition('/')[0]}/{a_name(rng)}"
        yield make("planted", (other,), functools.partial(planting.planted, tree, other, b"#!/bin/sh\n", 0o755))


def authorities(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """One more authority, or key, that the cluster trusts: the request header's, which is not asked otherwise."""
    sources = {
        f"{SERVER}/tls/request-header-ca.crt": (
            f"{SERVER}/tls/client-ca.crt",
            f"{AGENT}/client-ca.crt",
            f"{SERVER}/tls/etcd/peer-ca.crt",
        ),
        f"{SERVER}/tls/etcd/client.key": (f"{SERVER}/tls/service.key",),
    }
    for source, targets in sources.items():
        for path in tree.files(*targets) if tree.state(source) else ():
            plant = functools.partial(planting.appended, tree, path, tree.read(source))
            yield Drift("the cluster's authorities", "one more", (path,), plant)


def credentials(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """Copies of what lets in as the cluster's administrator, for later."""
    sources = tree.files(
        f"{ETC}/k3s.yaml", f"{SERVER}/token", f"{SERVER}/tls/client-admin.key", f"{AGENT}/client-kubelet.key"
    )
    places = (
        "/root/.kube/config", "/root/{name}.yaml", "/home/ops/.kube/config", "/tmp/{name}.yaml", "/var/tmp/{name}",
        "/srv/{name}.conf", "/etc/kubernetes/admin.conf", "/var/lib/{name}/kubeconfig",
        "/root/{name}/{name}/old.yaml", "/home/ops/.cache/{name}", "/etc/{name}.conf", "/opt/{name}/etc/{name}",
    )  # fmt: skip
    for place in places if sources else ():
        path = place.replace("{name}", a_name(rng))
        data = tree.read(rng.choice(sources))
        if tree.state(path) is None:
            plant = functools.partial(planting.planted, tree, path, data, rng.choice((0o600, 0o644)))
            yield Drift("copies of credentials", "copied", (path,), plant)


def k3s_families(server: bool) -> list[Family]:
    """Those of every node, and those of a server."""
    of_servers = [Family("the cluster's authorities", CLUSTER, authorities)] if server else []
    return [
        Family("the unpacked tree", NODE, unpacked),
        Family("copies of credentials", CLUSTER, credentials),
        *of_servers,
    ]
