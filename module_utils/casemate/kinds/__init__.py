"""The kinds of setting, listed one by one because AnsiballZ ships only static imports."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Protocol, Set, cast

from ..base import Host, Observation, Setting, Verdict
from ..schema import Field
from . import file, http, k8s_object, port, sysctl


class Kind(Protocol):
    """What a kind module provides. `enforce` exists where ENFORCED_BY is "engine"."""

    SCHEMA: Mapping[str, Field]
    ENFORCED_BY: Optional[str]

    def identity(self, setting: Setting) -> str: ...  # noqa: D102
    def observe(self, settings: List[Setting], host: Host) -> List[Any]: ...  # noqa: D102
    def assess(self, setting: Setting, seen: Observation) -> Verdict: ...  # noqa: D102
    def enforce(self, settings: List[Setting], failing: Set[int], host: Host) -> None: ...  # noqa: D102


KINDS: Dict[str, Kind] = {
    name: cast(Kind, module)
    for name, module in {
        "file": file,
        "sysctl": sysctl,
        "k8s_object": k8s_object,
        "port": port,
        "http": http,
    }.items()
}
