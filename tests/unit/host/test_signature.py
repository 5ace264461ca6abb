"""Several signers of one file, with keys of ssh-keygen: who counts, who does not, and what is said."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from unit import signing

from module_utils.casemate.host.machine import Host
from module_utils.casemate.host.signature import NAMESPACE, SignatureError, signers

PEOPLE = ("alice", "bob", "carol")


class Ceremony:
    """A lock, and the keys of three people who may sign it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.document, self.allowed = folder, folder / "lock.json", folder / "allowed_signers"
        self.revoked = folder / "revoked"
        self.document.write_text('{"schema": 1}\n')
        for name in PEOPLE:
            signing.key(folder, name)
        self.allow(*(f"{name}@example.org {self.public(name)}" for name in PEOPLE))

    def public(self, name: str) -> str:
        return (self.folder / f"{name}.pub").read_text().strip()

    def allow(self, *lines: str) -> None:
        self.allowed.write_text("\n".join(lines) + "\n")

    def sign(self, *people: str, namespace: str = NAMESPACE, suffix: str = ".{}.sig") -> None:
        """Sign as the README says: by standard input, into a file of one's own."""
        for name in people:
            argv = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(self.folder / name), "-n", namespace]
            done = subprocess.run(argv, input=self.document.read_bytes(), capture_output=True, check=True)
            Path(f"{self.document}{suffix.format(Path(name).stem)}").write_bytes(done.stdout)

    def signed(self, needed: int = 2, revoked: bool = False) -> list[str]:
        paths = str(self.document), str(self.allowed)
        return signers(Host().run, *paths, needed, str(self.revoked) if revoked else "")

    def refused(self, needed: int = 2, revoked: bool = False) -> str:
        with pytest.raises(SignatureError) as refusal:
            self.signed(needed, revoked)
        return str(refusal.value)


@pytest.fixture
def lock(tmp_path: Path) -> Ceremony:
    return Ceremony(tmp_path)


def test_two_of_three_are_enough(lock: Ceremony) -> None:
    lock.sign("alice", "carol")
    assert lock.signed() == ["alice@example.org", "carol@example.org"]
    lock.sign("bob", suffix=".sig")
    assert lock.signed(3) == ["alice@example.org", "bob@example.org", "carol@example.org"]


def test_one_is_too_few_and_who_is_missing_is_named(lock: Ceremony) -> None:
    lock.sign("alice")
    said = lock.refused()
    assert "needs 2 signers (casemate_lock_threshold) and has 1 of 3 (alice@example.org)" in said
    assert "missing: bob@example.org, carol@example.org" in said


def test_nobody_has_signed(lock: Ceremony) -> None:
    assert "has 0 of 3; missing: alice@example.org, bob@example.org, carol@example.org" in lock.refused()


def test_one_key_that_signs_twice_counts_once(lock: Ceremony) -> None:
    lock.sign("alice")
    lock.sign("alice", suffix=".again.sig")
    assert "has 1 of 3 (alice@example.org)" in lock.refused()


def test_one_person_with_two_keys_counts_once(lock: Ceremony) -> None:
    lock.allow(*(f"alice@example.org {lock.public(name)}" for name in ("alice", "bob")), f"c@x {lock.public('carol')}")
    lock.sign("alice", "bob")
    assert "has 1 of 2 (alice@example.org); missing: c@x" in lock.refused()


def test_one_key_under_two_names_counts_once(lock: Ceremony) -> None:
    key = lock.public("alice")
    lock.allow(f"alice@example.org {key}", f"other@example.org {key}", f"carol@example.org {lock.public('carol')}")
    lock.sign("alice")
    lock.sign("alice", suffix=".again.sig")
    assert "has 1 of 2" in lock.refused()


