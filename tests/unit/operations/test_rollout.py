"""The next step of the rollout: single decisions as a table, and whole runs on a model, killed anywhere."""

# ruff: noqa: E501 - tables
from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from module_utils.casemate.k3s.members import EtcdMember
from module_utils.casemate.operations import rollout
from module_utils.casemate.operations.rollout import (
    DONE,
    FAILED,
    FILES,
    RESTART,
    Blocked,
    Done,
    Member,
    Observed,
    Step,
    next_step,
)


def server(name: str, **seen: Any) -> Member:
    usual = {"holds": True, "runs": True, "work": RESTART, "address": name}
    return Member(name, True, **{**usual, **seen})


def agent(name: str, **seen: Any) -> Member:
    return Member(name, False, **{"runs": True, "work": RESTART, "address": name, **seen})


def etcd(names: str, ill: str = "", learners: str = "") -> tuple[EtcdMember, ...]:
    return tuple(EtcdMember(f"s{n}", f"s{n}", n not in learners, n not in ill) for n in names)


FRESH: dict[str, Any] = {"holds": False, "runs": False}
IDLE: dict[str, Any] = {"work": ""}
BEGIN, JOIN, START, SETTLE = "begin the cluster on", "join", "start", "settle the files of"
S1, S2, S3 = server("s1"), server("s2"), server("s3")


@pytest.mark.parametrize(
    ("members", "members_of_etcd", "what", "hosts"),
    [
        # The first start of a cluster, and the joins.
        ([server("s1", **FRESH), server("s2", **FRESH)], None, BEGIN, ["s1"]),
        ([server("s1", holds=False), server("s2", **FRESH)], None, BEGIN, ["s1"]),  # it was killed before it had data
        ([server("s1", turn=DONE), server("s2", **FRESH), server("s3", **FRESH)], etcd("1"), JOIN, ["s2"]),
        ([server("s1", **IDLE), server("s2", holds=False)], etcd("1"), JOIN, ["s2"]),
        ([server("s1", **FRESH), server("s2", **IDLE)], etcd("2"), JOIN, ["s1"]),
        ([Member("s1", True), server("s2", **FRESH)], None, JOIN, ["s2"]),  # the role asks where the run does not look
        ([Member("s1", True), agent("a1", runs=False)], None, JOIN, ["a1"]),
        # Who is down has nothing to lose, and etcd may need several of them.
        ([server("s1", runs=False), server("s2", runs=False), S3], None, START, ["s1", "s2"]),
        ([S1, server("s2", runs=False, work=FILES)], etcd("12", ill="2"), START, ["s2"]),
        ([server("s1", runs=False), server("s2", **IDLE)], etcd("12"), "restart", ["s1"]),  # somebody started it meanwhile
        # What needs no restart waits for nobody.
        ([server("s1", work=FILES), server("s2", **IDLE)], etcd("12", ill="2"), SETTLE, ["s1"]),
        # A restart takes one server, and all others are well voters.
        ([S1], None, "restart", ["s1"]),
        ([S1], etcd("1"), "restart", ["s1"]),
        ([S1, server("s2", **FRESH)], None, "restart", ["s1"]),
        ([S1, S2], etcd("12"), "restart", ["s1"]),
        # An ill server of another address than the inventory says is known by its name.
        ([server("s1", address="fd00::1"), server("s2", **IDLE)], (EtcdMember("s1", "fd00::7", well=False), *etcd("2")), "restart", ["s1"]),
        ([server("s1", turn=DONE), S2, S3], etcd("123"), "restart", ["s2"]),
        ([server("s1", **IDLE), server("s2", **IDLE), S3], etcd("12"), "restart", ["s3"]),  # etcd has removed it while K3s ran
        ([S1, S2, S3], etcd("123", ill="2"), "restart", ["s2"]),  # it costs nothing, and may heal it
        ([S1, S2, S3], (), "restart", ["s1"]),  # a double has no etcd
        ([S1, agent("a1")], etcd("1"), "restart", ["s1"]),
        # Agents: those that join all at once, then batches of those that run.
        ([server("s1", **IDLE), agent("a1", runs=False), agent("a2", runs=False), agent("a3")], etcd("1"), JOIN, ["a1", "a2"]),
        ([server("s1", **IDLE), agent("a1", runs=False, turn=FAILED), agent("a2")], etcd("1"), "restart", ["a2"]),
        ([server("s1", **IDLE), agent("a1", work=FILES), agent("a2")], etcd("1"), SETTLE, ["a1"]),
        ([server("s1", **IDLE), agent("a1"), agent("a2"), agent("a3")], etcd("1"), "restart", ["a1"]),
        ([server("s1", **IDLE), agent("a1", turn=DONE, ready=True), agent("a2"), agent("a3")], etcd("1"), "restart", ["a2", "a3"]),
    ],
)  # fmt: skip
def test_the_next_step(
    members: list[Member], members_of_etcd: tuple[EtcdMember, ...] | None, what: str, hosts: list[str]
) -> None:
    step = next_step(Observed(tuple(members), members_of_etcd, (1, "75%")))
    assert isinstance(step, Step), step
    assert (step.what, list(step.hosts), step.restarts) == (what, hosts, what != SETTLE)


