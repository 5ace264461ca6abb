"""Installing verified bytes: whatever is wrong with them, the old file stays and nothing else is left behind."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from module_utils.casemate.k3s.artifact import ArtifactError, at_least, digest_of, fetch, install, may_redirect, url_of

NEW, OLD = b"new k3s" * 1000, b"old k3s"
DIGEST = hashlib.sha256(NEW).hexdigest()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "k3s"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def untouched(target: Path) -> bool:
    return target.read_bytes() == OLD and os.listdir(target.parent) == ["k3s"]


def test_the_locked_bytes_are_installed_and_the_old_ones_kept(target: Path) -> None:
    install(io.BytesIO(NEW), str(target), DIGEST, previous=f"{target}.previous")
    assert target.read_bytes() == NEW
    assert target.stat().st_mode & 0o7777 == 0o755
    assert Path(f"{target}.previous").read_bytes() == OLD
    assert sorted(os.listdir(target.parent)) == ["k3s", "k3s.previous"]


def test_a_first_installation_has_nothing_to_keep(tmp_path: Path) -> None:
    path = tmp_path / "images" / "images.tar.zst"
    install(io.BytesIO(NEW), str(path), DIGEST, 0o600, previous=f"{path}.previous")
    assert os.listdir(path.parent) == ["images.tar.zst"]
    assert path.stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize(
    "received",
    [NEW[:-1], NEW + b"\0", b"", bytes([NEW[0] ^ 1]) + NEW[1:], NEW[:-1] + bytes([NEW[-1] ^ 0x80])],
    ids=["truncated", "extended", "empty", "first bit flipped", "last bit flipped"],
)
def test_other_bytes_are_refused(target: Path, received: bytes) -> None:
    with pytest.raises(ArtifactError, match=f"the lock demands {DIGEST}"):
        install(io.BytesIO(received), str(target), DIGEST)
    assert untouched(target)


def test_an_endless_answer_is_cut_off(target: Path) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"\0" * size

    with pytest.raises(ArtifactError, match="larger than 4 MiB"):
        install(Endless(), str(target), DIGEST, cap=4 << 20)  # type: ignore[arg-type]
    assert untouched(target)


def test_a_full_disk_gives_one_message_and_leaves_nothing(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(prefix: str, dir: str) -> tuple[int, str]:
        path = Path(dir) / f"{prefix}x"
        path.touch()
        return os.open("/dev/full", os.O_WRONLY), str(path)

    monkeypatch.setattr("module_utils.casemate.host.files.tempfile.mkstemp", full)
    with pytest.raises(ArtifactError, match=rf"no space left in {target.parent}; k3s was not installed"):
        install(io.BytesIO(NEW), str(target), DIGEST)
    assert untouched(target)


def test_a_broken_connection_leaves_nothing(target: Path) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ConnectionResetError("reset by peer")

    with pytest.raises(ArtifactError, match="reset by peer"):
        install(Broken(), str(target), DIGEST)  # type: ignore[arg-type]
    assert untouched(target)


def test_a_link_is_not_taken_for_the_installed_file(target: Path) -> None:
    link = target.with_name("link")
    link.symlink_to(target)
    assert digest_of(str(target)) == hashlib.sha256(OLD).hexdigest()
    assert digest_of(str(link)) == ""
    assert digest_of(str(target.parent / "none")) == ""


def test_addresses_are_the_official_ones_or_the_mirror_s() -> None:
    official = "https://github.com/k3s-io/k3s/releases/download/v1.36.4%2Bk3s1/k3s"
    assert url_of("v1.36.4+k3s1", "k3s") == official
    assert (
        url_of("v1.36.4+k3s1", "k3s", "https://mirror.example/k3s/") == "https://mirror.example/k3s/v1.36.4%2Bk3s1/k3s"
    )


@pytest.mark.parametrize(
    ("start", "end", "ok"),
    [
        ("https://github.com/a", "https://release-assets.githubusercontent.com/b", True),
        ("https://github.com/a", "https://objects.githubusercontent.com/b", True),
        ("https://mirror.example/a", "https://mirror.example/b", True),
        ("http://mirror.example/a", "https://mirror.example/b", True),
        ("https://github.com/a", "https://evil.example/b", False),
        ("https://github.com/a", "https://objects.githubusercontent.com.evil.example/b", False),
        ("https://github.com/a", "https://github.com@evil.example/b", False),
        ("https://github.com/a", "http://github.com/b", False),
        ("https://mirror.example/a", "https://objects.githubusercontent.com/b", False),
        ("https://mirror.example/a", "file:///etc/shadow", False),
        ("https://mirror.example/a", "https://mirror.example:8443/b", False),
    ],
)
def test_redirects_stay_with_the_source(start: str, end: str, ok: bool) -> None:
    assert may_redirect(start, end) is ok


class Redirecting(BaseHTTPRequestHandler):
    """Sends /away to another host, /near to /file on this one."""

    def do_GET(self) -> None:
        places = {"/away": "http://other.example/file", "/near": "/file"}
        if self.path in places:
            self.send_response(302)
            self.send_header("Location", places[self.path])
            self.end_headers()
        else:
            self.send_response(200 if self.path == "/file" else 404)
            self.end_headers()
            self.wfile.write(NEW)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def mirror() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Redirecting)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_follows_its_own_host_only(mirror: str) -> None:
    with fetch(f"{mirror}/near") as stream:
        assert stream.read() == NEW
    with pytest.raises(ArtifactError, match=r"redirects to other\.example, which is not the source: refused"):
        fetch(f"{mirror}/away")


@pytest.mark.parametrize("address", ["file:///etc/shadow", "ftp://mirror.example/k3s"])
def test_other_schemes_are_refused(address: str) -> None:
    with pytest.raises(ArtifactError, match="not an http"):
        fetch(address)


def test_what_is_not_there_is_named(mirror: str) -> None:
    with pytest.raises(ArtifactError, match="/none cannot be fetched"):
        fetch(f"{mirror}/none")


@pytest.mark.parametrize(
    ("version", "floor", "ok"),
    [
        ("v1.36.4+k3s1", "v1.36.4+k3s1", True),
        ("v1.36.10+k3s1", "v1.36.9+k3s2", True),
        ("v1.36.3+k3s2", "v1.36.3+k3s1", True),
        ("v1.36.3+k3s1", "v1.36.3+k3s2", False),
        ("v1.35.9+k3s9", "v1.36.0+k3s1", False),
        ("v1.36.4-rc1+k3s1", "v1.36.4+k3s1", False),
    ],
)
def test_versions_compare_by_number(version: str, floor: str, ok: bool) -> None:
    assert at_least(version, floor) is ok


@pytest.mark.parametrize("version", ["", "latest", "v1.36", "1.36.3+k3s1", "v1.36.3+k3s1; rm"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(ArtifactError, match="not a K3s version"):
        at_least(version, "v1.36.3+k3s1")
