"""Make the account by which Casemate comes in, over the first login that a provider gives: account, key, sudo.

What is there already is left as it is: to an account that exists only a key and a rule of sudo are added. Once the
account has come in, the first login is closed as cloud-init closes root's. All of it is under the guard, so the host
takes it back by itself where no fresh login of the account confirms it.

Sources: useradd(8), sshd_config(5) AuthorizedKeysFile, sshd(8) AUTHORIZED_KEYS FILE FORMAT, sudoers(5), sudo(8) -l;
cloud-init, disable_root_opts of its module ssh.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Sequence
from typing import Dict, List, NamedTuple, Optional, Tuple

from ..core import waiver
from ..host import logins
from ..host.accounts import days, group, is_over, last_days, passwd
from ..host.machine import EnforceError, Host
from ..host.text import split_lines

RULES = "/etc/sudoers.d"
MADE_BY = "# Managed by Casemate (casemate bootstrap): the account by which Casemate comes in."
SHELL = "/bin/bash"
REFUSING = ("nologin", "false", "true", "sync")
"""Shells, by their last name, in which no command runs."""
WHOLE = re.compile(r"(?m)^\s*\((?:ALL|root)[^)]*\)\s+((?:\w+: )*)ALL\s*$")
"""A rule of `sudo -l` by which an account becomes root, with its tags; of several the last one counts (sudoers(5))."""
NO_RULE = "is not allowed to run sudo"
"""What sudo says instead where it knows none; with which exit status depends on its version."""
ALIAS = re.compile("[A-Z][A-Z0-9_]*")
"""Names that are those of aliases to sudo, unless they stand in quotes (sudoers(5))."""
KEY = re.compile(r"(?:^|\s)((?:ssh|ecdsa|sk-ssh|sk-ecdsa)-\S+)\s+(AAAA[A-Za-z0-9+/=]+)")
"""Type and key in a line of authorized_keys, or of a public key."""


ROOTS_KEYS = ("/root/.ssh/authorized_keys", "/root/.ssh/authorized_keys2")
INSTEAD = (
    "no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="
    '"echo \'Please login as the user \\"{account}\\" rather than the user \\"root\\".\';echo;sleep 10;exit 142" '
)
"""What cloud-init puts before a key of root's, so that it tells people to come as somebody else."""


OF_PEOPLE = 1000
"""The least number that a group of a person has on Debian; what has a lower one is the system's, and stays."""
GROUPS = ("sudo", "admin", "wheel", "lxd")
"""Groups into which cloud images put their default user, and whose members become root."""


class Seen(NamedTuple):
    """What a host has of an account: its entry, where its keys are looked for and what stands there, and its sudo.

    `problem` is what bars the way that only people can clear.
    """

    account: Optional[pwd.struct_passwd]
    key_file: str
    keys: str
    rules: str
    becomes_root: bool
    problem: str = ""


class Closing(NamedTuple):
    """A file with the text that it becomes, or GROUP/ACCOUNT or ACCOUNT with the command that ends it; and in words."""

    name: str
    text: Optional[str]
    words: str
    command: Tuple[str, ...] = ()


class Plan(NamedTuple):
    """What is to be done, and in words; the texts are those of whole files, None where they stay."""

    makes: bool
    keys: Optional[str]
    rules: Optional[str]
    words: Tuple[str, ...]


def rules_file(name: str) -> str:
    """Where the rule of an account stands: sudo reads no file with a dot in its name (sudoers(5), @includedir)."""
    return f"{RULES}/casemate-{name.replace('.', '_')}"


def look(name: str, host: Host) -> Seen:
    """What is there of the account; raises EnforceError where sshd does not say where it looks for keys."""
    account = _account(name, host)
    options = logins.effective(name, logins.session())
    patterns = options.get("authorizedkeysfile", "")
    if not patterns:
        raise EnforceError("sshd does not say where it looks for keys: see what sshd -t says on this host")
    if patterns == "none":
        raise EnforceError("sshd looks for keys nowhere (AuthorizedKeysFile none): remove that line from its files")
    problem = _problem(name, account, host)
    shown = account or pwd.struct_passwd((name, "x", -1, -1, "", f"{_homes(host)}/{name}", SHELL))
    key_file = logins.key_paths(patterns, shown.pw_name, shown.pw_uid, shown.pw_dir)[0]
    return Seen(
        account,
        key_file,
        (host.text(key_file) or "") if account else "",
        host.text(rules_file(name)) or "",
        bool(account) and _asks_for_nothing(_rules(name, host)),
        problem,
    )


