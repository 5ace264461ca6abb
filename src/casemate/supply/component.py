"""One thing that a host or a release is made of, in the form that the bill of materials and the advisories share."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
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
    `sha256`: in hex, where known: of a file its bytes', of a Go module the sum of its files as go.sum has it ("h1:").
    `replaces`: the module that a Go module took the place of, "" if none. `name` and `version` are of what is compiled
    in, unless that is a folder without a name of its own: then `name` is that of the module, `version` "(devel)".
    `licence`: an SPDX expression where known.
    `source`, `source_version`: of a Debian package those of the source package, by which advisories name it.
    `architecture`: of a Debian package, such as "amd64" or "all".
    """

    ecosystem: str
    name: str
    version: str
    where: tuple[str, ...] = ()
    sha256: str = ""
    replaces: str = ""
    licence: str = ""
    source: str = ""
    source_version: str = ""
    architecture: str = ""


def of_go(built: Build, where: str) -> Iterator[Component]:
    """Every module of a Go program with the standard library, which is called "stdlib", each found at `where`."""
    yield Component("go", "stdlib", toolchain_version(built.go), (where,))
    if built.main is not None:
        main = _of_module(built.main, where)
        linked = linked_version(built, main.name)
        yield main if linked == UNKNOWN else replace(main, version=linked)
    for module in built.modules:
        yield _of_module(module, where)


def linked_version(built: Build, module: str) -> str:
    """The version that the linker was told to write into a package of this module called "version", else "(devel)".

    K3s is built from a folder, so that the toolchain knows no version of it, or makes one of the commit, since the tags
    of K3s are no versions of a module; its build passes its own by `-X`.
    """
    named = re.search(
        rf"(?<![^\s\"'=]){re.escape(module)}/pkg/version\.Version=(v[^\s\"']+)", built.settings.get("-ldflags", "")
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


def merged(components: Iterable[Component]) -> list[Component]:
    """The components in order, each once with all the places where it was found.

    The toolchain knows no sum of what it found in a folder "vendor": such a module is the one whose sum is known.
    """
    found: dict[Component, set[str]] = {}
    for one in components:
        found.setdefault(replace(one, where=()), set()).update(one.where)
    for one in [one for one in found if one.ecosystem == "go" and not one.sha256]:
        same = [other for other in found if other != one and replace(other, sha256="") == one]
        if len(same) == 1:
            found[same[0]] |= found.pop(one)
    return sorted(replace(one, where=tuple(sorted(where))) for one, where in found.items())


def _of_module(module: Module, where: str) -> Component:
    if module.path.startswith((".", "/")):
        return Component("go", module.replaces, UNKNOWN, (where,))
    return Component("go", module.path, module.version, (where,), _hex(module.sum), module.replaces)


def _hex(h1: str) -> str:
    """A sum of go.sum, which is the SHA-256 of a list of a module's files, in hex; "" for what is none."""
    try:
        digest = base64.b64decode(h1.removeprefix("h1:"), validate=True) if h1.startswith("h1:") else b""
    except ValueError:
        return ""
    return digest.hex() if len(digest) == 32 else ""
