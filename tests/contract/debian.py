"""A program run as root in a copy of the lab's Debian, which nothing outlives."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from casemate import ROOT
from casemate_lab.image import base

COPY = """set -e
mount -t tmpfs casemate /mnt; mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay casemate -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
mount -t proc proc /mnt/root/proc; mount --rbind /dev /mnt/root/dev
cp -r "$2/module_utils" "$2/tests/contract/$3" /mnt/root/
printf %s "$4" >/mnt/root/given.json
program=$3; shift 4; [ $# = 0 ] || cp "$@" /mnt/root/
chroot /mnt/root sh -c "$PREPARED"
exec chroot /mnt/root python3 "/$program"
"""


def seen_on(
    release: str, program: str, given: Mapping[str, Any], prepared: str = ":", files: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """What a program of this folder prints, as JSON, in a copy of a release of Debian.

    It finds module_utils beside itself, and what is `given` in /given.json. Before it, `files` are put into the root,
    and the shell does there what is to be `prepared`.
    """
    argv = ["unshare", "--mount", "--propagation", "private", "env", f"PREPARED={prepared}", "sh", "-c", COPY, "sh"]
    argv += [str(base(release)), str(ROOT), program, json.dumps(given), *map(str, files)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