@pytest.mark.parametrize(
    ("members", "members_of_etcd", "hosts", "passing", "says"),
    [
        ([S1, S2, S3], etcd("123", ill="23"), ["s2"], True, "waits for s3 to be ready"),
        ([S1, server("s2", **IDLE), server("s3", **IDLE)], etcd("123", ill="3"), ["s1"], True, "waits for s3"),
        ([S1, server("s2", **IDLE)], etcd("12", ill="2"), ["s1"], True, "waits for s2"),
        ([S1, server("s2", **IDLE)], etcd("12", learners="2"), ["s1"], True, "s2 to vote"),
        ([S1, *(server(f"s{n}", **IDLE) for n in "2345")], etcd("12345", ill="5"), ["s1"], True, "waits for s5"),
        ([S1], etcd("14", ill="4"), ["s1"], True, "waits for s4"),  # a member that is no host of the inventory
        ([S1, S2], None, ["s1"], True, "no server of this run can say"),
        ([Member("s1", True, answers=False), server("s2", **FRESH)], None, ["s2"], False, "s1, the first of k3s_server"),
        ([server("s1", **IDLE), agent("a1", turn=DONE), agent("a2")], None, ["a2"], True, "no server of this run can say"),
        ([S1, Member("s2", True)], None, ["s1"], True, "no server of this run can say"),
        ([server("s1", **FRESH), Member("s2", True, answers=False)], None, ["s1"], False, "s2 does not answer and may hold"),
        ([server("s1", **FRESH, work=""), server("s2", **FRESH)], None, ["s2"], False, "s1, the first of k3s_server"),
        ([server("s1", turn=FAILED), S2, agent("a1")], etcd("12"), [], False, "s1 could not be settled"),
        ([server("s1", turn=FAILED, answers=False), S2], etcd("12"), [], False, "s1 could not be settled"),
        ([server("s1", **IDLE, answers=False), agent("a1")], None, [], False, "s1, which does not answer"),
        ([server("s1", **IDLE), agent("a1", turn=FAILED), agent("a2")], etcd("1"), [], False, "a1 could not be settled"),
        ([server("s1", **IDLE), agent("a1", turn=FAILED, answers=False), agent("a2")], etcd("1"), [], False, "a1 could"),
        ([server("s1", **IDLE), agent("a1", turn=DONE, ready=False), agent("a2")], etcd("1"), ["a2"], True, "a1 to be Ready"),
    ],
)  # fmt: skip
def test_what_blocks(
    members: list[Member], members_of_etcd: tuple[EtcdMember, ...] | None, hosts: list[str], passing: bool, says: str
) -> None:
    step = next_step(Observed(tuple(members), members_of_etcd))
    assert isinstance(step, Blocked), step
    assert (list(step.hosts), step.passing) == (hosts, passing)
    assert says in step.reason


