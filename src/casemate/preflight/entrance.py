"""Whether the account that Casemate logs in as still gets in once sshd has read its files: judged before any change.

What others keep beside our settings (who is denied, where keys lie, what PAM demands) is theirs to change, so a host
where the next login would fail is refused, with what to do there. `logins` told the facts on the host. Pure.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from casemate.catalogue import declarations
from module_utils.casemate.host import ssh_patterns

KEYS = {
    "allowusers": "",
    "pubkeyauthentication": "yes",
    "strictmodes": "yes",
    "usepam": "yes",
    "authorizedkeyscommand": "none",
    "authorizedkeysfile": "",
    "trustedusercakeys": "",
    "pubkeyacceptedalgorithms": "",
}
"""What apply gives sshd and decides who gets in; what stands empty is the operator's, or depends on the level."""
CONTROLS = {key: declarations.control("sshd", key=key) for key in KEYS}
"""Which control declares each of them."""
ALGORITHMS = {
    "RSA": ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"],
    "ECDSA": ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"],
    "ECDSA-CERT": [f"ecdsa-sha2-nistp{bits}-cert-v01@openssh.com" for bits in (256, 384, 521)],
    "ECDSA-SK": ["sk-ecdsa-sha2-nistp256@openssh.com", "webauthn-sk-ecdsa-sha2-nistp256@openssh.com"],
    "ECDSA-SK-CERT": ["sk-ecdsa-sha2-nistp256-cert-v01@openssh.com"],
    "ED25519": ["ssh-ed25519"],
}
"""A key as sshd's log names its type -> what PubkeyAcceptedAlgorithms calls its signatures."""
HELD_BY = {"ForceCommand": "which runs instead of what it asks for", "ChrootDirectory": "which shuts it in"}
"""What keeps an account that is let in from doing anything -> how."""
PASSWORD_OVER = (12, 27)
"""PAM_NEW_AUTHTOK_REQD and PAM_AUTHTOK_EXPIRED, of pam(3)."""


def planned(automation: str, values: Mapping[str, Any], waived: Iterable[str]) -> str:
    """The lines that apply would have sshd read before all others, as far as they decide who gets in."""
    defaults, given, waived = declarations.variables()[0], dict(KEYS), set(waived)
    given["allowusers"] = " ".join([automation, *values.get("k3s_access_allow_users", [])])
    files = values.get("k3s_access_authorized_keys_files", defaults["k3s_access_authorized_keys_files"])
    given["authorizedkeysfile"] = " ".join(files)
    given["trustedusercakeys"] = values.get(
        "k3s_access_trusted_user_ca_keys", defaults["k3s_access_trusted_user_ca_keys"]
    )
    if values.get("casemate_level") == "strict":
        given["pubkeyacceptedalgorithms"] = ",".join(declarations.variables()[1]["__k3s_access_userkeys"])
    return "".join(f"{key} {value}\n" for key, value in given.items() if value and CONTROLS[key] not in waived)


def problems(seen: Mapping[str, Any]) -> list[str]:
    """What would keep the account out, each with what to do; nothing where sshd or the account told nothing."""
    if not seen.get("after"):
        return []
    return [*_listed(seen), *_held(seen), *filter(None, [_proof(seen), _pam(seen)])]


def _held(seen: Mapping[str, Any]) -> list[str]:
    """What would let it in, and then not do what it comes for."""
    account, after = seen["account"], seen["after"]
    found = {key: after.get(key.lower(), "none") for key in HELD_BY}
    return [
        f"sshd's files have {key} {value} for {account}, {HELD_BY[key]} from the next reload on: remove that line, or "
        f"have a Match block before it say {key} none for {account} (find it: grep -ri {key} /etc/ssh)"
        for key, value in found.items()
        if value != "none"
    ]


def _listed(seen: Mapping[str, Any]) -> list[str]:
    """Lists of accounts and groups that leave it out."""
    account, groups, after, found = seen["account"], seen["groups"], seen["after"], []

    def problem(key: str, does: str, remedy: str) -> str:
        return (
            f"sshd's files have {key} {after[key.lower()]}, which {does} {account} at the next reload: {remedy} "
            f"(find it: grep -ri {key} /etc/ssh)"
        )

    if _user(account, seen["address"], after.get("denyusers", "").split()):
        found.append(problem("DenyUsers", "refuses", "take it off that list"))
    if _group(groups, after.get("denygroups", "").split()):
        found.append(problem("DenyGroups", "refuses", "take its group off that list, or it out of the group"))
    if after.get("allowusers") and not _user(account, seen["address"], after["allowusers"].split()):
        found.append(problem("AllowUsers", "leaves out", f"add {account} to that list"))
    if after.get("allowgroups") and not _group(groups, after["allowgroups"].split()):
        group = after["allowgroups"].split()[0]
        found.append(
            problem("AllowGroups", "leaves out", f"usermod -aG {shlex.quote(group)} {account}, or add its group")
        )
    return found


def _user(account: str, address: str, patterns: Sequence[str]) -> bool:
    """Whether sshd's match_user finds an account in a list; what follows an @ is where it comes from."""
    parts = (pattern.partition("@") for pattern in patterns)
    return any(_fits(account, name) and (not at or _fits(address, there)) for name, at, there in parts)


