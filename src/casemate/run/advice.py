"""What stopped Ansible, in a line that a person understands, with what to do about it.

Ansible, ssh and sudo say what happened in words of their own; ADVICE knows the common ones. What tests/unit has as
their words was recorded from real runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
ASK_NOBODY = "Casemate runs without a terminal and asks for no password"
ADVICE = (
    # Vaults
    (r"no vault secrets found",
     f"name the file that holds the vault's password: ANSIBLE_VAULT_PASSWORD_FILE=FILE ({ASK_NOBODY})"),
    (r"no vault secrets were found that could decrypt|Decryption failed",
     "the vault has another password: correct the file that ANSIBLE_VAULT_PASSWORD_FILE or vault_identity_list names"),
    (r"vault password (file|script) .*(not found|non-zero)|Invalid vault password|running vault password script",
     "correct ANSIBLE_VAULT_PASSWORD_FILE: a path there counts from the folder in which casemate is called"),
    (r"vaulttext format error|Vault format (error|unhexlify)|not vault encrypted data",
     "encrypt that value anew with ansible-vault"),
    # Becoming root
    (r"must have a tty",
     "sudo wants a terminal: switch requiretty off for this account in sudoers (Defaults:ACCOUNT !requiretty)"),
    (r"Incorrect \w+ password|incorrect password attempt|Sorry, try again",
     "sudo does not take the password: correct ansible_become_password, or let the account use sudo with NOPASSWD"),
    (r"not in the sudoers|may not run sudo|is not allowed to (execute|run)",
     "let the account use sudo on this host: ACCOUNT ALL=(ALL:ALL) NOPASSWD: ALL in a file of /etc/sudoers.d"),
    (r"Timeout \(\d+s\) waiting for (become|privilege escalation)",
     "sudo did not answer in time: give the account NOPASSWD sudo, and make the directory that it asks (LDAP) answer"),
    (r"Missing \w+ password|(terminal|password) is required|waiting for (become|privilege escalation)",
     "give the account NOPASSWD sudo on this host, or set ansible_become_password (in a vault)"),
    (r"sudo: (command )?not found|executable: sudo|No such file or directory:? .*sudo",
     "install sudo on this host (apt-get install sudo), and let the account use it with NOPASSWD"),
    (r"sudo: .*(parse|syntax) error|/sudoers\S* near line|sudoers\S*:\d+.*syntax error|no valid sudoers sources",
     "sudo cannot read its own configuration there: correct it as root with visudo"),
    (r"sudo: .*must be owned by uid 0", "sudo is damaged on this host: apt-get install --reinstall sudo, as root"),
    (r"account is currently not available", "give the account a login shell on this host: chsh -s /bin/bash ACCOUNT"),
    (r"rbash|restricted: cannot|: restricted$",
     "give the account a shell without restrictions on this host: chsh -s /bin/bash ACCOUNT"),
    (r"Password change required|password has expired|must change your password",
     "on this host, as root: passwd ACCOUNT, or chage -M -1 -d $(date +%F) ACCOUNT where it needs no password"),
    (r"account has expired", "on this host, as root: chage -E -1 ACCOUNT"),
    (r"Unprivileged users are not permitted|system is (booting up|going down)",
     "wait until it has started, or whatever was planned is over; else remove /run/nologin or /etc/nologin there"),
    (r"Invalid become method", "remove ansible_become_method: Casemate becomes root by sudo"),
    # ssh
    (r"HOST IDENTIFICATION HAS CHANGED|Host key verification failed",
     "compare the host's key out of band; remove an old one (ssh-keygen -R HOST), add the right one to known_hosts"),
    (r"Load key|identity file .* not accessible|UNPROTECTED PRIVATE KEY",
     "check ansible_ssh_private_key_file: the file must be there, be a key, and be readable by you alone"),
    (r"Too many authentication failures",
     "offer the right key only: ansible_ssh_private_key_file, and -o IdentitiesOnly=yes in ansible_ssh_common_args"),
    (r"UNKNOWN port 65535|stdio forwarding failed|kex_exchange_identification",
     "the way there fails: check the jump host of ProxyJump or ProxyCommand, and that it may reach this host"),
    (r"too long for Unix domain socket",
     "your home has a long path, and ssh's sockets lie in it: set ANSIBLE_SSH_CONTROL_PATH_DIR to a short folder"),
    (r"Permission denied \(",
     "check ansible_user and the key that this host accepts; casemate bootstrap makes one that is not there yet"),
    (r"Bad configuration option|command-line: line \d",
     "correct ansible_ssh_common_args or ansible_ssh_extra_args: ssh does not take them"),
    (r"No user exists for uid",
     "ssh wants an account here: run casemate as one of /etc/passwd, to which a container may have to add a line"),
    (r"Could not resolve hostname", "this controller does not know that name: correct ansible_host, or DNS"),
    (r"timed out during banner", "check what listens there: sshd of an overloaded host, or another service"),
    (r"connect to (host|address) .*: (Connection|Operation|No route|Network)|No route to host|Connection refused",
     "check that this host is up and that ansible_host and ansible_port are right"),
    (r"\[Errno 32\] Broken pipe",
     "what was started there ended at once: check ansible_python_interpreter and the account's shell"),
    (r"Connection (reset|closed) by|Broken pipe|Shared connection to",
     "the connection broke: check on this host whether the account is expired, and sshd's MaxStartups and MaxSessions"),
    (r"no matching (host key type|key exchange method|cipher|MAC)",
     "ssh here and there have no algorithm in common: update the older one"),
    # The host
    (r"No space left on device|Disk quota exceeded", "free some disk space on this host"),
    (r"No package matching|Unable to locate package|has no installation candidate",
     "the index of packages there does not name it: apt-get update as root, or add its source to /etc/apt"),
    (r"Read-only file system", "remount that file system read-write"),
    (r"requires a minimum of Python|(SyntaxError|ImportError|ModuleNotFoundError).*(future feature|annotations)",
     "install Python 3.9 or newer there (apt-get install python3), or name one in ansible_python_interpreter"),
    (r"interpreter.*not found|python\S*: (command )?not found|No python interpreters found|env: .*python",
     "install python3 there, or correct ansible_python_interpreter"),
    (r"Failed to create temporary directory|create directory .*ansible|cannot create directory",
     "let the account write its home on this host, or name another folder in ansible_remote_tmp"),
    (r"/ansible-tmp\S*: Permission denied|Permission denied.*/ansible-tmp",
     "nothing can be run there: name a folder in ansible_remote_tmp whose file system is not mounted noexec"),
    # The inventory
    (r"specifies unknown plugin|No module named 'ansible_collections",
     "install the collection that has this plugin into the environment of casemate"),
    (r"Inventory script", "run the script by hand: it must print JSON, and end with 0"),
    (r"YAML parsing failed|failed to combine variables|Syntax error in template|expected dicts",
     "correct that file or expression of the inventory; ansible-inventory -i INVENTORY --list shows how it is read"),
    (r"' is undefined|has no attribute", "define that variable in the inventory, or correct its name"),
    (r"parse inventory source",
     "check that it is an inventory of Ansible: ansible-inventory -i INVENTORY --list shows how it is read"),
    (r"leaves us with no hosts|limit file",
     "name hosts or groups of the inventory in --limit: ansible-inventory -i INVENTORY --graph lists them"),
)  # fmt: skip
"""What is said, and what to do; the first one that fits counts."""
VARIABLES = ("", ".yml", ".yaml", ".json")
WRAPPING = re.compile(
    r"""Data could not be sent to remote host ["'][^"']*["']\. Make sure this host can be reached over (?:ssh|SSH): """
    r"|Failed to connect to the host via (?:ssh|scp|sftp): "
)
"""What Ansible puts before ssh's own words."""
OF_SSH = re.compile(r"ssh|[Hh]ost key|Permission denied|Connection|kex_|resolve|[Pp]roxy|line \d|option|key|auth")


