"""Entries of a cache or a bundle, links and copies of secrets that nobody vouches for."""

from __future__ import annotations

import base64
import io
import os
import re
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost
from unit.kinds.test_vouched import UNTIL

from casemate.catalogue import load
from module_utils.casemate.formats.ld_cache import CACHE, ENTRY, HEADER, MAGIC
from module_utils.casemate.k3s import credentials
from module_utils.casemate.k3s.credentials import K3S, KEYS
from module_utils.casemate.kinds.vouched_entries import KIND, observe

TODAY = {"today": "2026-12-01"}
CONTROLS = {
    one["setting"]["of"]: one["setting"]
    for cid, one in load().items()
    if one["setting"]["kind"] == "vouched_entries" and cid != "NODE-COPIES-EVERYWHERE"
}


def verdict(made: FakeHost, of: str, **more: Any) -> Any:
    setting: Any = {**CONTROLS[of], "declared": {}, **more}
    (seen,) = observe([setting], made)
    assert all(re.search("by hand|makes it anew|remove it|nobody knows", why) for why in seen["faults"].values())
    return KIND.assess(setting, seen)


def named(made: FakeHost, of: str, **more: Any) -> dict[str, str]:
    """What is told -> its digest."""
    found = verdict(made, of, **more)
    assert found.ok == (not found.where)
    return dict(found.observed) if found.where else {}


# --- libraries ----------------------------------------------------------------------------------------------------


def cache(*paths: str) -> bytes:
    """What ldconfig writes: a header, an entry for each library, and the names and paths."""
    start, texts, entries = HEADER.size + len(paths) * ENTRY.size, b"", b""
    for path in paths:
        name = os.path.basename(path).encode() + b"\0"
        entries += ENTRY.pack(0x303, start + len(texts), start + len(texts) + len(name), 0, 0)
        texts += name + path.encode() + b"\0"
    return HEADER.pack(MAGIC, len(paths), len(texts)) + entries + texts


OWN = ("/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/libx.so.1", "/opt/good/libz.so.1",
       "/usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3/libc.so.6", "/usr/local/lib/liby.so.2")  # fmt: skip
CONFIG = {
    "/etc/ld.so.conf": "include /etc/ld.so.conf.d/*.conf\n",
    "/etc/ld.so.conf.d/libc.conf": "# libc default configuration\n/usr/local/lib\n",
    "/etc/ld.so.conf.d/more.conf": "/usr/lib/x86_64-linux-gnu /opt/good/=libc6\ninclude even-more\n",
    "/etc/ld.so.conf.d/even-more": "include /etc/ld.so.conf.d/*.conf\n",
}


def with_cache(folder: Path, data: bytes) -> FakeHost:
    made = FakeHost(folder, CONFIG, context=TODAY)
    Path(made.path(CACHE)).write_bytes(data)
    return made


def test_a_library_in_a_folder_of_the_loaders_is_its_own(tmp_path: Path) -> None:
    assert named(with_cache(tmp_path, cache(*OWN)), "libraries") == {}
    assert named(with_cache(tmp_path, b"ld.so-1.7.0\0\0\0\0\0" + cache(*OWN)), "libraries") == {}
    os.remove(tmp_path / CACHE[1:])
    assert named(FakeHost(tmp_path, context=TODAY), "libraries") == {}


@pytest.mark.parametrize("path", ["/var/tmp/x/libc.so.6", "/opt/good/deeper/libz.so.1", "/usr/local/lib2/liby.so.2"])
@pytest.mark.parametrize("there", [True, False])
def test_a_library_elsewhere_is_told_whether_it_is_there_or_not(tmp_path: Path, path: str, there: bool) -> None:
    made = with_cache(tmp_path, cache(OWN[0], path, *OWN[1:]))
    if there:
        Path(made.path(path)).parent.mkdir(parents=True, exist_ok=True)
        Path(made.path(path)).write_bytes(b"\x7fELF")
    found = named(made, "libraries")
    assert list(found) == [path]
    entry = {**UNTIL, "digest": found[path]}
    assert named(made, "libraries", declared={path: entry}) == {}
    assert "ldconfig makes it anew" in verdict(made, "libraries").reason


