"""Controller side of the lock: who this run is, and which runs of this machine are over."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

PROJECT = Path(__file__).resolve().parents[4]
for folder in (PROJECT, PROJECT / "src"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from casemate.run import this_run


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs `k3s_lock` on the host for this run. Another run of this machine is no obstacle once its process is gone."""

    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        super().run(tmp, task_vars)
        given = dict(self._task.args)
        given["holder"] = this_run.holder(this_run.process(), str(given.pop("what", "apply")))
        return this_run.answer(self, "k3s_lock", given, task_vars)
