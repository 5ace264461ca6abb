"""Fail a host at the end of a run with what stopped it earlier, so that one host's failure ends nobody else's run."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """Returns a failure that is `repeated`: whoever listens has heard it where it happened."""

    _supports_check_mode = True
    _VALID_ARGS = frozenset({"stopped"})

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """`stopped` says in which play of the run, and what was said there."""
        super().run(tmp, task_vars)
        stopped = self._task.args["stopped"]
        return {"failed": True, "changed": False, "repeated": True, "msg": f"{stopped['play']}: {stopped['said']}"}
