"""What attacks plant, on a machine whose systemd is three scripts: what is bound to what, and what happens when."""

from __future__ import annotations

import os
import shlex
import subprocess
import types
from pathlib import Path
from typing import Any

import pytest
from behaviour import planted

RUN = """#!/bin/sh
[ ! -e {folder}/refuses ] || {{ echo 'no systemd' >&2; exit 1; }}
for word; do
  case $word in
    --unit=*) unit=${{word#--unit=}} ;;
    --property=ExecStopPost=*) post=${{word#--property=ExecStopPost=}} ;;
  esac
done
echo "$post" >{folder}/units/$unit.service
"""
CONTROL = """#!/bin/sh
for unit; do :; done
case $* in
  *is-active*) [ -e {folder}/units/$unit ] ;;
  stop*) post=$(cat {folder}/units/$unit) && rm {folder}/units/$unit && $post ;;
esac
"""


class Machine:
    """A folder that is a machine's, and this machine's shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "units").mkdir()
        for name, script in {"systemd-run": RUN, "systemctl": CONTROL}.items():
            (folder / name).write_text(script.format(folder=folder))
            (folder / name).chmod(0o755)

    def run(self, command: str, *arguments: str) -> Any:
        line = command % tuple(map(shlex.quote, arguments)) if arguments else command
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", line],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env={**os.environ, "PATH": path},
        )
        return types.SimpleNamespace(rc=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def scripts(self) -> list[str]:
        return sorted(path.name for path in Path(planted.HOME).glob("*"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    home = str(tmp_path / "attacks")
    monkeypatch.setattr(planted, "PLANT", planted.PLANT.replace(planted.HOME, home))
    monkeypatch.setattr(planted, "HOME", home)
    return Machine(tmp_path)


def test_what_is_made_is_gone_afterwards_and_with_it_all_that_knew_of_it(machine: Machine) -> None:
    with planted.planted(machine, "touch made", "rm made"):
        assert (machine.folder / "made").exists()
        (script,) = machine.scripts()
        assert (machine.folder / "units" / f"{script}.service").exists()
    assert not (machine.folder / "made").exists() and not machine.scripts()


def test_nothing_is_made_that_nothing_would_take_back(machine: Machine) -> None:
    (machine.folder / "refuses").touch()
    with pytest.raises(RuntimeError, match="no systemd"), planted.planted(machine, "touch made", "rm made"):
        pass
    assert not (machine.folder / "made").exists()


def test_an_attack_that_breaks_has_it_taken_back(machine: Machine) -> None:
    with pytest.raises(ValueError, match="broke"), planted.planted(machine, "touch made", "rm made"):
        raise ValueError("broke")
    assert not (machine.folder / "made").exists()


def test_what_is_not_gone_is_an_error_and_is_tried_again(machine: Machine) -> None:
    with pytest.raises(RuntimeError, match="not gone"), planted.planted(machine, "touch made", "rm other"):
        pass
    assert len(machine.scripts()) == 1
    (machine.folder / "other").touch()
    with planted.planted(machine, "true", "true"):
        assert not (machine.folder / "other").exists() and len(machine.scripts()) == 1


def test_what_another_attack_holds_is_left_alone(machine: Machine) -> None:
    with planted.planted(machine, "touch one", "rm one"), planted.planted(machine, "touch two", "rm two"):
        assert (machine.folder / "one").exists()


def test_a_script_is_run_as_it_is_written(machine: Machine) -> None:
    with planted.planted(machine, "touch made", "for one in made; do rm \"$one\"; done; printf '%s' '100%' >kept"):
        pass
    assert (machine.folder / "kept").read_text() == "100%"
