"""What an operator had removed, kept on the host as it was: owner, mode, times and all, where only root gets at it."""

from __future__ import annotations

import os
import stat as statmod
import time

from .files import copy_whole, replacing, sync_folder
from .machine import EnforceError, Host

HOME = "/var/lib/casemate/evicted"


def folder(host: Host) -> str:
    """A new folder for what goes now, named by the time in UTC. Raises EnforceError or OSError."""
    home = host.path(HOME)
    os.makedirs(os.path.dirname(home), exist_ok=True)
    if not os.path.lexists(home):
        os.mkdir(home, 0o700)
    seen = os.lstat(home)
    if not statmod.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid():
        raise EnforceError(f"{HOME} is no folder of root's, so nothing is kept there, and nothing removed")
    os.chmod(home, 0o700)  # what is setuid stays so, and nobody can run it here
    made, now, count = "", time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), 0
    while not made:
        name = f"{now}-{count}" if count else now
        try:
            os.mkdir(os.path.join(home, name), 0o700)
            made = f"{HOME}/{name}"
        except FileExistsError:
            count += 1
    sync_folder(home)
    return made


def keep_text(path: str, text: str, place: str, host: Host) -> None:
    """Write below such a folder what stands for something that is no file. Raises OSError."""
    kept = host.path(place + path)
    os.makedirs(os.path.dirname(kept), exist_ok=True)
    with replacing(kept) as (file, _):
        file.write(text.encode())


def keep(path: str, place: str, host: Host) -> None:
    """Copy a file or link below such a folder, with the folders above it. Raises EnforceError or OSError."""
    kept = host.path(place + path)
    os.makedirs(os.path.dirname(kept), exist_ok=True)
    with host.folder(path) as above:
        real = os.path.join(above, os.path.basename(path))
        seen = os.lstat(real)
        if not (statmod.S_ISREG(seen.st_mode) or statmod.S_ISLNK(seen.st_mode)):
            raise EnforceError(f"{path} is neither a file nor a link, so it is not removed")
        copy_whole(real, kept)
    sync_folder(os.path.dirname(kept))
