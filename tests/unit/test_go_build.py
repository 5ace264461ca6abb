"""What Go wrote into a program about its build is read as `go version -m` reads it, and rubbish is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from casemate.supply.component import Component, of_go, toolchain_version
from module_utils.casemate.formats import go_build
from module_utils.casemate.formats.go_build import Build, Module
from module_utils.casemate.k3s.artifact import mapped

RELEASE = Path(os.environ.get("CASEMATE_K3S_ARTIFACTS", "~/.cache/casemate/k3s")).expanduser()
GO = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
TEXT = """path\texample.org/tool/cmd
mod\texample.org/tool\t(devel)\t
dep\texample.org/plain\tv1.2.3\th1:plain=
dep\texample.org/old\tv1.0.0
=>\texample.org/fork\tv1.0.1-fork1\th1:fork=
dep\texample.org/folder\tv0.0.0-00010101000000-000000000000
=>\t../folder\t(devel)\t
build\t-ldflags="-X example.org/tool/pkg/version.Version=v9.8.7 -X 'a.b=\\u00e4 \\"c\\"'"
build\tGOOS=linux
build\tvcs.revision=abc
build\t"odd name"=`raw "value"`
"""


def varint(number: int) -> bytes:
    made = b""
    while number > 0x7F:
        made, number = made + bytes([number & 0x7F | 0x80]), number >> 7
    return made + bytes([number])


def information(text: str = TEXT, go: bytes = b"go1.26.8", flags: int = 2) -> bytes:
    framed = b"0" * 16 + text.encode() + b"1" * 16 if text else b""
    header = (b"\xff Go buildinf:" + bytes([8, flags])).ljust(32, b"\0")
    return header + varint(len(go)) + go + varint(len(framed)) + framed


def program(content: bytes, wide: bool = True, order: str = "<", named: bool = True, before: int = 32) -> bytes:
    """An ELF file with one segment of data that has this content, and, where it is named, a section around it."""
    head, entry, row = (64, 56, 64) if wide else (52, 32, 40)
    data_at = head + entry
    content = b"\0" * before + content
    names = b"\0.shstrtab\0.go.buildinfo\0"
    names_at = data_at + len(content)
    table = names_at + len(names)
    word = "Q" if wide else "I"
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + b"\0" * 9
    rows = 3 if named else 0
    made = ident + struct.pack(
        order + "HHI" + 3 * word + "IHHHHHH", 2, 62, 1, 0, head, table, 0, head, entry, 1, row, rows, 1 if rows else 0
    )
    size = len(content)
    if wide:
        made += struct.pack(order + "IIQQQQQQ", 1, 6, data_at, 0x10000, 0, size, size, 16)
    else:
        made += struct.pack(order + "IIIIIIII", 1, data_at, 0x10000, 0, size, size, 6, 16)
    made += content + names
    for name, kind, where, start, length in (
        (0, 0, 0, 0, 0),
        (1, 3, 0, names_at, len(names)),
        (11, 1, 0x10000, data_at, size),
    )[:rows]:
        made += struct.pack(order + "II" + 4 * word + "II" + 2 * word, name, kind, 0, where, start, length, 0, 0, 1, 0)
    return made


EXPECTED = Build(
    "go1.26.8",
    "example.org/tool/cmd",
    Module("example.org/tool", "(devel)"),
    (
        Module("example.org/plain", "v1.2.3", "h1:plain="),
        Module("example.org/fork", "v1.0.1-fork1", "h1:fork=", "example.org/old", "v1.0.0"),
        Module("../folder", "(devel)", "", "example.org/folder", "v0.0.0-00010101000000-000000000000"),
    ),
    {
        "-ldflags": "-X example.org/tool/pkg/version.Version=v9.8.7 -X 'a.b=ä \"c\"'",
        "GOOS": "linux",
        "vcs.revision": "abc",
        "odd name": 'raw "value"',
    },
)


@pytest.mark.parametrize("wide", [True, False], ids=["64 bits", "32 bits"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("named", [True, False], ids=["by its section", "stripped of sections"])
def test_modules_replacements_and_settings_are_read(wide: bool, order: str, named: bool) -> None:
    assert go_build.build(program(information(), wide, order, named)) == EXPECTED


def test_a_program_without_modules_has_its_toolchain_only() -> None:
    assert go_build.build(program(information(""))) == Build("go1.26.8", "", None, (), {})


def test_a_misaligned_magic_is_no_header() -> None:
    decoy = b"\xff Go buildinf:" + b"\0" * 10
    assert go_build.build(program(decoy + information(), before=8)) == EXPECTED
    assert go_build.build(program(b"\0" + information(), before=0)) is None


@pytest.mark.parametrize("data", [b"", b"\x7fEL", b"#!/bin/sh\n", b"MZ" + b"\0" * 100, program(b"no Go here" * 9)])
def test_what_is_no_program_of_go_says_nothing(data: bytes) -> None:
    assert go_build.build(data) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (information(flags=0), "before 1.18"),
        (information()[:20], "cut off"),
        (information()[:40], "longer than what is there"),
        (information()[:32], "has no length"),
        (information()[:32] + b"\xff" * 12, "has no length"),
        (information()[:32] + varint(2**62), "longer than what is there"),
        (information("=>\ta\tv1\th1:\n"), "does not name"),
        (information("dep\ta\tv1\n=>\tb\tv1\th\n=>\tc\tv1\th\n"), "does not name"),
        (information("dep\ta\n"), "has no version"),
        (information("dep\t\tv1\n"), "has no version"),
        (information("build\tnothing\n"), "no name or no value"),
        (information("build\t=x\n"), "no name or no value"),
        (information('build\tname="x\n'), "is none"),
        (information('build\tname="\\q"\n'), "is none"),
        (information('build\tname="a"+"b"\n'), "is none"),
        (information('build\tname="\\Uffffffff"\n'), "names no character"),
        (information(go=b"go\xff\xfe"), "utf-8"),
    ],
)
def test_broken_build_information_is_refused_with_the_reason(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        go_build.build(program(content))


def test_every_truncation_and_any_flipped_byte_ends_with_an_answer() -> None:
    """None, what is there, or ValueError: nothing else, and nothing takes long."""
    whole = program(information())
    chance = random.Random(11)
    broken = [whole[:length] for length in range(len(whole))]
    for _ in range(4000):
        bytes_ = bytearray(whole)
        for _ in range(chance.choice([1, 1, 8])):
            bytes_[chance.choice([chance.randrange(64 + 56), chance.randrange(len(whole))])] = chance.randrange(256)
        broken.append(bytes(bytes_))
    refused = 0
    for data in broken:
        try:
            go_build.build(data)
        except ValueError:
            refused += 1
    assert refused > len(whole) // 2


def test_huge_offsets_in_a_mapped_file_are_refused(tmp_path: Path) -> None:
    whole = bytearray(program(information(), named=False))
    struct.pack_into("<Q", whole, 64 + 8, 2**64 - 16)
    (tmp_path / "program").write_bytes(whole)
    with mapped(str(tmp_path / "program")) as data, pytest.raises(ValueError, match="cut off"):
        go_build.build(data)


def told_by_go(path: Path) -> dict[str, Any]:
    assert GO
    said = subprocess.run([GO, "version", "-m", "-json", str(path)], capture_output=True, check=True, timeout=60)
    return dict(json.loads(said.stdout))


def as_go_tells(built: Build) -> dict[str, Any]:
    """A build in the shape of runtime/debug.BuildInfo as JSON, which leaves out what is empty."""

    def module(one: Module) -> dict[str, Any]:
        plain: dict[str, Any] = {"Path": one.path, "Version": one.version, "Sum": one.sum}
        if one.replaces:
            plain = {
                "Path": one.replaces,
                "Version": one.replaced_version,
                "Replace": module(one._replace(replaces="")),
            }
        return {name: value for name, value in plain.items() if value}

    made = {
        "GoVersion": built.go,
        "Path": built.package,
        "Main": module(built.main) if built.main else {},
        "Deps": [module(one) for one in built.modules] or None,
        "Settings": [{"Key": k, "Value": v} if v else {"Key": k} for k, v in built.settings.items()] or None,
    }
    return {name: value for name, value in made.items() if value or name in ("Main", "Deps", "Settings")}


def read(path: Path) -> Build:
    with mapped(str(path)) as data:
        built = go_build.build(data)
    assert built is not None
    return built


@pytest.mark.skipif(GO is None, reason="there is no Go here: go version -m says nothing to compare with")
@pytest.mark.parametrize("arch", ["amd64", "mips"], ids=["64 bits", "32 bits, big-endian"])
def test_what_go_itself_builds_is_read_as_go_reads_it(arch: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/go.mod").write_text("module example.org/folder\n\ngo 1.18\n")
    (tmp_path / "folder/lib.go").write_text("package folder\n\nfunc One() int { return 1 }\n")
    (tmp_path / "go.mod").write_text(
        "module example.org/tool\n\ngo 1.18\n\nrequire example.org/folder v1.0.0\n\n"
        "replace example.org/folder => ./folder\n"
    )
    (tmp_path / "main.go").write_text(
        'package main\n\nimport "example.org/folder"\n\nfunc main() { println(folder.One()) }\n'
    )
    settings = {"GOOS": "linux", "GOARCH": arch, "GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    env = {"HOME": str(Path.home()), **os.environ, "CGO_ENABLED": "0", **settings}
    command = [str(GO), "build", "-ldflags=-s -w -X 'main.a=b c'", "-o", "tool", "."]
    subprocess.run(command, cwd=tmp_path, env=env, check=True, timeout=600)
    assert as_go_tells(read(tmp_path / "tool")) == told_by_go(tmp_path / "tool")


@pytest.mark.skipif(GO is None, reason="there is no Go here: go version -m says nothing to compare with")
@pytest.mark.skipif(not (RELEASE / "k3s").is_file(), reason=f"there is no release of K3s in {RELEASE}")
def test_a_real_k3s_is_read_as_go_reads_it() -> None:
    built = read(RELEASE / "k3s")
    assert as_go_tells(built) == told_by_go(RELEASE / "k3s")
    assert len(built.modules) > 20


def test_components_are_what_is_compiled_in() -> None:
    assert list(of_go(EXPECTED, "/opt/tool")) == [
        Component("go", "stdlib", "v1.26.8", ("/opt/tool",)),
        Component("go", "example.org/tool", "v9.8.7", ("/opt/tool",)),
        Component("go", "example.org/plain", "v1.2.3", ("/opt/tool",)),
        Component("go", "example.org/fork", "v1.0.1-fork1", ("/opt/tool",), replaces="example.org/old"),
        Component("go", "example.org/folder", "(devel)", ("/opt/tool",)),
    ]


def test_what_the_linker_was_told_counts_before_what_the_toolchain_makes_of_the_commit() -> None:
    commit = "v1.0.1-0.20260728170000-66a14f0ebc12+dirty"
    built = EXPECTED._replace(main=Module("example.org/tool", commit))
    assert list(of_go(built, "/opt/tool"))[1].version == "v9.8.7"
    assert list(of_go(built._replace(settings={}), "/opt/tool"))[1].version == commit


def test_a_version_that_nobody_stated_for_this_module_stays_unknown() -> None:
    other = EXPECTED._replace(settings={"-ldflags": "-X example.org/fork/pkg/version.Version=v1.0.0"})
    assert list(of_go(other, "/opt/tool"))[1].version == "(devel)"


@pytest.mark.parametrize("form", ["-X '{}=v9.8.7'", '-X "{}=v9.8.7"', "-X={}=v9.8.7", "-s -X  {}=v9.8.7 -w"])
def test_a_version_is_stated_in_any_form_that_the_linker_takes(form: str) -> None:
    said = form.format("example.org/tool/pkg/version.Version")
    built = EXPECTED._replace(settings={"-ldflags": said})
    assert list(of_go(built, "/opt/tool"))[1].version == "v9.8.7"


@pytest.mark.parametrize(
    ("go", "version"),
    [
        ("go1.26.8", "v1.26.8"),
        ("go1.26", "v1.26.0"),
        ("go1.27rc1", "v1.27.0-rc.1"),
        ("go1.22.1 X:nocoverageredesign", "v1.22.1"),
        ("go1.22.12-vendor", "v1.22.12"),
        ("devel go1.27-abcdef", "devel go1.27-abcdef"),
    ],
)
def test_the_toolchain_is_the_version_of_the_standard_library(go: str, version: str) -> None:
    assert toolchain_version(go) == version
