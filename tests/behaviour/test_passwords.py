"""Attacks on passwords: weak and old ones, guessing without end, su by whoever knows one, and locking others out."""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from testinfra.host import Host

from .conftest import python_on
from .planted import new_name, planted
from .test_access import automation, ssh, variables

SERVICE = "sudo"
"""What asks people for their own password on a node."""
ASK = r"""
import ctypes, ctypes.util, json, sys
service, account, *passwords = (word.encode() for word in sys.argv[1:])
pam, libc = ctypes.CDLL(ctypes.util.find_library("pam") or "libpam.so.0"), ctypes.CDLL(None)
libc.calloc.restype = libc.strdup.restype = ctypes.c_void_p
class Message(ctypes.Structure):
    _fields_ = [("style", ctypes.c_int), ("text", ctypes.c_char_p)]
class Response(ctypes.Structure):
    _fields_ = [("text", ctypes.c_void_p), ("code", ctypes.c_int)]
class Conversation(ctypes.Structure):
    _fields_ = [("conv", ctypes.c_void_p), ("data", ctypes.c_void_p)]
Messages, Responses = ctypes.POINTER(ctypes.POINTER(Message)), ctypes.POINTER(ctypes.c_void_p)
Talk = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, Messages, Responses, ctypes.c_void_p)
Wait = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
pam.pam_authenticate.argtypes = pam.pam_end.argtypes = [ctypes.c_void_p, ctypes.c_int]
pam.pam_set_item.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
at_once = Wait(lambda *_: None)
def asked(password):
    questions = []
    def talk(count, messages, responses, _):
        made = libc.calloc(count, ctypes.sizeof(Response))
        for number in range(count):
            if messages[number].contents.style in (1, 2):
                ctypes.cast(made, ctypes.POINTER(Response))[number].text = libc.strdup(password)
                questions.append(number)
        responses[0] = made
        return 0
    talks, handle = Talk(talk), ctypes.c_void_p()
    spoken = Conversation(ctypes.cast(talks, ctypes.c_void_p), None)
    assert pam.pam_start(service, account, ctypes.byref(spoken), ctypes.byref(handle)) == 0
    pam.pam_set_item(handle, 10, ctypes.cast(at_once, ctypes.c_void_p))
    said = pam.pam_authenticate(handle, 0x8000)
    pam.pam_end(handle, said)
    return said == 0, len(questions)
print(json.dumps([asked(password) for password in passwords]))
"""
"""Tries passwords as a program of root does; PAM_FAIL_DELAY is 10, PAM_SILENT is 0x8000, styles 1 and 2 ask."""
LATER = r"""
import struct, sys
path, seconds = sys.argv[1], int(sys.argv[2])
with open(path, "r+b") as tally:
    kept = [struct.unpack("=52sHHQ", one) for one in iter(lambda: tally.read(64), b"")]
    tally.seek(0)
    tally.write(b"".join(struct.pack("=52sHHQ", *one[:3], one[3] - seconds) for one in kept))
"""
"""Moves wrong passwords into the past, as pam_faillock keeps them (its faillock.h)."""


class Victim(NamedTuple):
    """An account of the occasion."""

    host: Host
    name: str
    password: str

    def takes(self, *passwords: str) -> list[bool]:
        """Which of these passwords PAM takes, tried one after the other."""
        return [taken for taken, _ in self.asked(*passwords)]

    def asked(self, *passwords: str) -> list[tuple[bool, int]]:
        """The same, each with how many questions PAM had."""
        return [
            (taken, count) for taken, count in json.loads(python_on(self.host, ASK, SERVICE, self.name, *passwords))
        ]

    def changes(self, old: str, new: str) -> bool:
        """Whether `passwd` takes a new password from the account itself."""
        return self.runs("passwd", old, *[new] * 6)

    def runs(self, command: str, *lines: str) -> bool:
        """Whether a command of the account succeeds that is given these lines."""
        given = " ".join(shlex.quote(line) for line in lines)
        user = f"setpriv --reuid={self.name} --regid={self.name} --init-groups"
        return bool(self.host.run("sh -c %s", f"printf '%s\\n' {given} | LC_ALL=C {user} {command}").rc == 0)


def made_up() -> str:
    """A password that nothing is to be said against: several classes, no word, no sequence."""
    return "K" + "-".join(secrets.token_hex(1) for _ in range(8))


def tries(host: Host) -> int:
    return int(variables(host).get("k3s_host_lockout_failures", 5))


def lasts(host: Host) -> int:
    return int(variables(host).get("k3s_host_lockout_seconds", 900))