def _rules(name: str, host: Host) -> str:
    """What sudo says that an account may do; nothing where it does not say."""
    listed = host.run(["sudo", "-n", "-l", "-U", name])
    said = f"{listed.out}\n{listed.err}"
    return said if listed.rc == 0 or NO_RULE in said else ""


def _asks_for_nothing(rules: str) -> bool:
    """Whether an account with these rules becomes root without a password."""
    tags: List[str] = WHOLE.findall(rules)
    return bool(tags) and re.findall(r"\b(?:NO)?PASSWD\b", tags[-1])[-1:] == ["NOPASSWD"]


def plan(name: str, key: str, seen: Seen) -> Plan:
    """What lacks for the account to come in with a key and to become root. Pure.

    Raises EnforceError where only people can clear the way.
    """
    forced = next((number for number, options in _lines(seen.keys, key) if "command=" in options.lower()), None)
    if seen.problem:
        raise EnforceError(seen.problem)
    if forced is not None:
        raise EnforceError(
            f"{seen.key_file}:{forced} lets this key of {name} run one command only: remove that line, or name another "
            "account in ansible_user"
        )
    words = []
    if seen.account is None:
        words.append(f"make the account {name}")
    keys = None
    if not _lines(seen.keys, key):
        keys = _with(seen.keys, key)
        words.append(f"put its key into {seen.key_file}")
    whom = f'"{name}"' if ALIAS.fullmatch(name) else name
    rules, rule = None, f"{whom} ALL=(ALL:ALL) NOPASSWD: ALL"
    if not seen.becomes_root and rule not in split_lines(seen.rules):
        rules = _with(seen.rules or f"{MADE_BY}\n", rule)
        words.append(f"let it use sudo without a password ({rules_file(name)})")
    return Plan(seen.account is None, keys, rules, tuple(words))


def enact(name: str, seen: Seen, planned: Plan, host: Host) -> None:
    """Do it under the guard of the host. Raises EnforceError, or OSError; what was begun waits for the guard then."""
    account = seen.account
    if planned.makes:
        host.arm([name], "new_account")
        # No password is none that could be guessed, and needs no ageing; a locked one (!) is refused without PAM.
        argv = ["useradd", "--create-home", "--shell", SHELL, "--password", "*", "--key", "PASS_MAX_DAYS=-1", name]
        host.must_run(argv)
        account = _account(name, host)
        host.changed(name, "no such account\n", "an account\n")
    if account is None:
        raise EnforceError(f"useradd made no account {name}")
    if planned.keys is not None:
        _write_keys(seen.key_file, planned.keys, account, host)
    if planned.rules is not None:
        validate = ("visudo", "-c", "-q", "-f", "%s")
        host.write(rules_file(name), planned.rules.encode(), mode=0o440, owner=(0, 0), validate=validate)
        said = _rules(name, host)
        if said and not _asks_for_nothing(said):
            raise EnforceError(
                f"sudo goes on asking {name} for a password, or knows no rule for it, although {rules_file(name)} says "
                f"otherwise: let /etc/sudoers end with @includedir {RULES}, and take away what comes after that rule "
                f"(sudo -l -U {name} shows the order)"
            )


def closings(account: str, first: str, keys: Sequence[str], host: Host) -> List[Closing]:
    """What closes the first login.

    Of root it is these keys, in lines without options of their own. Another user loses what makes it root: the rules of
    /etc/sudoers.d for it alone, and its membership in the groups of cloud images. Then its account is over, for nobody
    stands behind the name that an image brings; home and keys stay, and `chage -E -1` has it back.
    """
    if first in ("", account):
        return []
    if first == "root":
        return [_instead(path, account, keys, host) for path in ROOTS_KEYS if _plain(path, keys, host)]
    found = []
    whom, runas = rf"\"?{re.escape(first)}\"?", r"(?:\((?:ALL|root)[^)]*\)\s*)?"  # without one it is root
    rule = re.compile(rf"\s*{whom}\s+ALL\s*=\s*{runas}NOPASSWD\s*:\s*ALL\s*")
    for path in host.glob(f"{RULES}/*"):
        text = host.text(path) or ""
        lines = [f"# {line}" if rule.fullmatch(line) else line for line in _whole_lines(text)]
        if "".join(lines) != text:
            found.append(Closing(path, "".join(lines), f"end the sudo without a password of {first} ({path})"))
    for one in group(host.text("/etc/group") or ""):
        if one.name in GROUPS and first in one.members:
            command = ("gpasswd", "--delete", first, one.name)
            found.append(Closing(f"{one.name}/{first}", None, f"take {first} out of the group {one.name}", command))
    there = any(one.name == first for one in passwd(host.text("/etc/passwd") or ""))
    day = last_days(host.text("/etc/shadow") or "").get(first, 0)
    if there and not is_over(day, days(waiver.today_in_utc())):
        found.append(Closing(first, None, f"end the account {first}, whose files stay", ("chage", "-E", "1", first)))
    return found