def _group(groups: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(_fits(group, pattern) for group in groups for pattern in patterns)


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern of OpenSSH matches; a network of addresses counts as met, since that cannot be said here."""
    return "/" in pattern or ssh_patterns.fits(name, pattern)


def _proof(seen: Mapping[str, Any]) -> str:
    """Why it could not prove itself any more as it does now."""
    account, after, accepted = seen["account"], seen["after"], seen["accepted"]
    methods, method = after.get("authenticationmethods", "any"), accepted.get("method", "publickey")
    if not any(set(one.split(",")) <= {"any", "publickey"} for one in methods.split()):
        cause = f"sshd's files have AuthenticationMethods {methods}, which takes no key alone"
        return f"{cause}: a Match block for {account} with AuthenticationMethods publickey lets it in"
    if after.get("pubkeyauthentication") == "no":
        return f"sshd's files refuse keys to {account} (PubkeyAuthentication no in a Match block): remove that line"
    if method != "publickey":
        cause = f"Ansible comes in by {method}, and only keys are taken from the next reload on"
        return f"{cause}: give {account} a key on this host, and name it in ansible_ssh_private_key_file"
    sort, taken = accepted.get("type", ""), after.get("pubkeyacceptedalgorithms", "")
    named = ALGORITHMS.get(sort, [])
    if taken and named and not any(ssh_patterns.listed(one, taken) for one in named):
        cause = f"{accepted.get('account', account)} comes in by a key of the type {sort}, which sshd will take no more"
        return (
            f"{cause}: make one by ssh-keygen -t ed25519, put its .pub into a file of keys here, and name it in "
            f"ansible_ssh_private_key_file; or waive {CONTROLS['pubkeyacceptedalgorithms']}"
        )
    trusted = after.get("trustedusercakeys", "none") != "none"
    if accepted.get("authority") and not trusted:
        cause = (
            f"Ansible comes with a certificate, whose authority ({seen['now'].get('trustedusercakeys')}) is none that "
        )
        cause += "is declared"
        return f"{cause}: set k3s_access_trusted_user_ca_keys, or waive {CONTROLS['trustedusercakeys']}"
    return "" if trusted or after.get("authorizedkeyscommand", "none") != "none" else _key(seen)


def _key(seen: Mapping[str, Any]) -> str:
    """Why sshd would not find its key any more; which one it is sshd has told, or else any of its keys counts."""
    account, after, now, accepted = seen["account"], seen["after"], seen["now"], seen["accepted"]
    said = accepted.get("key", "") if accepted.get("account") == account else ""
    key = said if said.startswith("SHA256:") else ""  # with FingerprintHash md5 there is nothing to compare it with
    there, before = (
        {path: one["unsafe"] for path, one in seen["files"][when].items() if not key or key in one["keys"]}
        for when in ("after", "now")
    )
    if not all(there.values()) or (there and after.get("strictmodes") == "no"):
        return ""
    for path, unsafe in there.items():
        cause = f"{unsafe}, so sshd will take no key from {path} (StrictModes)"
        return (
            f"{cause}: chmod go-w, or chown, that file or folder; of an ACL, the mask shows there as the group's bits"
        )
    if before:
        cause = (
            f"the key of {account} lies in {next(iter(before))} (AuthorizedKeysFile {now.get('authorizedkeysfile')})"
        )
        return f"{cause}, where none will be looked for: list that file in k3s_access_authorized_keys_files"
    if now.get("authorizedkeyscommand", "none") != "none":
        cause = (
            f"the key of {account} comes from AuthorizedKeysCommand {now['authorizedkeyscommand']}, which will not be "
        )
        cause += f"asked: put it into .ssh/authorized_keys of {account}"
        return f"{cause}, or waive {CONTROLS['authorizedkeyscommand']}"
    cause = f"no key of {account} lies where sshd will look (AuthorizedKeysFile {after.get('authorizedkeysfile')})"
    return f"{cause}: put it into one of these files, or list its file in k3s_access_authorized_keys_files"


def _pam(seen: Mapping[str, Any]) -> str:
    """What PAM says to a login of it, which UsePAM has sshd ask."""
    account, code, words = seen["account"], seen["pam"]["code"], seen["pam"]["said"]
    if not code:
        return ""
    if seen["expired"]:
        return f"the last day of {account} is over, so PAM refuses it ({words}): chage -E -1 {account}"
    if code in PASSWORD_OVER:
        remedy = f"passwd {account}, or chage -M -1 -d $(date +%F) {account} where it needs none"
        return f"PAM wants a new password of {account} before it lets it in ({words}): {remedy}"
    if seen["nologin"]:
        there = " ".join(seen["nologin"])
        cause = f"{there} is there, so nobody but root may log in"
        return f"{cause}: wait until this host has started, or whatever was planned is over; else rm {there}"
    if "pam_access.so" in seen["pam"]["modules"]:
        cause = f"PAM refuses {account} ({words}); /etc/security/access.conf decides there"
        return f"{cause}: put + : {account} : ALL before the line that refuses it"
    modules = ", ".join(dict.fromkeys(seen["pam"]["modules"]))
    return f"PAM refuses {account} ({words}): let a module of /etc/pam.d/sshd let it in ({modules})"
