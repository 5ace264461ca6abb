"""The rollout of K3s: the first start of a cluster, the join of its nodes, and restarts that cost nobody anything.

`next_step` is pure. It decides from what is seen on all members, so a run that was killed is simply started again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Union

from ..k3s.members import EtcdMember

FILES, RESTART = "files", "restart"
"""What is to do on a member: only what needs no restart, or what K3s reads at its start."""
DONE, FAILED = "done", "failed"
"""How a member's turn in this run ended."""
FILES_OF = "settle the files of"


@dataclass(frozen=True)
class Member:
    """A host of the inventory, and what is seen of its K3s.

    `answers` is whether the controller reaches it. `holds` is whether a cluster's data lie on it (None: not looked at),
    `runs` whether systemd runs K3s there or tries to. `work` is what is to do there, `turn` how its turn ended.
    `ready` is what the cluster says of its node (None: nothing).
    """

    name: str
    server: bool
    address: str = ""
    answers: bool = True
    holds: bool | None = None
    runs: bool = False
    work: str = ""
    turn: str = ""
    ready: bool | None = None


@dataclass(frozen=True)
class Observed:
    """All that is seen at one moment, members in the inventory's order.

    `etcd` is None where no server can be asked, and empty where the release is a double without an etcd. `batches` says
    how many agents restart together: numbers or shares such as 25%, the last for all that follow. `lost` says who has
    the lock instead of this run.
    """

    members: tuple[Member, ...]
    etcd: tuple[EtcdMember, ...] | None = None
    batches: tuple[int | str, ...] = (1,)
    lost: str = ""


@dataclass(frozen=True)
class Step:
    """Settle K3s on these hosts, all at the same time. `restarts` is whether K3s may be restarted there."""

    what: str
    hosts: tuple[str, ...]
    restarts: bool = True

    def __str__(self) -> str:
        """For people."""
        return f"{self.what} {', '.join(self.hosts)}"


@dataclass(frozen=True)
class Blocked:
    """Nothing may be done now. `hosts` are those that the reason is about; `passing` is whether waiting may help."""

    reason: str
    hosts: tuple[str, ...] = ()
    passing: bool = False


@dataclass(frozen=True)
class Done:
    """Nothing is left to do."""


Next = Union[Step, Blocked, Done]


def next_step(seen: Observed) -> Next:
    """What to do next. Servers come before agents, since agents must not be newer than the API server."""
    left = [m for m in seen.members if m.work and m.answers and not m.turn]
    if not left:
        return Done()
    if seen.lost:
        return Blocked(seen.lost, names(left))
    failed = [m for m in seen.members if m.server and m.turn == FAILED]
    if failed:
        return Blocked(f"K3s of {', '.join(names(failed))} could not be settled, so all others are left as they are")
    servers = [m for m in left if m.server]
    return _server_step(seen, servers) if servers else _agent_step(seen, left)


def _server_step(seen: Observed, left: Sequence[Member]) -> Next:
    well = {one.address for one in seen.etcd or () if one.well}
    down = [m for m in left if m.holds and not m.runs and m.address not in well]
    if down:  # etcd may need several of them before any comes up, and none of them has anything to lose
        return Step("start", names(down))
    running = [m for m in left if m.holds]
    gentle = [m for m in running if m.work == FILES]
    if gentle:
        return Step(FILES_OF, names(gentle), restarts=False)
    if running:
        return _restart_of_a_server(seen, running)
    return _first_start_of_a_server(seen, left)


def _first_start_of_a_server(seen: Observed, left: Sequence[Member]) -> Next:
    """The first server begins the cluster where no other may have one already; the others join it one by one."""
    servers = [m for m in seen.members if m.server]
    first = servers[0]
    begun = any(m.holds for m in servers)
    begins = first in left and not begun
    silent = [m.name for m in servers if not m.answers]
    if begins and not silent:
        return Step("begin the cluster on", (first.name,))
    if not begun and not first.answers:
        why = f"{first.name}, the first of k3s_server, begins the cluster, and does not answer"
        return Blocked(why, names(left[:1]))
    if begun or first.holds is None:
        return Step("join", names(left[:1]))
    if begins:
        return Blocked(
            f"{first.name} has no data and would start a cluster, but {', '.join(silent)} does not answer and may hold "
            "one. Bring that server up, or take it out of k3s_server, and apply again",
            (first.name,),
        )
    return Blocked(f"{first.name}, the first of k3s_server, begins the cluster, and is not settled", names(left[:1]))


