"""What the engine needs from a kind of setting, whole: it knows none of them by name.

Each kind's file ends with its `KIND`. What a kind leaves out has a default that says: nothing of that sort.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Callable, Generic, TypedDict, TypeVar

from ..core.diff import Pair, of_values
from ..core.schema import Field, Key, schema_of
from ..core.verdict import Left, Observation, Unavailable, Verdict
from ..host.machine import Host

S = TypeVar("S")
"""The settings of one kind."""


class Enforceable(TypedDict, total=False):
    """A setting that apply may be kept from changing."""

    enforced: Annotated[bool, Key("false: observe only")]


def _place(setting: Any) -> list[str]:
    return [str(setting[name]) for name in ("path", "file", "unit") if setting.get(name)][:1]


def own_unit(setting: Any) -> list[str]:
    """The unit that a setting names, if it does."""
    return [setting["unit"]] if "unit" in setting else []


@dataclass(frozen=True)
class Pass:
    """What a pass over all kinds knows: the settings that no waiver excuses, and whether it only checks."""

    wanted: Sequence[Mapping[str, Any]]
    check: bool


@dataclass(frozen=True)
class Owned(Generic[S]):
    """What of Casemate's own a kind writes for a setting, and how that is taken back once a waiver excuses it.

    The default is that of a kind that writes nothing which could be told from what was there before: a mode, a
    package, an account or a unit has no earlier state that is known, so it stays as it is.
    """

    left: Callable[[S, Pass, Host], Left] = lambda setting, run, host: Left()
    """What of ours still stands for a setting."""
    take_back: Callable[[list[S], list[S], Host], None] = lambda waived, wanted, host: None
    """Take back what was written for the waived settings; the wanted ones stay written."""
    unasked: Callable[[list[S], Host], str] = lambda settings, host: ""
    """Which entries of the kind's own file no setting asks for, in words; "" for none."""
    lasting: Callable[[S, Host], bool] = lambda setting, host: False
    """Whether a setting goes on being written although it is waived."""
    written: Callable[[S], str] = lambda setting: ""
    """The file of ours that a setting is written to, which may still be a template; "" for none."""


@dataclass(frozen=True)
class Kind(Generic[S]):
    """One kind of setting.

    A waived setting stands among those that `observe` gets, by its index in `waived`: apply does not write it, and a
    kind that foretells what apply would do has to know.
    """

    setting: type[S]
    """The TypedDict of its settings, of which the schema is made."""
    identity: Callable[[S], str]
    """What no other control may set, without the kind's name."""
    observe: Callable[[list[S], Host, Collection[int]], Sequence[Any]]
    """What is there for each setting, in one batch; an exception in place of what cannot be seen."""
    assess: Callable[[S, Observation], Verdict]
    """Compare a setting with what was observed for it. Pure."""
    enforced_by: str | None = None
    """"engine", "task" (one task of a role does it), or None where apply changes nothing."""
    enforce: Callable[[list[S], set[int], Host], None] | None = None
    """Where the engine enforces: change what fails, by index. Raises EnforceError."""
    evicts: bool = False
    """Whether apply changes what fails only where the operator names the control: what it removes may be needed."""
    units: Callable[[S], Iterable[str]] = own_unit
    """Units that `observe` asks systemd about; those of all kinds are asked about in one call."""
    places: Callable[[S], Sequence[str]] = _place
    """What a setting is about, as far as its declaration says it, for a finding that names no line of its own: a file,
    a unit, an object of the cluster or the kernel, a package, or an address. Never empty."""
    shown: Callable[[S, Any], Any] = lambda setting, value: value
    """What is demanded or there as it may be shown: a secret is veiled."""
    difference: Callable[[S, Any, Any, Host], list[Pair]] = lambda setting, have, want, host: [of_values(have, want)]
    """How what is there, and shown so, differs from what is demanded, in one or more diffs."""
    explains: Callable[[S], Iterable[str]] = lambda setting: ()
    """Files whose faults a failing setting tells, so that what follows from them is no finding of its own."""
    removes: Callable[[Any], Iterable[str]] = lambda acts_on: ()
    """Of what apply acts on, the files that are gone before any later kind is judged."""
    reloads: Callable[[S], bool] = lambda setting: False
    """Whether enforcing a setting has something loaded: a refusal to load is told by its finding."""
    read_at_start: Callable[[S], Iterable[str]] = lambda setting: ()
    """Units that read what is written for a setting when they start, so that they are stale once it has gone."""
    is_note: bool = False
    """Whether all that apply writes is a note of Casemate's own, which no other program reads."""
    made_of: Callable[[S], bool] = lambda setting: False
    """Whether a setting is judged on the controller by what the host is made of, which the pass there tells."""
    owned: Owned[S] = field(default_factory=Owned)

    @functools.cached_property
    def schema(self) -> Mapping[str, Field]:
        """What a declared setting is held against; made for the kinds alone that a run comes upon."""
        return schema_of(self.setting)


def each(
    settings: Iterable[S], look: Callable[[S], Any], lacks: tuple[type[Exception], ...] = (Unavailable, OSError)
) -> list[Any]:
    """What `look` sees for each setting, or the exception of `lacks` that says why it cannot be seen."""
    seen: list[Any] = []
    for setting in settings:
        try:
            seen.append(look(setting))
        except lacks as why:
            seen.append(why)
    return seen


def not_waived(settings: Sequence[S], waived: Collection[int]) -> list[S]:
    """The settings that apply writes."""
    return [setting for index, setting in enumerate(settings) if index not in waived]
