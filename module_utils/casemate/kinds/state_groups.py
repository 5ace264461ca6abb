"""Members of groups that give root, or as good as that: who may use sudo, the containers' daemon, or the raw disk.

Those who Casemate's inventory lists are known: the account that it comes as, and those who may log in. Of a group that
has several lines, as of an account, all count (nss_files: initgroups reads every line).
"""

from __future__ import annotations

import shlex
from typing import Any, Dict, Iterator, List, Mapping, Set, Tuple

from ..core.vouched_for import Stranger
from ..host.accounts import number, passwd
from ..host.text import split_lines
from ..k3s.listed import digest_of
from .vouchers import Known

GROUP, PASSWD = "/etc/group", "/etc/passwd"


def strangers(setting: Mapping[str, Any], known: Known) -> Iterator[Stranger]:
    """Accounts in one of the groups that are not listed, each with the line that makes them a member."""
    host = known.host
    listed = {"root", host.context.get("account"), *(host.context.get("people") or ())}
    groups = list(_groups(host.text(GROUP) or ""))
    names: Dict[int, str] = {}
    for _, name, gid, _ in reversed(groups):
        if name in setting["groups"]:
            names[gid] = name
    found: Dict[Tuple[str, str], Tuple[str, str]] = {}
    seen: Set[str] = set()
    for line, name, gid, members in groups:
        for member in members if gid in names else ():
            by_hand = f"gpasswd -d {shlex.quote(member)} {shlex.quote(name)}"
            if name in seen:  # which gpasswd does not look at
                by_hand = f"vigr, and take {member} out of line {line}"
            found.setdefault((names[gid], member), (f"{GROUP}:{line}", by_hand))
        seen.add(name)
    for account in passwd(host.text(PASSWD) or ""):
        if account.gid in names and account.uid:
            by_hand = f"usermod -g GROUP {shlex.quote(account.name)}"
            found[names[account.gid], account.name] = (PASSWD, by_hand)
    for (group, member), (place, by_hand) in found.items():
        if member not in listed:
            why = f"{member} is no account that the inventory lists; by hand: {by_hand}"
            yield Stranger(f"group/{group}/{member}", why, digest_of([group, member]), place)


def _groups(text: str) -> Iterator[Tuple[int, str, int, List[str]]]:
    """Number of the line, name, gid and members of each group (group(5))."""
    for place, line in enumerate(split_lines(text), 1):
        fields = line.strip().split(":")
        gid = number(fields[2]) if len(fields) > 2 else None
        if gid is not None and fields[0][:1] not in "#+-":
            members = fields[3].split(",") if len(fields) > 3 else []
            yield place, fields[0], gid, [one.strip() for one in members if one.strip()]