def _restart_of_a_server(seen: Observed, running: Sequence[Member]) -> Next:
    """One server, and only while every other member of etcd is a well voter: those that remain are a majority then.

    Of two members none can be spared, so etcd stops for as long as one restarts; the other has to be well all the same.
    One that is ill comes first: its restart costs nothing, and may heal it.
    """
    ill = {one.address for one in seen.etcd or () if not one.well}
    chosen = next((m for m in running if m.address in ill), running[0])
    step = Step("restart", (chosen.name,))
    if seen.etcd is None:
        alone = all(m.holds is False for m in seen.members if m.server and m.name != chosen.name)
        why = "no server of this run can say who the members of etcd are; etcd may have no majority already"
        return step if alone else Blocked(f"K3s of {chosen.name} may not restart now: {why}", (chosen.name,), True)
    others = [one for one in seen.etcd if one.address != chosen.address and one.name != chosen.name]
    wanting = [f"{one.name} to be ready" for one in others if not one.well]
    wanting += [f"{one.name} to vote" for one in others if not one.votes]
    if not wanting:
        return step
    return Blocked(
        f"K3s of {chosen.name} may not restart now: it waits for {', '.join(wanting)}, without which etcd could lose "
        "its majority. Bring K3s up there (`casemate apply --limit` starts it), and apply again",
        (chosen.name,),
        passing=True,
    )


def _agent_step(seen: Observed, left: Sequence[Member]) -> Next:
    first = next((m for m in seen.members if m.server), None)
    if first is not None and not first.answers:
        return Blocked(f"agents get their token from {first.name}, which does not answer")
    joining = [m for m in left if not m.runs]
    if joining:
        return Step("join", names(joining))
    gentle = [m for m in left if m.work == FILES]
    if gentle:
        return Step(FILES_OF, names(gentle), restarts=False)
    agents = [m for m in seen.members if not m.server]
    failed = [m for m in agents if m.runs and m.turn == FAILED]
    if failed:
        return Blocked(
            f"K3s of {', '.join(names(failed))} could not be settled, so the other agents are left as they are"
        )
    if seen.etcd is None:
        why = "no server of this run can say whether the other nodes are Ready"
        return Blocked(f"K3s of {left[0].name} may not restart now: {why}", (left[0].name,), passing=True)
    behind = [m for m in agents if m.turn == DONE and m.ready is False]
    if behind:
        why = f"waits for {', '.join(names(behind))} to be Ready again after its own restart"
        return Blocked(f"K3s of {left[0].name} may not restart now: it {why}", (left[0].name,), passing=True)
    restarted = sum(m.turn == DONE and m.runs and m.work == RESTART for m in agents)
    return Step("restart", names(left[: batch(seen.batches, restarted, len(agents))]))


def batch(sizes: Sequence[int | str], restarted: int, agents: int) -> int:
    """How many agents restart next, where so many of `agents` have already; a share is of all, and one at least."""
    shares = [float(str(size)[:-1]) / 100 * agents if str(size).endswith("%") else float(size) for size in sizes]
    counts = [max(1, int(share)) for share in shares] or [1]
    for count in counts[:-1]:
        if restarted < count:
            return count - restarted
        restarted -= count
    return counts[-1] - restarted % counts[-1]


def names(members: Sequence[Member]) -> tuple[str, ...]:
    """Their names."""
    return tuple(m.name for m in members)


def after(seen: Observed, step: Step) -> Observed:
    """What would be seen once a step has gone well."""
    members, etcd = list(seen.members), seen.etcd
    for place, m in enumerate(members):
        if m.name not in step.hosts:
            continue
        members[place] = replace(m, turn=DONE, holds=True, ready=True)
        if m.server:
            rest = tuple(one for one in etcd or () if one.address != m.address)
            etcd = (*rest, EtcdMember(m.name, m.address))
    return replace(seen, members=tuple(members), etcd=etcd)


def foresee(seen: Observed) -> list[Next]:
    """The steps to the end, as long as each goes well; the last says why there is none, or is Done."""
    steps: list[Next] = []
    while True:
        step = next_step(seen)
        steps.append(step)
        if not isinstance(step, Step):
            return steps
        seen = after(seen, step)


def observed(
    members: Sequence[Mapping[str, Any]],
    etcd: Sequence[EtcdMember] | None,
    batches: Sequence[int | str] = (1,),
    lost: str = "",
    ready: Mapping[str, bool] | None = None,
) -> Observed:
    """From what the controller tells of the members and what the cluster says: `ready` by a node's address."""
    ready_by_address = ready or {}
    seen = [Member(**{**m, "ready": ready_by_address.get(m.get("address", ""))}) for m in members]
    return Observed(tuple(seen), None if etcd is None else tuple(etcd), tuple(batches), lost)


def sentence(step: Next) -> str:
    """A step in words."""
    if isinstance(step, Step):
        return str(step)
    return f"stop: {step.reason}" if isinstance(step, Blocked) else "nothing is left to do"


def shown(step: Next, waited: float = 0.0) -> dict[str, Any]:
    """A step as the module returns it; `waited` says for how many seconds it was hoped for."""
    hosts = list(step.hosts) if isinstance(step, Step) else []
    blocked = list(step.hosts) if isinstance(step, Blocked) else []
    reason = step.reason if isinstance(step, Blocked) else ""
    if isinstance(step, Blocked) and step.passing and waited >= 1:
        reason += f". Waited {waited:.0f} s for it"
    restarts = isinstance(step, Step) and step.restarts
    return {"hosts": hosts, "restarts": restarts, "blocked": blocked, "reason": reason, "sentence": sentence(step)}


def most_steps(seen: Observed) -> int:
    """How many steps the rollout takes when each goes well, one for its being blocked included; never more."""
    return len([step for step in foresee(seen) if not isinstance(step, Done)])
