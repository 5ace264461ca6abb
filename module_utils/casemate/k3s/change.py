"""A change of K3s' configuration as a transaction: what was there comes back when K3s does not.

Every file is kept before it is written (`Host` asks for it), the binary by its digest. A change that is pending
belongs to whoever comes next: what is kept is the last state with which K3s was seen to run, whichever run kept it, so
a run that follows a killed one goes on from there and settles both, or takes both back.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Sequence

from ..host.backup import Backup
from ..host.clock import moment
from ..host.files import replace_link
from ..host.machine import EnforceError, Host
from .artifact import digest_of, stated_version
from .files import merged, sources, value_of

HOME = "/var/lib/casemate/k3s"
PROGRAM, PREVIOUS = "/usr/local/bin/k3s", "/usr/local/bin/k3s.previous"


class Change(Backup):
    """The pending change of K3s on this host. `root` lets tests point it at a folder."""

    def __init__(self, root: str = "/") -> None:
        super().__init__(HOME, root)

    def begin(self) -> None:
        """Finish going back where a run was killed doing so, and note the binary, unless that is noted already.

        Raises EnforceError when files cannot be put back, or OSError when nothing can be kept: then nothing may change.
        """
        if os.path.isdir(self.reverting):
            self.restore()
        self.keep([])
        note = os.path.join(self.pending, "binary")
        if not os.path.exists(note):
            self._put(note, digest_of(self._real(PROGRAM)))

    def keep_file(self, names: Sequence[str], sort: str = "file") -> None:
        """What `Host` calls before each change; modes and owners are right however K3s fares, and do not go back."""
        if sort == "file":
            self.keep(names)

    def back(self, server: bool) -> tuple[list[str], str]:
        """Put files and binary back. Return their paths, and why the binary stays where it does.

        A server's binary goes back within a minor release only: a newer one may have written what an older one does
        not read (etcd's storage, stored versions of objects), and patches change neither.
        """
        note = os.path.join(self.pending if os.path.isdir(self.pending) else self.reverting, "binary")
        before = _read(note)
        kept = self.paths()
        paths = [path for path in kept if not self._is_as_kept(path)]
        self.restore()
        binary, previous = self._real(PROGRAM), self._real(PREVIOUS)
        if not before or digest_of(binary) == before:
            return paths, ""
        if digest_of(previous) != before:
            return paths, f"{PROGRAM} stays, for {PREVIOUS} is not the one that was replaced"
        old, new = stated_version(previous), stated_version(binary)
        if server and old.split(".")[:2] != new.split(".")[:2]:
            return (
                paths,
                f"{PROGRAM} stays {new or 'the new one'}: it may have changed data that {old or 'the old one'} reads",
            )
        replace_link(binary, functools.partial(os.link, previous))
        return [*paths, binary], ""

    def since(self) -> float:
        """When the pending change began, in seconds since the epoch; now where there is none."""
        for folder in (self.pending, self.reverting):
            with contextlib.suppress(FileNotFoundError):
                return os.stat(os.path.join(folder, "binary")).st_mtime
        return time.time()

    def is_pending(self) -> bool:
        """Whether a change waits to be settled or taken back."""
        return any(os.path.isdir(folder) for folder in (self.pending, self.reverting))

    def _is_as_kept(self, path: str) -> bool:
        for name in os.listdir(self.pending):
            if name.isdigit() and _read(os.path.join(self.pending, name, "path")) == path:
                data = os.path.join(self.pending, name, "data")
                return digest_of(path) == (digest_of(data) if os.path.exists(data) else "")
        return False


def go_back(change: Change, host: Host, unit: str, server: bool) -> tuple[list[str], str, bool]:
    """Take the pending change back and start K3s anew where the change had reached it.

    Returns the paths that are back, why the binary is not, and whether K3s was started. Raises EnforceError.
    """
    since = change.since()
    shown = host.run(
        ["systemctl", "show", "--property=ActiveState,ExecMainStartTimestamp", "--timestamp=us+utc", "--", unit]
    )
    state = dict(line.split("=", 1) for line in shown.out.split("\n") if "=" in line)
    started = moment(state.get("ExecMainStartTimestamp", "")) or 0.0
    untouched = state.get("ActiveState") == "active" and started < since
    paths, kept_binary = change.back(server)
    _systemctl(host, "daemon-reload")
    if not untouched:
        _systemctl(host, "reset-failed", unit)  # its count of restarts begins anew
        _systemctl(host, "restart", "--no-block", unit)
    return paths, kept_binary, not untouched


def state_of(host: Host, unit: str) -> dict[str, bool]:
    """Whether the unit is there, whether its K3s runs or is being started, and whether systemd calls it up."""
    shown = host.systemctl(unit, "LoadState", "ActiveState")
    return {
        "installed": shown["LoadState"] == "loaded",
        "up": shown["ActiveState"] == "active",
        "runs": shown["ActiveState"] in ("active", "reloading", "activating", "deactivating"),
    }


def joined_server(host: Host) -> str:
    """The server that K3s would join, by all its files together; nothing where it would start a cluster of its own."""
    value = value_of(merged(sources(host)).get("server", []))
    return str(value or "")


def _systemctl(host: Host, *arguments: str) -> None:
    done = host.run(["systemctl", "--quiet", *arguments])
    if done.rc != 0 and arguments[0] != "reset-failed":
        raise EnforceError(f"systemctl {' '.join(arguments)} failed: {(done.err or done.out).strip()[:300]}")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""
