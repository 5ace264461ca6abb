"""What a daemon of systemd really goes by: its main file and every drop-in, of which the last one wins."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from typing import Annotated, Any, List, Optional, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..formats import systemd_config
from ..host.machine import Host
from .kind import Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    config: Annotated[str, Key("the configuration, as systemd-analyze cat-config takes it: systemd/journald.conf")]
    section: Annotated[str, Key("its section")]
    key: Annotated[str, Key("the setting")]
    values: Annotated[List[str], Key("what it may be; empty: it may not be set")]


class Setting(Needed, total=False):
    """What a control of this kind demands."""

    harmless: Annotated[str, Key("regular expression: variables that may be set, where it is a list of NAME=VALUE")]
    file: Annotated[str, Key("the file of ours that gives it: what another control says of that is not said twice")]


def identity(setting: Setting) -> str:
    """One control for each setting."""
    return f"{setting['config']} {setting['section']} {setting['key']}"


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """The assignments that count, the last one last."""
    seen: List[Any] = []
    for setting in settings:
        try:
            found = systemd_config.effective(setting["config"], setting["section"], setting["key"], host)
        except Unavailable as lacking:
            seen.append(lacking)
            continue
        found = [one for one in found if not _is_harmless(one.value, setting.get("harmless", ""))]
        excused = setting.get("file") in host.failing_files
        seen.append(
            {"values": [one.value for one in found], "places": [one.place for one in found], "excused": excused}
        )
    return seen


def _is_harmless(value: str, names: str) -> bool:
    """Whether an assignment sets nothing but such variables. Source: systemd.exec(5), Environment=."""
    try:
        words = shlex.split(value)
    except ValueError:
        return False
    return bool(names) and all(re.fullmatch(names, word.partition("=")[0]) for word in words)


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that the last assignment has one of the values, or that there is none where none may be."""
    wanted = setting["values"]
    value: Optional[str] = seen["values"][-1] if seen["values"] else None
    ok = value in wanted if wanted else value is None
    places = tuple(seen["places"] if not wanted else seen["places"][-1:])
    expected = " or ".join(wanted) if wanted else "not set"
    if ok or seen["excused"]:
        return Verdict(ok=True, expected=expected, observed=value or "not set", where=places)
    if value is None:
        reason = f"nothing sets {setting['key']}"
    else:
        reason = f"{places[-1]} sets {setting['key']} to {value}: remove that line"
    return Verdict(ok=False, expected=expected, observed=value or "not set", reason=reason, where=places)


KIND: Kind[Setting] = Kind(
    Setting, identity, observe, assess, places=lambda setting: [setting.get("file", f"/etc/{setting['config']}")]
)
