"""What every kind is written against: settings, observations, verdicts, and the host's I/O.

A kind observes (reads effective values, in one batch), assesses (pure) and, if it may, enforces
by atomically changing a file or setting that Casemate owns. All I/O goes through `Host`, so a test
gives a kind a host of its own and an attack surface can be read in one place.
"""

from __future__ import annotations

import glob as globbing
import os
import stat as statmod
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple, TypeVar

Setting = Dict[str, Any]
Observation = Dict[str, Any]
T = TypeVar("T")

DROPPED_ENVIRONMENT = ("LANG", "LANGUAGE", "LC_ALL")


class Unavailable(Exception):
    """The effective value cannot be had here: the control is not_evaluated, never pass.

    `code` is one word that `casemate_accept_not_evaluated` may list; `why` is for people.
    """

    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code, self.why = code, why


class EnforceError(Exception):
    """A change was refused or failed; the old bytes are still in place."""


@dataclass(frozen=True)
class Verdict:
    """What comparing a setting with an observation says.

    `stale` names systemd units that still run with an older setting (drift, whatever the file says).
    """

    ok: bool
    expected: Any
    observed: Any
    reason: str = ""
    evidence: str = ""
    stale: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """Outcome of a command: exit status and decoded output."""

    rc: int
    out: str
    err: str


