"""What is wrong with the first login, by which `casemate bootstrap` makes the automation account. Pure.

Each problem says what to do. What decides on the host is asked by PROBE, a script for any sh: a machine as a provider
hands it over may have neither Python nor sudo.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from casemate.preflight import entrance, host_facts, inputs

ROOT = "root"
PROBE = """LC_ALL=C; export LC_ALL
echo "casemate:uid=$(id -u)"
echo "casemate:os=$(. /etc/os-release; printf '%s %s' "$ID" "$VERSION_ID")"
for p in python3 sudo; do command -v "$p" >/dev/null || echo "casemate:$p=missing"; done
"""
"""Run by sh on the host, as root; reads only."""
NEEDED = ("python3", "sudo")
"""Packages without which nobody can come in as an account that is not root, or do anything then."""
SOMEBODY_ELSE = re.compile(r'[Pp]lease login as the user "?([A-Za-z0-9_][A-Za-z0-9_.-]*)"? rather than')
"""What a cloud image lets root's key say instead of a shell (cloud-init, disable_root)."""
NOBODY_ELSE = "NONE"
"""Whom it names where it made no default user."""
PASSWORD_OVER = re.compile(r"(?i)password has expired|password change required|change your (expired )?password")
"""What sshd and PAM say where a password has to be changed before any command runs, as where a provider made one up."""


LOCKED_SECONDS = 300
UPDATE = f"""n=0
while [ $n -lt {LOCKED_SECONDS} ]; do
  said=$(apt-get --quiet=2 update 2>&1)
  case $said in */lists/lock*) n=$((n + 5)); sleep 5 ;; *) break ;; esac
done
echo "$said"
"""
"""How long another apt is waited for: a machine that just booted for the first time updates itself. For the lists apt
itself waits for nobody."""


def account_problems(name: str) -> list[str]:
    """Whether an account can be made that is called so."""
    words, fits = inputs.FORMATS["account"]
    name_it = "name the account that is to come in by ansible_user in the inventory, such as ops; it may be a new one"
    if name == ROOT:
        return [f"Casemate would come in as root, which no host admits any more once it is hardened: {name_it}"]
    return [] if fits(name) else [f"Casemate would come in as {name!r}; allowed: {words}: {name_it}"]


def first(given: str, connecting: str, account: str) -> str:
    """Whom to log in as: who is given, else who logs in anyway where that is another one, else root."""
    return given or (connecting if connecting != account else ROOT)


def script(packages: Sequence[str], proxies: Mapping[str, str]) -> str:
    """What installs packages on a host without Python, for sh."""
    ways = "".join(f"{name}={shlex.quote(value)}; export {name}; " for name, value in proxies.items())
    names = " ".join(packages)
    options = f"--quiet=2 --yes --no-install-recommends -o DPkg::Lock::Timeout={LOCKED_SECONDS}"
    return f"{ways}DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; {UPDATE}apt-get {options} install {names}"


def missing(said: str) -> list[str]:
    """The packages that the host lacks, by what it answered to PROBE."""
    seen = host_facts.parse(said)
    return [name for name in NEEDED if seen.get(name) == "missing"]


def problems(said: str, first_user: str) -> list[str]:
    """What is wrong with what a host answered to PROBE over the first login."""
    seen, other = host_facts.parse(said), SOMEBODY_ELSE.search(said)
    if "uid" not in seen and PASSWORD_OVER.search(said):
        login = f"the password of {first_user} has to be changed there before any command runs: ssh {first_user}@HOST,"
        return [f"{login} and do so by hand (chage -l {first_user} shows it); then run this again"]
    if "uid" not in seen and other and other[1] == NOBODY_ELSE:
        told = f"the key of {first_user} is told to come as somebody else, and the image has made nobody else"
        return [f"{told}: have the provider make a user, or take command= off that key on its console"]
    if "uid" not in seen and other:
        problem = f"the host takes the key of {first_user}, and wants you to come as {other[1]}: casemate bootstrap"
        return [f"{problem} --first-user {other[1]} (or casemate_first_user: {other[1]} in the inventory)"]
    if "uid" not in seen:
        words = " ".join(said.split())[-200:] or "nothing"
        return [f"no command runs there as {first_user}, who hears: {words}. Name one with a shell by --first-user"]
    if seen["uid"] != "0":
        return [f"{first_user} does not become root there: give it sudo with NOPASSWD, or name another by --first-user"]
    return []


def nobody(account: str, said_of_account: str, first_user: str, said_of_first: str) -> str:
    """Neither the account nor the first user comes in: what ssh says of both, and what to do."""
    lines = [f"neither {account} nor {first_user} comes in, so nothing was changed"]
    for name, said in ((account, said_of_account), (first_user, said_of_first)):
        lines.append(f"{name}: {' '.join(said.split())[-300:]}")
    if said_of_account == said_of_first:
        lines[1:] = [lines[-1]]
    if "Permission denied" in said_of_first:
        lines.append(
            "-> name who comes in: casemate bootstrap --first-user ACCOUNT (root, debian, ubuntu, admin; your provider "
            "says which) and, where it is another key, --key FILE"
        )
    return "\n".join(lines)


def made_problems(logins: Mapping[str, Any]) -> list[str]:
    """What would keep out the account that was made; its key is the only one that it has, so any of its keys counts."""
    return entrance.problems({**logins, "accepted": {}}) if logins else []
