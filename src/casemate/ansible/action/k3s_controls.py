"""Controller side of the engine: choose and resolve what applies to a host, run one pass there, judge from here what
is seen from here, and merge.

A port that is probed from the host itself passes by loopback and proves nothing, so controls with
`vantage: controller` are judged in this process, by the same kinds.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

PROJECT = Path(__file__).resolve().parents[4]
for folder in (PROJECT, PROJECT / "src"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from casemate import ROOT
from casemate.catalogue import declarations
from casemate.preflight.people import VARIABLE, admitted
from casemate.run import (
    account,
    advised,
    built,
    compiled,
    for_all_hosts,
    handed,
    known_hosts,
    people,
    refusals,
    workers,
)
from casemate.supply import registries
from module_utils.casemate.core import waiver
from module_utils.casemate.core.flow import quoted
from module_utils.casemate.core.legible import public
from module_utils.casemate.core.schema import ControlError
from module_utils.casemate.engine.control import VANTAGES
from module_utils.casemate.engine.run import run
from module_utils.casemate.formats.authorized_keys import Unfit
from module_utils.casemate.host import guard
from module_utils.casemate.host.machine import Host
from module_utils.casemate.k3s import image_verifier
from module_utils.casemate.kinds import KINDS, written

# Ansible imports this file once, before it forks a worker for each host: what is read here is read once.
DEFAULTS, INTERNALS = (declarations.each(values, trust_as_template) for values in declarations.variables())
compiled.prepare()
CONTROLS = for_all_hosts.prepare(declarations.controls(), *declarations.variables())
built.take()
workers.spare()
OF_ROLES = DEFAULTS.keys() | INTERNALS.keys()
TASK_KINDS = [name for name, kind in KINDS.items() if kind.enforced_by == "task"]
SETTINGS = {
    "level": "__casemate_level",
    "waivers": "__casemate_waivers",
    "context": "__casemate_context",
    "scan": "__casemate_scan",
    "evict": "__casemate_evict",
}
"""Options that are the same for every task of a run, and the variables that hold them."""
SHARED = ("__casemate_lock", "__casemate_k3s_version", *SETTINGS.values(), "__k3s_node_type", "__k3s_firewall_sources")
"""What many templates use, in the order in which it builds on itself: templated once where nothing else lasts."""


VERIFIER = image_verifier.HEAD + Path(image_verifier.__file__).read_text(encoding="utf-8")
"""The program that containerd asks before each pull, as it lies on hosts."""
READ_AT_START = ("k3s_node", "k3s_control_plane")
"""Roles whose settings K3s reads when it starts."""
K3S_UNITS = {"k3s.service", "k3s-agent.service"}
ASKED = "__casemate_asked_files"
"""Variable that holds the files of Casemate's own that controls of a host, or the guard, ask for."""


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs `k3s_controls` on the host and the controller's share of it here.

    Beyond the options of the module: `roles` (whose controls; default: of all), `kinds` (only these kinds),
    `explain` (only return the resolved controls; the host is not contacted), `level`, `evict` (controls whose kind
    removes what fails only where the operator names them), `as_text` (hand the findings over beside the result, or as
    one text of JSON: Ansible walks through every value of a structure wherever it takes it). What is never shown is
    shown by `explain` with `__casemate_openly` alone, for the flips of the tests, which have to know what to undo.
    """

    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result with the findings of both vantages, in catalogue order.

        Added to it are `account` (whom Casemate logs in as), `ssh_arguments` (by which ssh accepts a host key that it
        does not know, see known_hosts.py), `accepted` (reason codes that the operator accepts) and `todo`: for each
        control that a task would act on, its id, role, setting, and on what of the observed it would.
        `restarts` is whether K3s may have to be restarted for what apply would change.
        """
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        # Controls are judged outside of any role, too: `__casemate_roles` is the folder of all of them.
        known = {
            **DEFAULTS,
            **INTERNALS,
            "__casemate_roles": str(ROOT / "roles"),
            "__casemate_image_verifier": VERIFIER,
            **task_vars,
        }
        templar = self._templar.copy_with_new_env(available_variables=known)
        compiled.remember(templar)
        lasts = compiled.lasting(templar, known)
        known = templar.available_variables
        for name in SETTINGS.values() if lasts or "controls" in self._task.args else SHARED:
            if name in known:
                known[name] = templar.template(known[name])
        known[account.NAME] = account.automation(self, known)
        declared = templar.template(known.get(VARIABLE)) or []
        try:
            known[people.NAME] = people.resolved(declared, known[account.NAME])
        except (KeyError, TypeError, ValueError, Unfit) as wrong:
            # Preflight says it better, before any host is touched.
            raise AnsibleActionFail(f"{VARIABLE} is malformed: {wrong}") from wrong
        try:
            listed, config = (templar.template(known.get(one)) for one in (registries.VARIABLE, "k3s_node_config"))
            known[registries.NAME] = registries.resolved(listed, config)
        except (KeyError, TypeError, registries.RegistryError) as wrong:
            raise AnsibleActionFail(f"{registries.VARIABLE} is malformed: {wrong}") from wrong
        given = {name: known[var] for name, var in SETTINGS.items() if var in known}
        given.update(self._task.args)
        level = given.pop("level", None) or "baseline"
        if level not in declarations.LEVELS:
            raise AnsibleActionFail(f"casemate_level is {quoted(level)}; allowed: {', '.join(declarations.LEVELS)}")
        servers = task_vars.get("groups", {}).get("k3s_server") or []
        scope = declarations.scopes(task_vars.get("group_names", ()), servers[:1] == [task_vars["inventory_hostname"]])
        every = declared_for(task_vars)
        raws = given.pop("controls", None) or {
            role: task_vars.get(f"__{role}_controls", every[role]) for role in given.pop("roles", declarations.ROLES)
        }
        kinds, as_text = given.pop("kinds", None), given.pop("as_text", False)
        evicted = given.pop("evict", None) or ()
        chosen = {
            role: [
                c
                for c in controls
                if declarations.applies(c, scope, level) and (not kinds or c["setting"]["kind"] in kinds)
            ]
            for role, controls in raws.items()
        }
        # Many controls hold the same expression: the address of the host, the modes of the role's files.
        template = functools.cache(lambda text: templar.template(trust_as_template(text)))
        # Of all roles, whichever are applied now: what another role of this host asks for is not left over.
        asked = {
            written(c["setting"])
            for controls in [*every.values(), *raws.values()]
            for c in controls
            if declarations.applies(c, scope, level)
        }
        paths = (declarations.each(path, template) for path in asked if path)
        known[ASKED] = sorted({*guard.OWNED, *filter(None, paths)})

        def resolved(*vantages: str) -> dict[str, Any]:
            return {
                role: [
                    named(c if isinstance(c, for_all_hosts.Whole) else declarations.each(c, template), evicted)
                    for c in controls
                    if c.get("vantage", "self") in vantages
                ]
                for role, controls in chosen.items()
            }

        elsewhere = [vantage for vantage in VANTAGES if vantage != "controller"]
        if given.pop("explain", False):
            explained = resolved(*VANTAGES)
            if not known.get("__casemate_openly"):
                explained = {
                    role: [{**control, "setting": public(control["setting"])} for control in controls]
                    for role, controls in explained.items()
                }
            return {"changed": False, "controls": explained, "waivers": given.get("waivers")}
        listed = [*templar.template(known["k3s_access_allow_users"]), *admitted(declared)]
        context = {**(given.get("context") or {}), "account": known[account.NAME], "people": listed}
        context["today"] = waiver.today_in_utc().isoformat()
        from_here = resolved("controller")
        of_what_it_is_made = parted(from_here)
        context["tells_components"] = any(of_what_it_is_made.values())
        given["context"], waivers = context, given.get("waivers")
        with ThreadPoolExecutor(max_workers=1) as pool:
            # A port that is shut is known by silence: the waiting passes while the host works.
            controller = Host(context=context)
            seen = pool.submit(run, from_here, controller, True, waivers, from_outside=True)
            there = resolved(*elsewhere)
            given["controls"] = for_all_hosts.as_text(there)
            result: dict[str, Any] = self._execute_module(
                module_name="k3s_controls", module_args=given, task_vars=task_vars
            )
        built.keep()
        if result.get("failed") or result.get("unreachable"):
            return result
        try:
            result["findings"] = json.loads(result["findings"]) + seen.result().findings
            told = result.pop("components", "")
            known_of = advised.found(told, templar.template(known["__casemate_advisories"])) if told else {}
            beside = Host(context={**context, "advisories": known_of})
            result["findings"] += run(of_what_it_is_made, beside, True, waivers, from_outside=True).findings
        except ControlError as refused:
            raise AnsibleActionFail(f"The controls are malformed: {refused}") from refused
        settings = {
            c["id"]: {"role": role, "setting": c["setting"]} for role, controls in there.items() for c in controls
        }
        order = {c["id"]: place for place, c in enumerate(c for controls in chosen.values() for c in controls)}
        result["findings"].sort(key=lambda made: order[made["control"]])
        by_task = {cid: one["setting"] for cid, one in settings.items() if one["setting"]["kind"] in TASK_KINDS}
        judged = [made for made in result["findings"] if made["control"] in by_task]
        refusing = {**(task_vars.get("__k3s_host_refused") or {}), **(task_vars.get("__k3s_access_refused") or {})}
        refusals.tell(judged, by_task, refusing)
        result["account"] = known[account.NAME]
        asked_of_ssh = account.asked_of_ssh(self._connection, None) if result.get("host_keys") else {}
        unknown = known_hosts.unknown(asked_of_ssh, result.get("host_keys") or ())
        result["ssh_arguments"] = unknown.arguments if unknown else ""
        if unknown:
            said = f"{task_vars['inventory_hostname']} now proves itself by a key that this controller does not know. "
            said += f"This run goes on; before the next one add this line to {unknown.file}: {unknown.line}"
            result["warnings"] = [*(result.get("warnings") or ()), said]
        result["restarts"] = may_restart(result, settings)
        result["accepted"] = list(context.get("accepted") or ())
        result["todo"] = [
            {"control": made["control"], **settings[made["control"]], "observed": result["todo"][made["control"]]}
            for made in result["findings"]
            if made["control"] in result["todo"] and settings[made["control"]]["setting"]["kind"] in TASK_KINDS
        ]
        if as_text:
            result["findings"] = handed.over(result["findings"])
        return result


