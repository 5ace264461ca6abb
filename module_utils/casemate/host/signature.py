"""Who signed a file, by OpenSSH signatures (ssh-keygen(1), -Y): no key server, no extra package."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from typing import Callable, Dict, List, NamedTuple, Optional

from . import allowed_signers as listed
from .machine import Result

NAMESPACE = "casemate-lock"
Run = Callable[[Sequence[str], Optional[str]], Result]
"""What starts a command, with the text of its standard input."""


class SignatureError(Exception):
    """The file is not signed by anybody, or by too few, whom the operator allows; the message says what to do."""


class Signature(NamedTuple):
    """A signature that fits: the principal, and type and fingerprint of the key."""

    principal: str
    type: str
    fingerprint: str


def signer(
    run: Run,
    document: str,
    allowed_signers: str,
    signature: str = "",
    namespace: str = NAMESPACE,
    revoked: str = "",
) -> str:
    """Return the principal of `allowed_signers` whose key signed the file `document`.

    All are paths; `revoked` is as for `signers`. Raises SignatureError for a missing, wrong or foreign signature, and
    for one by a revoked key; `run` starts a command.
    """
    signature = signature or document + ".sig"
    _demand(document, allowed_signers, revoked)
    return _verified(run, document, allowed_signers, signature, namespace, revoked).principal


def signers(
    run: Run,
    document: str,
    allowed_signers: str,
    needed: int = 1,
    revoked: str = "",
    namespace: str = NAMESPACE,
) -> List[str]:
    """Return who of `allowed_signers` signed the file `document`: at least `needed`, each of them once.

    Signatures are the files DOCUMENT.sig and DOCUMENT.NAME.sig. Lines of `allowed_signers` that share a name or a key
    are of one signer. `revoked` is a file of keys, or a list of revocations (ssh-keygen(1), KEY REVOCATION LISTS), that
    count no more. Raises SignatureError, with who is missing and why each signature does not count.
    """
    _demand(document, allowed_signers, revoked)
    with open(allowed_signers, encoding="utf-8", errors="surrogateescape") as handle:
        known = listed.lines(handle.read(), namespace)
    whose, every = listed.signers(known), listed.names(known)
    found: List[str] = []
    refused: List[str] = []
    for path in signatures(document):
        try:
            made = _verified(run, document, allowed_signers, path, namespace, revoked)
        except SignatureError as refusal:
            refused.append(str(refusal))
            continue
        found.append(whose.get(made.fingerprint) or _of_authority(made, known, whose))
    signed = sorted(set(found))
    if len(signed) >= needed:
        return signed
    if needed == 1:
        raise SignatureError("; ".join(refused))
    missing = [name for name in every if name not in signed]
    said = f"{document} needs {needed} signers (casemate_lock_threshold) and has {len(signed)} of {len(every)}"
    said += f" ({', '.join(signed)})" if signed else ""
    said += f"; missing: {', '.join(missing) or 'nobody else is listed'}"
    raise SignatureError("; ".join([said, *refused]))


def signatures(document: str) -> List[str]:
    """The files beside a document that are named like signatures of it, the plainest name first, there or not."""
    plain = f"{document}.sig"
    others = sorted(glob.glob(f"{glob.escape(document)}.*.sig"))
    return [plain, *others] if os.path.lexists(plain) or not others else others


def allowed(allowed_signers: str, namespace: str = NAMESPACE) -> List[str]:
    """The signers that a file lists for a namespace, each once. Raises OSError."""
    with open(allowed_signers, encoding="utf-8", errors="surrogateescape") as handle:
        return listed.names(listed.lines(handle.read(), namespace))


def _of_authority(made: Signature, known: Sequence[listed.Line], whose: Dict[str, str]) -> str:
    """Whose a certificate is: the authority's, of whom all certificates count as one signer."""
    authorities = [whose[line.fingerprint] for line in known if line.authority]
    return authorities[0] if made.type.endswith("-CERT") and authorities else made.principal


def _demand(document: str, allowed_signers: str, revoked: str = "") -> None:
    if not allowed_signers:
        raise SignatureError(
            f"nobody is allowed to sign {document}: set casemate_allowed_signers to your allowed_signers file"
        )
    needed = {"signed file": document, "allowed_signers file": allowed_signers}
    if revoked:
        needed["file of revoked signers"] = revoked
    for what, path in needed.items():
        if not os.path.isfile(path):
            raise SignatureError(f"the {what} {path} is missing")


def _verified(run: Run, document: str, allowed_signers: str, signature: str, namespace: str, revoked: str) -> Signature:
    if not os.path.isfile(signature):
        raise SignatureError(f"the signature {signature} is missing")
    found = run(["ssh-keygen", "-Y", "find-principals", "-s", signature, "-f", allowed_signers], None)
    if found.rc == 127:
        raise SignatureError("ssh-keygen is not installed here, so no signature can be checked")
    names = [name.strip() for name in found.out.replace(",", "\n").splitlines() if name.strip()]
    if found.rc != 0 or not names:
        raise SignatureError(f"{signature} is not by anybody listed in {allowed_signers}: {_last(found)}")
    with open(document, encoding="utf-8", errors="surrogateescape", newline="") as handle:
        text = handle.read()
    checked = found
    for name in names:
        argv = ["ssh-keygen", "-Y", "verify", "-f", allowed_signers, "-I", name, "-n", namespace, "-s", signature]
        checked = run([*argv, "-r", revoked] if revoked else argv, text)
        if checked.rc == 0:
            said = re.search(r" with (\S+) key (\S+)\s*$", checked.out)
            return Signature(name, said[1] if said else "", said[2] if said else "")
        if revoked and run(argv, text).rc == 0:
            raise SignatureError(f"{signature} is by {name}, and {revoked} revokes the key ({_last(checked)})")
    changed = f"{document} was changed after signing, or signed for another purpose"
    raise SignatureError(f"{changed}: {signature} does not fit it ({_last(checked)})")


def _last(result: Result) -> str:
    lines = (result.err or result.out).strip().splitlines()
    return lines[-1] if lines else f"ssh-keygen ended with {result.rc}"
