"""Authorities of the cluster and keys of its tokens: those that K3s holds the key of, and all others."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.formats import der
from module_utils.casemate.k3s import authorities

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not here")

CLIENT, TLS = f"{authorities.SERVER}/client-ca", authorities.SERVER
KEYS = {
    "curve": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    "curve of SEC1": ["ecparam", "-name", "prime256v1", "-genkey", "-noout"],
    "RSA": ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "RSA of PKCS#1": ["genrsa", "-traditional", "2048"],
}


def openssl(*argv: str) -> str:
    return subprocess.run(["openssl", *argv], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Sort of a key -> the key and a certificate of its own."""
    folder, found = tmp_path_factory.mktemp("keys"), {}
    for sort, argv in {**KEYS, "foreign": KEYS["curve"]}.items():
        key = folder / "key"
        key.write_text(openssl(*argv))
        found[sort] = (key.read_text(), openssl("req", "-x509", "-key", str(key), "-subj", "/CN=k3s-client-ca@1"))
    return found


def told(tmp_path: Path, files: dict[str, str]) -> list[str]:
    return [one.name for one in authorities.strangers(FakeHost(tmp_path, files))]


@pytest.mark.parametrize("sort", KEYS)
def test_the_authority_of_the_key_is_k3s_own(tmp_path: Path, made: dict[str, tuple[str, str]], sort: str) -> None:
    key, certificate = made[sort]
    agents = f"{authorities.AGENT}/client-ca.crt"
    files = {f"{CLIENT}.key": key, f"{CLIENT}.crt": certificate, agents: certificate}
    assert told(tmp_path, files) == []
    second = certificate.count("\n") + 1
    foreign = {f"{CLIENT}.crt": certificate + made["foreign"][1], agents: made["foreign"][1] + certificate}
    assert told(tmp_path / "foreign", {**files, **foreign}) == [f"{CLIENT}.crt:{second}", f"{agents}:1"]


@pytest.mark.parametrize("sort", KEYS)
def test_tokens_count_by_the_key_that_signs_them(tmp_path: Path, made: dict[str, tuple[str, str]], sort: str) -> None:
    key = made[sort][0]
    files = {authorities.SIGNING: key, authorities.TOKENS: key}
    assert told(tmp_path, files) == []
    two = {**files, authorities.TOKENS: key + made["foreign"][0]}
    assert told(tmp_path / "two", two) == [f"{authorities.TOKENS}:{key.count(chr(10)) + 1}"]


def test_a_certificate_that_only_holds_our_key_somewhere_is_foreign(
    tmp_path: Path, made: dict[str, tuple[str, str]]
) -> None:
    """As an extension, say: whose it is says its own key alone."""
    key = tmp_path / "foreign"
    key.write_text(made["foreign"][0])
    ((_, ours),) = der.blocks(made["curve"][0].encode())
    hidden = f"1.2.3.4=DER:04:{len(der.of_key(ours)):02x}:{der.of_key(ours).hex(':')}"
    crafted = openssl("req", "-x509", "-key", str(key), "-subj", "/CN=k3s-client-ca@1", "-addext", hidden)
    files = {f"{CLIENT}.key": made["curve"][0], f"{CLIENT}.crt": crafted}
    assert told(tmp_path / "host", files) == [f"{CLIENT}.crt:1"]


@pytest.mark.parametrize("body", ["MIIB", "", "!!", "MAA=", "MIID//8="])
@pytest.mark.parametrize("key", ["own", "broken", "none"])
def test_what_is_no_certificate_or_has_no_key_is_told(
    tmp_path: Path, made: dict[str, tuple[str, str]], body: str, key: str
) -> None:
    block = f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"
    files = {f"{TLS}/etcd/peer-ca.crt": block}
    if key != "none":
        files[f"{TLS}/etcd/peer-ca.key"] = made["curve"][0] if key == "own" else block
    assert told(tmp_path, files) == [f"{TLS}/etcd/peer-ca.crt:1"]


def test_a_file_without_any_is_nobodys_fault(tmp_path: Path) -> None:
    assert told(tmp_path, {f"{CLIENT}.crt": "a double of K3s has nothing to say here\n", authorities.TOKENS: ""}) == []