@pytest.mark.parametrize("data", [b"", b"flipped", cache(*OWN)[:70], HEADER.pack(MAGIC, 1 << 30, 0), MAGIC])
def test_what_is_no_cache_is_told(tmp_path: Path, data: bytes) -> None:
    assert list(named(with_cache(tmp_path, data), "libraries")) == [CACHE]


# --- authorities --------------------------------------------------------------------------------------------------

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def pem(text: str) -> str:
    body = base64.encodebytes(text.encode() * 9).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"


TRUST = {
    "/usr/share/ca-certificates/mozilla/A.crt": pem("a"), "/usr/local/share/ca-certificates/own.crt": pem("own"),
    BUNDLE: pem("a") + pem("own").replace("\n", "\r\n"),
}  # fmt: skip
LINKS = {
    "/etc/ssl/certs/A.pem": "/usr/share/ca-certificates/mozilla/A.crt", "/etc/ssl/certs/0a.0": "A.pem",
    "/etc/ssl/certs/own.pem": "/usr/local/share/ca-certificates/own.crt", "/usr/lib/ssl/cert.pem": BUNDLE,
}  # fmt: skip


def trusting(folder: Path, **files: str) -> FakeHost:
    made = FakeHost(folder, {**TRUST, **files}, context=TODAY)
    for path, target in LINKS.items():
        Path(made.path(path)).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, made.path(path))
    return made


def test_authorities_of_the_package_and_the_operator_are_known(tmp_path: Path) -> None:
    assert named(trusting(tmp_path), "authorities") == {}


def test_an_authority_that_was_put_into_the_bundle_is_told_by_its_line(tmp_path: Path) -> None:
    made = trusting(tmp_path, **{BUNDLE: pem("a") + pem("evil") + pem("own")})
    line = f"{BUNDLE}:{pem('a').count(chr(10)) + 1}"
    found = named(made, "authorities")
    assert list(found) == [line]
    assert named(made, "authorities", declared={line: {**UNTIL, "digest": found[line]}}) == {}
    assert list(named(made, "authorities", declared={line: {**UNTIL, "digest": "sha256:0"}})) == [line]


@pytest.mark.parametrize(
    "path", ["/etc/ssl/certs/evil.pem", "/etc/ssl/certs/.evil", "/etc/pki/tls/certs/evil.crt", "/etc/ssl/cert.pem"]
)
@pytest.mark.parametrize("link", [True, False])
def test_an_authority_beside_the_bundle_is_told(tmp_path: Path, path: str, link: bool) -> None:
    made = trusting(tmp_path, **{"/var/tmp/evil" if link else path: pem("evil")})
    if link:
        Path(made.path(path)).parent.mkdir(parents=True, exist_ok=True)
        os.symlink("/var/tmp/evil", made.path(path))
    assert list(named(made, "authorities")) == [path]


# --- plugins ------------------------------------------------------------------------------------------------------

DATA, TREE, OTHER = "/var/lib/rancher/k3s/data", "a" * 64, "b" * 64


