"""How Casemate becomes root: by sudo, which the hardening of a host keeps, and which the guard's proof uses. Pure."""

from __future__ import annotations

from typing import Any

SUPPORTED = ("sudo", "ansible.builtin.sudo")


def problems(become: Any, method: str, user: str, account: str) -> list[str]:
    """What is wrong with a host's `ansible_become` (None: not set), with method and user, and who logs in.

    Without becoming root only root itself can do what has to be done.
    """
    if become is not None and str(become).lower() in ("false", "no", "0", "off"):
        told = "ansible_become is false, but everything here is done as root; allowed: true. Remove ansible_become"
        return [] if account == "root" else [told]
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


def refusal(said: str, password: bool) -> str:
    """What to do where sudo refused; `password` says whether it was given one."""
    if "must have a tty" in said:
        return (
            "sudo wants a terminal (requiretty), so nothing was changed: switch that off for this account in sudoers "
            "(Defaults:ACCOUNT !requiretty)"
        )
    if password and ("ncorrect" in said or "try again" in said):
        return (
            "sudo does not take the password of ansible_become_password, so nothing was changed: correct it, or let "
            "this account use sudo with NOPASSWD"
        )
    if "not found" in said or "No such file" in said:
        return "there is no sudo on this host, so nothing was changed: install it, and let this account use NOPASSWD"
    return "sudo refuses this account, so nothing was changed: let it use sudo with NOPASSWD on this host"
