"""Controller side of `casemate bootstrap`: who is to come in, by which key, over whose first login; what it said."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

PROJECT = Path(__file__).resolve().parents[4]
for folder in (PROJECT, PROJECT / "src"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from casemate.preflight import first_login, inputs, neighbours
from casemate.run import account, advice, escalation, own_key, vaulted

KNOWN = inputs.known_inputs()  # read once: Ansible imports this file before it forks a worker for each host
GIVEN = (
    "casemate_automation_user", "casemate_automation_key", "casemate_first_user", "casemate_first_key",
    "casemate_first_login",
)  # fmt: skip
PROXIES = ("casemate_http_proxy", "casemate_https_proxy")


def said(result: Mapping[str, Any]) -> str:
    """What ssh says in a result of Ansible, as one line and without Ansible's own words before it."""
    return " ".join(re.sub("^(Task failed: )+", "", advice.unwrapped(str(result.get("msg") or ""))).split())[-300:]


class ActionModule(ActionBase):  # type: ignore[misc]
    """Connects to nothing. Without options it says how a host is entered, or refuses what is wrong with that.

    With `own` and `first` it judges what the attempts to come in have said, and returns the packages that lack.
    With `own` and `made` it judges whether the account that was made would get in.
    With `entered` it says what kept that account out after all.
    With `outcome` it returns that as `bootstrap`, for whoever reports it.
    """

    _supports_check_mode = True
    _VALID_ARGS = frozenset({"own", "first", "made", "entered", "outcome"})

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do what the options ask for."""
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        given = self._task.args
        if "outcome" in given:
            return {"changed": False, "bootstrap": given["outcome"]}
        if "entered" in given:
            name = task_vars["__casemate_entrance"]["account"]
            if not given["entered"].get("unreachable"):
                return {"changed": False}
            return self._refusal([said(given["entered"])], f"{name} is made, does not come in, and is taken back:")
        if "made" in given:
            return self._made(given["own"], given["made"], task_vars["__casemate_entrance"]["account"])
        if "first" in given:
            return self._judged(given["own"], given["first"], task_vars["__casemate_entrance"])
        return self._entrance(task_vars)

    def _entrance(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """The account, its key, the first user, and the options of ssh."""
        values = {name: self._templar.template(task_vars[name]) for name in (*GIVEN, *PROXIES) if name in task_vars}
        known = vaulted.veiled(KNOWN, values, task_vars)
        found = [p for name, value in values.items() for p in inputs.value_problems(name, value, known[name])]
        found += neighbours.connection_problems(self._connection.transport)
        if found:
            return self._refusal(found)
        connecting = account.connecting(self._connection, self._play_context.remote_user)
        name = account.automation(self, task_vars)
        found += first_login.account_problems(name)
        become = self._templar.template(task_vars.get("ansible_become"))
        asked = self._play_context
        found += escalation.problems(become, str(asked.become_method or "sudo"), str(asked.become_user or "root"), name)
        first = first_login.first(str(values.get("casemate_first_user") or ""), connecting, name)
        try:
            key, first_keys, first_file = self._keys(values, name, first)
        except own_key.NoKeyError as unknown:
            found.append(str(unknown))
        if found:
            return self._refusal(found)
        return {
            "changed": False,
            "account": name,
            "key": key.line,
            "fingerprint": key.fingerprint,
            "first": first,
            "first_key": first_file,
            "first_keys": first_keys,
            "closes": first if self._closes(values, first, task_vars) else "",
            "ssh_args": str(self._connection.get_option("ssh_args") or ""),
            "probe": first_login.PROBE,
            "proxies": {name.split("_", 1)[1]: values[name] for name in PROXIES if name in values},
        }

    def _closes(self, values: dict[str, Any], first: str, task_vars: dict[str, Any]) -> bool:
        """Whether the first login is an image's, and not a person's: root, or whoever was named as the first user."""
        named = first == "root" or bool(values.get("casemate_first_user"))
        return named and values.get("casemate_first_login") != "keep" and first not in self._people(task_vars)

    def _people(self, task_vars: dict[str, Any]) -> set[str]:
        """Who is declared: people keep their account, and apply settles what it may do."""
        named = self._templar.template(task_vars.get("casemate_people") or [])
        people = {str(one.get("name")) for one in named if isinstance(one, dict)} if isinstance(named, list) else set()
        for variable in ("k3s_access_allow_users", "k3s_access_sudo_without_password"):
            listed = self._templar.template(task_vars.get(variable) or [])
            people |= set(map(str, listed)) if isinstance(listed, list) else set()
        return people

    def _keys(self, values: dict[str, Any], name: str, first: str) -> tuple[own_key.Key, list[str], str]:
        """The account's key, those of the first login, and the file of that where Ansible has to name it."""
        private = str(self._connection.get_option("private_key_file") or "")
        if "casemate_automation_key" in values:
            key = own_key.public(Path(str(values["casemate_automation_key"])).expanduser())
        else:
            key = own_key.offered(account.lines_of_ssh(self._connection, name), private)
        given = values.get("casemate_first_key")
        file = str(Path(str(given)).expanduser()) if given else private
        keys = [key.line]
        with contextlib.suppress(own_key.NoKeyError):  # it may be by a password
            keys.append(own_key.offered(account.lines_of_ssh(self._connection, first), file).line)
        return key, list(dict.fromkeys(keys)), file

    def _made(self, own: dict[str, Any], made: dict[str, Any], name: str) -> dict[str, Any]:
        """Whether the account would get in, as far as the host tells."""
        found = first_login.made_problems(made.get("logins") or {})
        if found:
            return self._refusal(found, f"{name} is made, would not get in, and is taken back:")
        if not made["words"] and not made["pending"]:
            return self._refusal([f"{name} has its key and sudo here already, and does not come in: {said(own)}"])
        return {"changed": False}

    def _judged(self, own: dict[str, Any], first: dict[str, Any], entrance: dict[str, Any]) -> dict[str, Any]:
        """What lacks on a host that the first user has entered; raises AnsibleConnectionFailure where nobody has."""
        user, name = entrance["first"], entrance["account"]
        if first.get("unreachable"):
            raise AnsibleConnectionFailure(first_login.nobody(name, said(own), user, said(first)))
        answer = f"{first.get('stdout') or ''}\n{first.get('stderr') or ''}\n{first.get('msg') or ''}"
        if "casemate:uid=" not in answer and escalation.OF_SUDO.search(answer):
            raise AnsibleError(escalation.refusal(answer, password=False))
        found = first_login.problems(answer, user)
        if found:
            return self._refusal(found)
        packages = first_login.missing(answer)
        install = first_login.script(packages, entrance["proxies"]) if packages else ""
        return {"changed": False, "packages": packages, "install": install}

    def _refusal(self, problems: list[str], head: str = "Nothing was changed.") -> dict[str, Any]:
        return {
            "failed": True,
            "changed": False,
            "explained": True,  # each problem says what to do: no advice from its words
            "msg": "\n".join([head, *(f"- {problem}" for problem in problems)]),
        }