def close(planned: Sequence[Closing], host: Host) -> None:
    """Close the first login under the guard of the host. Raises EnforceError, or OSError."""
    for one in planned:
        if one.text is None:
            host.arm([one.name.rpartition("/")[2]], "person")
            host.must_run(list(one.command))
            host.changed(one.name, "as it was\n", "ended\n")
        else:
            validate = ("visudo", "-c", "-q", "-f", "%s") if one.name.startswith(f"{RULES}/") else ()
            host.write(one.name, one.text.encode("utf-8", "surrogateescape"), validate=validate)


def _whole_lines(text: str) -> List[str]:
    """The lines of a text with their ends."""
    return re.findall("[^\n]*\n|[^\n]+", text)


def _plain(path: str, keys: Sequence[str], host: Host) -> List[int]:
    """The numbers of the lines that let one of the keys in without options."""
    text = host.text(path) or ""
    return [number for key in keys for number, options in _lines(text, key) if not options]


def _instead(path: str, account: str, keys: Sequence[str], host: Host) -> Closing:
    closed, instead = _plain(path, keys, host), INSTEAD.format(account=account)
    lines = enumerate(_whole_lines(host.text(path) or ""), 1)
    text = "".join(instead + line.lstrip() if number in closed else line for number, line in lines)
    return Closing(path, text, f"let root's key say to come as {account} ({path})")


def _write_keys(path: str, text: str, account: pwd.struct_passwd, host: Host) -> None:
    """The file as sshd takes it: the account's own below its home, else root's, which sshd reads as the account."""
    at_home = path.startswith(f"{account.pw_dir.rstrip('/')}/")
    owner = (account.pw_uid, account.pw_gid) if at_home else (0, 0)
    folder = os.path.dirname(path)
    if at_home and host.stat(folder) is None:
        with host.folder(folder) as above:
            made = os.path.join(above, os.path.basename(folder))
            os.mkdir(made, 0o700)
            os.chown(made, *owner, follow_symlinks=False)
    mode = None if host.stat(path) is not None else 0o600 if at_home else 0o644
    host.write(path, text.encode("utf-8", "surrogateescape"), mode=mode, owner=None if mode is None else owner)


def _account(name: str, host: Host) -> Optional[pwd.struct_passwd]:
    """The account as everything on the host knows it, a directory of accounts too."""
    shown = host.run(["getent", "passwd", name])
    fields = shown.out.strip().split(":")
    if shown.rc != 0 or len(fields) != 7:
        return None
    return pwd.struct_passwd((fields[0], fields[1], int(fields[2]), int(fields[3]), *fields[4:]))


def _problem(name: str, account: Optional[pwd.struct_passwd], host: Host) -> str:
    """What of an account that is there, or of what is in its place, only people can put right."""
    other = "correct that, or name another account in ansible_user"
    if account is None:
        home = f"{_homes(host)}/{name}"
        if host.stat(home) is not None:
            return f"there is no account {name}, but a home {home}: move that away, or name another account"
        shown = host.run(["getent", "group", name])
        if any(one.gid < OF_PEOPLE for one in group(shown.out)):
            return f"{name} is a group of the system and no account: name another account in ansible_user"
        if shown.rc == 0:
            return f"there is no account {name}, but a group of that name: groupdel {name}, or name another account"
        return ""
    if account.pw_uid == 0:
        return f"{name} is root by another name (uid 0): name another account in ansible_user"
    if os.path.basename(account.pw_shell) in REFUSING:
        return f"{name} is there and has the shell {account.pw_shell}, as an account of the system has: {other}"
    if host.stat(account.pw_dir) is None:
        return f"{name} is there, but its home {account.pw_dir} is not: {other}"
    return ""


def _homes(host: Host) -> str:
    """Where useradd makes homes."""
    defaults = host.run(["useradd", "-D"]).out
    found: Dict[str, str] = dict(line.split("=", 1) for line in split_lines(defaults) if "=" in line)
    return found.get("HOME", "/home")


def _lines(text: str, key: str) -> List[Tuple[int, str]]:
    """The number and the options of each line of a file of keys that has this key; no options are ""."""
    wanted, found = KEY.search(key), []
    for number, line in enumerate(split_lines(text), 1):
        there = KEY.search(line)
        if wanted and there and there.groups() == wanted.groups() and not line.lstrip().startswith("#"):
            found.append((number, line[: there.start()].strip()))
    return found


def _with(text: str, line: str) -> str:
    """A text with one line more, in a line of its own."""
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{line}\n"
