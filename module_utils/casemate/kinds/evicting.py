"""What of that which nobody vouches for is removed once an operator names its control, and how.

A copy is kept of everything. What a package, K3s or a script of a package brings back is not removed: its absence would
be another fault. Sources: systemd(1) for units whose file went, update-alternatives(1), pam-auth-update(8).
"""

from __future__ import annotations

import fnmatch
import os
import shlex
import stat as statmod
from collections.abc import Mapping
from typing import Any, Dict, List

from ..formats import dpkg
from ..host import evicted
from ..host.entries import whom_it_logs_in
from ..host.machine import EnforceError, Host
from ..host.text import split_lines
from ..k3s.services import UNITS
from .service import FOLDERS
from .vouchers import SYSTEMD, Known, content, target_of

STOPPING = 120.0
"""Seconds that units may take to stop; systemd kills them after 90."""
GENERATORS = "-generators/"
GENERATED = "/run/systemd/generator"
UP = ("active", "reloading", "activating")
UNIT_FOLDERS = [folder for folder in FOLDERS if not folder.startswith("/lib/")]  # which is another name of /usr/lib
FROM = ("FragmentPath", "SourcePath")
"""Properties of a unit that name the file which defines it, or of which a generator made that."""
Units = Dict[str, Dict[str, str]]
"""Unit -> its properties."""


def stays(path: str, setting: Mapping[str, Any], known: Known) -> str:
    """Why what lies at a path is not removed, with what to do by hand; nothing where it can go."""
    host, package = known.host, known.owners.get(path)
    account = whom_it_logs_in(path, host)
    if account:
        return f"it lies where {account} logs in, as which Casemate comes, so it is left alone"
    if any(fnmatch.fnmatchcase(path, pattern) for pattern in setting.get("edited", ())):
        return "it holds what the host needs, too: edit it by hand"
    by_hand = ""
    if package:
        by_hand = dpkg.reinstall(path, package, host)
    elif dpkg.is_alternative(path, host):
        by_hand = f"update-alternatives --auto {shlex.quote(os.path.basename(host.link_target(path)))}"
        target = target_of(path, host)
        by_hand = dpkg.reinstall(target, known.owners[target], host) if target in known.owners else by_hand
    elif path in setting.get("copies", {}):
        by_hand = f"cp {shlex.quote(setting['copies'][path])} {shlex.quote(path)}"
    elif fnmatch.fnmatchcase(path, setting.get("of_profiles", "")):
        by_hand = "pam-auth-update --force"
    elif known.is_written(path, setting):
        unit = setting["written_by"]
        by_hand = "systemctl daemon-reload" if unit == SYSTEMD else f"systemctl restart {unit}"
    else:
        by_hand = _k3s(path, host) or _special(path, host) or host.barred(path)
    return f"by hand: {by_hand}" if by_hand else ""


def _k3s(path: str, host: Host) -> str:
    """K3s is restarted by its own role alone."""
    for unit in UNITS:
        shown = host.systemctl(unit, "FragmentPath", "DropInPaths")
        if {shown["FragmentPath"], *shown["DropInPaths"].split()} & set(dpkg.spellings(path)):
            return f"rm {shlex.quote(path)}; systemctl daemon-reload; systemctl restart {unit}"
    return ""


def _special(path: str, host: Host) -> str:
    found = host.stat(path)
    plain = found is None or statmod.S_ISREG(found.st_mode) or statmod.S_ISLNK(found.st_mode)
    return "" if plain else f"rm {shlex.quote(path)}"


def evict(paths: List[str], host: Host) -> None:
    """Stop what systemd runs by these files, keep a copy of each, remove them, and have systemd forget them.

    One refusal does not stop the others. Raises EnforceError with all of them.
    """
    place, running = evicted.folder(host), _running(host)
    spelled = {one for path in paths for one in dpkg.spellings(path)}  # systemd calls /usr/lib by its older name
    defined = [unit for unit, shown in running.items() if {shown.get(name) for name in FROM} & spelled]
    for unit in defined:
        host.about_to_change(unit, "unit")  # first: what was kept last comes back first, and its file has to
    # What a package has a unit of the same name for, as that of sshd, restarts by that one and is not stopped by this.
    hidden = [unit for unit in defined if _hides_another(running[unit]["FragmentPath"], paths, host)]
    stopped = [unit for unit in defined if unit not in hidden]
    refused = [_run(["systemctl", "stop", "--", *stopped], host)] if stopped else []
    for path in paths:
        try:
            evicted.keep(path, place, host)
            host.remove(path, shown=content(path, host))
        except (EnforceError, OSError) as error:
            refused.append(str(error))
    refused.append(_run(["systemctl", "daemon-reload"], host))
    generated = any(GENERATORS in path for path in paths)
    for unit, shown in _running(host).items() if generated else ():
        if shown["LoadState"] == "not-found" and running.get(unit, {}).get("FragmentPath", "").startswith(GENERATED):
            refused.append(_run(["systemctl", "stop", "--", unit], host))
    refused += [_run(["systemctl", "restart", "--", unit], host) for unit in hidden]
    if any(refused):
        raise EnforceError("; ".join(one for one in refused if one))


def _hides_another(fragment: str, paths: List[str], host: Host) -> bool:
    """Whether a unit's file is one of several with its name, of which one stays."""
    others = {f"{folder}/{os.path.basename(fragment)}" for folder in UNIT_FOLDERS} - set(paths)
    return any(host.stat(path) is not None for path in others)


def _running(host: Host) -> Units:
    """All units that are up or come up, and where systemd has them from."""
    wanted = f"--property=Id,LoadState,ActiveState,{','.join(FROM)}"
    found = {}
    for block in host.run(["systemctl", "show", wanted, "--", "*"]).out.split("\n\n"):
        shown = dict(line.split("=", 1) for line in split_lines(block) if "=" in line)
        if shown.get("ActiveState") in UP:
            found[shown.get("Id", "")] = shown
    return found


def _run(argv: List[str], host: Host) -> str:
    """Why a command failed, or nothing."""
    done = host.run(argv, timeout=STOPPING)
    return "" if done.rc == 0 else f"{' '.join(argv)} failed: {(done.err or done.out).strip()[:300]}"
