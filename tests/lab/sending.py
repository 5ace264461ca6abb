"""Send a program to machines of an applied lab, with what it needs of Casemate, and read what it says."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from casemate import ROOT
from casemate.run import runner

from .patient import admitted

RUN = """sudo sh -c 'cat >/root/sent.zip; python3 /root/sent.zip; code=$?; rm -f /root/sent.zip; exit $code'"""
Controls = list[dict[str, Any]]


class Machine(NamedTuple):
    """A machine of an inventory, and what its controls are judged with."""

    name: str
    is_agent: bool
    facts: Mapping[str, Any]
    controls: Controls

    @property
    def context(self) -> dict[str, Any]:
        version = self.facts["casemate_k3s_version"]
        lock = json.loads(Path(self.facts["casemate_artifact_lock"]).read_text())
        return {
            "version": version,
            "address": self.facts["ansible_host"],
            "account": self.facts["ansible_user"],
            "capabilities": lock["releases"][version]["provides"],
        }

    def ran(self, program: Mapping[str, Path | str], given: Mapping[str, Any], seconds: int = 5400) -> dict[str, Any]:
        """What a program prints, as JSON: its files by their names in the zip, __main__.py and given.json there too."""
        said: dict[str, Any] = json.loads(self.root(RUN, zipped(program, given), seconds))
        return said

    def root(self, command: str, given: bytes = b"", seconds: int = 300) -> bytes:
        """What a command of the machine prints, which has to succeed."""
        argv = ["ssh", *self.facts["ansible_ssh_common_args"].split(), "-o", "BatchMode=yes", "-o", "ControlPath=none"]
        argv += ["-i", self.facts["ansible_ssh_private_key_file"]]
        argv += [f"{self.facts['ansible_user']}@{self.facts['ansible_host']}", command]
        done = admitted(argv, input=given, timeout=seconds)
        assert done.returncode == 0, f"{self.name}: {done.stderr.decode()}"
        return bytes(done.stdout)


def zipped(program: Mapping[str, Path | str], given: Mapping[str, Any]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in program.items():
            archive.writestr(name, content.read_text() if isinstance(content, Path) else content)
        archive.writestr("module_utils/__init__.py", "")
        for path in (ROOT / "module_utils").rglob("*.py"):
            archive.write(path, str(path.relative_to(ROOT)))
        archive.writestr("given.json", json.dumps(given))
    return made.getvalue()


def machines(inventory: str, *more: str) -> list[Machine]:
    """All of them, each with its controls, their role, and the values that are never shown.

    `more` are inventories that say more than the lab's.
    """
    run = runner.play("explain.yml", (inventory, *more), variables={"__casemate_openly": True})
    assert run.results, run.errors
    given = yaml.safe_load(Path(inventory).read_text())["all"]
    return [
        Machine(
            name,
            group == "k3s_agent",
            {**given["vars"], **facts},
            [{**one, "role": role} for role, controls in run.results[name]["controls"].items() for one in controls],
        )
        for group, held in given["children"].items()
        for name, facts in held["hosts"].items()
    ]
