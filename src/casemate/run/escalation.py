"""How Casemate becomes root: by sudo, which the hardening of a host keeps, and which the guard's proof uses. Pure."""

from __future__ import annotations

import re
from typing import Any

SUPPORTED = ("sudo", "ansible.builtin.sudo")


def off(become: Any) -> bool:
    """Whether a host's `ansible_become` (None: not set) says that nobody becomes root."""
    return become is not None and str(become).lower() in ("false", "no", "0", "off")


def problems(become: Any, method: str, user: str, account: str) -> list[str]:
    """What is wrong with a host's `ansible_become` (None: not set), with method and user, and who logs in.

    Without becoming root only root itself can do what has to be done.
    """
    if off(become):
        problem = "ansible_become is false, but everything here is done as root; allowed: true. Remove ansible_become"
        return [] if account == "root" else [problem]
    found = []
    if method not in SUPPORTED:
        found.append(
            f"the become method is {method}; allowed: sudo, which is what the hardening keeps and what a change of "
            "access is confirmed with. Remove ansible_become_method (ANSIBLE_BECOME_METHOD, become_method), and let "
            "the account use sudo with NOPASSWD"
        )
    if user != "root":
        found.append(f"the become user is {user}; allowed: root. Remove ansible_become_user (ANSIBLE_BECOME_USER)")
    return found


LET = "let this account use sudo with NOPASSWD"
REFUSALS = (
    (r"syntax error|parse error|near line \d|no valid sudoers sources",
     "sudo cannot read its configuration there: correct it as root with visudo ({place})"),
    (r"must have a tty",
     "sudo wants a terminal (requiretty): switch that off for this account in sudoers (Defaults:ACCOUNT !requiretty)"),
    (r"ldap|sssd?\b|[Tt]imeout|[Tt]imed out|Can't contact",
     "sudo did not answer in time: make the directory (LDAP, sssd) answer that `sudoers:` of /etc/nsswitch.conf names"),
    (r"must be owned by uid 0|effective uid is not 0|no new privileges",
     "sudo may not become root on this host: apt-get install --reinstall sudo, as root, and mount it without nosuid"),
    (r"[Aa]ccount (has |or password is )?expired|account validation failure|(password has|change) expired|PAM",
     "sudo's own check of the account fails there: look at its expiry (chage -l ACCOUNT) and at /etc/pam.d/sudo"),
    (r"sudo: (command )?not found|executable: sudo|No such file or directory:? .*sudo",
     f"there is no sudo on this host: install it, then {LET}"),
)  # fmt: skip
"""What sudo says, and what to do; the first one that fits counts, before passwords."""
OF_SUDO = re.compile("sudo|password|privilege")
SPOILT = re.compile(r"(/\S*sudoers\S*?):(\d+)(?::\d+)?: (?:syntax|parse) error|(/\S*sudoers\S*) near line (\d+)")


def refusal(said: str, password: bool) -> str:
    """What to do where sudo refused; `password` says whether it was given one."""
    spoilt = SPOILT.search(said)
    place = ":".join(filter(None, spoilt.groups())) if spoilt else "/etc/sudoers and /etc/sudoers.d"
    todo = next((todo for pattern, todo in REFUSALS if re.search(pattern, said)), "").format(place=place)
    if not todo and password and re.search("ncorrect|try again", said):
        todo = f"sudo does not take the password of ansible_become_password: correct it, or {LET}"
    if not todo and not password and re.search("password is required|Missing .*password|terminal is required", said):
        todo = f"sudo asks for a password, and nobody gave one: {LET}, or set ansible_become_password (in a vault)"
        todo += "; where it has that already, look whether the account has expired (chage -l ACCOUNT)"
    todo = todo or f"sudo refuses this account: {LET} on this host"
    return f"nothing was changed: {todo}"


def unanswered(said: str, rc: int | None, password: bool) -> str:
    """What to say of a command of ours, run as root, that did not print what it prints."""
    if OF_SUDO.search(said):
        return refusal(said, password)
    return f"the host did not answer as it must (rc {rc}): {' '.join(said.split())[-300:] or 'it said nothing'}"
