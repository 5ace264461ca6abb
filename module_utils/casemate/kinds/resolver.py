"""The resolvers that pods really get: those in the file that the running kubelet uses, or will once K3s starts."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, List, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..host.machine import Host
from ..k3s import files as k3s_files
from ..k3s import resolvers
from ..k3s.services import UNITS, running_unit
from .journal_args import running_args
from .kind import Enforceable, Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    files: Annotated[list[str], Key("where resolvers may stand; K3s is given the first that pods can use")]


class Setting(Needed, Enforceable):
    """What a control of this kind demands."""


KUBELET = "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d"


def identity(setting: Setting) -> str:
    """A node has one kubelet."""
    return "kubelet"


def file_in_use(host: Host) -> str:
    """The file that the running kubelet copies resolvers from; "" where none runs or it tells none.

    Its flag decides over its drop-ins, of which the last decides (--config-dir, as filepath.WalkDir lists it);
    K3s writes what it was told, or found by itself, into the first of them.
    """
    if not running_unit(host)[0]:
        return ""
    given: List[str] = []
    for path in host.glob(f"{KUBELET}/**/*.conf", hidden=True):
        given += re.findall(r'(?m)^["\']?resolvConf["\']?:[ \t]*["\']?([^"\'\s#]*)', host.text(path) or "")
    given += running_args(host).get("kubelet", {}).get("resolv-conf", [])
    return given[-1] if given else _of_k3s(host)


def _of_k3s(host: Host) -> str:
    """What K3s' own configuration names."""
    parts = k3s_files.merged(k3s_files.sources(host)).get("resolv-conf", [])
    return str(k3s_files.value_of(parts) or "")


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """The file, whether it is in use already, its resolvers, and what is wrong with them."""
    used, seen = file_in_use(host), []
    for setting in settings:
        path = used or resolvers.choose(setting["files"], host.text)
        text = host.text(path)
        names = [one.address for one in resolvers.parse(text or "")]
        seen.append({"file": path, "used": bool(used), "resolvers": names, "faults": resolvers.faults(path, text)})
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right are resolvers of which pods can use each: they ask the first, and another one when it is silent."""
    shown = {"file": seen["file"], "resolvers": seen["resolvers"]}
    who = "the kubelet hands pods" if seen["used"] else "once K3s runs, the kubelet will hand pods"
    reason = f"{who} what stands in {seen['file']}: {'; '.join(seen['faults'])}" if seen["faults"] else ""
    if reason:
        reason += ". Name a file with resolvers that pods can reach by k3s_node_resolv_conf, or correct this one"
    return Verdict(
        ok=not reason,
        expected="resolvers that pods can reach",
        observed=shown,
        reason=reason,
        where=(seen["file"],),
        evidence=seen["file"],
    )


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, units=lambda setting: UNITS, places=lambda setting: setting["files"][:1]
)
