"""Accounts by which somebody could log in, and that nobody declared.

An account lets somebody in that has a shell to log in with, a number that is a person's, and no last day that is over.
Those of the system are judged by controls of their own. Sources: passwd(5), shadow(5), login.defs(5).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Iterator

from ..core.vouched_for import Stranger
from ..host.accounts import is_over, login_shell
from ..k3s.listed import digest_of
from . import person
from .vouchers import Known


def strangers(setting: Mapping[str, Any], known: Known) -> Iterator[Stranger]:
    """Each such account, with what takes it away or owns up to it."""
    host = known.host
    lists = person.read(host)
    listed = {lists.automation, *(host.context.get("people") or ()), *setting.get("accounts", ())}
    for name, account in lists.accounts.items():
        over = is_over(lists.last_days.get(name, person.NEVER), lists.today)
        if name in listed or over or not person.is_persons(account.uid, lists) or not login_shell(account.shell):
            continue
        why = (
            f"{name} may log in, and casemate_people has no such person: declare who it is there (state: revoked keeps "
            f"the files), or by hand: userdel {shlex.quote(name)}"
        )
        yield Stranger(f"account/{name}", why, digest_of([name, account.uid, account.shell]), "/etc/passwd")