@pytest.mark.parametrize("runs", [True, False])
def test_a_plugin_is_a_link_to_the_program_of_the_k3s_that_runs(tmp_path: Path, runs: bool) -> None:
    shown = {"systemctl show k3s.service": (0, "ActiveState=active\nMainPID=7\n", "")} if runs else {}
    made = FakeHost(tmp_path, {f"{DATA}/{TREE}/bin/cni": "x", "/proc/7/x": ""}, shown, context=TODAY)
    os.mkdir(made.path(f"{DATA}/cni"))
    os.symlink(f"{DATA}/{TREE}/bin/k3s", made.path("/proc/7/exe"))
    os.symlink(f"{DATA}/{OTHER if runs else TREE}", made.path(f"{DATA}/current"))
    right = {"portmap": f"{DATA}/{TREE}/bin/cni", "flannel": f"{DATA}/{TREE}/bin/flannel"}
    wrong = {"older": f"{DATA}/{OTHER}/bin/cni", "tool": "/usr/bin/true", "shim": f"{DATA}/{TREE}/bin/runc",
             "above": f"{DATA}/{TREE}/bin/../../x", ".dot": "/var/tmp/x"}  # fmt: skip
    for name, target in {**right, **wrong}.items():
        os.symlink(target, made.path(f"{DATA}/cni/{name}"))
    Path(made.path(f"{DATA}/cni/multus")).write_text("a program")
    found = named(made, "plugins")
    assert set(found) == {f"{DATA}/cni/{name}" for name in (*wrong, "multus")}
    path = f"{DATA}/cni/multus"
    assert path not in named(made, "plugins", declared={path: {**UNTIL, "digest": found[path]}})


# --- copies of credentials ----------------------------------------------------------------------------------------

TOKEN = "K10" + "0" * 64 + "::server:5e8f1c2d9a7b4e63"
KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIKuzpzKJ5yWl3Ixo5fHqPZLSsPDbHE2g8cMp6c5d5yAQoAoGCCqGSM49\nAwEHoUQDQgAE\n"
KEY += "-----END EC PRIVATE KEY-----\n"
ANOTHERS = KEY.replace("MHcCAQEEIKuz", "MHcCAQEEIKux")
MINE = {
    f"{K3S}/server/token": TOKEN + "\n", f"{K3S}/server/tls/client-admin.key": KEY,
    f"{K3S}/server/cred/encryption-config.json": '{"keys":[{"name":"k","secret":"c2VjcmV0IG9mIHRoZSBjbHVzdGVy"}]}',
    f"{K3S}/server/tls/server-ca.crt": pem("the authority of this cluster "),
}  # fmt: skip
COPIES = [
    (TOKEN, "a token"),
    ("5e8f1c2d9a7b4e63", "a token"),
    (f"K3S_TOKEN={TOKEN}\n", "a token"),
    (KEY, "the key of"),
    (KEY.replace("\n", "\r\n"), "the key of"),
    (f"users: [{{client-key-data: {base64.b64encode(KEY.encode()).decode()}}}]\n", "the key of"),
    ("secret: c2VjcmV0IG9mIHRoZSBjbHVzdGVy\n", "a key with which Secrets are stored"),
]


def kubeconfig(authority: str, user: str) -> str:
    encoded = base64.b64encode(pem(authority).encode()).decode()
    return f"clusters: [{{certificate-authority-data: {encoded}}}]\nusers: [{{{user}}}]\n"


@pytest.mark.parametrize("path", ["/root/.kube/config", "/home/ops/k3s.yaml", "/tmp/x", "/var/lib/tool/kubeconfig"])
@pytest.mark.parametrize(("text", "what"), [
    *COPIES,
    (kubeconfig("the authority of this cluster ", "token: eyJhbGciOi"), "somebody"),
    (kubeconfig("the authority of this cluster ", "client-key-data: LS0tLS1CRUdJTg"), "somebody"),
])  # fmt: skip
def test_a_copy_is_told_by_what_it_is_and_never_shown(tmp_path: Path, path: str, text: str, what: str) -> None:
    made = FakeHost(tmp_path, {**MINE, path: text}, context=TODAY)
    os.chmod(made.path(path), 0o644)
    found = verdict(made, "credentials")
    assert found.where == (path,)
    assert what in found.reason
    assert "everybody may read" in found.reason
    told = f"{found}"
    assert not any(word in told for word in re.findall(r"[\w+/=]{16,}", text) if word not in path)


