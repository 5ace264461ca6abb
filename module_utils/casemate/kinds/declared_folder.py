"""A folder in which exactly the declared files lie: what is wrong with it, with each of them, and with others."""

from __future__ import annotations

import os
import stat as statmod
from collections.abc import Iterable
from typing import Callable, Dict

from ..host.files import names_in
from ..host.machine import Host


def is_other(path: str, host: Host) -> bool:
    """Whether something else than a folder lies there; then nothing below it is looked at."""
    found = host.stat(path)
    return found is not None and not statmod.S_ISDIR(found.st_mode)


def is_folder(path: str, host: Host) -> bool:
    """Whether a folder lies there."""
    found = host.stat(path)
    return found is not None and statmod.S_ISDIR(found.st_mode)


def faults(
    path: str,
    declared: Iterable[str],
    host: Host,
    of_folder: Callable[[os.stat_result], str],
    of_file: Callable[[str], str],
) -> Dict[str, str]:
    """Path -> what is wrong, as `of_folder` says of the folder where there is one, and `of_file` of each name.

    Names are those that are declared, and those that are there.
    """
    found, said = host.stat(path), {}
    if found is not None:
        said[path] = of_folder(found)
    for name in sorted({*declared, *names_in(host.path(path))}):
        said[f"{path}/{name}"] = of_file(name)
    return {place: fault for place, fault in said.items() if fault}
