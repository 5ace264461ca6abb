"""A control: one security requirement, declared once. Parsing refuses by name what is malformed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.flow import flow, quoted
from ..core.schema import ControlError, Field, problems
from ..core.verdict import Setting
from ..kinds import KINDS
from ..kinds.kind import Kind

SEVERITIES = ("low", "medium", "high", "critical")
LEVELS = ("baseline", "strict")
APPLIES_TO = ("node", "server", "agent", "cluster")
VANTAGES = ("self", "peer", "controller", "stranger")
ID = r"[A-Z][A-Z0-9]*(-[A-Z0-9]+)+"
MITIGATION = r"T[1-7]\.[1-9]"
SYSTEM = r"[a-z]+[0-9.]+"
"""A system and its version, such as debian12: ID and VERSION_ID of os-release(5)."""

FIELDS: dict[str, Field] = {
    "id": Field("str", True, pattern=ID),
    "title": Field("str", True, pattern=r"\S.{3,119}"),
    "why": Field("str", True, pattern=r"(?s)\S.{9,}"),
    "severity": Field("str", True, SEVERITIES),
    "level": Field("str", True, LEVELS),
    "applies_to": Field("list", True),
    "mitigations": Field("list", True),
    "setting": Field("dict", True),
    "refs": Field("dict"),
    "impact": Field("str"),
    "needs": Field("list"),
    "vantage": Field("str", False, VANTAGES),
    "cost": Field("str", False, ("scan",)),
    "os": Field("list"),
    "bound": Field("dict"),
    "role": Field("str"),
}
BOUND = {"min": Field("scalar"), "max": Field("scalar"), "one_of": Field("list"), "of": Field("any", True)}


@dataclasses.dataclass(frozen=True)
class Control:
    """A parsed control. `setting` is what its kind observes and, where it may, enforces; `declared` is all of it."""

    id: str
    title: str
    why: str
    severity: str
    level: str
    applies_to: tuple[str, ...]
    mitigations: tuple[str, ...]
    setting: Setting
    kind: Kind[Any]
    needs: tuple[str, ...] = ()
    vantage: str = "self"
    cost: str = ""
    os: tuple[str, ...] = ()
    bound: Mapping[str, Any] | None = None
    role: str = ""
    declared: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def identity(self) -> str:
        """What no other control may set: kind and key."""
        return f"{self.setting['kind']}:{self.kind.identity(self.setting)}"

    @property
    def places(self) -> list[str]:
        """What its setting is about, where a finding names no line of its own."""
        return list(self.kind.places(self.setting))

    @property
    def enforced(self) -> bool:
        """Whether apply changes what fails; `enforced: false` makes a setting observe-only, as some kinds all are."""
        return self.kind.enforced_by is not None and bool(self.setting.get("enforced", not self.kind.evicts))


def wrong(raw: Any) -> list[str]:
    """Everything that is wrong with one raw control; empty when it is well-formed."""
    if not isinstance(raw, Mapping):
        return [f"a control must be a mapping, not {type(raw).__name__}"]
    name = str(raw.get("id", "(control without id)"))
    found = problems(raw, FIELDS, name)
    for field, allowed in (("applies_to", APPLIES_TO), ("mitigations", None)):
        for item in raw.get(field) or [None]:
            if allowed and item not in allowed:
                found.append(f"{name}.{field}: {quoted(item)} is not one of {', '.join(allowed)}")
            if not allowed and not re.fullmatch(MITIGATION, str(item)):
                found.append(f"{name}.{field}: {quoted(item)} is not a mitigation such as T1.4")
    for system in raw.get("os") or ():
        if not re.fullmatch(SYSTEM, str(system)):
            found.append(f"{name}.os: {quoted(system)} is not a system and its version such as debian12")
    refs = raw.get("refs")
    for key, sections in refs.items() if isinstance(refs, Mapping) else ():
        if not isinstance(sections, list) or not sections or not all(isinstance(one, str) for one in sections):
            found.append(f"{name}.refs.{key}: {quoted(sections)} is not a list of sections")
    setting = raw.get("setting")
    if isinstance(setting, Mapping):
        kind = KINDS.get(str(setting.get("kind")))
        if kind is None:
            known = ", ".join(sorted(KINDS))
            found.append(f"{name}.setting.kind: unknown kind {setting.get('kind')!r}; known: {known}")
        else:
            body = {k: v for k, v in setting.items() if k != "kind"}
            found += problems(body, kind.schema, f"{name}.setting")
    if isinstance(raw.get("bound"), Mapping):
        found += problems(raw["bound"], BOUND, f"{name}.bound")
    return found


def parse(raw: Mapping[str, Any]) -> Control:
    """Turn a raw mapping into a Control, or raise ControlError naming every fault."""
    found = wrong(raw)
    if found:
        raise ControlError("; ".join(found))
    return _made(raw)


def _made(raw: Mapping[str, Any]) -> Control:
    """The control of a raw mapping with which nothing is wrong."""
    setting = dict(raw["setting"])
    return Control(
        **{name: raw[name] for name in ("id", "title", "why", "severity", "level")},
        applies_to=tuple(raw["applies_to"]),
        mitigations=tuple(raw["mitigations"]),
        setting=setting,
        kind=KINDS[setting["kind"]],
        needs=tuple(raw.get("needs") or ()),
        vantage=raw.get("vantage") or "self",
        cost=raw.get("cost") or "",
        os=tuple(raw.get("os") or ()),
        bound=raw.get("bound"),
        role=raw.get("role") or "",
        declared=raw,
    )


def parse_all(raws: Iterable[Mapping[str, Any]]) -> list[Control]:
    """Parse a catalogue; every fault of every control is reported at once, doubled ids and settings too."""
    found: list[str] = []
    controls: list[Control] = []
    ids: set[str] = set()
    settings: dict[str, str] = {}
    for raw in raws:
        faults = wrong(raw)
        if faults:
            found += faults
            continue
        control = _made(raw)
        if control.id in ids:
            found.append(f"{control.id}: declared twice")
        holder = settings.setdefault(control.identity, control.id)
        if holder != control.id:
            found.append(f"{control.id}: shares the setting {control.identity} with {holder}")
        ids.add(control.id)
        controls.append(control)
    if found:
        raise ControlError("; ".join(found))
    return controls


def out_of_bound(control: Control) -> str:
    """Say how a knob breaks the bound that its control sets, or an empty string. Pure."""
    bound = control.bound
    if not bound:
        return ""
    value = bound["of"]
    if "one_of" in bound and value not in bound["one_of"]:
        return f"the knob is {quoted(value)}, the control demands one of {', '.join(map(flow, bound['one_of']))}"
    if "min" in bound or "max" in bound:
        try:
            number = float(value)  # `-e knob=8` on the command line gives a string
        except (TypeError, ValueError):
            return f"the knob is {quoted(value)}, the control demands a number"
        if "min" in bound and number < bound["min"]:
            return f"the knob is {quoted(value)}, the control demands at least {flow(bound['min'])}"
        if "max" in bound and number > bound["max"]:
            return f"the knob is {quoted(value)}, the control demands at most {flow(bound['max'])}"
    return ""
