"""Lines of authorized_keys: which are taken for a person, and why others are not. Keys are made for the test."""

from __future__ import annotations

import base64
import struct

import pytest

from module_utils.casemate.formats import authorized_keys
from module_utils.casemate.formats.authorized_keys import FIDO, Unfit, parse, rendered


def blob(type_: str, *parts: bytes) -> str:
    """A key as RFC 4253 has it, of these strings."""
    return base64.b64encode(b"".join(struct.pack(">I", len(p)) + p for p in (type_.encode(), *parts))).decode()


def rsa(bits: int) -> str:
    return blob("ssh-rsa", b"\x01\x00\x01", b"\0" + (1 << (bits - 1) | 1).to_bytes(bits // 8, "big"))


PLAIN = f"ssh-ed25519 {blob('ssh-ed25519', bytes(32))} alice@desk"
TOKEN = f"{FIDO[0]} {blob(FIDO[0], bytes(32), b'ssh:')} alice@token"


@pytest.mark.parametrize(
    ("line", "options", "comment"),
    [
        (PLAIN, {}, "alice@desk"),
        (f"  {PLAIN}\n", {}, "alice@desk"),
        (PLAIN.rsplit(" ", 1)[0], {}, ""),
        (f"{PLAIN} of two words", {}, "alice@desk of two words"),
        (
            f'from="192.0.2.0/24,!192.0.2.7,2001:db8::/32" {PLAIN}',
            {"from": "192.0.2.0/24,!192.0.2.7,2001:db8::/32"},
            None,
        ),
        (
            f'restrict,pty,command="echo \\"a b\\"" {PLAIN}',
            {"command": 'echo \\"a b\\"', "restrict": "", "pty": ""},
            None,
        ),
        (f'permitopen="a:1",permitopen="b:2" {PLAIN}', {"permitopen": "b:2"}, None),
        (f'permitopen="[2001:db8::1]:*" {PLAIN}', {"permitopen": "[2001:db8::1]:*"}, None),
        (f'permitlisten="8080",permitlisten="localhost:8081" {PLAIN}', {"permitlisten": "localhost:8081"}, None),
        (f'expiry-time="20270131" {PLAIN}', {"expiry-time": "20270131"}, None),
        (f'expiry-time="202701312359Z" {PLAIN}', {"expiry-time": "202701312359Z"}, None),
        (f'expiry-time="20280229235959" {PLAIN}', {"expiry-time": "20280229235959"}, None),
        (f'command="a\\b \\"c\\\\" d" {PLAIN}', {"command": 'a\\b \\"c\\\\" d'}, None),
        (f"Restrict {PLAIN}", {"restrict": ""}, None),
        (f"verify-required {TOKEN}", {"verify-required": ""}, "alice@token"),
        (f"ssh-rsa {rsa(3072)}", {}, ""),
        (f"ssh-rsa {rsa(4096)}", {}, ""),
    ],
)
def test_a_line_is_taken_apart(line: str, options: dict[str, str], comment: str | None) -> None:
    key = parse(line)
    assert dict(key.options) == options
    assert comment is None or key.comment == comment
    assert parse(rendered(line)) == key, "what is written means what was declared"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----", "private key"),
        (f"{PLAIN}\n{PLAIN}", "not one line"),
        ("", "not one line"),
        ("hello world", "options cannot be read|no key of the types"),
        ("ssh-ed25519", "no key of the types"),
        (f"ssh-dss {blob('ssh-dss', b'1')}", "cannot be read|no key of the types"),
        (f"ecdsa-sha2-nistp256 {blob('ecdsa-sha2-nistp256', b'1')}", "cannot be read|not known|no key of the types"),
        ("ssh-ed25519 AAAA@", "cut or mistyped"),
        (f"ssh-ed25519 {blob('ssh-ed25519', bytes(32))[:-8]}", "cut or mistyped"),
        (f"ssh-ed25519 {blob('ssh-rsa', bytes(32))}", "of another type"),
        (f"ssh-rsa {rsa(2048)}", "RSA with 2048 bits"),
        (f"verify-required {PLAIN}", "keys of tokens"),
        (f"frobnicate {PLAIN}", "not known here"),
        (f'restrict="yes" {PLAIN}', "has a value"),
        (f"from {PLAIN}", "has no value"),
        (f'from="192.0.2.7/24" {PLAIN}', "host bits"),
        (f'permitopen="db.example.org" {PLAIN}', "no host and port"),
        (f'permitopen="::1:80" {PLAIN}', "no host and port"),
        (f'permitlisten="localhost:" {PLAIN}', "no host and port"),
        (f'from="a b" {PLAIN}', "no address"),
        (f'from="!192.0.2.7,!198.51.100.0/24" {PLAIN}', "it lets nobody in"),
        (f'from="a",from="b" {PLAIN}', "an option twice"),
        (f'expiry-time="tomorrow" {PLAIN}', "no YYYYMMDD"),
        (f'expiry-time="20271331" {PLAIN}', "no YYYYMMDD"),
        (f'expiry-time="20270229" {PLAIN}', "no YYYYMMDD"),
        (f'expiry-time="202701312460" {PLAIN}', "no YYYYMMDD"),
        # sshd takes the quote for one that is hidden, and reads on to the next one.
        (f'command="a\\\\",restrict {PLAIN}', "cannot be read"),
        (f'command="a {PLAIN}', "cannot be read"),
        (f'command="a"{PLAIN}', "cannot be read"),
        *((f"{name} {PLAIN}", name) for name in authorized_keys.UNSAFE),
        *((f'{name.upper()}="x" {PLAIN}', name) for name in authorized_keys.UNSAFE),
    ],
)
def test_a_line_is_refused_and_never_repeated(line: str, why: str) -> None:
    with pytest.raises(Unfit, match=why) as refused:
        parse(line)
    assert "AAAA" not in str(refused.value) and "abc" not in str(refused.value)


def test_a_second_factor_is_asked_of_each_key_once() -> None:
    assert rendered(TOKEN, verify=True).startswith("verify-required sk-ssh")
    assert rendered(f"verify-required,restrict {TOKEN}", verify=True).startswith("verify-required,restrict sk-ssh")
    assert rendered(TOKEN).startswith("sk-ssh")
