"""Who signed a file, by OpenSSH signatures (ssh-keygen(1), -Y): no key server, no extra package."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Callable

from .machine import Result

NAMESPACE = "casemate-lock"


class SignatureError(Exception):
    """The file is not signed by anybody whom the operator allows; the message says what to do."""


def signer(
    run: Callable[[Sequence[str], str | None], Result],
    document: str,
    allowed_signers: str,
    signature: str = "",
    namespace: str = NAMESPACE,
) -> str:
    """Return the principal of `allowed_signers` whose key signed the file `document`.

    All are paths. Raises SignatureError for a missing, wrong or foreign signature; `run` starts a command.
    """
    signature = signature or document + ".sig"
    if not allowed_signers:
        raise SignatureError(
            f"nobody is allowed to sign {document}: set casemate_allowed_signers to your allowed_signers file"
        )
    needed = {"signed file": document, "signature": signature, "allowed_signers file": allowed_signers}
    for what, path in needed.items():
        if not os.path.isfile(path):
            raise SignatureError(f"the {what} {path} is missing")
    found = run(["ssh-keygen", "-Y", "find-principals", "-s", signature, "-f", allowed_signers], None)
    if found.rc == 127:
        raise SignatureError("ssh-keygen is not installed here, so no signature can be checked")
    names = [name.strip() for name in found.out.replace(",", "\n").splitlines() if name.strip()]
    if found.rc != 0 or not names:
        raise SignatureError(f"{signature} is not by anybody listed in {allowed_signers}: {_last(found)}")
    with open(document, encoding="utf-8", newline="") as handle:
        text = handle.read()
    checked = found
    for name in names:
        who = ["-f", allowed_signers, "-I", name, "-n", namespace]
        checked = run(["ssh-keygen", "-Y", "verify", *who, "-s", signature], text)
        if checked.rc == 0:
            return name
    raise SignatureError(f"{document} was changed after signing: {signature} does not fit it ({_last(checked)})")


def _last(result: Result) -> str:
    lines = (result.err or result.out).strip().splitlines()
    return lines[-1] if lines else f"ssh-keygen ended with {result.rc}"
