"""The flag table holds exactly what the real K3s accepts: asked of its binary, which parses and starts nothing.

With `--help` behind them, flags are parsed and the help is shown; one that the binary does not know ends that before.
Not only what the help names is asked for, since it hides some: every entry of the table is. Hidden flags that the table
lacks are not found so; it was compared with K3s' source (pkg/cli/cmds) for 1.36.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from module_utils.casemate.k3s.flags import FLAGS, SHORT

RELEASE = Path(os.environ.get("CASEMATE_K3S_ARTIFACTS", "~/.cache/casemate/k3s")).expanduser()
BINARY = RELEASE / "k3s"
pytestmark = pytest.mark.skipif(not BINARY.is_file(), reason=f"no real K3s lies in {RELEASE}")


@pytest.fixture(scope="module")
def k3s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The binary, executable; it is not, where it was only downloaded."""
    place = tmp_path_factory.mktemp("k3s") / "k3s"
    place.write_bytes(BINARY.read_bytes())
    place.chmod(0o755)
    return place


def ask(k3s: Path, *arguments: str) -> str:
    """What it says. Only what ends with help or version is asked: with anything else it would start on this machine."""
    assert arguments[-1] in ("--help", "--version")
    environment = {"PATH": os.environ["PATH"], "HOME": str(k3s.parent), "K3S_DATA_DIR": str(k3s.parent / "data")}
    done = subprocess.run(
        [str(k3s), *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    return done.stdout + done.stderr


def minor(k3s: Path) -> str:
    """The table's key of this binary."""
    found = re.search(r"v(\d+\.\d+)\.", ask(k3s, "--version"))
    assert found
    return found[1]


@pytest.mark.parametrize("node", ["server", "agent"])
def test_the_binary_accepts_every_flag_of_the_table_and_no_made_up_one(k3s: Path, node: str) -> None:
    known = FLAGS[minor(k3s)][node]
    refused = [f for f in sorted(known | {*SHORT}) if "not defined" in ask(k3s, node, f"--{f}=1", "--help")]
    assert refused == (["o"] if node == "agent" else [])  # write-kubeconfig is the servers'
    assert "not defined: -made-up" in ask(k3s, node, "--made-up=1", "--help")


@pytest.mark.parametrize("node", ["server", "agent"])
def test_the_table_has_every_flag_that_the_binary_names(k3s: Path, node: str) -> None:
    shown = re.findall(r"(?m)^ +--([a-z0-9-]+)", ask(k3s, node, "--help"))
    assert len(shown) > 40
    assert {*shown} - {"help", *SHORT} <= FLAGS[minor(k3s)][node]
