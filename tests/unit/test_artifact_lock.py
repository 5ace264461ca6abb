"""The artifact lock: its schema, finding a release, and who may sign it."""

from __future__ import annotations

import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from casemate.supply.artifact_lock import Lock, LockError, load, parse, text, verify

SHIPPED = Path(__file__).parents[2] / "roles/k3s_node/files/artifacts.lock.json"
DIGEST = "ab" * 32


def raw(**changes: Any) -> dict[str, Any]:
    lock: dict[str, Any] = {
        "schema": 1,
        "default": "v1.36.4+k3s1",
        "releases": {"v1.36.4+k3s1": {"provides": ["api_semantics"], "files": {"k3s": DIGEST}}},
    }
    return {**lock, **changes}


def release(**changes: Any) -> dict[str, Any]:
    return raw(releases={"v1.36.4+k3s1": {"provides": [], "files": {"k3s": DIGEST}, **changes}})


def test_the_shipped_lock_is_well_formed_and_has_both_architectures() -> None:
    lock = load(SHIPPED)
    assert lock.default == "v1.36.4+k3s1"
    for version in lock.releases:
        assert lock.release(version).binary("x86_64")[0] == "k3s"
        assert lock.release(version).binary("aarch64")[0] == "k3s-arm64"
    assert lock.release().images("x86_64")


def test_the_shipped_lock_is_written_as_the_command_writes_it() -> None:
    """So that a diff of it shows what was added, and nothing else."""
    assert text(load(SHIPPED)) == SHIPPED.read_text()


def test_a_lock_of_before_has_no_end_and_no_serial() -> None:
    lock = parse(json.dumps(raw()))
    assert (lock.serial, lock.issued, lock.expires) == (0, "", "")
    assert not lock.over(datetime.date(2999, 1, 1))


def test_a_lock_says_until_when_it_holds() -> None:
    lock = parse(json.dumps(raw(serial=7, issued="2026-11-29", expires="2027-02-28")))
    assert (lock.serial, lock.issued, lock.expires) == (7, "2026-11-29", "2027-02-28")
    assert not lock.over(datetime.date(2027, 2, 28))
    assert "ended on 2027-02-28" in lock.over(datetime.date(2027, 3, 1))
    assert "clock of this controller" in lock.over(datetime.date(2026, 11, 28))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("[]", "not of type 'object'"),
        (json.dumps(raw(schema=2)), "1 was expected"),
        (json.dumps(raw(default="latest")), "does not match"),
        (json.dumps(raw(default="v1.36.9+k3s1")), "not among its releases"),
        (json.dumps(raw(releases={})), "releases"),
        (json.dumps(raw(extra=1)), "extra"),
        (json.dumps(release(files={"k3s": "ABCD"})), "does not match"),
        (json.dumps(release(files={"../../etc/passwd": DIGEST})), "etc/passwd"),
        (json.dumps(release(files={})), "files"),
        (json.dumps(release(provides=["everything"])), "everything"),
        ('{"schema": 1, "schema": 1}', "stands twice"),
        (json.dumps(raw(serial=0)), "serial"),
        (json.dumps(raw(serial="7")), "serial"),
        (json.dumps(raw(serial=True)), "serial"),
        (json.dumps(raw(expires="2026-02-30")), "is no day"),
        (json.dumps(raw(expires="soon")), "expires"),
        (json.dumps(raw(default="v1.36.4+k3s1\n")), "does not match"),
        (json.dumps(raw(default="v\uff11.36.4+k3s1")), "does not match"),
        (json.dumps(release(files={"k3s": DIGEST + "\n"})), "does not match"),
        (json.dumps(release(files={"k3s\n": DIGEST})), "does not match"),
        ("[" * 100_000, "not JSON"),
        (json.dumps(raw(issued="2026-02-02", expires="2026-02-01")), "before it was issued"),
    ],
)
def test_a_malformed_lock_is_refused_and_says_why(text: str, says: str) -> None:
    with pytest.raises(LockError, match=says):
        parse(text)


def test_what_is_not_locked_is_refused_by_name() -> None:
    lock: Lock = parse(json.dumps(raw()))
    with pytest.raises(LockError, match=r"v1\.2\.3\+k3s1 is not in the lock; it holds v1\.36\.4"):
        lock.release("v1.2.3+k3s1")
    with pytest.raises(LockError, match="no k3s-arm64"):
        lock.release().binary("aarch64")
    with pytest.raises(LockError, match="riscv64 is not supported"):
        lock.release().binary("riscv64")
    assert lock.release().images("x86_64") is None


def test_a_missing_lock_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="cannot be read: No such file"):
        load(tmp_path / "none.json")


def test_a_lock_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_bytes(b'{"default": "\xff"}')
    with pytest.raises(LockError, match=r"lock\.json is refused: 'utf-8' codec"):
        load(tmp_path / "lock.json")


class Signed:
    """A lock in a folder, signed by a throw-away key that `allowed` lists."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock, self.allowed = folder, folder / "lock.json", folder / "allowed_signers"
        self.lock.write_text(json.dumps(raw()))
        self.allowed.write_text(f"release@example.org {self.key('good')}")
        self.sign("good")

    def key(self, name: str) -> str:
        path = self.folder / name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name]
        subprocess.run([*command, "-f", str(path)], check=True)
        return path.with_suffix(".pub").read_text()

    def sign(self, name: str, namespace: str = "casemate-lock") -> None:
        (self.folder / "lock.json.sig").unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(self.folder / name)]
        subprocess.run([*command, str(self.lock)], check=True, capture_output=True)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


def test_an_allowed_signer_is_named(signed: Signed) -> None:
    assert verify(signed.lock, signed.allowed) == ["release@example.org"]


def test_one_changed_digit_breaks_the_signature(signed: Signed) -> None:
    signed.lock.write_text(signed.lock.read_text().replace("ab", "cd", 1))
    with pytest.raises(LockError, match="changed after signing"):
        verify(signed.lock, signed.allowed)


def test_a_stranger_s_signature_is_refused(signed: Signed) -> None:
    signed.key("stranger")
    signed.sign("stranger")
    with pytest.raises(LockError, match="not by anybody listed"):
        verify(signed.lock, signed.allowed)


def test_a_signature_for_another_purpose_is_refused(signed: Signed) -> None:
    signed.sign("good", namespace="file")
    with pytest.raises(LockError, match="refused"):
        verify(signed.lock, signed.allowed)


def test_a_missing_signature_is_refused(signed: Signed) -> None:
    (signed.folder / "lock.json.sig").unlink()
    with pytest.raises(LockError, match=r"signature .*lock\.json\.sig is missing"):
        verify(signed.lock, signed.allowed)


@pytest.mark.parametrize("allowed", [None, "", "/nowhere"])
def test_without_allowed_signers_nothing_is_accepted(signed: Signed, allowed: str | None) -> None:
    with pytest.raises(LockError, match=r"casemate_allowed_signers|is missing"):
        verify(signed.lock, allowed)


def test_a_key_that_may_sign_other_things_only_is_refused(signed: Signed) -> None:
    key = signed.allowed.read_text().split(" ", 1)[1]
    signed.allowed.write_text(f'release@example.org namespaces="git" {key}')
    with pytest.raises(LockError, match="refused"):
        verify(signed.lock, signed.allowed)
