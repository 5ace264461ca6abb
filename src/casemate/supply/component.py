"""One thing that a host or a release is made of, in the form that the bill of materials and the advisories share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from module_utils.casemate.formats.go_build import Build, Module

TOOLCHAIN = re.compile(r"go(\d+)\.(\d+)(?:\.(\d+))?(?:(beta|rc)(\d+))?(?![\w.])")
UNKNOWN = "(devel)"
"""What the Go toolchain calls the version of a module that was built from a folder."""


@dataclass(frozen=True, order=True)
class Component:
    """A component with its version, by the names of the ecosystem that it comes from.

    `ecosystem`: "go", "deb", "image", "file", "kernel" or "release".
    `name`: as the ecosystem names it: "github.com/opencontainers/runc", "openssl", "registry.example.org/repository".
    `version`: "v1.3.5", "3.0.17-1~deb12u2", the digest of an image.
    `where`: paths of the programs or files that hold it, or places on the host where it is.
    `sha256`: in hex, where known.
    `replaces`: the module that a Go module took the place of, "" if none. `name` and `version` are of what is compiled
    in, unless that is a folder without a name of its own: then `name` is that of the module, `version` "(devel)".
    `licence`: an SPDX expression where known.
    """

    ecosystem: str
    name: str
    version: str
    where: tuple[str, ...] = ()
    sha256: str = ""
    replaces: str = ""
    licence: str = ""


def of_go(built: Build, where: str) -> Iterator[Component]:
    """Every module of a Go program with the standard library, which is called "stdlib", each found at `where`.

    The sums of go.sum are no digests of files and stay out.
    """
    yield Component("go", "stdlib", toolchain_version(built.go), (where,))
    if built.main is not None:
        main = _of_module(built.main, where)
        yield replace(main, version=linked_version(built, main.name)) if main.version == UNKNOWN else main
    for module in built.modules:
        yield _of_module(module, where)


def linked_version(built: Build, module: str) -> str:
    """The version that the linker was told to write into a package of this module called "version", else "(devel)".

    K3s is built from a folder, so that the toolchain knows no version of it; its build passes one by `-X`.
    """
    named = re.search(
        rf"(?<!\S){re.escape(module)}/pkg/version\.Version=(v[^\s\"']+)", built.settings.get("-ldflags", "")
    )
    return named[1] if named else UNKNOWN


def toolchain_version(go: str) -> str:
    """The version of the standard library as a module would have it: v1.26.8 for go1.26.8, v1.27.0-rc.1 for go1.27rc1.

    What is no release ("devel go1.27-…") is returned as it is.
    """
    found = TOOLCHAIN.match(go)
    if found is None:
        return go
    major, minor, patch, kind, number = found.groups()
    return f"v{major}.{minor}.{patch or 0}" + (f"-{kind}.{number}" if kind else "")


def _of_module(module: Module, where: str) -> Component:
    if module.path.startswith((".", "/")):
        return Component("go", module.replaces, UNKNOWN, (where,))
    return Component("go", module.path, module.version, (where,), replaces=module.replaces)
