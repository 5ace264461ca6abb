"""Files of checksums: both styles, what editors and systems do to them, and what somebody may have put in."""

from __future__ import annotations

import pytest

from casemate.supply.checksum_file import ChecksumError, parse

DIGEST, OTHER = "ab" * 32, "cd" * 32
FOUND = {"k3s": DIGEST}


@pytest.mark.parametrize(
    "text",
    [
        f"{DIGEST}  k3s\n",
        f"{DIGEST} *k3s\n",
        f"{DIGEST}\tk3s",
        f"{DIGEST}  ./k3s\n",
        f"SHA256 (k3s) = {DIGEST}\n",
        f"SHA256(k3s)= {DIGEST}\n",
        f"{DIGEST.upper()}  k3s\n",
        f"{DIGEST}  k3s\r\n",
        f"\ufeff{DIGEST}  k3s\n",
        f"\n{DIGEST}  k3s\n\n",
        f"{DIGEST}  k3s\n{DIGEST.upper()} *k3s\n",
    ],
)
def test_each_way_to_write_a_checksum_is_read(text: str) -> None:
    assert parse(text.encode()) == FOUND


def test_each_file_has_its_own() -> None:
    assert parse(f"{DIGEST}  k3s\nSHA256 (k3s-airgap-images-amd64.tar.zst) = {OTHER}\n".encode()) == {
        "k3s": DIGEST,
        "k3s-airgap-images-amd64.tar.zst": OTHER,
    }


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "names no file"),
        (b"\r\n\r\n", "names no file"),
        (b"\xff\xfe\x00", "no text"),
        (b"<!doctype html>\n", "line 1 is no line of a file of SHA-256 checksums"),
        (f"{DIGEST}\n".encode(), "line 1 is no line"),
        (f"{DIGEST[:-1]}  k3s\n".encode(), "line 1 has 63 digits"),
        (f"{DIGEST}ab  k3s\n".encode(), "line 1 has 66 digits"),
        (f"{DIGEST[:40]}  k3s\n".encode(), "line 1 has 40 digits"),
        (f"{DIGEST[:-1]}g  k3s\n".encode(), "line 1 is no line"),
        (f"MD5 (k3s) = {DIGEST[:32]}\n".encode(), "line 1 is no line"),
        (
            f"{DIGEST}  k3s\n{OTHER}  k3s\n".encode(),
            f"line 2 gives k3s the digest {OTHER}, and an earlier one {DIGEST}",
        ),
        (f"{DIGEST}  k3s\nSHA256 (./k3s) = {OTHER}\n".encode(), "line 2 gives k3s"),
        (f"{DIGEST}  ../../etc/passwd\n".encode(), "no plain name"),
        (f"{DIGEST}  /etc/passwd\n".encode(), "no plain name"),
        (f"{DIGEST}  ././k3s\n".encode(), "no plain name"),
        (f"{DIGEST}  dist/k3s\n".encode(), "no plain name"),
        (f"{DIGEST}  ..\n".encode(), "no plain name"),
        (f"{DIGEST}  k3s\x00\n".encode(), "no plain name"),
        (f"{DIGEST}  k3s k3s\n".encode(), "no plain name"),
        (f"\\{DIGEST}  k3s\\nk3s\n".encode(), "line 1 is no line"),
        (f"SHA256 (../k3s) = {DIGEST}\n".encode(), "no plain name"),
    ],
)
def test_anything_else_is_refused_by_its_line(data: bytes, says: str) -> None:
    with pytest.raises(ChecksumError, match=says):
        parse(data)
