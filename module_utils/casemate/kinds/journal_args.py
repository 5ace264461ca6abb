"""Command lines of K3s' components as they run: the process shows only `k3s server`, the journal shows the flags.

Source: K3s logs `Running kube-apiserver --…` once for each component when it starts it. Only lines of the unit's
present invocation count; a line that cannot be found (volatile or vacuumed journal) is never taken for a pass.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Dict, List, Literal, Optional, TypedDict, get_args

from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..host.machine import Host
from ..host.text import split_lines
from ..k3s.services import UNITS, running_unit
from .kind import Kind

Component = Literal["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"]
COMPONENTS = get_args(Component)


class Needed(TypedDict):
    """What every setting of this kind says."""

    component: Annotated[Component, Key("whose command line")]
    flag: Annotated[str, Key("without the leading dashes", pattern=r"[a-z0-9][a-z0-9-]*")]


class Setting(Needed, total=False):
    """What a control of this kind may demand."""

    value: Annotated[str, Key("the exact value, given once")]
    contains: Annotated[str, Key("a text that the value holds")]
    absent: Annotated[bool, Key("the flag must not be given")]


Args = Dict[str, Dict[str, List[str]]]


def identity(setting: Setting) -> str:
    """One control for a component's flag."""
    return f"{setting['component']} --{setting['flag']}"


def split(line: str) -> Dict[str, List[str]]:
    """Flags of one command line; a value may hold spaces, a flag may be repeated."""
    flags: Dict[str, List[str]] = {}
    for part in re.split(r"(?:^|\s+)--(?=[a-z0-9])", line.strip())[1:]:
        name, _, value = part.partition("=")
        flags.setdefault(name.strip(), []).append(value if "=" in part else "true")
    return flags


def parse(journal: str) -> Args:
    """Component -> flag -> values, from the last line about each component."""
    found: Args = {}
    for line in split_lines(journal):
        match = re.search(r'(?:^|msg=")Running ({}) (--.*?)"?\s*$'.format("|".join(COMPONENTS)), line)
        if match:
            found[match[1]] = split(match[2].replace('\\"', '"'))
    return found


def running_args(host: Host) -> Args:
    """Flags of every component of the running unit; empty when nothing runs or the journal has no line."""

    def ask() -> Args:
        unit, _ = running_unit(host)
        call = host.systemctl(f"{unit}.service", "InvocationID")["InvocationID"] if unit else ""
        if not call:
            return {}
        match = f"_SYSTEMD_INVOCATION_ID={call}"
        command = ["journalctl", "--no-pager", "--quiet", "--output=cat", "--grep=Running kube", match]
        return parse(host.run(command, timeout=60).out)

    return host.cached("k3s running args", ask)


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """The values of each flag, with one journal call for all of them."""
    unit, _ = running_unit(host)
    if not unit:
        raise Unavailable("k3s", "K3s does not run here, so no component has arguments")
    running = running_args(host)
    return [{"unit": unit, "given": _given(s, running)} for s in settings]


def _given(setting: Setting, running: Args) -> Optional[List[str]]:
    component = running.get(setting["component"])
    return None if component is None else component.get(setting["flag"], [])


def assess(setting: Setting, seen: Observation) -> Verdict:
    """A flag given twice is refused: whether the last wins or all count depends on the flag."""
    component, flag, given = setting["component"], setting["flag"], seen["given"]
    if given is None:
        raise Unavailable("k3s", f"the journal of the running {seen['unit']} has no line about {component}")
    evidence = f"journalctl -u {seen['unit']}: Running {component}"
    shown = ", ".join(given) if given else "absent"
    if setting.get("absent"):
        return Verdict(
            ok=not given,
            expected="absent",
            observed=shown,
            reason="" if not given else f"--{flag} is given",
            evidence=evidence,
            where=(f"{seen['unit']}.service",),
        )
    if "contains" in setting:
        expected, ok = f"…{setting['contains']}…", len(given) == 1 and setting["contains"] in given[0]
    else:
        expected, ok = setting.get("value", "true"), given == [setting.get("value", "true")]
    return Verdict(
        ok=ok,
        expected=expected,
        observed=shown,
        reason="" if ok else f"{component} runs with --{flag}: {shown}",
        evidence=evidence,
        where=(f"{seen['unit']}.service",),
    )


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, units=lambda setting: UNITS, places=lambda setting: UNITS
)
