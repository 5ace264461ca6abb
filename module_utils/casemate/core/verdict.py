"""What every kind is written against: what it is told to demand, what it sees, and what it says about the two.

A kind observes (reads effective values, in one batch), assesses (pure) and, if it may, enforces by atomically changing
a file or setting that Casemate owns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Setting = Mapping[str, Any]
"""A setting of any kind; each kind types its own."""
Observation = dict[str, Any]


class Unavailable(Exception):  # noqa: N818 - not an error but an answer
    """The effective value cannot be had here: the control is not_evaluated, never pass.

    `code` is one word that `casemate_accept_not_evaluated` may list; `why` is for people; `observed` is what was seen
    nevertheless, None for nothing.
    """

    def __init__(self, code: str, why: str, observed: Any = None) -> None:
        """Say what lacks, as `code: why`."""
        super().__init__(f"{code}: {why}")
        self.code, self.why, self.observed = code, why, observed


UNASKED = "unasked"
"""The code of what nobody asks for: no gap, so nobody has to accept it."""


class Unasked(Unavailable):
    """The input that a control goes by is not set: it is not_evaluated, and `why` says what that leaves open."""

    def __init__(self, why: str) -> None:
        """Say what is not set."""
        super().__init__(UNASKED, why)


class Left(NamedTuple):
    """Where something of ours still stands ("" for nowhere), and why it has to stay ("" where it can go)."""

    where: str = ""
    stays: str = ""


@dataclass(frozen=True, init=False)
class Verdict:
    """What comparing a setting with an observation says. It is made by keywords only.

    `stale` names systemd units that still run with an older setting (drift, whatever the file says).

    `blocked_by` names what Casemate does not own and what keeps the value wrong whatever apply does: file and line, or
    a command line. The action is then `blocked`, in check as in apply: neither promises what it cannot keep.
    `still_enforced` says that apply does its part of such a control nevertheless (it sets the live value although the
    next boot's is somebody else's), so its role has to be applied for it, once; after that nothing is written.

    `unwritable` says what keeps a file of ours from being written (it blocks, too): what needs it is not started.

    `todo` is what the role's task acts on, where that is less than what is observed.

    `where` names what decides: files with their lines, units, or objects; else the place that the setting names counts.
    """

    ok: bool
    expected: Any
    observed: Any
    reason: str
    evidence: str
    stale: tuple[str, ...]
    blocked_by: str
    still_enforced: bool
    unwritable: str
    todo: Any
    where: tuple[str, ...]

    def __init__(
        self,
        *,
        ok: bool,
        expected: Any,
        observed: Any,
        reason: str = "",
        evidence: str = "",
        stale: tuple[str, ...] = (),
        blocked_by: str = "",
        still_enforced: bool = False,
        unwritable: str = "",
        todo: Any = None,
        where: tuple[str, ...] = (),
    ) -> None:
        """Python 3.9 has no dataclasses that are made by keywords only, so the fields are set by hand."""
        given = {name: value for name, value in locals().items() if name != "self"}
        for name, value in given.items():
            object.__setattr__(self, name, value)
