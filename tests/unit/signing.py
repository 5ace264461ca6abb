"""Files signed by throw-away keys, as an operator signs a lock or a list of images."""

from __future__ import annotations

import subprocess
from pathlib import Path


def key(folder: Path, name: str = "id") -> Path:
    """A new key without a passphrase."""
    made = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", made], check=True)
    return made


def allow(signers: Path, private: Path, who: str = "ops@example.org", options: str = "") -> None:
    """Let the holder of a key sign."""
    public = private.with_name(private.name + ".pub").read_text().strip()
    signers.write_text(" ".join(filter(None, [who, options, public])) + "\n")


def sign(document: Path, private: Path, namespace: str) -> None:
    """Sign a file, whose signature then lies beside it."""
    Path(f"{document}.sig").unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(private), "-n", namespace, str(document)]
    subprocess.run(command, check=True, capture_output=True)
