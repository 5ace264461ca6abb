"""What a host says becomes components, each once; an answer of another shape is refused."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest

from casemate.supply.component import Component, merged, of_go
from casemate.supply.inventory import components, repository
from module_utils.casemate.formats.go_build import Build, Module

SUM = base64.b64encode(bytes(range(32))).decode()
DIGEST = "c" * 64
BUILD: dict[str, Any] = {
    "go": "go1.26.8",
    "package": "example.org/k3s",
    "main": ["github.com/k3s-io/k3s", "(devel)", "", "", ""],
    "modules": [
        ["example.org/fork", "v1.0.1", f"h1:{SUM}", "example.org/old", "v1.0.0"],
        ["example.org/plain", "v1.2.3", "", "", ""],
    ],
    "settings": {"-ldflags": "-X github.com/k3s-io/k3s/pkg/version.Version=v1.36.3+k3s1"},
}
OTHER = {**BUILD, "main": None, "modules": [["example.org/plain", "v1.2.3", f"h1:{SUM}", "", ""]]}
GATHERED: dict[str, Any] = {
    "os": {"ID": "debian", "VERSION_ID": "12"},
    "machine": "x86_64",
    "kernel": "6.1.0-28-amd64",
    "kernel_package": "6.1.119-1",
    "k3s": "v1.36.3+k3s1",
    "files": [
        {"path": "/usr/local/bin/k3s", "sha256": "a" * 64, "build": BUILD},
        {"path": "/data/bin/runc", "sha256": "b" * 64, "build": OTHER},
        {"path": "/data/bin/.links", "sha256": DIGEST},
    ],
    "packages": [
        {"name": "libssl3", "version": "3.0.17-1~deb12u2", "architecture": "amd64", "source": "openssl",
         "source_version": "3.0.17-1~deb12u2"},
    ],
    "images": [
        {"digest": f"sha256:{DIGEST}", "names": ["docker.io/library/app:1", f"docker.io/library/app@sha256:{DIGEST}"],
         "id": f"sha256:{DIGEST}", "platform": "linux/amd64", "pods": ["shop/web/main"]},
    ],
    "unread": {},
}  # fmt: skip
K3S, RUNC = "/usr/local/bin/k3s", "/data/bin/runc"


def test_every_thing_is_a_component_once_with_all_its_places() -> None:
    h1 = bytes(range(32)).hex()
    assert components(json.loads(json.dumps(GATHERED))) == [
        Component("deb", "libssl3", "3.0.17-1~deb12u2", source="openssl", source_version="3.0.17-1~deb12u2",
                  architecture="amd64"),
        Component("file", "/data/bin/.links", f"sha256:{DIGEST}", ("/data/bin/.links",), DIGEST),
        Component("file", RUNC, f"sha256:{'b' * 64}", (RUNC,), "b" * 64),
        Component("file", K3S, f"sha256:{'a' * 64}", (K3S,), "a" * 64),
        Component("go", "example.org/fork", "v1.0.1", (K3S,), h1, "example.org/old"),
        Component("go", "example.org/plain", "v1.2.3", (RUNC, K3S), h1),
        Component("go", "github.com/k3s-io/k3s", "v1.36.3+k3s1", (K3S,)),
        Component("go", "stdlib", "v1.26.8", (RUNC, K3S)),
        Component("image", "docker.io/library/app", f"sha256:{DIGEST}", ("shop/web/main",), DIGEST),
        Component("kernel", "linux", "6.1.0-28-amd64", source="linux", source_version="6.1.119-1"),
        Component("release", "k3s", "v1.36.3+k3s1", (K3S,), "a" * 64, licence="Apache-2.0"),
    ]  # fmt: skip


def test_modules_of_one_version_with_two_sums_stay_two() -> None:
    """One of them is not what its name says: that is not to be hidden."""
    made = [Component("go", "a", "v1", (place,), digest) for place, digest in (("/a", "1"), ("/b", "2"), ("/c", ""))]
    assert [(one.where, one.sha256) for one in merged(made)] == [(("/a",), "1"), (("/b",), "2"), (("/c",), "")]


@pytest.mark.parametrize("odd", ["h1:", "h1:####", "h2:" + SUM, "h1:" + SUM[:-8], ""])
def test_what_is_no_sum_is_no_hash(odd: str) -> None:
    built = Build("go1.26.8", "a", None, (Module("a", "v1", odd),), {})
    assert list(of_go(built, "/a"))[1].sha256 == ""


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("docker.io/library/app:1", "docker.io/library/app"),
        ("registry.example.org:5000/app", "registry.example.org:5000/app"),
        ("registry.example.org:5000/app:1@sha256:" + DIGEST, "registry.example.org:5000/app"),
        ("app:1", "app"),
        (f"sha256:{DIGEST}", ""),
    ],
)
def test_the_repository_of_an_image_is_its_name_without_tag_and_digest(name: str, found: str) -> None:
    assert repository(name) == found


def test_an_image_without_a_name_is_known_by_its_digest() -> None:
    told = {**GATHERED, "images": [{**GATHERED["images"][0], "names": []}]}
    assert [one.name for one in components(told) if one.ecosystem == "image"] == [f"sha256:{DIGEST}"]


@pytest.mark.parametrize("part", ["kernel", "k3s", "files", "packages", "images"])
def test_an_answer_that_lacks_a_part_is_refused(part: str) -> None:
    told = {name: value for name, value in GATHERED.items() if name != part}
    with pytest.raises(ValueError, match="another shape"):
        components(told)


@pytest.mark.parametrize(
    ("place", "odd"),
    [("files", [7]), ("files", [{"path": "/a"}]), ("packages", {"a": 1}), ("images", [{"digest": "x", "names": 7}])],
)
def test_an_answer_of_another_shape_is_refused(place: str, odd: Any) -> None:
    with pytest.raises(ValueError, match="another shape"):
        components({**GATHERED, place: odd})


def test_a_build_of_another_shape_is_refused() -> None:
    told = copy.deepcopy(GATHERED)
    told["files"][0]["build"]["modules"] = [["a"]]
    with pytest.raises(ValueError, match="another shape"):
        components(told)
