"""Casemate's modules as Ansible sends them to hosts, kept from one run to the next.

Ansible puts a module together anew in each run: it parses every file that the module imports, which costs the
controller as much as several hosts do. What it made is kept in the account's own cache, as Python keeps what it
compiled, below the digest of everything that went into it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from pathlib import Path

from ansible import constants
from ansible.module_utils import basic
from ansible.plugins.loader import module_loader, module_utils_loader
from ansible.release import __version__ as ansible_version

from casemate import kept
from module_utils.casemate.core import legible
from module_utils.casemate.host.files import replacing

MADE = "ansiballz_cache"
"""Where Ansible keeps, for one run, what it has put together: a file for each module."""
OURS = "*.k3s_*-none"
"""How it names those of ours; `none` is what it extends them with, such as a debugger."""


def take() -> None:
    """Give Ansible what an earlier run has kept; called where it has not yet forked."""
    earlier = folder()
    if earlier:
        _copy(earlier, _made())


def keep() -> None:
    """Keep what Ansible has put together in this run."""
    ours = folder()
    if ours and _copy(_made(), ours):
        kept.tidy(ours)


def _made() -> Path:
    return Path(constants.DEFAULT_LOCAL_TMP, MADE)


def _copy(source: Path, target: Path) -> int:
    """Copy modules that are not there yet; return how many were. A cache that can't be written is none."""
    copied = 0
    with contextlib.suppress(OSError):
        for path in source.glob(OURS):
            if not (target / path.name).exists():
                target.mkdir(exist_ok=True)
                with replacing(str(target / path.name)) as (out, _):
                    out.write(path.read_bytes())
                copied += 1
    return copied


@functools.cache
def folder() -> Path | None:
    """The folder for what this version sends."""
    return kept.folder("modules", digest(module_name="k3s_controls"))


def digest(module_name: str) -> str:
    """Of every file that may go into a module: modules, our package, and whatever else Ansible would look through.

    Ansible's own files are known by its version and place.
    """
    own = Path(basic.__file__).parent
    folders = {Path(path) for path in module_utils_loader._get_paths(subdirs=False)} - {own}
    folders |= {Path(legible.__file__).parents[1], Path(module_loader.find_plugin(module_name) or "").parent}
    made = hashlib.sha256(f"{ansible_version} {own}".encode())
    for path in sorted(path for one in folders if one.is_dir() for path in one.rglob("*.py")):
        made.update(f"\0{path}\0".encode() + path.read_bytes())
    return made.hexdigest()[:32]
