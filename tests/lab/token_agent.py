"""An ssh-agent that holds one FIDO token of Ed25519, made of software, which verifies its user or does not.

Sources: the SSH Agent Protocol (draft-miller-ssh-agent), PROTOCOL.u2f of OpenSSH: what is signed is the digest of the
application, flags, a counter and the digest of the message; the flags say whether somebody touched the token (1) and
was verified by it (4).
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

KIND, APPLICATION = b"sk-ssh-ed25519@openssh.com", b"ssh:"
REQUEST_IDENTITIES, IDENTITIES_ANSWER, SIGN_REQUEST, SIGN_RESPONSE, FAILURE = 11, 12, 13, 14, 5
TOUCHED, VERIFIED = 1, 4


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class Token:
    """A key that signs as a token does."""

    def __init__(self, private: Path, verifies: bool) -> None:
        """Take the key of a file that ssh-keygen wrote."""
        key = load_ssh_private_key(private.read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        self.key, self.flags, self.counter = key, TOUCHED | (VERIFIED if verifies else 0), 0
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.blob = string(KIND) + string(public) + string(APPLICATION)

    def signature(self, message: bytes) -> bytes:
        """What SSH takes for a signature of a token."""
        self.counter += 1
        state = struct.pack(">BI", self.flags, self.counter)
        signed = hashlib.sha256(APPLICATION).digest() + state + hashlib.sha256(message).digest()
        return string(KIND) + string(self.key.sign(signed)) + state

    def answer(self, request: bytes) -> bytes:
        """What the agent says to one request."""
        if request[:1] == bytes([REQUEST_IDENTITIES]):
            return bytes([IDENTITIES_ANSWER]) + struct.pack(">I", 1) + string(self.blob) + string(b"token")
        if request[:1] == bytes([SIGN_REQUEST]):
            size = int.from_bytes(request[1:5], "big")
            rest = request[5 + size :]
            message = rest[4 : 4 + int.from_bytes(rest[:4], "big")]
            if request[5 : 5 + size] == self.blob:
                return bytes([SIGN_RESPONSE]) + string(self.signature(message))
        return bytes([FAILURE])


def _serve(connection: socket.socket, token: Token) -> None:
    with connection, contextlib.suppress(OSError), connection.makefile("rb") as asked:
        while len(head := asked.read(4)) == 4:
            connection.sendall(string(token.answer(asked.read(int.from_bytes(head, "big")))))


@contextlib.contextmanager
def agent(folder: Path, private: Path, verifies: bool) -> Iterator[str]:
    """The socket of an agent with this token, for as long as the block runs."""
    path, token = folder / f"agent-{verifies}", Token(private, verifies)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    _serve(listener.accept()[0], token)

        threading.Thread(target=accept, daemon=True).start()
        yield str(path)
        listener.shutdown(socket.SHUT_RDWR)
