"""Which key the new account gets: the public half of the one that ssh comes in with, asked with real keys."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from casemate.run import own_key

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="openssh-client makes the keys")


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def made(path: Path, passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)], check=True)
    return path


def half(path: Path) -> str:
    return path.with_name(f"{path.name}.pub").read_text().strip()


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    held = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    while not (tmp_path / "agent").exists() and held.poll() is None:
        pass
    yield
    held.terminate()
    held.wait()


def asked(*files: Path, **options: str) -> list[tuple[str, str]]:
    return [("identityfile", str(file)) for file in files] + list(options.items())


def test_the_key_that_ansible_names(tmp_path: Path) -> None:
    named, usual = made(tmp_path / "named"), made(tmp_path / "usual")
    found = own_key.offered(asked(usual), str(named))
    assert (found.line, found.source) == (half(named), str(named))
    assert found.fingerprint.startswith("SHA256:")


def test_a_key_without_its_public_file_is_read(tmp_path: Path) -> None:
    named = made(tmp_path / "named")
    before = half(named).split()[:2]
    named.with_name("named.pub").unlink()
    assert own_key.offered([], str(named)).line.split()[:2] == before


def test_else_the_first_of_the_files_that_ssh_tries(tmp_path: Path) -> None:
    first, second = made(tmp_path / "first"), made(tmp_path / "second")
    assert own_key.offered(asked(tmp_path / "absent", first, second)).line == half(first)


def test_one_with_a_passphrase_is_passed_over(tmp_path: Path) -> None:
    locked, free = made(tmp_path / "locked", "secret words"), made(tmp_path / "free")
    assert own_key.offered(asked(locked, free)).line == half(free)
    with pytest.raises(own_key.NoKeyError, match=r"locked cannot be read without a passphrase.*ssh-add"):
        own_key.offered(asked(locked))


def test_unless_an_agent_holds_it(tmp_path: Path, agent: None) -> None:
    plain, other = made(tmp_path / "plain"), made(tmp_path / "other")
    subprocess.run(["ssh-add", "-q", str(plain)], check=True)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret words", "-f", str(plain)], check=True)
    assert own_key.offered(asked(plain, other)).line == half(plain)
    assert own_key.offered(asked()).line.split()[:2] == half(plain).split()[:2]
    with pytest.raises(own_key.NoKeyError, match="ssh has no key"):
        own_key.offered(asked(identitiesonly="yes"))


def test_who_names_a_locked_key_knows_how_it_is_opened(tmp_path: Path) -> None:
    locked = made(tmp_path / "locked", "secret words")
    assert own_key.offered([], str(locked)).line == half(locked)


def test_where_there_is_none_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(own_key.NoKeyError, match="make one with ssh-keygen"):
        own_key.offered(asked(tmp_path / "absent"))
    with pytest.raises(own_key.NoKeyError, match=r"ansible_ssh_private_key_file names .*absent"):
        own_key.offered([], str(tmp_path / "absent"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no key\n",
        "ssh-ed25519 AAAA\n",
        'command="x" {key}\n',
        "{key}\n{key}\n",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n",
    ],
)
def test_a_file_that_is_no_public_key_is_refused(tmp_path: Path, text: str) -> None:
    key = half(made(tmp_path / "key"))
    (tmp_path / "given").write_text(text.replace("{key}", key))
    with pytest.raises(own_key.NoKeyError, match=r"no file with one public key.*--public-key"):
        own_key.public(tmp_path / "given")


def test_a_private_key_is_never_taken_for_the_public_one(tmp_path: Path) -> None:
    with pytest.raises(own_key.NoKeyError):
        own_key.public(made(tmp_path / "key"))