def explain(result: dict[str, Any]) -> str:
    """What a failed task says, with advice where the cause is a common one."""
    if result.get("censored"):
        return "failed; its output is hidden because it handles secrets"
    parts = [result.get("msg") or result.get("module_stderr") or result.get("stderr") or ""]
    parts += [r.get("msg", "") for r in result.get("results") or () if isinstance(r, dict) and r.get("failed")]
    lines = [str(line) for part in parts for line in (part if isinstance(part, list) else [part]) if line]
    if result.get("module_stderr"):
        lines += str(result["module_stderr"]).strip().splitlines()[-1:]
    text = ANSI.sub("", "\n".join(dict.fromkeys(lines))).strip() or "failed without a message"
    text = re.sub(r"^(Task failed: |Action failed: )+", "", text)
    text = re.sub(r"^Module result deserialization failed: .*\n(?=.)", "", text)  # what was said instead follows
    if result.get("explained"):
        return text
    # apt tells in stdout what dpkg could not do, and a program that is no module what it is
    return advised(unwrapped(text), f"{result.get('module_stdout') or ''}\n{result.get('stdout') or ''}")


def located(error: str, inventories: Iterable[str]) -> str:
    """An error of Ansible with the files of variables that it is about: it names none of those beside an inventory."""
    found = []
    for folder in {Path(one) if Path(one).is_dir() else Path(one).parent for one in inventories}:
        for path in sorted([*folder.glob("group_vars/**/*"), *folder.glob("host_vars/**/*")]):
            text = path.read_text(errors="replace") if path.is_file() and path.suffix in VARIABLES else ""
            encrypted = text.startswith("$ANSIBLE_VAULT")
            if "decrypt" in error and (encrypted or "!vault" in text):
                found.append(f"{path} is encrypted")
            if "YAML parsing failed" in error and not encrypted:
                try:
                    yaml.compose(text, Loader=yaml.SafeLoader)
                except yaml.MarkedYAMLError as fault:
                    found.append(f"{path}:{fault.problem_mark.line + 1 if fault.problem_mark else 1}: {fault.problem}")
    return "\n-> ".join([error, *found[:3]])


def unwrapped(text: str) -> str:
    """The words of ssh without Ansible's before them and the host's banner among them."""
    said = WRAPPING.split(text)[-1].strip()
    if said == text:
        return text
    lines = [line for line in said.splitlines() if OF_SSH.search(line) and not line.startswith("@")]
    return "\n".join(lines[-3:]) or said or text


def advised(text: str, more: str = "") -> str:
    """A message with what to do about it, where one of the causes of ADVICE is in it or in `more`."""
    fitting = (hint for said in (text, more) for pattern, hint in ADVICE if re.search(pattern, said, re.IGNORECASE))
    advice = next(fitting, "")
    return f"{text}\n-> {advice}" if advice else text