def test_nothing_is_left_where_nothing_is_to_do_or_nobody_answers() -> None:
    for members in (
        [],
        [server("s1", **IDLE)],
        [server("s1", answers=False)],
        [server("s1", turn=DONE), agent("a1", turn=FAILED)],
    ):
        assert next_step(Observed(tuple(members), None)) == Done()  # fmt: skip


def test_a_run_that_has_lost_the_lock_does_nothing_more() -> None:
    step = next_step(Observed((S1, agent("a1")), etcd("1"), lost="alice has the lock"))
    assert step == Blocked("alice has the lock", ("s1", "a1"))
    assert next_step(Observed((server("s1", turn=DONE),), etcd("1"), lost="alice has the lock")) == Done()


@pytest.mark.parametrize(
    ("sizes", "changed", "agents", "batches"),
    [
        ([1, "25%"], 9, 9, [1, 2, 2, 2, 2]),
        ([1, "25%"], 3, 100, [1, 2]),
        (["25%"], 3, 3, [1, 1, 1]),
        ([2], 5, 5, [2, 2, 1]),
        (["2"], 3, 3, [2, 1]),
        ([1, 2], 4, 4, [1, 2, 1]),
        (["100%"], 7, 7, [7]),
        ([1, 50], 7, 7, [1, 6]),
        ([1, 3, "100%"], 10, 10, [1, 3, 6]),
        ([1, "25%"], 0, 4, []),
    ],
)
def test_agents_restart_in_batches(sizes: list[int | str], changed: int, agents: int, batches: list[int]) -> None:
    others = (agent(f"a{n}", **IDLE) for n in range(changed, agents))
    members = (server("s1", **IDLE), *(agent(f"a{n}") for n in range(changed)), *others)
    steps = [s for s in rollout.foresee(Observed(members, etcd("1"), tuple(sizes))) if isinstance(s, Step)]
    assert [len(step.hosts) for step in steps] == batches
    assert [name for step in steps for name in step.hosts] == [f"a{n}" for n in range(changed)]
    assert rollout.most_steps(Observed(members, etcd("1"), tuple(sizes))) == len(batches)


@dataclass
class Node:
    """One machine of the model: K3s runs there with `version`, and `wanted` is what the run brings."""

    name: str
    server: bool
    holds: bool = False
    up: bool = False
    tries: bool = False
    version: int = 0
    breaks: bool = False
    member: bool = False
    answers: bool = True


@dataclass
class Cluster:
    """A model of a cluster: who is up, who votes. Every event is checked against what must never happen."""

    nodes: list[Node]
    planned: dict[str, bool] = field(default_factory=dict)
    """Where K3s ran when the run made its plan."""

    def voters(self) -> list[Node]:
        return [n for n in self.nodes if n.member]

    def majority(self) -> bool:
        return sum(n.up for n in self.voters()) > len(self.voters()) // 2

    def see(self, turns: dict[str, str], batches: tuple[int | str, ...] = (1, "50%")) -> Observed:
        members = tuple(
            Member(
                n.name, n.server, n.name, n.answers, n.holds, self.planned.get(n.name, n.tries or n.up),
                RESTART if n.version == 0 or not n.up or n.name in turns else "", turns.get(n.name, ""), n.up if n.member or not n.server else None,
            )
            for n in self.nodes
        )  # fmt: skip
        sees = self.majority() and any(n.up and n.answers for n in self.voters())
        return Observed(
            members, tuple(EtcdMember(n.name, n.name, True, n.up) for n in self.voters()) if sees else None, batches
        )

    def do(self, step: Step) -> dict[str, str]:
        """Take a step, and return how each host's turn ended. What breaks goes back to what it ran with."""
        chosen = [n for n in self.nodes if n.name in step.hosts]
        servers = [n for n in chosen if n.server]
        stopped = [n for n in servers if n.up]
        assert len(stopped) <= 1, step
        had = self.majority()
        for n in stopped:
            n.up = False
            others = [one for one in self.voters() if one is not n]
            assert all(one.up for one in others), (step, self.nodes)
            assert self.majority() or len(self.voters()) <= 2, (step, self.nodes)
            n.up = True
        ended = {}
        for n in chosen:
            joins = not n.holds
            first = joins and n.server and not self.voters()
            if joins and not first and not self.majority():
                ended[n.name] = FAILED  # nobody to join
                continue
            if n.breaks:
                ended[n.name] = FAILED  # a node that ran goes back, another goes on trying
                n.up = n.up and n.holds
                n.tries = True
                continue
            n.holds = n.up = n.tries = True
            n.member, n.version = n.server, 1
            ended[n.name] = DONE
        assert not had or self.majority()
        return ended


