"""Controller side of bills of materials and advisories: hand over what a host says beside the results of Ansible."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

PROJECT = Path(__file__).resolve().parents[4]
for folder in (PROJECT, PROJECT / "src"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from casemate.run import handed


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs `k3s_components` on the host."""

    _supports_check_mode = True
    _VALID_ARGS: frozenset[str] = frozenset()

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result, in which `gathered` is what `handed` takes.

        Beside what the host says it has, under `asked`, what its inputs ask about advisories.
        """
        super().run(tmp, task_vars)
        result = dict(self._execute_module(module_name="k3s_components", module_args={}, task_vars=task_vars))
        if "gathered" in result:
            asked = self._templar.template((task_vars or {}).get("__casemate_advisories"))
            plain = json.loads(json.dumps(asked, default=str))  # a day that somebody wrote without quotes is no text
            result["gathered"] = handed.over(
                [{**told, "asked": plain} for told in handed.lines(str(result["gathered"]), Path())]
            )
        return result
