"""The files in which sshd looks for keys of root and of services' accounts.

Whoever the inventory lists may have keys: the account that Casemate comes as, and those who may log in. Source:
sshd_config(5), AuthorizedKeysFile and TOKENS; what any file or Match block of the configuration says counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ..formats.sshd_files import directives
from ..host.accounts import passwd
from ..host.machine import Host
from .account import LOGIN_DEFS, least_uid, login_defs

DEFAULT = ".ssh/authorized_keys .ssh/authorized_keys2"
NOBODY = 65534


def files(setting: Mapping[str, Any], host: Host) -> list[str]:
    """Each file that there may be, once."""
    patterns = [DEFAULT, *(line.value for line in directives(host) if line.key == "authorizedkeysfile")]
    own = {host.context.get("account"), *(host.context.get("people") or ())}
    first = least_uid(login_defs(host.text(LOGIN_DEFS) or "").get("UID_MIN", ""))
    found: dict[bool, list[str]] = {True: [], False: []}
    for one in passwd(host.text("/etc/passwd") or ""):
        tokens = {"%%": "%", "%h": one.home, "%u": one.name, "%U": str(one.uid)}
        for pattern in " ".join(patterns).split():
            path = re.sub("%[%huU]", lambda token, known=tokens: known[token[0]], pattern)  # type: ignore[misc]
            is_system = one.name not in own and (one.uid < first or one.uid == NOBODY)
            found[is_system].append(os.path.normpath(os.path.join("/", one.home, path)))
    return [path for path in dict.fromkeys(found[True]) if path not in found[False]]
