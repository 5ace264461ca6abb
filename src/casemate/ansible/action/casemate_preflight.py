"""Refuse a host before the first change: all its problems at once, input before any connection is made."""

from __future__ import annotations

import re
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

from casemate import preflight

SUDO = "sudo refuses this account: give it NOPASSWD sudo here, or set ansible_become_password from a vault"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Judges one host. Fails with the list of problems, or returns `casemate_host` and `warnings`."""

    _supports_check_mode = True
    _VALID_ARGS: frozenset[str] = frozenset()

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check input, inventory and lock; then probe the host with one command and judge what it says."""
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        values, problems = self._inputs(task_vars)
        known = preflight.known_inputs()
        problems += preflight.input_problems(values, known)
        problems += preflight.rule_problems(values, preflight.known_controls())
        problems += preflight.inventory_problems(task_vars["inventory_hostname"], task_vars.get("groups") or {})
        problems = problems or preflight.lock_problems(values)
        if problems:
            return self._refusal(problems)
        seen = self._probe(str(task_vars.get("ansible_python_interpreter") or ""))
        problems, warnings = preflight.host_problems(seen, values.get("casemate_admin_sources") or [])
        problems += preflight.lock_problems(values, seen["machine"]) if not problems else []
        if problems:
            return self._refusal(problems)
        facts = {"os": seen["os"], "arch": seen["machine"]}
        return {"changed": False, "casemate_host": facts, "warnings": warnings}

    def _inputs(self, task_vars: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The variables with our prefixes, resolved, and those that cannot be."""
        values: dict[str, Any] = {}
        problems: list[str] = []
        for name in sorted(name for name in task_vars if name.startswith(preflight.PREFIXES)):
            try:
                values[name] = self._templar.template(task_vars[name])
            except AnsibleError as broken:
                values[name] = None
                why = "its value is a secret" if preflight.SECRET.search(name) else str(broken).splitlines()[0]
                problems.append(f"{name} cannot be resolved ({why}): correct it in the inventory")
        return values, problems

    def _probe(self, python: str) -> dict[str, str]:
        """What the host says; raises when it cannot be reached or sudo refuses."""
        script = preflight.probe(python)
        try:
            done = self._low_level_execute_command(f"sh -c {shlex.quote(script)}", sudoable=True)
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as refused:
            raise AnsibleError(SUDO if "password" in str(refused) else str(refused)) from refused
        seen = preflight.parse_probe(done.get("stdout", ""))
        said = f"{done.get('stderr', '')}\n{done.get('stdout', '')}"
        if "uid" not in seen and re.search("sudo|password|privilege", said):
            raise AnsibleError(SUDO)
        if "machine" not in seen:
            raise AnsibleError(f"The host did not answer the probe (rc {done.get('rc')}): {said.strip()[-300:]}")
        return seen

    def _refusal(self, problems: list[str]) -> dict[str, Any]:
        return {
            "failed": True,
            "changed": False,
            "msg": "Nothing was changed.\n" + "\n".join(f"- {p}" for p in problems),
        }
