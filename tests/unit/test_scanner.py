"""The operator's scanner is run as they pinned it, and nothing but a report about the image in question is a result."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from unit import scanning
from unit.scanning import CVE, DIGEST, NOW

from casemate.supply import oci_layout, scan_report, scanner
from casemate.supply.scan_gate import Settings
from casemate.supply.scanner import ScanError, Wanted

IMAGE = Wanted(DIGEST, "registry.example.org/app", "", "linux/arm64")


def scan(given: Settings, image: Wanted = IMAGE) -> Any:
    with scanner.verified(given.scanner, given.results) as ready:
        return scanner.scan(ready, image, NOW)


@pytest.mark.parametrize("kind", ["trivy", "grype"])
def test_both_scanners_say_what_they_found(tmp_path: Path, kind: str) -> None:
    given = scanning.settings(tmp_path, kind, found=[CVE, ["CVE-2026-2", "zlib", "1.2", "", "UNKNOWN"]])
    made = scan(given)
    assert [tuple(one) for one in made.advisories] == [
        ("CVE-2026-1", (), "openssl", "3.0.1", "3.0.2", "high"),
        ("CVE-2026-2", (), "zlib", "1.2", "", "unknown"),
    ]
    assert (made.scanner, made.sha256, made.database, made.scanned) == (kind, given.scanner.sha256, NOW, NOW)
    assert made.image == f"registry.example.org/app@{DIGEST}"
    assert os.listdir(given.results) == []


@pytest.mark.parametrize("kind", ["trivy", "grype"])
def test_it_is_asked_for_one_image_of_one_platform_with_no_settings_but_ours(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIVY_SEVERITY", "CRITICAL")
    monkeypatch.setenv("GRYPE_ONLY_FIXED", "true")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", "/vault")
    monkeypatch.setenv("HOME", str(tmp_path))
    given = scanning.settings(tmp_path, kind)
    given = given._replace(scanner=given.scanner._replace(arguments=("--debug",)))
    scan(given)
    asked = scanning.asked(given)
    named = f"registry.example.org/app@{DIGEST}"
    assert asked["arguments"].count("--debug") == 1
    assert asked["arguments"][asked["arguments"].index("--platform") + 1] == "linux/arm64"
    assert named in asked["arguments"] or f"registry:{named}" in asked["arguments"]
    assert not {"TRIVY_SEVERITY", "GRYPE_ONLY_FIXED", "ANSIBLE_VAULT_PASSWORD_FILE"} & asked["environment"].keys()
    assert asked["environment"]["DOCKER_CONFIG"] == str(tmp_path / ".docker")
    assert asked["environment"]["HOME"] == asked["folder"] != os.getcwd()


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"does": "garbage"}, "it is not JSON"),
        ({"does": "fail"}, "ended with 1: FATAL no such image"),
        ({"digests": [f"sha256:{'b' * 64}"]}, "reports on another image"),
        ({"digests": ["latest"]}, "reports on another image: none"),
    ],
)
@pytest.mark.parametrize("kind", ["trivy", "grype"])
def test_what_is_no_report_about_the_image_is_no_result(
    tmp_path: Path, kind: str, plan: dict[str, Any], said: str
) -> None:
    with pytest.raises(ScanError, match=said):
        scan(scanning.settings(tmp_path, kind, **plan))


def test_a_node_that_runs_another_platform_of_it_is_not_told_of_this_one(tmp_path: Path) -> None:
    given = scanning.settings(tmp_path, digests=[DIGEST])
    with pytest.raises(ScanError, match="another image"):
        scan(given, IMAGE._replace(config=f"sha256:{'c' * 64}"))


@pytest.mark.parametrize(
    ("kind", "digests", "config", "whole"),
    [
        ("trivy", [f"sha256:{'c' * 64}", DIGEST], f"sha256:{'c' * 64}", False),
        ("trivy", [DIGEST], "", False),
        ("grype", [f"sha256:{'c' * 64}", DIGEST], f"sha256:{'c' * 64}", True),
        ("grype", [DIGEST, f"sha256:{'d' * 64}"], "", False),
    ],
)
def test_a_scan_says_what_it_is_of_and_whether_its_digest_names_just_that(
    tmp_path: Path, kind: str, digests: list[str], config: str, whole: bool
) -> None:
    """Only grype says which manifest it looked at; of trivy nobody knows that it was no index."""
    found = scan(scanning.settings(tmp_path, kind, digests=digests))
    assert (found.config, found.whole) == (config, whole)


def test_a_scanner_that_hangs_ends_with_all_that_it_started(tmp_path: Path) -> None:
    given = scanning.settings(tmp_path, does="hang")
    given = given._replace(scanner=given.scanner._replace(timeout=1))
    with pytest.raises(ScanError, match="did not end within 1 s"):
        scan(given)
    time.sleep(0.2)
    running = [Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()]
    assert not [path for path in running if path.exists() and str(tmp_path).encode() in path.read_bytes()]


def test_a_changed_scanner_is_not_run(tmp_path: Path) -> None:
    given = scanning.settings(tmp_path)
    with given.scanner.path.open("a") as file:
        file.write("# changed\n")
    with pytest.raises(ScanError, match=r"has sha256 [0-9a-f]{64}, and casemate_image_scans demands"):
        scan(given)
    assert not (given.scanner.database / "asked.json").exists()


def test_a_scanner_that_is_changed_while_it_is_used_is_run_as_it_was(tmp_path: Path) -> None:
    given = scanning.settings(tmp_path)
    with scanner.verified(given.scanner, given.results) as ready:
        given.scanner.path.write_text("#!/bin/sh\nexit 3\n")
        assert scanner.scan(ready, IMAGE, NOW).advisories == ()


@pytest.mark.parametrize("kind", ["trivy", "grype"])
def test_a_database_of_no_date_gives_no_result(tmp_path: Path, kind: str) -> None:
    given = scanning.settings(tmp_path, kind)
    (given.scanner.database / "db/metadata.json").write_text("{}")
    (given.scanner.database / "plan.json").write_text("{}")
    with pytest.raises(ScanError, match="not known of when the database"):
        scan(given)


def test_an_image_of_nowhere_says_how_it_is_brought(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="k3s ctr images export"):
        scan(scanning.settings(tmp_path), IMAGE._replace(repository=""))


@dataclasses.dataclass
class Layout:
    """An image with one layer in an OCI layout: a folder of files."""

    files: dict[str, bytes]
    manifest: str
    config: str


def layout(architecture: str = "amd64", index: bool = False) -> Layout:
    files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def blob(content: Any) -> str:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        name = hashlib.sha256(data).hexdigest()
        files[f"blobs/sha256/{name}"] = data
        return f"sha256:{name}"

    config = blob({"os": "linux", "architecture": architecture})
    manifest = blob({"config": {"digest": config}, "layers": [{"digest": blob(b"layer")}]})
    top = blob({"manifests": [{"digest": f"sha256:{'0' * 64}"}, {"digest": manifest}]}) if index else manifest
    files["index.json"] = json.dumps({"manifests": [{"digest": top}]}).encode()
    return Layout(files, top, config)


def written(made: Layout, place: Path, as_tar: bool) -> None:
    if as_tar:
        with tarfile.open(place / "image.tar", "w") as tar:
            for name, data in made.files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return
    for name, data in made.files.items():
        (place / "image" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "image" / name).write_bytes(data)


@pytest.mark.parametrize("as_tar", [True, False])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("kind", ["trivy", "grype"])
def test_an_image_in_an_archive_is_scanned_from_there(tmp_path: Path, as_tar: bool, index: bool, kind: str) -> None:
    archives, made = tmp_path / "archives", layout(index=index)
    archives.mkdir()
    (archives / "other.tar").write_bytes(b"no tar" if as_tar else b"")
    (archives / "other.tar").unlink()
    written(made, archives, as_tar)
    given = scanning.settings(tmp_path, kind)
    given = given._replace(scanner=given.scanner._replace(archives=archives))
    found = scan(given, Wanted(made.manifest, "", "", "linux/amd64"))
    assert (found.config, found.whole) == (made.config, not index)
    scan(given, Wanted(f"sha256:{'9' * 64}", "", "", "linux/amd64")._replace(digest=made.manifest, config=made.config))
    with pytest.raises(ScanError, match="no registry is known"):
        scan(given, Wanted(made.manifest, "", "", "linux/arm64"))


def test_a_changed_archive_is_no_image(tmp_path: Path) -> None:
    archives, made = tmp_path / "archives", layout()
    archives.mkdir()
    layer = next(name for name, data in made.files.items() if data == b"layer")
    written(Layout({**made.files, layer: b"other"}, made.manifest, made.config), archives, True)
    with pytest.raises(oci_layout.LayoutError, match="it was changed"):
        oci_layout.extract(archives, made.manifest, "", "linux/amd64", tmp_path / "out")


@pytest.mark.parametrize(
    "index",
    [{"manifests": ["x"]}, {"manifests": 7}, {"manifests": [{"digest": f"sha256:{'1' * 64}"}]}],
)
def test_an_archive_of_another_shape_is_refused_by_name(tmp_path: Path, index: Any) -> None:
    image = tmp_path / "archives/image"
    (image / "blobs/sha256").mkdir(parents=True)
    (image / "index.json").write_text(json.dumps(index))
    (image / "blobs/sha256" / ("1" * 64)).write_text('{"manifests": null}')
    with pytest.raises(oci_layout.LayoutError, match=r"archives/image is no layout of images"):
        oci_layout.extract(tmp_path / "archives", DIGEST, "", "linux/amd64", tmp_path / "out")


def test_an_archive_that_is_cut_off_is_refused_by_name(tmp_path: Path) -> None:
    made, archives = layout(), tmp_path / "archives"
    archives.mkdir()
    written(made, archives, as_tar=True)
    path = archives / "image.tar"
    packed = gzip.compress(path.read_bytes())
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(oci_layout.LayoutError, match=r"image\.tar is no tar archive that can be read"):
        oci_layout.extract(archives, made.manifest, "", "linux/amd64", tmp_path / "out")


@pytest.mark.parametrize(
    "text",
    [b"", b"[" * 100_000, b"[]",
     b"null", b'{"SchemaVersion": 1}', b'{"SchemaVersion": 2, "ArtifactType": "filesystem"}',
     b'{"matches": 1}',
     b'{"SchemaVersion": 2, "ArtifactType": "container_image", "Metadata": {"ImageID": "x"}, "Results": [1]}'],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["trivy", "grype"])
def test_anything_else_is_no_report(kind: str, text: bytes) -> None:
    with pytest.raises(scan_report.ReportError):
        scan_report.parse(kind, text)


def test_a_distribution_without_advisories_counts_as_one() -> None:
    about = {"ImageID": DIGEST, "OS": {"Family": "debian", "Name": "9.1", "EOSL": True}}
    text = {"SchemaVersion": 2, "ArtifactType": "container_image", "Metadata": about}
    (one,) = scan_report.parse("trivy", json.dumps(text).encode()).advisories
    assert one == scan_report.Advisory("DISTRIBUTION-ENDED", (), "debian", "9.1", "a later release", "high")


def test_times_of_both_scanners_are_read() -> None:
    for text in ("2026-11-29T12:00:00Z", "2026-11-29T12:00:00.123456789Z", "2026-11-29T13:00:00+01:00"):
        assert scan_report.moment(text) == NOW
    for other in ("", "2026-11-29", "2026-13-29T12:00:00Z", None, 5):
        assert scan_report.moment(other) is None
