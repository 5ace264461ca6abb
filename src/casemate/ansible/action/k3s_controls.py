"""Controller side of the engine: choose what applies to a host, run one pass there, judge from here what is seen
from here, and merge.

A port that is probed from the host itself passes by loopback and proves nothing, so controls with
`vantage: controller` are judged in this process, by the same kinds.
"""

from __future__ import annotations

import concurrent.futures
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

PROJECT = Path(__file__).resolve().parents[4]
if str(PROJECT) not in sys.path:
    sys.path.insert(0, str(PROJECT))

from module_utils.casemate.base import Host
from module_utils.casemate.control import ControlError
from module_utils.casemate.engine import run

LEVELS = {"baseline": ("baseline",), "strict": ("baseline", "strict")}


def applies(raw: dict[str, Any], groups: list[str], first_server: bool, level: str) -> bool:
    """Whether a control is for a host of these inventory groups at this level (pure)."""
    scopes = {"node"}
    scopes.update({"server"} if "k3s_server" in groups else {"agent"} if "k3s_agent" in groups else set())
    scopes.update({"cluster"} if first_server else set())
    return raw.get("level") in LEVELS[level] and bool(scopes & set(raw.get("applies_to") or ()))


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs `k3s_controls` on the host and the controller's share of it here."""

    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result with the findings of both vantages, in catalogue order."""
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        given = dict(self._task.args)
        servers = task_vars.get("groups", {}).get("k3s_server") or []
        first = bool(servers) and servers[0] == task_vars["inventory_hostname"]
        level = given.pop("level", None) or "baseline"
        if level not in LEVELS:
            raise AnsibleActionFail(f"casemate_level is {level!r}; allowed: {', '.join(LEVELS)}")
        there: dict[str, list[Any]] = {}
        here: dict[str, list[Any]] = {}
        for role, raws in (given.get("controls") or {}).items():
            for raw in raws:
                if applies(raw, task_vars.get("group_names", []), first, level):
                    (here if raw.get("vantage") == "controller" else there).setdefault(role, []).append(raw)
        given["controls"] = there
        waivers, context = given.get("waivers"), given.get("context") or {}
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
            # A port that is shut is known by silence: the waiting passes while the host works.
            seen = pool.submit(run, here, Host(context=context), True, waivers)
            result: dict[str, Any] = self._execute_module(
                module_name="k3s_controls", module_args=given, task_vars=task_vars
            )
        if result.get("failed") or result.get("unreachable"):
            return result
        try:
            result["findings"] += seen.result().findings
        except ControlError as refused:
            raise AnsibleActionFail(f"The controls are malformed: {refused}") from refused
        ids = (raw["id"] for raws in (self._task.args.get("controls") or {}).values() for raw in raws)
        order = {cid: place for place, cid in enumerate(ids)}
        result["findings"].sort(key=lambda made: order[made["control"]])
        return result
