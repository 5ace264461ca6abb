"""A bill of materials fits the official schema, names each component as others do, and is the same for the same."""

from __future__ import annotations

import datetime
import json
import uuid
from typing import Any

import pytest
from unit.test_inventory import DIGEST, GATHERED

from casemate.supply import bill
from casemate.supply.component import Component
from casemate.supply.inventory import components

SYSTEM = {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
SERIAL, WHEN = uuid.UUID(int=7), datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)


def made(*given: Component, unread: dict[str, str] | None = None, name: str = "node1") -> dict[str, Any]:
    subject = bill.host(name, SYSTEM, "x86_64", unread or {})
    return dict(json.loads(bill.document(subject, given, SYSTEM)))


def test_all_of_a_host_fits_the_schema_and_nothing_is_lost() -> None:
    every = components(GATHERED)
    found = made(*every)
    assert found["specVersion"] == "1.6"
    assert sorted(one["name"] for one in found["components"]) == sorted(one.name for one in every)
    (root,) = (one for one in found["dependencies"] if one["ref"] == "host:node1")
    assert sorted(root["dependsOn"]) == sorted(one["bom-ref"] for one in found["components"])
    assert found["metadata"]["component"]["type"] == "device"


def test_the_same_gives_the_same_bytes_but_for_serial_and_time() -> None:
    every = components(GATHERED)

    def text(given: list[Component], **fixed: Any) -> str:
        return bill.document(bill.host("node1", SYSTEM, "x86_64", {}), given, SYSTEM, **fixed)

    fixed = text(every, serial=SERIAL, when=WHEN)
    for _ in range(5):
        assert fixed == text(every[::-1], serial=SERIAL, when=WHEN)
    first, second = json.loads(text(every)), json.loads(text(every))
    assert first["serialNumber"] != second["serialNumber"]
    del first["serialNumber"], second["serialNumber"]
    del first["metadata"]["timestamp"], second["metadata"]["timestamp"]
    assert first == second


@pytest.mark.parametrize(
    ("one", "url"),
    [
        (
            Component("go", "github.com/opencontainers/runc", "v1.3.5"),
            "pkg:golang/github.com/opencontainers/runc@v1.3.5",
        ),
        (Component("go", "stdlib", "v1.26.8"), "pkg:golang/stdlib@v1.26.8"),
        (Component("go", "example.org/a", "(devel)"), "pkg:golang/example.org/a"),
        (
            Component(
                "deb", "openssl", "1:3.0~a+b", source="openssl", source_version="1:3.0~a+b", architecture="amd64"
            ),
            "pkg:deb/debian/openssl@1:3.0~a%2Bb?arch=amd64&distro=debian-12",
        ),
        (
            Component("deb", "gcc-12-base", "12.2+b1", source="gcc-12", source_version="12.2", architecture="all"),
            "pkg:deb/debian/gcc-12-base@12.2%2Bb1?arch=all&distro=debian-12&upstream=gcc-12%4012.2",
        ),
        (
            Component("image", "docker.io/library/app", f"sha256:{DIGEST}"),
            f"pkg:oci/app@sha256:{DIGEST}?repository_url=docker.io/library/app",
        ),
        (Component("release", "k3s", "v1.36.3+k3s1"), "pkg:github/k3s-io/k3s@v1.36.3%2Bk3s1"),
        (Component("pypi", "click", "8.1.0"), "pkg:pypi/click@8.1.0"),
        (Component("image", f"sha256:{DIGEST}", f"sha256:{DIGEST}"), None),
        (Component("file", "/usr/local/bin/k3s", f"sha256:{DIGEST}"), None),
        (Component("kernel", "linux", "6.1.0-28-amd64"), None),
    ],
)
def test_components_have_the_package_urls_of_their_ecosystems(one: Component, url: str | None) -> None:
    (found,) = made(one)["components"]
    assert found.get("purl") == url


def test_a_module_that_took_the_place_of_another_says_so() -> None:
    (found,) = made(Component("go", "example.org/fork", "v1", ("/a", "/b"), DIGEST, "example.org/old"))["components"]
    assert found["pedigree"]["ancestors"] == [{"name": "example.org/old", "type": "library"}]
    assert found["hashes"] == [{"alg": "SHA-256", "content": DIGEST}]
    assert found["evidence"]["occurrences"] == [
        {"bom-ref": "pkg:golang/example.org/fork@v1#1", "location": "/a"},
        {"bom-ref": "pkg:golang/example.org/fork@v1#2", "location": "/b"},
    ]
    (pinned,) = made(Component("go", "example.org/old", "v1", replaces="example.org/old"))["components"]
    assert "pedigree" not in pinned


def test_what_looks_alike_has_references_of_its_own() -> None:
    same = [Component("go", "a.org/a", "v1", (), digest * 64) for digest in "abc"]
    found = made(*same)["components"]
    assert len({one["bom-ref"] for one in found}) == 3


def test_what_could_not_be_read_stands_in_the_document() -> None:
    told = made(unread={"images": "no runtime"})["metadata"]["component"]["properties"]
    assert {"name": "casemate:unread:images", "value": "no runtime"} in told


@pytest.mark.parametrize("name", ['a"b', "a\nb", "\udce9", "\u202e", "<a>", "a" * 5000])
def test_a_hostile_name_does_not_break_the_document(name: str) -> None:
    found = made(
        Component("file", name, "", (name,)), Component("deb", name, name[:1000], source=name, architecture=name)
    )
    assert len(found["components"]) == 2


def test_what_does_not_fit_the_schema_is_not_made() -> None:
    with pytest.raises(ValueError, match="does not match"):
        made(Component("file", "/a", "", (), "no digest"))


def test_a_wrong_document_is_found() -> None:
    text = json.dumps({**made(), "components": [{"name": "a"}]})
    assert "required" in bill.problem(text)
    assert bill.problem(json.dumps({**made(), "odd": 1}))
