"""Authorities of the cluster and keys of its tokens: those that K3s holds the key of, and all others."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.formats import der
from module_utils.casemate.k3s import authorities, signed

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
    paths = [*authorities.HELD, authorities.TOKENS]
    return [one.name for one in authorities.strangers(paths, FakeHost(tmp_path, files))]


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


# --- agents, which hold no key of an authority --------------------------------------------------------------------

AUTHORITY = "keyUsage=critical,digitalSignature,keyCertSign"
LEAVES = {signed.CLIENT: ("client", "clientAuth"), signed.SERVING: ("server", "serverAuth")}
SORTS = {**KEYS, "Ed25519": ["genpkey", "-algorithm", "ED25519"]}


def authority(folder: Path, name: str, sort: str = "curve", of: str = "") -> str:
    """The certificate of an authority called as K3s calls its own, and its files in a folder; `of` is who signed it."""
    (folder / f"{name}.key").write_text(openssl(*SORTS[sort]))
    above = ["-CA", f"{folder}/{of}.crt", "-CAkey", f"{folder}/{of}.key"] if of else []
    subject = f"/CN=k3s-{name.split('.')[0]}-ca@1"
    argv = ["-key", f"{folder}/{name}.key", "-subj", subject, "-addext", AUTHORITY]
    (folder / f"{name}.crt").write_text(openssl("req", "-x509", *argv, *above))
    return (folder / f"{name}.crt").read_text()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, dict[str, str]]:
    """A folder with authorities, and the files of an agent that they signed."""
    folder, files = tmp_path_factory.mktemp("agent"), {}
    for path, (name, usage) in LEAVES.items():
        files[f"{authorities.AGENT}/{name}-ca.crt"] = authority(folder, name, getattr(request, "param", "curve"))
        argv = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=system:node:a1"]
        argv += ["-CA", f"{folder}/{name}.crt", "-CAkey", f"{folder}/{name}.key", "-keyout", f"{folder}/leaf.key"]
        argv += ["-addext", f"extendedKeyUsage={usage}", "-addext", "basicConstraints=critical,CA:FALSE"]
        leaf = openssl("req", "-x509", *argv)
        # K3s writes the authority after the certificate.
        files |= {f"{path}.crt": leaf + files[f"{authorities.AGENT}/{name}-ca.crt"]}
        files |= {f"{path}.key": (folder / "leaf.key").read_text()}
    return folder, files


@pytest.mark.parametrize("agent", SORTS, indirect=True)
@pytest.mark.parametrize("name", ["client", "server"])
def test_what_signed_the_kubelets_certificate_is_the_clusters(
    tmp_path: Path, agent: tuple[Path, dict[str, str]], name: str
) -> None:
    folder, files = agent
    assert told(tmp_path, files) == []
    path = f"{authorities.AGENT}/{name}-ca.crt"
    foreign = authority(folder, f"{name}.of.somebody")
    own = files[path]
    assert told(tmp_path / "second", {**files, path: own + foreign}) == [f"{path}:{own.count(chr(10)) + 1}"]
    assert told(tmp_path / "first", {**files, path: foreign + own}) == [f"{path}:1"]
    assert told(tmp_path / "alone", {**files, path: foreign}) == [f"{path}:1"]


def test_the_authority_of_another_purpose_and_one_above_are_no_signers(
    tmp_path: Path, agent: tuple[Path, dict[str, str]]
) -> None:
    """One above is known where the authority stands between it and the kubelet: even if somebody signs ours anew."""
    folder, files = agent
    client, server = (f"{authorities.AGENT}/{name}-ca.crt" for name in ("client", "server"))
    swapped = {**files, client: files[server], server: files[client]}
    assert told(tmp_path, swapped) == [f"{client}:1", f"{server}:1"]
    above = authority(folder, "client.above")
    argv = ["-key", f"{folder}/client.key", "-subj", "/CN=k3s-client-ca@1", "-addext", AUTHORITY]
    argv += ["-CA", f"{folder}/client.above.crt", "-CAkey", f"{folder}/client.above.key"]
    crossed = openssl("req", "-x509", *argv)
    leaf = f"{signed.CLIENT}.crt"
    chained = {**files, leaf: files[leaf] + crossed, client: files[client] + above}
    assert told(tmp_path / "chained", chained) == [f"{client}:{files[client].count(chr(10)) + 1}"]


@pytest.mark.parametrize("lacks", [f"{path}.{end}" for path in LEAVES for end in ("crt", "key")])
def test_without_the_kubelets_own_nobody_knows_whose_they_are(
    tmp_path: Path, agent: tuple[Path, dict[str, str]], lacks: str
) -> None:
    paths = [f"{authorities.AGENT}/{name}-ca.crt:1" for name in ("client", "server")]
    there = {path: text for path, text in agent[1].items() if path != lacks}
    assert set(paths) >= set(told(tmp_path, there)) != set()


@pytest.mark.parametrize("body", ["MIIB", "", "!!", "MAA=", "MIID//8="])
def test_what_is_no_certificate_is_told_of_agents_too(
    tmp_path: Path, agent: tuple[Path, dict[str, str]], body: str
) -> None:
    path = f"{authorities.AGENT}/client-ca.crt"
    block = f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"
    assert told(tmp_path, {**agent[1], path: block + agent[1][path]}) == [f"{path}:1"]