class Host:
    """The machine that is observed and changed. `root` lets tests point it at a folder."""

    def __init__(
        self,
        root: str = "/",
        context: Optional[Mapping[str, Any]] = None,
        role: str = "",
        guard: Optional[Callable[[Sequence[str]], None]] = None,
    ) -> None:
        self.root = root
        self.context: Mapping[str, Any] = context or {}
        self.role = role
        self.changes: list[dict[str, str]] = []
        self.guarded = False
        self._guard = guard
        self._cache: dict[str, Any] = {}

    def path(self, path: str) -> str:
        """Map an absolute path of the target into `root`."""
        return path if self.root == "/" else os.path.join(self.root, path.lstrip("/"))

    def cached(self, key: str, make: Callable[[], T]) -> T:
        """Compute an expensive observation once for one engine pass (until something is written)."""
        if key not in self._cache:
            self._cache[key] = make()
        value: T = self._cache[key]
        return value

    def read(self, path: str) -> Optional[bytes]:
        """Return the bytes of a regular file, or None where there is none."""
        try:
            with open(self.path(path), "rb") as handle:
                return handle.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def text(self, path: str) -> Optional[str]:
        """Like `read`, decoded; undecodable bytes are kept as surrogates."""
        data = self.read(path)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    def stat(self, path: str) -> Optional[os.stat_result]:
        """lstat, or None where nothing is. Links are not followed: a link is never the file."""
        try:
            return os.lstat(self.path(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def glob(self, pattern: str) -> list[str]:
        """Sorted absolute paths (as the target sees them) that match a pattern."""
        found = sorted(globbing.glob(self.path(pattern)))
        return found if self.root == "/" else ["/" + os.path.relpath(name, self.root) for name in found]

    def run(self, argv: Sequence[str], stdin: Optional[str] = None, timeout: float = 30) -> Result:
        """Run a command in the C locale; a missing program is rc 127 and a time-out rc 124, never an exception."""
        env = {k: v for k, v in os.environ.items() if k not in DROPPED_ENVIRONMENT}
        env.update(LC_ALL="C", PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        try:
            done = subprocess.run(
                list(argv), input=stdin, capture_output=True, text=True, errors="replace", timeout=timeout, env=env,
                check=False,
            )
        except FileNotFoundError:
            return Result(127, "", f"{argv[0]}: not found")
        except subprocess.TimeoutExpired:
            return Result(124, "", f"{argv[0]}: no answer within {timeout} s")
        return Result(done.returncode, done.stdout, done.stderr)

    def systemctl(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit as systemd itself sees it, drop-ins included (one call per unit and pass)."""

        def ask() -> dict[str, str]:
            shown = self.run(["systemctl", "show", "--timestamp=unix", unit])
            return dict(line.split("=", 1) for line in shown.out.splitlines() if "=" in line)

        shown = self.cached(f"systemctl:{unit}", ask)
        return {name: shown.get(name, "") for name in properties} if properties else shown

    def started(self, unit: str) -> Optional[float]:
        """When the unit's main process last came up or reloaded, in seconds since the epoch; None if it is down.

        StateChangeTimestamp moves on `systemctl reload` too, ActiveEnterTimestamp on a restart.
        """
        shown = self.systemctl(unit, "ActiveState", "ActiveEnterTimestamp", "StateChangeTimestamp")
        if shown["ActiveState"] not in ("active", "reloading"):
            return None
        stamps = [shown[k].lstrip("@") for k in ("ActiveEnterTimestamp", "StateChangeTimestamp")]
        return max((float(s) for s in stamps if s.replace(".", "", 1).isdigit()), default=None)

    def arm(self, paths: Sequence[str]) -> None:
        """Arm the on-host guard before a change that could lock the operator out (idempotent in a pass)."""
        if self._guard is None:
            raise EnforceError("no guard is available, so a change that could lock people out is refused")
        self._guard(paths)
        self.guarded = True

    def write(
        self,
        path: str,
        data: bytes,
        mode: Optional[int] = None,
        owner: Optional[Tuple[int, int]] = None,
        validate: Sequence[str] = (),
        sensitive: bool = False,
    ) -> bool:
        """Replace a file atomically; return whether anything changed.

        The new bytes get their final mode and owner before they get the name, so a secret is never readable
        in between. Mode and owner default to those of the file that is replaced (else 0600, caller). `validate`
        is a command with `%s` for the new file; when it fails, the old bytes stay and EnforceError is raised.
        """
        old, seen = self.read(path), self.stat(path)
        if seen is not None and not statmod.S_ISREG(seen.st_mode):
            raise EnforceError(f"{path} exists and is not a regular file")
        want_mode = mode if mode is not None else (statmod.S_IMODE(seen.st_mode) if seen else 0o600)
        want_owner = owner if owner is not None else ((seen.st_uid, seen.st_gid) if seen else None)
        same_owner = seen is not None and want_owner in (None, (seen.st_uid, seen.st_gid))
        if seen and old == data and statmod.S_IMODE(seen.st_mode) == want_mode and same_owner:
            return False
        real = self.path(path)
        folder = os.path.dirname(real)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".casemate-", dir=folder)
        try:
            with os.fdopen(handle, "wb") as out:
                if want_owner is not None:
                    os.fchown(out.fileno(), *want_owner)
                os.fchmod(out.fileno(), want_mode)
                copy_context(real, temporary)
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            if validate:
                checked = self.run([part.replace("%s", temporary) for part in validate])
                if checked.rc != 0:
                    said = (checked.err or checked.out).strip().replace(temporary, path)
                    raise EnforceError(f"{path} was not written: {validate[0]} refused it: {said[:400]}")
            os.replace(temporary, real)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        sync_folder(folder)
        self.changed(path, "" if sensitive else show(old), "" if sensitive else show(data))
        return True

    def remove(self, path: str) -> bool:
        """Remove a file or link; return whether there was one."""
        seen = self.stat(path)
        if seen is None:
            return False
        if statmod.S_ISDIR(seen.st_mode):
            raise EnforceError(f"{path} is a directory; Casemate removes files only")
        old = None if statmod.S_ISLNK(seen.st_mode) else self.read(path)
        os.unlink(self.path(path))
        sync_folder(os.path.dirname(self.path(path)))
        self.changed(path, show(old), "")
        return True

    def changed(self, path: str, before: str, after: str) -> None:
        """Record a change for the diff, and forget what was observed before it."""
        self.changes.append({"path": path, "before": before, "after": after})
        self._cache.clear()


def copy_context(source: str, target: str) -> None:
    """Keep the security context (and other extended attributes but ACLs) of a file that is replaced."""
    try:
        for name in os.listxattr(source, follow_symlinks=False):
            if name.startswith("security.") and name != "security.capability":
                os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False))
    except OSError:
        return  # no such file yet, or a file system without extended attributes


def sync_folder(folder: str) -> None:
    """Make a rename or removal durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def show(data: Optional[bytes]) -> str:
    """Bytes as text for a diff."""
    return "" if data is None else data.decode("utf-8", "replace")