@contextlib.contextmanager
def victim(host: Host) -> Iterator[Victim]:
    """An account with a password and no more rights than anybody has; nothing is left of it."""
    name, password = new_name(), made_up()
    last_day = "$(date -u -d '2 days' +%F)"  # of an account that nothing takes back
    made = f"useradd -m -s /bin/sh -e {last_day} -K PASS_MIN_DAYS=0 -K PASS_MAX_DAYS=-1 {name} && "
    made += f"echo '{name}:{password}' | chpasswd"
    gone = f"userdel -r {name}; rm -f /run/faillock/{name}; "
    gone += f"[ ! -e /etc/security/opasswd ] || sed -i '/^{name}:/d' /etc/security/opasswd; ! getent passwd {name}"
    with planted(host, made, gone):
        yield Victim(host, name, password)


@pytest.mark.control("PASSWORD-QUALITY-SET", "PASSWORD-QUALITY-EFFECTIVE", "PASSWORD-QUALITY-ASKED")
@pytest.mark.parametrize("weak", ["K3-f9-a0-7", "kangaroo-kangaroo-kangaroo", "K-1111-2222-3333-a", "K-9f-3456-0a-7d"])
def test_passwd_takes_no_weak_password(nodes: list[Host], weak: str) -> None:
    for host in nodes:
        with victim(host) as person:
            assert not person.changes(person.password, weak)
            assert person.takes(weak, person.password) == [False, True]


@pytest.mark.control("PASSWORD-HISTORY-KEPT", "PASSWORD-ASKED-ONCE")
def test_passwd_takes_no_old_password(nodes: list[Host]) -> None:
    for host in nodes:
        with victim(host) as person:
            other = made_up()
            assert person.changes(person.password, other), "otherwise it takes none at all"
            assert not person.changes(other, person.password)
            assert person.takes(person.password, other) == [False, True]


@pytest.mark.control("LOCKOUT-FAILURES-COUNTED")
def test_guessing_ends_and_so_does_the_lock(nodes: list[Host]) -> None:
    for host in nodes:
        with victim(host) as person:
            wrong = [made_up() for _ in range(tries(host))]
            assert person.takes(*wrong, person.password) == [False] * (len(wrong) + 1)
            python_on(host, LATER, f"/run/faillock/{person.name}", str(lasts(host) + 1))
            assert person.takes(person.password) == [True]


@pytest.mark.control("LOCKOUT-ACCOUNT-REFUSED")
def test_who_is_locked_is_not_even_asked(nodes: list[Host]) -> None:
    for host in nodes:
        with victim(host) as person:
            *counted, last = person.asked(*[made_up() for _ in range(tries(host))], person.password)
            assert counted == [(False, 1)] * len(counted)
            assert last == (False, 0)


@pytest.mark.control("LOCKOUT-SUCCESS-FORGIVEN")
def test_a_right_password_begins_the_count_anew(nodes: list[Host]) -> None:
    for host in nodes:
        with victim(host) as person:
            nearly = [*[made_up() for _ in range(tries(host) - 1)], person.password]
            assert person.takes(*nearly * 2) == [*[False] * (len(nearly) - 1), True] * 2


@pytest.mark.control("LOCKOUT-COUNT-PRIVATE")
def test_nobody_takes_back_the_count_of_their_own_passwords(nodes: list[Host]) -> None:
    for host in nodes:
        with victim(host) as person:
            person.takes(*[made_up() for _ in range(tries(host))])
            assert not person.runs(f"sh -c ': >/run/faillock/{person.name}'")
            assert person.takes(person.password) == [False]


@pytest.mark.control("SU-GROUP-LISTED")
@pytest.mark.parametrize("way", ["su", "su -"])
def test_who_knows_a_password_is_refused_by_su(nodes: list[Host], way: str) -> None:
    for host in nodes:
        with victim(host) as person:
            assert not person.runs(f"{way} {person.name} -c true", person.password)
            assert person.takes(person.password) == [True], "it was the right one"
            assert host.run(f"{way} %s -c true", person.name).rc == 0, "root may"


@pytest.mark.control("LOCKOUT-FAILURES-COUNTED", "LOCKOUT-ACCOUNT-REFUSED")
def test_wrong_passwords_keep_nobody_out_who_comes_by_key(nodes: list[Host]) -> None:
    for host in nodes:
        account = automation(host)
        with planted(host, "true", f"faillock --user {account} --reset"):
            Victim(host, account, "").takes(*[made_up() for _ in range(tries(host) + 1)])
            said = ssh(host, account, command="sudo -n id -u")
            assert said.stdout.strip() == "0", said.stderr
