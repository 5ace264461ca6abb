"""Whom Casemate logs in as: what the inventory names, or else whom Ansible's connection really comes as.

ssh itself is asked (`ssh -G`), with the options that Ansible gives it and in Ansible's order: whoever is named by
ansible_user, ansible_ssh_user, -u, ANSIBLE_REMOTE_USER, remote_user in ansible.cfg or a play, `-l` or `-o User=` among
the options for ssh, `User` in its configuration, or by nothing at all, which is the local account.
"""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
from collections.abc import Mapping
from typing import Any

NAME = "__casemate_account"
"""The internal variable by which templates know it."""
SEEN = "__casemate_seen"
"""What preflight has returned for a host; with its `account`, so that a run asks ssh once."""


def here() -> str:
    """The account of this machine that runs Casemate: its name, or its number where it has none, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())


def automation(action: Any, variables: Mapping[str, Any]) -> str:
    """The account that is never locked out, for an action plugin and the variables of its task."""
    asked_before = (variables.get(SEEN) or {}).get("account")
    if asked_before:
        return str(asked_before)
    named = action._templar.template(variables.get("casemate_automation_user"))
    return str(named) if named else connecting(action._connection, action._play_context.remote_user)


def connecting(connection: Any, fallback: str | None) -> str:
    """The account that a connection of Ansible logs in as."""
    user = _option(connection, "remote_user") or fallback
    return str(asked_of_ssh(connection, user).get("user") or user or here())


def asked_of_ssh(connection: Any, user: str | None) -> dict[str, str]:
    """What `ssh -G` makes of a connection of Ansible; nothing for one of another kind, or where ssh refuses it."""
    return dict(lines_of_ssh(connection, user))


def lines_of_ssh(connection: Any, user: str | None) -> list[tuple[str, str]]:
    """The same with all values of what may be given more than once, such as identityfile, in ssh's order."""
    if getattr(connection, "transport", "") != "ssh":
        return []
    options = [_option(connection, name) for name in ("ssh_args", "ssh_common_args", "ssh_extra_args")]
    first, *rest = [shlex.split(str(given or "")) for given in options]
    port = _option(connection, "port")
    argv = [str(_option(connection, "ssh_executable") or "ssh"), *first]
    argv += ["-o", "StrictHostKeyChecking=no"] if _option(connection, "host_key_checking") is False else []
    argv += ["-o", f"Port={port}"] if port else []
    argv += ["-o", f'User="{user}"'] if user else []
    argv += [*(word for words in rest for word in words), "-G", str(_option(connection, "host"))]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.SubprocessError):
        return []  # the connection that follows says why
    lines = (line.partition(" ") for line in done.stdout.splitlines())
    return [(key, value) for key, space, value in lines if space]


def _option(connection: Any, name: str) -> Any:
    try:
        return connection.get_option(name)
    except (KeyError, AttributeError):  # a connection of another kind has other options
        return None
