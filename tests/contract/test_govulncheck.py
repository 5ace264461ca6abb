"""Beside govulncheck: for the modules of a program both name the same advisories.

It is asked where somebody has it: CASEMATE_GOVULNCHECK names the program, CASEMATE_VULNDB a folder that holds `osv`,
the entries, and `DB`, the database that `go run ./cmd/indexdb -vulns data/osv -out DB` of golang.org/x/vulndb makes of
them; CASEMATE_GO_PROGRAMS a folder of programs, such as those that K3s unpacked.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from casemate.supply import advisories
from casemate.supply.component import of_go
from module_utils.casemate.formats import go_build

NAMED = ("CASEMATE_GOVULNCHECK", "CASEMATE_VULNDB", "CASEMATE_GO_PROGRAMS")


def found_by_govulncheck(program: Path, ignored: str) -> set[str]:
    """What it finds, but for what it says of a module; its answer is JSON objects one after the other."""
    database = Path(os.environ["CASEMATE_VULNDB"]).resolve()
    command = [os.environ["CASEMATE_GOVULNCHECK"], "-db", f"file://{database}/DB", "-mode=binary", "-scan=module"]
    text = subprocess.run([*command, "-format=json", str(program)], check=True, capture_output=True, text=True).stdout
    found, reader, at = set(), json.JSONDecoder(), 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        said, at = reader.raw_decode(text, at)
        if "finding" in said and said["finding"]["trace"][0]["module"] != ignored:
            found.add(said["finding"]["osv"])
    return found


@pytest.mark.skipif(not all(map(os.environ.get, NAMED)), reason=f"none of {', '.join(NAMED)} is set")
def test_both_name_the_same_advisories() -> None:
    data = advisories.load(Path(os.environ["CASEMATE_VULNDB"]) / "osv")
    judged = 0
    for program in sorted(Path(os.environ["CASEMATE_GO_PROGRAMS"]).iterdir()):
        built = None if program.is_symlink() or program.is_dir() else go_build.build(program.read_bytes())
        if built is None:
            continue
        # It takes a main module that was replaced for what it was before; what is compiled in is the other one.
        ignored = built.main.replaces if built.main else ""
        # What the linker says of a version is nothing that it reads; nor does it know forks by what they fork.
        main = built.main.path if built.main and built.main.version == "(devel)" else ""
        ours = advisories.matches(of_go(built, str(program)), data.advisories, built.settings.get("GOARCH", ""))
        assert {one.id for one in ours if not one.of_fork and one.module != main} == found_by_govulncheck(
            program, ignored
        ), program.name
        judged += 1
    assert judged
