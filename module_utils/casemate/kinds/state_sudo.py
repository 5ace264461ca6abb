"""Rules of sudo for somebody whom nobody declared.

Known are those for root, for the account that Casemate logs in as, for the people who are declared with sudo, and for
groups whose members another control judges. A directory that sudo asks beside its files shows its rules to nobody, so
somebody has to vouch for it. Sources: sudoers(5), cvtsudoers(1), sudoers.ldap(5) (nsswitch.conf).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Dict, Iterator, List

from ..core.verdict import Unavailable
from ..core.vouched_for import Stranger
from ..formats.sudoers import grantees, places, written
from ..host.accounts import passwd
from ..host.machine import Host
from ..host.text import split_lines
from ..k3s.listed import digest_of
from .account import SUDOERS
from .vouchers import Known

NSSWITCH = "/etc/nsswitch.conf"


def strangers(setting: Mapping[str, Any], known: Known) -> Iterator[Stranger]:
    """Each of them, with the lines to remove. What sudo cannot read is told by the control of passwords."""
    host = known.host
    if host.read(SUDOERS) is None:
        return
    asked = host.run(["cvtsudoers", "-c", "/dev/null", "-f", "json", host.path(SUDOERS)])
    if asked.rc != 0:
        raise Unavailable("sudo", "sudo's rules cannot be read by cvtsudoers, which comes with sudo")
    policy = json.loads(asked.out or "{}")
    names = {one.uid: one.name for one in reversed(passwd(host.text("/etc/passwd") or ""))}
    listed = {"root", host.context.get("account"), *setting.get("accounts", ())}
    lines = [(place, whose(line)) for place, line in written(host, SUDOERS) if "=" in line]
    rules: Dict[str, List[Any]] = {}
    for rule in policy.get("User_Specs", ()):
        for whom in dict.fromkeys(grantees(rule["User_List"], policy.get("User_Aliases", {}), names)):
            rules.setdefault(whom, []).append(rule)
    for whom, of_theirs in sorted(rules.items()):
        if whom in listed or (whom[:1] == "%" and whom[1:] in setting.get("groups", ())):
            continue
        where = places(lines, r"\S", [whom]) or [SUDOERS]
        why = (
            f"{whom} may act as others, and casemate_people gives nobody of that name sudo: remove the rule from "
            f"{', '.join(where)}, or declare the person with it"
        )
        yield Stranger(f"sudo/{whom}", why, digest_of(of_theirs), where[0])
    for source in _beside_the_files(host):
        why = (
            f"sudo takes rules from {source}, too, as {NSSWITCH} says in sudoers:, and no file here shows them: vouch "
            "for it, or by hand take it off that line"
        )
        yield Stranger(f"sudo/nsswitch:{source}", why, digest_of(source), NSSWITCH)


def _beside_the_files(host: Host) -> List[str]:
    """What else than files /etc/nsswitch.conf has sudo ask for rules, such as sss or ldap; its first line counts."""
    for line in split_lines(host.text(NSSWITCH) or ""):
        database, _, sources = line.split("#", 1)[0].partition(":")
        if database.strip().lower() == "sudoers":
            return [word for word in re.sub(r"\[[^\]]*\]", " ", sources).split() if word != "files"]
    return []


def whose(line: str) -> str:
    """Whom a line is for, as names between commas; nothing where it is no rule."""
    if re.match(r"\s*(Defaults|[A-Z][a-z]+_Alias)\b", line):
        return ""
    return re.sub(r"\s*,\s*", ",", line.strip()).split(None, 1)[0].replace('"', "")
