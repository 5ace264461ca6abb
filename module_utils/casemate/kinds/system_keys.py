"""The files in which sshd looks for keys of root and of services' accounts.

Whoever the inventory lists may have keys: the account that Casemate comes as, and those who may log in. Source:
sshd_config(5), AuthorizedKeysFile and TOKENS; what any file or Match block of the configuration says counts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..formats.sshd_files import directives
from ..host import logins
from ..host.accounts import Account, passwd
from ..host.machine import Host
from .account import LOGIN_DEFS, least_uid, login_defs

DEFAULT = ".ssh/authorized_keys .ssh/authorized_keys2"
NOBODY = 65534


def files(setting: Mapping[str, Any], host: Host) -> list[str]:
    """Each file that there may be, once."""
    looked_for = patterns(host)
    own = {host.context.get("account"), *(host.context.get("people") or ())}
    first = least_uid(login_defs(host.text(LOGIN_DEFS) or "").get("UID_MIN", ""))
    found: dict[bool, list[str]] = {True: [], False: []}
    for one in passwd(host.text("/etc/passwd") or ""):
        is_system = one.name not in own and (one.uid < first or one.uid == NOBODY)
        found[is_system] += files_of(one, looked_for)
    return [path for path in dict.fromkeys(found[True]) if path not in found[False]]


def patterns(host: Host) -> str:
    """What sshd's configuration says of where keys are, for whomever, and what it looks for if it says nothing."""
    given = [DEFAULT, *(line.value for line in directives(host) if line.key == "authorizedkeysfile")]
    return " ".join(given)


def files_of(account: Account, looked_for: str) -> list[str]:
    """The files of an account that such patterns stand for."""
    paths = logins.key_paths(looked_for, account.name, account.uid, account.home)
    return [os.path.normpath(os.path.join("/", path)) for path in paths]
