"""Controller side of an installation: ask once which files differ, and bring only those."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

PROJECT = Path(__file__).resolve().parents[4]
for folder in (PROJECT, PROJECT / "src"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from casemate.run import escalation

MARK = "casemate:"
LOOK = f"""printf '{MARK}%s\\n' "$(uname -m)"
for f in "$@"; do [ -L "$f" ] || [ ! -f "$f" ] || sha256sum -- "$f" | sed 's/^/{MARK}/'; done 2>/dev/null; true"""


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs `k3s_artifact` for each file that is not as the lock demands.

    Beyond the options of the module: `files`, a list of its options `name`, `sha256`, `dest`, `permissions` and
    `previous`, each with the `machine` type that it is for, and whether it is `optional`: left out without a digest;
    and `directory`, a folder on the controller, laid out like a release, whose files are brought to the host.
    """

    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `changed` and a diff for each file; the first refusal ends it."""
        super().run(tmp, task_vars)
        given = dict(self._task.args)
        files = given.pop("files", None)
        if files is None:
            plain: dict[str, Any] = self._execute_module(module_args=given, task_vars=task_vars)
            return plain
        folder = given.pop("directory", "")
        machine, have = self._look(sorted({file["dest"] for file in files}))
        ours = [file for file in files if file.pop("machine") == machine]
        if not ours:
            raise AnsibleActionFail(f"K3s is not released for machines of type {machine or 'unknown'}")
        result: dict[str, Any] = {"changed": False, "diff": []}
        for file in ours:
            if file.pop("optional", False) and not file["sha256"]:
                continue
            if have.get(file["dest"]) == file["sha256"]:
                continue
            if folder and not self._task.check_mode:
                file["src"] = self._bring(os.path.join(os.path.expanduser(folder), file["name"]))
            done: dict[str, Any] = self._execute_module(module_args={**given, **file}, task_vars=task_vars)
            self._remove_tmp_path(self._connection._shell.tmpdir)  # one copy at a time has to find room
            if done.get("failed") or done.get("unreachable"):
                return done
            result["changed"] |= done["changed"]
            result["diff"] += [done["diff"]] if "diff" in done else []
        return result

    def _look(self, paths: list[str]) -> tuple[str, dict[str, str]]:
        """(type of the machine, path -> SHA-256 of what is there); a link counts as nothing.

        Lines of ours are marked: sudo may complain of a drop-in beside them, and a profile greet.
        """
        done = self._low_level_execute_command(shlex.join(["sh", "-c", LOOK, "sh", *paths]), sudoable=True)
        ours = [line[len(MARK) :].rstrip() for line in done["stdout_lines"] if line.startswith(MARK)]
        if not ours:
            become = getattr(self._connection, "become", None)
            password = bool(become and become.get_option("become_pass", playcontext=self._play_context))
            said = f"{done.get('stderr', '')}\n{done.get('stdout', '')}"
            raise AnsibleActionFail(escalation.unanswered(said, done.get("rc"), password))
        return ours[0], {path: digest for digest, _, path in (line.partition("  ") for line in ours[1:])}

    def _bring(self, source: str) -> str:
        """Copy a file of the controller into a folder of the login account, and return its path.

        The module hashes the very bytes that it installs, so that account gains nothing by changing them meanwhile.
        """
        if not os.path.isfile(source):
            raise AnsibleActionFail(f"casemate_artifact_dir has no {os.path.basename(source)}: {source} is not a file")
        self._make_tmp_path()
        there: str = self._connection._shell.join_path(self._connection._shell.tmpdir, os.path.basename(source))
        self._transfer_file(source, there)
        return there