def declared_for(variables: Mapping[str, Any]) -> dict[str, list[declarations.Raw]]:
    """Role -> its controls, as far as they are rendered already for a host whose tasks have these variables."""
    own = OF_ROLES & variables.keys()
    return {role: [one.of(own) for one in controls] for role, controls in CONTROLS.items()}


def parted(controls: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Role -> those that are judged by what the host is made of, which are no more among the given ones."""

    def waits(control: dict[str, Any]) -> bool:
        kind = KINDS.get(str(control["setting"].get("kind")))
        return kind is not None and kind.made_of(control["setting"])

    taken = {role: [control for control in every if waits(control)] for role, every in controls.items()}
    for role, every in controls.items():
        controls[role] = [control for control in every if not waits(control)]
    return taken


def named(control: dict[str, Any], evicted: Collection[str]) -> dict[str, Any]:
    """A control as apply takes it: where its kind waits to be told so, it is enforced once the operator names it."""
    kind = KINDS.get(str(control["setting"].get("kind")))
    if control["id"] not in evicted or kind is None or not kind.evicts:
        return control
    return {**control, "setting": {**control["setting"], "enforced": True}}


def may_restart(result: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether K3s may have to be restarted for what apply would change: all but modes, owners, folders and notes may.

    What an operator has removed restarts nothing: K3s sees that it is gone, or has it until it starts again.
    """
    changed = [
        settings[m["control"]] for m in result["findings"] if m["action"] == "would_change" and m["control"] in settings
    ]
    return bool(K3S_UNITS & set(result["stale"])) or any(
        one["role"] in READ_AT_START
        and not (KINDS[one["setting"]["kind"]].evicts or KINDS[one["setting"]["kind"]].is_note)
        and not (one["setting"]["kind"] in ("file", "folder") and not {"content", "unit"} & one["setting"].keys())
        for one in changed
    )
