"""Controller side of the rollout: what this run knows of each member, for the decision on one of the servers."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

PROJECT = Path(__file__).resolve().parents[4]
for folder in (PROJECT, PROJECT / "src"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from casemate.run import this_run
from module_utils.casemate.k3s.members import one_spelling
from module_utils.casemate.operations import rollout

ROLES = {"k3s_node", "k3s_control_plane"}
"""Roles whose settings K3s runs with; k3s_node settles both."""
DIES = "CASEMATE_DIES_AFTER_STEPS"
"""For tests: the run is killed once it has done so many steps."""


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs `k3s_step` on a server with what the plan and this run's turns tell of every member.

    With `most: true` it connects to nothing, and returns `most`: how many steps there may be at most. `done` is how
    many were done so far. With `again: true` it asks for this host alone whether its restart, which was decided
    already, still costs nobody anything, and fails where it does.
    """

    _supports_check_mode = True
    _VALID_ARGS = frozenset({"most", "done", "again", "api", "seconds", "batches", "foresee", "patience"})

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        given = dict(self._task.args)
        members, batches = self.members(task_vars), as_list(given.pop("batches", 1))
        again, name = given.pop("again", False), task_vars.get("inventory_hostname", "")
        members = alone(members, name) if again else members
        if given.pop("most", False):
            seen = rollout.observed(members, [], batches)
            return {"changed": False, "most": rollout.most_steps(seen)}
        if not again and os.environ.get(DIES) == str(given.pop("done", 0)):
            os.kill(this_run.process(), signal.SIGKILL)
            while this_run.process():  # until it says that the run has ended
                time.sleep(0.01)
        given |= {"members": members, "batches": batches, "holder": this_run.holder(this_run.process(), "apply")}
        result = self.ask(given, task_vars)
        if again and name not in result.get("step", {}).get("hosts", ()):
            result |= {"failed": True, "msg": result.get("step", {}).get("reason") or result.get("msg", "")}
        return result

    def ask(self, given: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """What the server says."""
        return this_run.answer(self, "k3s_step", given, task_vars)

    def members(self, task_vars: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Each host of the inventory, servers first."""
        groups, every = task_vars["groups"], task_vars["hostvars"]
        asked, here = set(task_vars["ansible_play_hosts_all"]), set(task_vars["ansible_play_hosts"])
        servers = groups.get("k3s_server") or []
        return [
            member(name, name in servers, every[name], name in asked, name in here)
            for name in [*servers, *(groups.get("k3s_agent") or [])]
        ]


def member(name: str, server: bool, known: Mapping[str, Any], asked: bool, here: bool) -> dict[str, Any]:
    """What is known of one host; of one that the run leaves out, where it is."""
    address = one_spelling(str(known.get("k3s_node_ip", known.get("ansible_host", name))).partition(",")[0])
    place: dict[str, Any] = {"name": name, "server": server, "address": address, "answers": here or not asked}
    plan = known.get("__casemate_plan")
    if not plan or "roles_to_apply" not in plan:
        return place
    stopped, turn = known.get("__casemate_stopped"), known.get("__casemate_turn", "")
    settles = bool(ROLES & set(plan["roles_to_apply"])) or bool(plan.get("change"))
    work = (rollout.RESTART if plan.get("restarts") or plan.get("change") else rollout.FILES) if settles else ""
    if stopped and not turn:  # its system could not be settled, so its K3s is left alone
        work = ""
    ended = rollout.FAILED if stopped or (turn and not here) else rollout.DONE
    holds = (known.get("__casemate_seen") or {}).get("casemate_host", {}).get("etcd", plan["runs_k3s"])
    return {
        **place,
        "holds": bool(holds) or turn == rollout.DONE,
        "runs": bool(plan["runs_k3s"]),
        "work": work,
        "turn": ended if turn else "",
    }


def alone(members: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The members as they are when a restart of one of them is all that is to do, and its turn has not begun."""
    own = {"work": rollout.RESTART, "turn": ""}
    return [{**one, **(own if one["name"] == name else {"work": ""})} for one in members]


def as_list(batches: Any) -> list[Any]:
    """One number or share, or a list of them, as a list."""
    return list(batches) if isinstance(batches, list) else [batches]
