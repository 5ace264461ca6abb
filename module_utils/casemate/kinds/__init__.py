"""The kinds of setting, listed one by one because AnsiballZ ships only static imports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from ..core.schema import Field
from ..core.verdict import Observation, Setting, Verdict
from ..host.machine import Host
from . import (
    account,
    artifact,
    cluster_nodes,
    file,
    http,
    journal_args,
    k3s_config,
    k8s_object,
    kernel_module,
    leftover,
    link,
    membership,
    mount_option,
    nft,
    package,
    port,
    resolver,
    service,
    sshd,
    stored_secrets,
    sysctl,
)


class Kind(Protocol):
    """What a kind module provides. `enforce` exists where ENFORCED_BY is "engine"."""

    SCHEMA: Mapping[str, Field]
    ENFORCED_BY: str | None

    def identity(self, setting: Setting) -> str: ...  # noqa: D102
    def observe(self, settings: list[Setting], host: Host) -> list[Any]: ...  # noqa: D102
    def assess(self, setting: Setting, seen: Observation) -> Verdict: ...  # noqa: D102
    def enforce(self, settings: list[Setting], failing: set[int], host: Host) -> None: ...  # noqa: D102


KINDS: dict[str, Kind] = {
    name: cast(Kind, module)
    for name, module in {
        "leftover": leftover,
        "file": file,
        "kernel_module": kernel_module,
        "sysctl": sysctl,
        "package": package,
        "account": account,
        "artifact": artifact,
        "link": link,
        "k3s_config": k3s_config,
        "resolver": resolver,
        "service": service,
        "sshd": sshd,
        "nft": nft,
        "mount_option": mount_option,
        "journal_args": journal_args,
        "k8s_object": k8s_object,
        "port": port,
        "http": http,
        "membership": membership,
        "cluster_nodes": cluster_nodes,
        "stored_secrets": stored_secrets,
    }.items()
}
