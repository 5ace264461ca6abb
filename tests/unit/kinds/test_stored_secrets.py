"""Secrets as they are stored: etcd's answers are canned, files are real ones of SQLite and of etcd's format."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable, Verdict
from module_utils.casemate.k3s.encryption import CONFIG
from module_utils.casemate.kinds import stored_secrets as kind

UNKNOWN = "with a key that is not known here"
DB = "/var/lib/rancher/k3s/server/db"
CLEAR = b"k8s\x00\n\x0c\n\x02v1\x12\x06Secret"
SEALED = b"k8s:enc:secretbox:v1:secretboxkey-2:" + b"\x9a" * 200


def config(*names: str, provider: str = "secretbox") -> str:
    keys = [{"name": name, "secret": "c2VjcmV0"} for name in names]
    providers = [{provider: {"keys": keys}}, {"identity": {}}]
    if not names:
        providers.pop(0)
    return json.dumps({"resources": [{"resources": ["secrets"], "providers": providers}]})


def stored(provider: str, key: str) -> bytes:
    return f"k8s:enc:{provider}:v1:{key}:".encode() + b"\x01\x02"


def judge_etcd(monkeypatch: pytest.MonkeyPatch, folder: Path, values: dict[str, bytes], given: str) -> Verdict:
    class Etcd:
        def __init__(self, host: object) -> None:
            """Take any host."""

        def below(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
            yield from ((prefix + name.encode(), value) for name, value in values.items())

    monkeypatch.setattr(kind, "Etcd", Etcd)
    setting: Any = {"where": "etcd"}
    return kind.assess(setting, kind.observe([setting], FakeHost(folder, files={CONFIG: given}))[0])


@pytest.mark.parametrize(
    ("value", "counts", "said"),
    [
        (stored("secretbox", "k2"), {"secretbox k2": 2}, ""),
        (CLEAR, {"secretbox k2": 1, "in the clear": 1}, "1 in the clear (ns/old)"),
        (b"{}", {"secretbox k2": 1, "in the clear": 1}, "1 in the clear (ns/old)"),
        (b"", {"secretbox k2": 1, "in the clear": 1}, "1 in the clear (ns/old)"),
        (stored("secretbox", "k1"), {"secretbox k2": 1, "secretbox k1": 1}, "1 secretbox k1 (ns/old)"),
        (stored("aescbc", "k2"), {"secretbox k2": 1, UNKNOWN: 1}, f"1 {UNKNOWN} (ns/old)"),
    ],
)
def test_every_secret_in_etcd_is_encrypted_with_the_active_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: bytes, counts: dict[str, int], said: str
) -> None:
    values = {"ns/new": stored("secretbox", "k2"), "ns/old": value}
    verdict = judge_etcd(monkeypatch, tmp_path, values, config("k2", "k1"))
    assert (verdict.ok, verdict.observed) == (said == "", counts)
    assert said in verdict.reason
    assert verdict.ok or "rotate-keys" in verdict.reason


@pytest.mark.parametrize(
    "given", [config(), "", "{", '{"resources": [{"resources": ["configmaps"], "providers": []}]}']
)
def test_without_an_active_key_that_is_told_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    with pytest.raises(Unavailable, match="k3s: K3s encrypts no Secrets"):
        judge_etcd(monkeypatch, tmp_path, {"ns/old": CLEAR}, given)


def test_a_finding_about_many_secrets_stays_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    verdict = judge_etcd(monkeypatch, tmp_path, {f"ns/{n}": CLEAR for n in range(900)}, config("k2"))
    assert "900 in the clear (ns/0; ns/1; ns/2; ns/3; ns/4; and 895 more)" in verdict.reason


def varint(number: int) -> bytes:
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def key_value(name: str, value: bytes) -> bytes:
    """mvccpb.KeyValue as etcd writes it into its file."""
    key = b"/registry/secrets/" + name.encode()
    numbers = b"\x10" + varint(20_000_001) + b"\x18" + varint(20_000_002) + b"\x20\x01"
    return b"\x0a" + varint(len(key)) + key + numbers + b"\x2a" + varint(len(value)) + value


def etcd_file(path: Path, *values: tuple[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0" * 5000 + (b"\xff" * 300).join(key_value(*value) for value in values) + b"\0" * 3000)


def sqlite_file(path: Path, name: str, value: bytes) -> None:
    """A database as K3s' SQLite (kine) makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    base = sqlite3.connect(path)
    columns = "id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER, deleted INTEGER"
    more = "create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB"
    base.execute(f"CREATE TABLE kine ({columns}, {more})")
    row = (f"/registry/secrets/{name}", 1, 0, 24_929_649, 24_929_650, 0, value, None)
    marks = ",".join("?" * 8)
    base.execute(
        f"INSERT INTO kine(name, created, deleted, create_revision, prev_revision, lease, value, old_value) "
        f"VALUES ({marks})",
        row,
    )
    base.commit()
    base.close()


def judge_files(folder: Path, *globs: str) -> Verdict:
    setting: Any = {"where": "files", "globs": list(globs), "advice": "`shred -u {path}`"}
    return kind.assess(setting, kind.observe([setting], FakeHost(folder))[0])


@pytest.mark.parametrize(("value", "ok"), [(CLEAR + b"x" * 9000, False), (SEALED, True)])
@pytest.mark.parametrize("name", ["state.db", "state.db.migrated", "state.db-wal"])
def test_a_database_of_sqlite_left_behind(tmp_path: Path, name: str, value: bytes, ok: bool) -> None:
    sqlite_file(tmp_path / (DB[1:] + "/" + name), "kube-system/k8s.io-token", value)
    verdict = judge_files(tmp_path, f"{DB}/state.db*")
    assert verdict.ok is ok
    assert (f"`shred -u {DB}/{name}`" in verdict.reason) is not ok
    assert ok or "such as kube-system/k8s.io-token: " in verdict.reason


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([("ns/a", SEALED)], ""),
        ([("ns/a", SEALED), ("ns/b", CLEAR)], "ns/b"),
        ([("ns/a", CLEAR)], "ns/a"),
        ([("ns/k8s", SEALED)], ""),
        ([], ""),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_copy_of_etcd(tmp_path: Path, values: list[tuple[str, bytes]], found: str, packed: bool) -> None:
    path = tmp_path / DB[1:] / "snapshots" / "on-demand-1"
    etcd_file(path, *values)
    if packed:
        with zipfile.ZipFile(f"{path}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, path.name)
        path.unlink()
    verdict = judge_files(tmp_path, f"{DB}/snapshots/*")
    assert verdict.ok is (found == "")
    assert found in verdict.reason


def test_what_lies_on_the_border_of_two_pieces_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"\xff" * 4000 + key_value("ns/a", CLEAR) + b"\xff" * 4000
    (tmp_path / "raw").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "copy.zip", "w") as archive:
        archive.write(tmp_path / "raw")
    for size in range(4000, 4100, 7):
        monkeypatch.setattr(kind, "CHUNK", size)
        assert not judge_files(tmp_path, "/*.zip").ok


def test_links_folders_empty_and_broken_files(tmp_path: Path) -> None:
    folder = tmp_path / DB[1:] / "snapshots"
    etcd_file(tmp_path / "elsewhere", ("ns/a", CLEAR))
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    assert judge_files(tmp_path, f"{DB}/snapshots/*", f"{DB}/state.db*").ok


def test_where_etcd_is_silent_nothing_passes(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="k3s"):
        setting: Any = {"where": "etcd"}
        kind.assess(setting, kind.observe([setting], FakeHost(tmp_path, files={CONFIG: config("k2")}))[0])
