"""Refuse a host before the first change: all its problems at once, input before any connection is made."""

from __future__ import annotations

import base64
import contextlib
import shlex
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

PROJECT = Path(__file__).resolve().parents[4]
for folder in (PROJECT, PROJECT / "src"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from casemate.catalogue import declarations
from casemate.preflight import (
    address_families,
    advisories,
    birth,
    combinations,
    entrance,
    host_facts,
    inputs,
    neighbours,
    people,
)
from casemate.preflight import k3s_values as k3s_rules
from casemate.run import account, escalation, vaulted, waivers, workers
from casemate.supply import image_list, registries, scan_gate
from casemate.supply.artifact_lock import LockError
from module_utils.casemate.core import waiver

KNOWN = inputs.known_inputs()  # read once: Ansible imports this file before it forks a worker for each host
with contextlib.suppress(LockError, ImportError):  # what is wrong is said where a host is judged
    host_facts.version({})  # the project's own lock, and what validates any
k3s_rules.kubelet()
RESOLVERS = declarations.variables()[1]["__k3s_node_usual_resolvers"]
workers.spare()


class ActionModule(ActionBase):  # type: ignore[misc]
    """Judges one host. Fails with the list of problems, or returns `casemate_host`, `account` and `warnings`.

    With `host: false` it judges the input alone and connects to nothing. With `compare: true` it compares what it
    returned for each host (`__casemate_seen`), and connects to nothing either; `accepted` is then what
    `ansible.builtin.slurp` returned for each server that this run leaves out, of the lock that it accepted.
    """

    _supports_check_mode = True
    _VALID_ARGS = frozenset({"host", "compare", "accepted"})

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check input, inventory and lock; then probe the host with one command and judge what it says."""
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        if self._task.args.get("compare"):
            return self._compare(task_vars)
        values, failed = self._inputs(task_vars)
        resolved = {name: value for name, value in values.items() if name not in failed}
        known = vaulted.veiled(KNOWN, resolved, task_vars)
        problems = inputs.input_problems(values, known, failed) + [
            wrong for name in waivers.EVERY for wrong in self._added_up(name, task_vars, values)
        ]
        right = {n: v for n, v in values.items() if n in KNOWN and not inputs.value_problems(n, v, KNOWN[n])}
        servers = (task_vars.get("groups") or {}).get("k3s_server") or []
        mine = self._place(task_vars, task_vars["inventory_hostname"])[0]
        first = self._place(task_vars, servers[0])[0] if servers else mine
        problems += combinations.rule_problems(right, first) or address_families.problems(right, mine, first)
        warnings = address_families.warnings(right, mine, first)
        problems += self._escalation(task_vars)
        problems += combinations.dropin_problems(right)
        automation = account.automation(self, task_vars)
        waived = list(values.get("casemate_waivers") or {})
        problems += people.problems(right, automation, waived)
        is_first = task_vars["inventory_hostname"] == (task_vars.get("ansible_play_hosts_all") or [""])[0]
        if is_first:
            wrong, more = combinations.inventory_problems(task_vars.get("groups") or {}, self._nodes(task_vars))
            warnings += more
            problems += wrong + birth.agreement_problems(*self._shared(task_vars))
        today = waiver.today_in_utc()
        problems = problems or host_facts.lock_problems(values)
        if is_first and not problems:
            problems = advisories.data_problems(right)  # the same for all, as a rule, and large
            warnings += host_facts.lock_warnings(values, today)
        version = str(right.get("casemate_k3s_version", "")) if problems else host_facts.version(values)
        node = "server" if "k3s_server" in task_vars.get("group_names", ()) else "agent"
        problems += combinations.option_problems(right, node, version)
        if self._task.args.get("host") is not False and not self._task.check_mode:
            problems += neighbours.connection_problems(self._connection.transport)
        changes, today = self._task.args.get("host") is not False, waiver.today_in_utc()
        problems += image_list.problems(right, today, changes) + registries.problems(right) + scan_gate.problems(right)
        if problems:
            return self._refusal(problems)
        if self._task.args.get("host") is False:
            return {"changed": False, "account": automation, "warnings": warnings}
        given = right.get("k3s_node_resolv_conf", "auto")
        files = RESOLVERS if given == "auto" else [given]
        python = str(task_vars.get("ansible_python_interpreter") or "")
        ours = entrance.planned(automation, right, waived)
        over, gated = host_facts.lock_over(values, today), bool(advisories.asked(right).data)
        names = [str(one["name"]) for one in right.get(people.VARIABLE) or []]
        asked = (python, k3s_rules.named_files(right), files, automation, ours, bool(over) or gated, names)
        seen = self._probe(host_facts.script(*asked))
        sources = values.get("casemate_admin_sources") or []
        problems, more = host_facts.host_problems(seen, sources, host_facts.room(values, seen))
        connected = self._templar.template(task_vars.get("ansible_port", 22))
        problems += host_facts.port_problems(seen, right, connected, waived)
        root = host_facts.ROOT_LOGIN in waived
        allowed = [*(values.get("k3s_access_allow_users") or []), *people.admitted(right.get(people.VARIABLE) or [])]
        problems += host_facts.login_problems(seen.get("login", ""), automation, allowed, root)
        problems += people.login_problems(right, seen.get("login", ""), automation)
        told = host_facts.answer_of("logins", seen)
        problems += entrance.problems(told)
        problems += people.host_problems(right, host_facts.answer_of("people", seen), automation)
        more += people.host_warnings(right, told.get("accepted") or {})
        running, address = host_facts.answer_of("host", seen), mine
        problems += k3s_rules.room_problems(running)
        problems += k3s_rules.host_problems(right, running, address)
        problems += birth.birth_problems(right, running, node, address)
        if servers[:1] == [task_vars["inventory_hostname"]]:
            problems += birth.encryption_problems(right, running, servers)
            more += birth.birth_warnings(right, running)
        conflicts = host_facts.answer_of("conflicts", seen)
        problems += neighbours.problems(
            conflicts, node, files, waived, stops=right.get("casemate_other_firewalls") == "stop"
        )
        problems += host_facts.accepted_problems(values, seen.get("accepted", ""))
        problems += image_list.accepted_problems(right, running.get("image_list"))
        problems += scan_gate.platform_problems(right, seen.get("machine", ""))
        problems = problems or host_facts.over_problems(values, seen, over)
        problems = problems or host_facts.folder_problems(values, seen["machine"])
        if not host_facts.brings_images(values, seen["machine"]):
            problems += image_list.pause_problems(right, today) + registries.own_images_problems(right)
        if gated and not problems:
            problems, of_gate = advisories.gate(right, seen["machine"], seen.get("k3s_sha256", "")[:64])
            more += of_gate
        if problems:
            return self._refusal(problems)
        facts = {"os": seen["os"], "arch": seen["machine"], "etcd": bool(running.get("etcd"))}
        named = (right.get("k3s_node_config") or {}).get("node-name") or running.get("hostname") or ""
        machine = {"node": str(named).lower(), "machine": conflicts.get("machine", ""), "key": conflicts.get("key", "")}
        seen_there = {"casemate_host": facts, "casemate_machine": machine}
        return {"changed": False, "account": automation, **seen_there, "warnings": warnings + more}

    def _compare(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Judge the hosts of this run against each other."""
        seen = {name: task_vars["hostvars"][name].get("__casemate_seen") for name in task_vars["ansible_play_hosts"]}
        machines = {name: one["casemate_machine"] for name, one in seen.items() if one and "casemate_machine" in one}
        problems, warnings = neighbours.twins(machines)
        problems += self._left_out(task_vars)
        return self._refusal(problems) if problems else {"changed": False, "warnings": warnings}

    def _left_out(self, task_vars: dict[str, Any]) -> list[str]:
        """Why servers that this run leaves out refuse the lock; those that do not answer, or keep none, do not."""
        values, _ = self._inputs(task_vars)
        problems = []
        for kept in self._task.args.get("accepted") or ():
            if content := kept.get("content"):
                record = base64.b64decode(content).decode(errors="replace")
                problems += host_facts.accepted_problems(values, record, kept.get("item", ""))
        return problems

    def _added_up(self, variable: str, task_vars: dict[str, Any], values: dict[str, Any]) -> list[str]:
        """What is wrong with the waivers of any group; from then on those that hold stand for the host's own."""
        spec, found, every = KNOWN[variable], [], []
        for words, raw in waivers.places(task_vars, variable):
            name = f"{variable} of {words}"
            try:
                value = self._templar.template(raw)
            except AnsibleError as broken:
                found.append(f"{name} fails: {str(broken).strip().splitlines()[0]}. {inputs.FIX}")
                continue
            every.append(value)
            if value != values.get(variable):  # which is judged by its own name
                found += inputs.value_problems(name, value, spec)
        if not found and not inputs.value_problems(variable, values.get(variable) or {}, spec):
            values[variable] = waiver.holding(waiver.added_up(every), waiver.today_in_utc())
        return found

    def _inputs(self, task_vars: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """The variables with our prefixes, resolved; those whose expression fails as they are, and why it does."""
        values: dict[str, Any] = {n: v for n, v in task_vars.items() if n.startswith(inputs.PREFIXES)}
        failed: dict[str, str] = {}
        for name in values.keys() & KNOWN.keys():
            try:
                values[name] = self._templar.template(values[name])
            except AnsibleError as broken:
                failed[name] = str(broken)
        return values, failed

    def _nodes(self, task_vars: dict[str, Any]) -> dict[str, tuple[str, str]]:
        """Node -> (its address in the cluster, where Ansible connects to), as far as they can be resolved."""
        groups, nodes = task_vars.get("groups") or {}, {}
        for name in [*groups.get("k3s_server", ()), *groups.get("k3s_agent", ())]:
            place = self._place(task_vars, name)
            if place[0]:
                nodes[name] = place
        return nodes

    def _place(self, task_vars: dict[str, Any], name: str) -> tuple[str, str]:
        """A node's address (or two) in the cluster, and where Ansible connects to; empty where they do not resolve."""
        theirs = task_vars["hostvars"][name]
        with contextlib.suppress(AnsibleError):
            there = theirs.get("ansible_host", name)
            return str(theirs.get("k3s_node_ip", there)), f"{there}:{theirs.get('ansible_port', 22)}"
        return "", ""

    def _shared(self, task_vars: dict[str, Any]) -> list[dict[str, dict[str, Any]]]:
        """For servers and for agents: host -> the variables that all of them have to agree on, where they resolve."""
        groups, shared = task_vars.get("groups") or {}, []
        for group in ("k3s_server", "k3s_agent"):
            nodes: dict[str, dict[str, Any]] = {}
            for name in groups.get(group, ()):
                with contextlib.suppress(AnsibleError):
                    theirs = task_vars["hostvars"][name]
                    nodes[name] = {one: theirs[one] for one in birth.VARIABLES if one in theirs}
            shared.append(nodes)
        return shared

    def _probe(self, script: str) -> dict[str, str]:
        """What the host says; raises when it cannot be reached or sudo refuses."""
        try:
            done = self._low_level_execute_command(f"sh -c {shlex.quote(script)}", sudoable=True)
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as refused:
            said, of_sudo = str(refused), escalation.OF_SUDO.search(str(refused))
            raise AnsibleError(escalation.refusal(said, self._has_password()) if of_sudo else said) from None
        seen = host_facts.parse(done.get("stdout", ""))
        said = f"{done.get('stderr', '')}\n{done.get('stdout', '')}"
        if "machine" not in seen:
            raise AnsibleError(escalation.unanswered(said, done.get("rc"), self._has_password()))
        return seen

    def _escalation(self, task_vars: dict[str, Any]) -> list[str]:
        """What is wrong with how this host's root is reached."""
        become = self._templar.template(task_vars.get("ansible_become"))
        asked = self._play_context
        # Who logs in counts where nobody becomes root; ssh is asked for each host.
        login = account.connecting(self._connection, asked.remote_user) if escalation.off(become) else ""
        return escalation.problems(become, str(asked.become_method or "sudo"), str(asked.become_user or "root"), login)

    def _has_password(self) -> bool:
        become = getattr(self._connection, "become", None)
        return bool(become and become.get_option("become_pass", playcontext=self._play_context))

    def _refusal(self, problems: list[str]) -> dict[str, Any]:
        return {
            "failed": True,
            "changed": False,
            "explained": True,  # each problem says what to do: no advice from its words
            "msg": "Nothing was changed.\n" + "\n".join(f"- {p}" for p in problems),
        }