@pytest.mark.parametrize("text", [
    "", "nothing", kubeconfig("another cluster, with an authority ", "token: eyJ"),
    kubeconfig("the authority of this cluster ", "exec: {command: x}"),
    ANOTHERS, f"client-key-data: {base64.b64encode(ANOTHERS.encode()).decode()}",
])  # fmt: skip
def test_what_lets_nobody_in_is_no_copy(tmp_path: Path, text: str) -> None:
    assert named(FakeHost(tmp_path, {**MINE, "/root/.kube/config": text}, context=TODAY), "credentials") == {}


def test_a_copy_that_others_may_read_is_another_one_than_that_which_somebody_vouched_for(tmp_path: Path) -> None:
    path = "/root/.kube/config"
    made = FakeHost(tmp_path, {**MINE, path: KEY}, context=TODAY)
    os.chmod(made.path(path), 0o600)
    declared = {path: {**UNTIL, "digest": named(made, "credentials")[path]}}
    assert named(made, "credentials", declared=declared) == {}
    Path(made.path(path)).write_text(f"# renewed\n{KEY}")
    assert named(made, "credentials", declared=declared) == {}
    os.chmod(made.path(path), 0o640)
    assert list(named(made, "credentials", declared=declared)) == [path]


def test_a_short_token_is_looked_for_nowhere(tmp_path: Path) -> None:
    short = {f"{K3S}/server/token": "secret\n", "/root/notes": "no secret is in here\n"}
    assert named(FakeHost(tmp_path, short, context=TODAY), "credentials") == {}


def test_links_and_what_lies_in_its_place_are_no_copies(tmp_path: Path) -> None:
    made = FakeHost(tmp_path, {**MINE, "/etc/rancher/k3s/k3s.yaml": KEY, "/root/x": ""}, context=TODAY)
    os.symlink(made.path("/etc/rancher/k3s/k3s.yaml"), made.path("/root/k3s.yaml"))
    everywhere = load()["NODE-COPIES-EVERYWHERE"]["setting"]
    more = {"paths": everywhere["paths"], "skipped": everywhere["skipped"]}
    assert named(made, "credentials") == named(made, "credentials", **more) == {}
    Path(made.path("/etc/rancher2")).write_text(KEY)
    assert list(named(made, "credentials", **more)) == ["/etc/rancher2"]


def bolt(etcd: bool) -> bytes:
    return b"\0" * 16 + b"\xed\xda\x0c\xed" + b"\0" * 4096 + (b"members_removed" if etcd else b"containers")


def packed(data: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("snapshot", data)
    return made.getvalue()


def sqlite(folder: Path, table: str) -> bytes:
    path = folder / f"{table}.db"
    with sqlite3.connect(path) as database:
        database.execute(f"create table {table} (name text)")
    database.close()
    return path.read_bytes()


def test_a_copy_of_the_database_is_told_whatever_it_is_called(tmp_path: Path) -> None:
    databases = {"/tmp/a": bolt(True), "/srv/b": packed(bolt(True)), "/root/c": sqlite(tmp_path, "kine")}
    others = {"/tmp/d": bolt(False), "/srv/e": packed(b"text"), "/root/f": sqlite(tmp_path, "cars"), "/opt/g": b"PK"}
    made = FakeHost(tmp_path / "root", context=TODAY)
    for path, data in {**databases, **others}.items():
        Path(made.path(path)).parent.mkdir(parents=True, exist_ok=True)
        Path(made.path(path)).write_bytes(data)
    assert set(named(made, "credentials")) == set(databases)


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = FakeHost(tmp_path, {"/home/ops/closed": "x"}, context=TODAY)

    def refused(path: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(made, "read", refused)
    monkeypatch.setattr(made, "text", lambda path: None)
    monkeypatch.setattr(credentials, "needles", lambda host: {})
    monkeypatch.setattr(credentials, "marks", lambda host: [])
    assert named(made, "credentials") == {"/home/ops/closed": "special"}


def test_keys_are_looked_for_where_k3s_has_them() -> None:
    assert any(pattern.startswith(f"{K3S}/agent/") for pattern in KEYS)
