"""What a host says that it is made of, as components."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from casemate.supply.component import Component, merged, of_go
from module_utils.casemate.formats.go_build import Build, Module

LICENCE_OF_K3S = "Apache-2.0"
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def components(gathered: Mapping[str, Any]) -> list[Component]:
    """The components of what k3s/components.py gathers on a host, in order, each once.

    Raises ValueError for an answer of another shape: hosts are not trusted to give one.
    """
    try:
        return merged(_each(gathered))
    except (AttributeError, KeyError, TypeError) as odd:
        raise ValueError(f"what it says it is made of has another shape: {odd!r}") from odd


def _each(gathered: Mapping[str, Any]) -> Iterator[Component]:
    if gathered["kernel"]:
        package = str(gathered["kernel_package"])
        yield Component(
            "kernel", "linux", str(gathered["kernel"]), source="linux" if package else "", source_version=package
        )
    for number, file in enumerate(gathered["files"]):
        path, digest = str(file["path"]), str(file["sha256"])
        if digest:
            yield Component("file", path, f"sha256:{digest}", (path,), digest)
        if number == 0 and gathered["k3s"]:
            yield Component("release", "k3s", str(gathered["k3s"]), (path,), digest, licence=LICENCE_OF_K3S)
        if file.get("build"):
            yield from of_go(build_of(file["build"]), path)
    for package in gathered["packages"]:
        yield Component(
            "deb",
            str(package["name"]),
            str(package["version"]),
            source=str(package["source"]),
            source_version=str(package["source_version"]),
            architecture=str(package["architecture"]),
        )
    for image in gathered["images"]:
        digest = str(image["digest"])
        found = DIGEST.fullmatch(digest)
        names = sorted({repository(str(name)) for name in image["names"]} - {""})  # it is one image under all of them
        pods = tuple(map(str, image["pods"]))
        yield Component("image", names[0] if names else digest, digest, pods, found[1] if found else "")


def repository(name: str) -> str:
    """registry/repository of an image's name, without its tag and digest; "" for a digest that stands as a name."""
    bare = name.partition("@")[0]
    head, slash, last = bare.rpartition("/")
    return "" if DIGEST.fullmatch(bare) else f"{head}{slash}{last.partition(':')[0]}"


def build_of(told: Mapping[str, Any]) -> Build:
    """A build as JSON had it: tuples came as lists."""
    main = Module(*map(str, told["main"])) if told["main"] else None
    modules = tuple(Module(*map(str, one)) for one in told["modules"])
    settings = {str(name): str(value) for name, value in told["settings"].items()}
    return Build(str(told["go"]), str(told["package"]), main, modules, settings)
