"""One line of an authorized_keys file: options, type, key, comment; and what in it is not fit for a person.

Sources: sshd(8), AUTHORIZED_KEYS FILE FORMAT; auth-options.c of OpenSSH for how options are quoted; RFC 4253, 6.6, and
PROTOCOL.u2f of OpenSSH for what a key is made of.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
import time
from typing import Dict, List, NamedTuple, Tuple

FIDO = ("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com")
RSA, LEAST_BITS = "ssh-rsa", 3072
TYPES = ("ssh-ed25519", *FIDO, RSA)
VERIFY = "verify-required"
WITH_VALUE = ("from", "command", "expiry-time", "permitopen", "permitlisten")
REPEATABLE = ("permitopen", "permitlisten")
WITHOUT_VALUE = (
    "restrict", VERIFY, "no-agent-forwarding", "no-port-forwarding", "no-pty", "no-user-rc", "no-x11-forwarding", "pty",
    "port-forwarding",
)  # fmt: skip
UNSAFE = {
    "cert-authority": "lets in whoever has a certificate that this key signed",
    "environment": "sets variables by which programs load what they are told to",
    "no-touch-required": "lets a token sign while nobody touches it",
    "tunnel": "makes a network device past the firewall",
    "agent-forwarding": "gives root here the use of the person's other keys",
    "x11-forwarding": "lets root here read and drive the person's screen",
    "user-rc": "runs a file of the home at each login",
    "principals": "is for authorities, and none may stand here",
}
"""Options that undo what else is demanded, each with what it does."""
OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:[^"\\]|\\"|\\(?!"))*)")?')
"""A backslash hides a quote that follows it, and nothing else: not another backslash (opt_dequote of OpenSSH)."""
PORT = r"(\*|[A-Za-z0-9-]+)"
HOST_AND_PORT = rf"(\[[^]/]+\]|[^]:/\[]+):{PORT}"
PERMITTED = {"permitopen": re.compile(HOST_AND_PORT), "permitlisten": re.compile(f"{HOST_AND_PORT}|{PORT}")}
"""What may be forwarded (handle_permit of OpenSSH); with anything else sshd takes the whole key for none."""
ADDRESSES = re.compile(r"!?[A-Za-z0-9.:*?_/-]+")
WORDS = (
    f"a public key as ssh-keygen writes it ({', '.join(TYPES)}, RSA of {LEAST_BITS} bits or more), "
    f"with any of {', '.join((*WITH_VALUE, *WITHOUT_VALUE))} before it"
)
"""What a line may be."""
TIMES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""How many digits a time has -> what they are (parse_absolute_time of OpenSSH)."""
ENDS = re.compile("[\0\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
"""Whatever ends a line for anybody who reads it."""


class Unfit(Exception):  # noqa: N818 - not a failure but an answer
    """Why a line is not taken. The line itself, which may be a private key, is never repeated."""


class Key(NamedTuple):
    """A line in its parts; names of options are in small letters, and their values are as they are quoted."""

    options: Tuple[Tuple[str, str], ...]
    type: str
    blob: str
    comment: str

    @property
    def fingerprint(self) -> str:
        """As sshd's log names the key."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

    @property
    def verifies(self) -> bool:
        """Whether the key signs only after its token has verified who touches it."""
        return VERIFY in dict(self.options)


def parse(line: str) -> Key:
    """The parts of a line. Raises Unfit for what is no public key, or has options that nobody may have."""
    if "PRIVATE KEY" in line:
        raise Unfit("it is a private key, which may never leave its owner: replace that key, and give its .pub")
    if not line.strip() or ENDS.search(line.strip()):
        raise Unfit("it is not one line")
    options, rest = _split(line.strip())
    words = rest.split(None, 2)
    if len(words) < 2 or words[0] not in TYPES:
        raise Unfit(f"it has no key of the types {', '.join(TYPES)}")
    _judge_blob(words[0], words[1])
    _judge_options(options, words[0])
    return Key(tuple(options), words[0], words[1], words[2] if len(words) > 2 else "")


def rendered(line: str, verify: bool = False) -> str:
    """The line as it is written for sshd; with `verify` it is only taken from a token that has verified its user."""
    key = parse(line)
    options = [*key.options, *([(VERIFY, "")] if verify and not key.verifies else [])]
    shown = ",".join(f'{name}="{value}"' if value else name for name, value in options)
    return " ".join(filter(None, (shown, key.type, key.blob, key.comment)))


def _split(line: str) -> Tuple[List[Tuple[str, str]], str]:
    """The options before a key, and the rest. sshd takes them for options where the line begins with no type."""
    options: List[Tuple[str, str]] = []
    if line.split(None, 1)[:1] and line.split(None, 1)[0] in TYPES:
        return options, line
    at = 0
    while True:
        found = OPTION.match(line, at)
        if not found:
            raise Unfit("its options cannot be read")
        options.append((found[1].lower(), found[2] or ""))
        at = found.end()
        if line[at : at + 1] in (" ", "\t", ""):
            return options, line[at:].lstrip()
        if line[at] != ",":
            raise Unfit("its options cannot be read")
        at += 1


def _judge_options(options: List[Tuple[str, str]], type_: str) -> None:
    for name, value in options:
        if name in UNSAFE:
            raise Unfit(f"its option {name} {UNSAFE[name]}")
        if name not in WITH_VALUE + WITHOUT_VALUE:
            raise Unfit(f"it has the option {name}, which is not known here")
        if bool(value) != (name in WITH_VALUE):
            raise Unfit(f"its option {name} has {'a' if value else 'no'} value")
    names = [name for name, _ in options]
    if {name for name in names if names.count(name) > 1} - set(REPEATABLE):
        raise Unfit("it has an option twice")
    for name, value in options:
        if name in PERMITTED and not PERMITTED[name].fullmatch(value):
            raise Unfit(f"its option {name} has {value!r}, which is no host and port")
    given: Dict[str, str] = dict(options)
    if VERIFY in given and type_ not in FIDO:
        raise Unfit(f"its option {VERIFY} is for keys of tokens ({', '.join(FIDO)})")
    if "expiry-time" in given and not _is_time(given["expiry-time"]):
        raise Unfit("its option expiry-time is no YYYYMMDD or YYYYMMDDHHMM that there is")
    if "from" in given and all(one.startswith("!") for one in given["from"].split(",")):
        raise Unfit("its option from leaves addresses out and names none, so it lets nobody in")
    for one in given["from"].split(",") if "from" in given else ():
        if not ADDRESSES.fullmatch(one) or ("/" in one and not _is_network(one.lstrip("!"))):
            raise Unfit(f"its option from has {one!r}, which is no address, network without host bits, or pattern")


def _is_time(text: str) -> bool:
    """Whether sshd takes a text for a time: with another one it takes the whole key for none."""
    digits = re.fullmatch(r"([0-9]+)Z?", text)
    try:
        return bool(digits and time.strptime(digits[1], TIMES[len(digits[1])]))
    except (KeyError, ValueError):
        return False


def _is_network(text: str) -> bool:
    """Whether sshd takes a text for a network: with bits of a host in it, it takes the whole key for none."""
    try:
        return bool(ipaddress.ip_network(text))
    except ValueError:
        return False


def _judge_blob(type_: str, blob: str) -> None:
    try:
        parts = _strings(base64.b64decode(blob, validate=True))
    except (binascii.Error, ValueError):
        raise Unfit("its key is cut or mistyped") from None
    if not parts or parts[0] != type_.encode():
        raise Unfit(f"it says {type_}, and its key is of another type")
    bits = int.from_bytes(parts[2], "big").bit_length() if type_ == RSA and len(parts) == 3 else LEAST_BITS
    if bits < LEAST_BITS:
        raise Unfit(f"it is of RSA with {bits} bits; {LEAST_BITS} are the least")


def _strings(data: bytes) -> List[bytes]:
    """The strings of which a key is made. Raises ValueError where one is cut."""
    found = []
    while data:
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 + size:
            raise ValueError("cut")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found
