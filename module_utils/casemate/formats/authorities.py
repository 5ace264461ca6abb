"""The authorities that programs of the host trust, and which of them come from no package and no operator's folder.

update-ca-certificates(8) makes the bundle and the links beside it of the certificates in two folders. OpenSSL reads the
bundle or the links; Go's crypto/x509 the bundle, and every file of the folder besides (root_unix.go).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import shlex
from typing import Iterator, Set

from ..core.vouched_for import Stranger
from ..host.files import names_in
from ..host.machine import Host

BUNDLE, FOLDER = "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs"
BESIDES = ("/usr/lib/ssl/cert.pem", "/etc/ssl/cert.pem", "/etc/pki/tls/certs/*", "/etc/pki/tls/cert.pem")
"""Where OpenSSL and Go look, too."""
SOURCES = ("/usr/share/ca-certificates/", "/usr/local/share/ca-certificates/")
CERTIFICATE = re.compile(rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----(.*?)-----END (?:TRUSTED )?CERTIFICATE-----", re.S)
REMADE = "update-ca-certificates --fresh makes it anew"


def strangers(host: Host) -> Iterator[Stranger]:
    """Certificates in the bundle, by their line, and files or links beside it."""
    known = _known(host)
    data = host.read(BUNDLE) or b""
    for found in CERTIFICATE.finditer(data):
        if _body(found[1]) not in known:
            line = data.count(b"\n", 0, found.start()) + 1
            why = f"the certificate is in none of {', '.join(SOURCES)}: {REMADE}"
            yield Stranger(f"{BUNDLE}:{line}", why, _digest(found[1]))
    names = set(names_in(host.path(FOLDER)))
    besides = (path for pattern in BESIDES for path in host.glob(pattern, hidden=True))
    for path in (*(f"{FOLDER}/{name}" for name in sorted(names)), *besides):
        target = host.link_target(path)
        folder, _, file = target.rpartition("/")
        if path == BUNDLE or target.startswith(SOURCES) or (folder == FOLDER and file in names):
            continue  # of what it leads to, its own place tells
        for found in CERTIFICATE.finditer(host.read(target or path) or b""):
            if _body(found[1]) not in known:
                why = f"it is of no package and not from those of the operator; by hand: rm {shlex.quote(path)}"
                yield Stranger(path, why, _digest(found[1]))
                break


def _known(host: Host) -> Set[bytes]:
    paths = (path for folder in SOURCES for path in host.glob(f"{folder}**/*", hidden=True))
    return {_body(found) for path in paths for found in CERTIFICATE.findall(host.read(path) or b"")}


def _body(text: bytes) -> bytes:
    return b"".join(text.split())


def _digest(text: bytes) -> str:
    """Of the certificate as such, the same in every form."""
    try:
        made = base64.b64decode(_body(text), validate=True)
    except binascii.Error:
        made = text
    return "sha256:" + hashlib.sha256(made).hexdigest()
