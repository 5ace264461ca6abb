"""Have this machine's PAM ask for codes, and print what it makes of some. Runs as root in a chroot.

Standard library only, Python 3.9; see test_codes_on_debian.py.
"""

from __future__ import annotations

import base64
import ctypes
import hmac
import json
import os
import struct
import sys
import time
from typing import Any

from module_utils.casemate.host.machine import Host
from module_utils.casemate.kinds import pam_line, pam_stack, totp_secrets

FILE = "/var/lib/casemate/totp/erin"
AUTH = "/etc/pam.d/common-auth"


class Message(ctypes.Structure):
    _fields_ = [("style", ctypes.c_int), ("text", ctypes.c_char_p)]


class Answer(ctypes.Structure):
    _fields_ = [("text", ctypes.c_void_p), ("unused", ctypes.c_int)]


Talk = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(Message)),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)


class Conversation(ctypes.Structure):
    _fields_ = [("talk", Talk), ("data", ctypes.c_void_p)]


pam, libc = ctypes.CDLL("libpam.so.0"), ctypes.CDLL(None)
libc.strdup.restype = libc.calloc.restype = ctypes.c_void_p
pam.pam_start.argtypes = [
    ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Conversation), ctypes.POINTER(ctypes.c_void_p)
]  # fmt: skip
pam.pam_authenticate.argtypes = pam.pam_end.argtypes = [ctypes.c_void_p, ctypes.c_int]


def admits(service: str, user: str, said: str) -> bool:
    """Whether a service lets somebody in who says this whatever PAM asks."""

    def talk(count: int, messages: Any, answers: Any, _data: Any) -> int:
        made = libc.calloc(count, ctypes.sizeof(Answer))
        given = ctypes.cast(made, ctypes.POINTER(Answer))
        for at in range(count):
            if messages[at].contents.style in (1, 2):
                given[at].text = libc.strdup(said.encode())
        answers[0] = made
        return 0

    handle, conversation = ctypes.c_void_p(), Conversation(Talk(talk), None)
    if pam.pam_start(service.encode(), user.encode(), ctypes.byref(conversation), ctypes.byref(handle)) != 0:
        raise OSError("PAM does not start")
    code = pam.pam_authenticate(handle, 0)
    pam.pam_end(handle, code)
    return bool(code == 0)


def code(secret: str, step: int) -> str:
    """RFC 6238."""
    made = hmac.digest(base64.b32decode(secret), struct.pack(">Q", step), "sha1")
    at = made[-1] & 15
    return f"{(int.from_bytes(made[at : at + 4], 'big') & 0x7FFFFFFF) % 10**6:06d}"


def judged(line: Any, secrets: Any) -> list[str]:
    """What fails of the line, the secrets, and of what lets in whoever comes."""
    found = []
    if not pam_line.assess(line, pam_line.observe([line], Host())[0]).ok:
        found.append("line")
    if not totp_secrets.assess(secrets, totp_secrets.observe([secrets], Host())[0]).ok:
        found.append("secrets")
    everybody: Any = {"facility": "auth", "known": []}
    if "sshd" in pam_stack.observe([everybody], Host())[0]["admits"]:
        found.append("proof")
    return found


def main() -> None:
    with open("/given.json", encoding="utf-8") as handle:
        given = json.load(handle)
    secret, line, secrets = given["secret"], given["line"], given["secrets"]
    secrets["secrets"] = {"erin": totp_secrets.digest(secret)}
    found: dict[str, Any] = {"before": judged(line, secrets)}
    pam_line.enforce([line], {0}, Host(guard=lambda *_: None))
    os.makedirs(os.path.dirname(FILE), mode=0o700)

    def written() -> None:
        options = "".join(f'" {option}\n' for option in secrets["options"])
        with open(FILE, "w", encoding="ascii") as file:
            file.write(f"{secret}\n{options}")
        os.chmod(FILE, 0o600)

    written()
    found["after"] = judged(line, secrets)
    step = int(time.time()) // 30
    right = code(secret, step)
    found["codes"] = [admits("sshd", "erin", one) for one in ("000000", right, right)]
    found["one try more"] = admits("sshd", "erin", code(secret, step + 1))
    found["used"] = judged(line, secrets)
    found["mode"] = f"{os.stat(FILE).st_mode & 0o777:04o}"
    written()
    found["a password"] = [admits("sshd", "alice", given["password"]), admits("login", "alice", given["password"])]
    with open(AUTH, encoding="utf-8") as file:
        before = file.read()
    for name, new in {
        "nullok": before.replace("noskewadj", "noskewadj nullok"),
        "removed": "\n".join(one for one in before.split("\n") if "google" not in one and "in sshd" not in one),
    }.items():
        with open(AUTH, "w", encoding="utf-8") as file:
            file.write(new)
        found[name] = judged(line, secrets)
    with open(AUTH, "w", encoding="utf-8") as file:
        file.write(before)
    line["needed_by"] = []
    pam_line.enforce([line], {0}, Host(guard=lambda *_: None))
    with open(AUTH, encoding="utf-8") as file:
        found["taken back"] = "google" not in file.read()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
