"""What is released: built from this commit, and installed as the README says where nothing of the project is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from casemate import ROOT

UV = ROOT / ".venv-uv/bin/uv"
BLOCKS = re.findall(r"(?m)(?:^ {4}.*\n)+", (ROOT / "README.md").read_text())
((WHEEL,), (*COLLECTION, PLAYBOOK)) = (
    [line.strip() for line in block.splitlines()]
    for block in BLOCKS
    if block.startswith(("    pipx install", "    ansible-galaxy"))
)
"""The README's lines that install the wheel and the collection, and the one that runs the collection."""
Built = dict[str, Path]


def built(folder: Path, checkout: Path = ROOT, umask: int = 0o022, **environment: str) -> Built:
    """Wheel, sdist, collection and definition of a commit of the same moment; by the end of their names."""
    made = subprocess.run(
        [checkout / ".ci/release", folder],
        cwd=checkout,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000", **environment},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return {path.name: path for path in sorted(folder.iterdir())}


def named(release: Built, end: str) -> Path:
    (path,) = (path for name, path in release.items() if name.endswith(end) and "k3s" not in name)
    return path


def collection(release: Built) -> Path:
    (path,) = (path for name, path in release.items() if name.startswith("casemate-k3s-"))
    return path


def shell(release: Built, line: str, home: Path, scripts: Path) -> None:
    """Run a line that installs, beside the release; uv stands for pip and pipx, and takes the versions of uv.lock."""
    pins = home / "pins.txt"
    export = ("export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--output-file")
    subprocess.run([UV, *export, pins], cwd=ROOT, check=True)
    cache = subprocess.run([UV, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    environment = {  # how the index is reached is the caller's matter
        **{k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "CASEMATE_", "VIRTUAL_ENV"))},
        "HOME": str(home),
        "PATH": f"{scripts}:{UV.parent}:/usr/bin:/bin",
        "UV_CACHE_DIR": cache,
        "UV_CONSTRAINT": str(pins),
        "UV_PYTHON": sys.executable if line == WHEEL else str(scripts / "python"),
        "UV_TOOL_DIR": str(scripts.parent / "tools"),
        "UV_TOOL_BIN_DIR": str(scripts),
    }
    command = re.sub("^pip ", "uv pip ", line.partition("# or: ")[2] or line)
    argv, beside = ["bash", "-ec", command], collection(release).parent
    done = subprocess.run(argv, cwd=beside, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def with_wheel(release: Built, folder: Path, home: Path) -> Path:
    """The scripts of an empty environment into which the wheel was installed."""
    shell(release, WHEEL, home, folder / "bin")
    return folder / "bin"


def with_ansible(release: Built, folder: Path, home: Path) -> Path:
    """The scripts of an environment that has ansible-core, and nothing else."""
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    shell(release, "pip install ansible-core", home, folder / "venv/bin")
    return folder / "venv/bin"


def run(
    scripts: Path, folder: Path, *arguments: str, home: Path | None = None, within: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """A command of the installed environment, of which the operator's environment says nothing."""
    clean = {"PATH": f"{scripts}:/usr/bin:/bin", "HOME": str(home or folder), "LANG": "C.UTF-8"}
    command = [*within, str(scripts / arguments[0]), *arguments[1:]]
    return subprocess.run(
        command, cwd=folder, env=clean, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