def test_a_key_may_sign_by_another_line_than_the_first_that_has_it(lock: Ceremony) -> None:
    others = [f"{name}@example.org {lock.public(name)}" for name in ("bob", "carol")]
    own = f'alice namespaces="casemate-*" {lock.public("alice")}'
    lock.allow(f'alice@git namespaces="git" {lock.public("alice")}', own, *others)
    lock.sign("alice", "bob")
    assert lock.signed() == ["alice", "bob@example.org"]
    lock.allow(f'alice@git namespaces="git" {lock.public("alice")}', *others)
    assert "has 1 of 2 (bob@example.org); missing: carol@example.org" in lock.refused()


def test_a_stranger_counts_for_nobody(lock: Ceremony) -> None:
    signing.key(lock.folder, "mallory")
    lock.sign("alice", "mallory")
    said = lock.refused()
    assert "has 1 of 3" in said
    assert "lock.json.mallory.sig is not by anybody listed" in said


def test_a_revoked_key_counts_for_nobody(lock: Ceremony) -> None:
    lock.sign("alice", "bob")
    lock.revoked.write_text(lock.public("carol") + "\n")
    assert len(lock.signed(revoked=True)) == 2
    lock.revoked.write_text(lock.public("bob") + "\n")
    said = lock.refused(revoked=True)
    assert "has 1 of 3 (alice@example.org)" in said
    assert f"lock.json.bob.sig is by bob@example.org, and {lock.revoked} revokes the key" in said


def test_revocations_that_cannot_be_read_stop_everything(lock: Ceremony) -> None:
    lock.sign("alice", "bob")
    assert f"the file of revoked signers {lock.revoked} is missing" in lock.refused(revoked=True)
    lock.revoked.write_bytes(b"SSHKRL\n\0\0")
    assert "has 0 of 3" in lock.refused(revoked=True)


def test_a_key_whose_time_is_over_counts_for_nobody(lock: Ceremony) -> None:
    lock.sign("alice", "bob")
    dated = f'bob@example.org valid-before="20200101" {lock.public("bob")}'
    lock.allow(f"alice@example.org {lock.public('alice')}", dated, f"carol@example.org {lock.public('carol')}")
    assert "has 1 of 3 (alice@example.org)" in lock.refused()


def test_a_signature_for_another_purpose_counts_for_nobody(lock: Ceremony) -> None:
    lock.sign("alice")
    lock.sign("bob", namespace="git")
    said = lock.refused()
    assert "has 1 of 3" in said
    assert "namespace does not match" in said


def test_a_changed_lock_has_no_signature(lock: Ceremony) -> None:
    lock.sign("alice", "bob")
    lock.document.write_text('{"schema":  1}\n')
    said = lock.refused()
    assert "has 0 of 3" in said
    assert "was changed after signing" in said


@pytest.mark.parametrize("garbage", [b"", b"\0" * 100, b"-----BEGIN SSH SIGNATURE-----\nAAAA\n"])
def test_a_broken_signature_beside_good_ones_hinders_nobody(lock: Ceremony, garbage: bytes) -> None:
    lock.sign("alice", "bob")
    Path(f"{lock.document}.broken.sig").write_bytes(garbage)
    assert len(lock.signed()) == 2
    assert "broken.sig" in lock.refused(3)


def test_all_certificates_of_an_authority_are_one_signer(lock: Ceremony) -> None:
    """Whoever has the authority's key makes one for any name."""
    authority = signing.key(lock.folder, "authority")
    for name in ("alice", "bob"):
        argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", name, "-n", f"{name}@example.org"]
        subprocess.run([*argv, str(lock.folder / f"{name}.pub")], check=True)
    lock.allow(f"*@example.org cert-authority {lock.public('authority')}", f"carol@x.org {lock.public('carol')}")
    lock.sign("alice-cert.pub", "bob-cert.pub")
    assert "has 1 of 2" in lock.refused()
    lock.sign("carol")
    assert lock.signed() == ["*@example.org", "carol@x.org"]


def test_a_lock_with_one_signature_of_its_own_name_is_signed_as_before(lock: Ceremony) -> None:
    lock.sign("bob", suffix=".sig")
    assert lock.signed(1) == ["bob@example.org"]
    Path(f"{lock.document}.sig").unlink()
    assert "lock.json.sig is missing" in lock.refused(1)
