"""What a K3s file is made of is read from the archive in it, and what is none is refused."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from unit.test_go_build import information, program

from casemate.supply.release_contents import ContentsError, by_file, by_version

pytestmark = pytest.mark.skipif(not shutil.which("zstd"), reason="there is no zstd to make such an archive with")
RUNC = "path\tgithub.com/opencontainers/runc\nmod\tgithub.com/opencontainers/runc\tv1.4.1\t\n"
DECOY = b"\x28\xb5\x2f\xfd no archive"


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def compressed(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


def k3s(*programs: tuple[str, bytes]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for name, data in programs:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("bin/kubectl")
        link.type, link.linkname = tarfile.SYMTYPE, "k3s"
        archive.addfile(link)
    return program(information()) + DECOY + compressed(held.getvalue()) + b"\0" * 100


def test_the_programs_in_the_archive_and_the_wrapper_are_read(tmp_path: Path) -> None:
    path = tmp_path / "k3s"
    path.write_bytes(k3s(("bin/runc", program(information(RUNC))), ("bin/.links", b"text"), ("bin/empty", b"")))
    found = {(one.name, one.version): one.where for one in by_file(path, "a" * 64)}
    assert found["github.com/opencontainers/runc", "v1.4.1"] == ("bin/runc",)
    assert found["example.org/plain", "v1.2.3"] == ("k3s",)
    assert found["stdlib", "v1.26.8"] == ("bin/runc", "k3s")
    path.unlink()
    assert {(one.name, one.version): one.where for one in by_file(path, "a" * 64)} == found, "kept by its digest"


def test_what_is_no_k3s_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k3s"
    for at, data in enumerate((b"", DECOY, program(information()), k3s()[:-200], compressed(b"text"))):
        path.write_bytes(data)
        with pytest.raises(ContentsError, match=r"k3s holds no archive of programs"):
            by_file(path, f"{at:064}")
    path.write_bytes(k3s(("bin/runc", program(information(RUNC, flags=0)))))
    with pytest.raises(ContentsError, match=r"holds a program that cannot be read: it was built by a Go before 1\.18"):
        by_file(path, "b" * 64)


def test_without_the_file_the_version_says_those_of_k3s_and_kubernetes() -> None:
    assert [(one.name, one.replaces, one.version) for one in by_version("v1.36.3+k3s1")] == [
        ("github.com/k3s-io/k3s", "", "v1.36.3+k3s1"),
        ("github.com/k3s-io/kubernetes", "k8s.io/kubernetes", "v1.36.3-k3s1"),
    ]