def random_cluster(seed: int) -> Cluster:
    luck = random.Random(seed)
    servers = luck.randint(1, 5)
    begun = luck.random() < 0.7
    nodes = []
    for number in range(servers):
        member = begun and (number == 0 or luck.random() < 0.8)
        up = member and luck.random() < 0.85
        nodes.append(
            Node(
                f"s{number}",
                True,
                member,
                up,
                up or (member and luck.random() < 0.5),
                luck.choice((0, 0, 1)),
                luck.random() < 0.1,
                member,
            )
        )
    for number in range(luck.randint(0, 5)):
        up = begun and luck.random() < 0.7
        nodes.append(Node(f"a{number}", False, up, up, up, luck.choice((0, 0, 1)), luck.random() < 0.1))
    for n in nodes:
        n.answers = luck.random() < 0.95
    return Cluster(nodes)


def run(cluster: Cluster, kill_after: int | None = None) -> tuple[Any, int]:
    """Step by step to the end, or to the kill; return the last answer, and how many steps were done."""
    turns: dict[str, str] = {}
    cluster.planned = {n.name: n.tries or n.up for n in cluster.nodes}
    for done in itertools.count():
        if done == kill_after:
            return None, done
        step = next_step(cluster.see(turns))
        if not isinstance(step, Step):
            return step, done
        assert done < 40, "it does not end"
        assert not {n.name for n in cluster.nodes if not n.answers} & {*step.hosts}
        turns |= cluster.do(step)
    raise AssertionError


@pytest.mark.parametrize("seed", range(300))
def test_wherever_it_is_killed_a_run_that_is_started_again_ends_the_same(seed: int) -> None:
    whole = random_cluster(seed)
    outcome, steps = run(whole)
    assert isinstance(outcome, Done | Blocked)
    for k in range(steps):
        killed = random_cluster(seed)
        assert run(killed, kill_after=k) == (None, k)
        again, _ = run(killed)
        if isinstance(outcome, Done) and not any(n.breaks for n in whole.nodes):
            assert (again, killed.nodes) == (outcome, whole.nodes)
        assert isinstance(again, Done | Blocked)


def test_the_model_reaches_both_ends_and_meets_what_it_is_for() -> None:
    """Else the runs above would show nothing."""
    ends = {type(run(random_cluster(seed))[0]) for seed in range(300)}
    assert ends == {Done, Blocked}
    assert sum(run(random_cluster(seed))[1] for seed in range(300)) > 600


def test_what_is_foreseen_is_what_is_done_where_all_goes_well() -> None:
    for seed in range(300):
        cluster = random_cluster(seed)
        cluster.nodes = [replace(n, breaks=False) for n in cluster.nodes]
        foreseen = [s for s in rollout.foresee(cluster.see({})) if isinstance(s, Step)]
        if cluster.majority() or not cluster.voters():
            _, steps = run(cluster)
            assert len(foreseen) == steps, (seed, foreseen)
