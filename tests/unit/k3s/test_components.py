"""What a host is made of is read whole, and what cannot be read is said."""

from __future__ import annotations

import hashlib
from pathlib import Path

from unit import running_images
from unit.fake_host import FakeHost
from unit.test_go_build import information, program

from module_utils.casemate.k3s.components import KERNEL_PACKAGE, gathered, versions
from module_utils.casemate.k3s.files import PROGRAM
from module_utils.casemate.k3s.plugins import DATA

TREE = f"{DATA}/{'a' * 64}"
STATUS = """Package: openssl
Status: install ok installed
Architecture: amd64
Version: 3.0.17-1~deb12u2

Package: libssl3
Status: install ok unpacked
Architecture: amd64
Source: openssl
Version: 3.0.17-1~deb12u2

Package: gcc-12-base
Status: hold ok installed
Architecture: all
Source: gcc-12 (12.2.0-14)
Version: 12.2.0-14+deb12u1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

"""
FILES = {
    "/etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n',
    "/var/lib/dpkg/status": STATUS,
    f"{TREE}/bin/.links": "links",
    f"{TREE}/etc/strongswan": "conf",
}
SAYS_VERSION = 'build\t-ldflags="-X github.com/k3s-io/k3s/pkg/version.Version=v1.36.3+k3s1"\n'


def add(host: FakeHost, path: str, content: bytes) -> None:
    real = Path(host.path(path))
    real.parent.mkdir(parents=True, exist_ok=True)
    real.write_bytes(content)


def node(folder: Path) -> FakeHost:
    """A node with K3s unpacked, two images that run, and packages."""
    blobs: running_images.Blobs = dict(FILES)
    one, config = running_images.image(blobs, "2026-01-01T00:00:00Z")
    named = [("docker.io/library/app:1", one), (config, one)]
    host = running_images.node(folder, blobs, named, [running_images.container(config, "shop/web")])
    add(host, PROGRAM, program(information(SAYS_VERSION)))
    add(host, f"{TREE}/bin/k3s", program(information()))
    Path(host.path(f"{TREE}/bin/kubectl")).symlink_to("k3s")
    Path(host.path(f"{DATA}/current")).symlink_to(TREE)
    return host


def test_programs_files_packages_and_images_are_read(tmp_path: Path) -> None:
    told = gathered(node(tmp_path))
    assert told["unread"] == {}
    assert told["os"] == {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
    assert told["k3s"] == "v1.36.3+k3s1"
    assert [one["path"] for one in told["files"]] == [
        PROGRAM, f"{TREE}/bin/.links", f"{TREE}/bin/k3s", f"{TREE}/etc/strongswan",
    ]  # fmt: skip
    assert [bool(one.get("build")) for one in told["files"]] == [True, False, True, False]
    assert told["files"][1]["sha256"] == hashlib.sha256(b"links").hexdigest()
    assert [one["names"] for one in told["images"]] == [["docker.io/library/app:1"]]
    assert [one["pods"] for one in told["images"]] == [["shop/web/main"]]


def test_versions_alone_hash_nothing_and_ask_no_runtime(tmp_path: Path) -> None:
    host = node(tmp_path)
    told, whole = versions(host), gathered(node(tmp_path / "other"))
    assert [(one["path"], one["sha256"]) for one in told["files"]] == [(PROGRAM, ""), (f"{TREE}/bin/k3s", "")]
    assert host.ran == []
    assert [one["build"] for one in told["files"]] == [one["build"] for one in whole["files"] if "build" in one]
    assert {**whole, "files": [], "images": []} == {**told, "files": []}


def test_a_kernel_of_debian_says_which_package_it_is() -> None:
    said = KERNEL_PACKAGE.search("#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)")
    assert said is not None and said[1] == "6.1.119-1"
    assert KERNEL_PACKAGE.search("#1 SMP PREEMPT_DYNAMIC @0") is None


def test_packages_have_their_source_and_those_that_are_gone_are_left_out(tmp_path: Path) -> None:
    told = gathered(node(tmp_path))["packages"]
    assert [tuple(one.values()) for one in told] == [
        ("openssl", "3.0.17-1~deb12u2", "amd64", "openssl", "3.0.17-1~deb12u2"),
        ("libssl3", "3.0.17-1~deb12u2", "amd64", "openssl", "3.0.17-1~deb12u2"),
        ("gcc-12-base", "12.2.0-14+deb12u1", "all", "gcc-12", "12.2.0-14"),
    ]


def test_a_program_whose_modules_cannot_be_read_keeps_its_digest_and_is_said(tmp_path: Path) -> None:
    host = node(tmp_path)
    add(host, f"{TREE}/bin/runc", program(information())[:150])
    told = gathered(host)
    (seen,) = (one for one in told["files"] if one["path"].endswith("/runc"))
    assert seen["sha256"] and "build" not in seen
    assert "cut off" in told["unread"][f"{TREE}/bin/runc"]


def test_what_is_no_host_of_k3s_says_so_and_asks_no_runtime(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, {"/etc/os-release": "ID=debian\n"})
    told = gathered(host)
    assert told["files"] == told["images"] == told["packages"] == []
    assert set(told["unread"]) == {"k3s", "packages"}
    assert host.ran == []


def test_a_link_that_leads_elsewhere_is_no_tree_of_k3s(tmp_path: Path) -> None:
    host = node(tmp_path)
    Path(host.path(f"{DATA}/current")).unlink()
    Path(host.path(f"{DATA}/current")).symlink_to("/etc")
    told = gathered(host)
    assert [one["path"] for one in told["files"]] == [PROGRAM]
    assert "has not unpacked" in told["unread"][DATA]


def test_a_runtime_that_does_not_answer_is_said(tmp_path: Path) -> None:
    host = node(tmp_path)
    host.commands = {name: said for name, said in host.commands.items() if name.startswith("systemctl")}
    told = gathered(host)
    assert told["images"] == []
    assert "does not say what runs" in told["unread"]["images"]
