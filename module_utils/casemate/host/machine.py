"""The machine that is observed and changed: everything that is read from it or done to it goes through `Host`.

A test gives a kind a machine of its own, and what touches a real one can be read in one place.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shlex
import stat as statmod
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from .clock import Start, ahead, start_of
from .files import (
    ACL,
    APPEND_ONLY,
    FLAGS,
    IMMUTABLE,
    acl_of,
    copy_context,
    flags_of,
    mount_points,
    names_in,
    only_roots,
    read_file,
    replacing,
    stat_of,
    sync_folder,
)
from .text import show, split_lines

T = TypeVar("T")


class EnforceError(Exception):
    """A change was refused or failed; the old bytes are still in place."""


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
        context: Mapping[str, Any] | None = None,
        role: str = "",
        guard: Callable[[Sequence[str], str], None] | None = None,
    ) -> None:
        """`context` are facts of the run, `guard` arms the on-host guard for names of a sort (see backup.py).

        Where there is a guard, everything that this host changes is guarded before.
        """
        self.root = root
        self.context: Mapping[str, Any] = context or {}
        self.role = role
        self.changes: list[dict[str, str]] = []
        self.failing_files: set[str] = set()  # files whose own control fails: what follows from them is not told twice
        self.gone: set[str] = set()  # files that apply would remove first, so a check judges all else without them
        self.guarded = False
        self._guard = guard
        self._cache: dict[str, Any] = {}
        self._units: dict[str, None] = {}

    def path(self, path: str) -> str:
        """Map an absolute path of the target into `root`."""
        return path if self.root == "/" else os.path.join(self.root, path.lstrip("/"))

    def cached(self, key: str, make: Callable[[], T]) -> T:
        """Compute an expensive observation once for one engine pass (until something is written)."""
        if key not in self._cache:
            self._cache[key] = make()
        value: T = self._cache[key]
        return value

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a regular file, or None where there is none. A pipe planted there blocks nobody."""
        return None if path in self.gone else read_file(self.path(path))

    def text(self, path: str) -> str | None:
        """Like `read`, decoded; undecodable bytes are kept as surrogates."""
        data = self.read(path)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    def stat(self, path: str) -> os.stat_result | None:
        """lstat, or None where nothing is. Links are not followed: a link is never the file."""
        return None if path in self.gone else stat_of(self.path(path))

    def link_target(self, path: str) -> str:
        """Where a link leads to with its first step, as an absolute path; empty for what is no link."""
        try:
            return os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(self.path(path))))
        except OSError:
            return ""

    def glob(self, pattern: str, hidden: bool = False) -> list[str]:
        """Absolute paths (as the target sees them) that match a pattern, in the order of their bytes.

        As glob(3) finds them, which shells and sshd use: a leading dot is matched by a dot only. `hidden` is the rule
        of Go's path/filepath.Glob, which containerd uses: names with a leading dot are names. A part ** stands for any
        folders or none, as filepath.WalkDir finds them, which the kubelet uses: no link is followed.
        """
        found = [""]
        for part in pattern.strip("/").split("/"):
            if part == "**":
                found = [below for folder in found for below in self.folders(folder)]
                continue
            if not re.search(r"[*?[]", part):
                found = [f"{folder}/{part}" for folder in found]
                continue
            matches = re.compile(fnmatch.translate(part.replace("[^", "[!"))).match
            dots = hidden or part.startswith(".")
            found = [
                f"{folder}/{name}"
                for folder in found
                for name in names_in(self.path(folder or "/"))
                if matches(name) and (dots or not name.startswith("."))
            ]
        there = (path for path in found if path not in self.gone and os.path.lexists(self.path(path)))
        return sorted(there, key=os.fsencode)

    def loses(self, folder: str) -> bool:
        """Whether a folder holds files that are as good as gone: that it changes is told where they are."""
        return any(os.path.dirname(path) == folder for path in self.gone)

    def folders(self, folder: str) -> list[str]:
        """A folder and all below it, hidden or not; no link is followed."""
        inner = (f"{folder}/{name}" for name in names_in(self.path(folder)))
        below = [path for path in inner if statmod.S_ISDIR(getattr(self.stat(path), "st_mode", 0))]
        return [folder, *(found for path in below for found in self.folders(path))]

    def run(self, argv: Sequence[str], stdin: str | None = None, timeout: float = 30) -> Result:
        """Run a command in the C locale and UTC; no such program is rc 127, a time-out rc 124; never raises.

        What goes in and out is UTF-8, whatever this process takes for its locale.
        """
        env = {k: v for k, v in os.environ.items() if k not in ("LANG", "LANGUAGE") and not k.startswith("LC_")}
        env.update(LC_ALL="C", TZ="UTC0", PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        try:
            done = subprocess.run(
                list(argv),
                input=None if stdin is None else stdin.encode("utf-8", "surrogateescape"),
                capture_output=True,
                timeout=timeout,
                env=env,
                check=False,
            )
        except FileNotFoundError:
            return Result(127, "", f"{argv[0]}: not found")
        except subprocess.TimeoutExpired:
            return Result(124, "", f"{argv[0]}: no answer within {timeout} s")
        return Result(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))

    def must_run(self, argv: Sequence[str], timeout: float = 30) -> None:
        """Run a command that has to succeed. Raises EnforceError with what it says."""
        done = self.run(argv, timeout=timeout)
        if done.rc != 0:
            raise EnforceError(f"{' '.join(argv)} failed: {(done.err or done.out).strip()[:300]}")

    def systemctl(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit as systemd itself sees it, drop-ins included; empty where it does not answer."""
        if f"systemctl:{unit}" not in self._cache:
            self.ask_units([unit])
        shown: dict[str, str] = self._cache[f"systemctl:{unit}"]
        return {name: shown.get(name, "") for name in properties} if properties else shown

    def ask_units(self, units: Iterable[str]) -> None:
        """Ask systemd about units in one call, and about all that were asked about before and forgotten since."""
        self._units.update(dict.fromkeys(units))
        names = [unit for unit in self._units if f"systemctl:{unit}" not in self._cache]
        if not names:
            return
        shown = self.run(["systemctl", "show", "--timestamp=us+utc", "--", *names]).out.split("\n\n")
        for name, block in zip(names, [*shown, *[""] * len(names)]):
            made: dict[str, str] = {}
            for key, _, value in (line.partition("=") for line in split_lines(block)):
                made[key] = f"{made[key]}\n{value}" if key in made else value  # EnvironmentFiles has a line for each
            self._cache[f"systemctl:{name}"] = made

    def started(self, unit: str) -> Start | None:
        """When the unit last came up or reloaded; None if it is down.

        StateChangeTimestamp moves on `systemctl reload` too, ActiveEnterTimestamp on a restart.
        """
        shown = self.systemctl(unit)
        if shown.get("ActiveState") not in ("active", "reloading"):
            return None
        return start_of(shown, ("ActiveEnterTimestamp", "StateChangeTimestamp"))

    def units_read(self) -> Start | None:
        """When systemd last began to read its units, or finished its generators at boot; None where it tells neither.

        A reload runs the generators again, after the first of these, and moves only that.
        """
        names = ("UnitsLoadTimestamp", "GeneratorsFinishTimestamp")
        wanted = ",".join(f"{name},{name}Monotonic" for name in names)
        argv = ["systemctl", "show", "--timestamp=us+utc", f"--property={wanted}"]
        shown = self.cached("systemctl show", lambda: self.run(argv).out)
        return start_of(dict(line.split("=", 1) for line in split_lines(shown) if "=" in line), names)

    def is_fixed(self, path: str) -> bool:
        """Whether a flag of chattr(1) keeps everybody, root too, from changing a path."""
        return bool(flags_of(self.path(path)) & (IMMUTABLE | APPEND_ONLY))

    def barred(self, path: str, content: bool = True) -> str:
        """What keeps even root from changing a path, and the command that lifts it; empty where nothing is known to.

        Without `content` only mode and owner are to change: then its folder does not matter, nor that it is a mount.
        """
        folder = os.path.dirname(path)
        while self.stat(folder) is None and folder != "/":
            folder = os.path.dirname(folder)
        made = folder != os.path.dirname(path)  # in a folder of ours, so that this one has to take the folder only
        for place in [path, folder] if content else [path]:
            flags = flags_of(self.path(place)) & (IMMUTABLE if made else IMMUTABLE | APPEND_ONLY)
            for flag, word, argument in FLAGS:
                if flags & flag:
                    return f"{place} is {word}: chattr {argument} {shlex.quote(place)}"
        place = os.path.realpath(self.path(folder if self.stat(path) is None else path))
        mounts = self.cached("mount points", lambda: mount_points(self.text("/proc/self/mountinfo") or ""))
        if content and place in mounts and self.stat(path) is not None:
            return f"{path} is a mount of its own and cannot be replaced: umount {shlex.quote(path)}"
        if os.path.exists(place) and os.statvfs(place).f_flag & os.ST_RDONLY:
            above = max((one for one in mounts if f"{place}/".startswith(one.rstrip("/") + "/")), key=len, default="/")
            return f"{path} lies on a read-only mount: mount -o remount,rw {shlex.quote(above)}"
        return ""

    def arm(self, names: Sequence[str], sort: str = "file") -> None:
        """Arm the on-host guard before a change that could lock the operator out (idempotent in a pass)."""
        if self._guard is None:
            raise EnforceError("no guard is available, so a change that could lock people out is refused")
        self._guard(names, sort)
        self.guarded = True

    def about_to_change(self, name: str, sort: str = "file") -> None:
        """Arm the guard, where there is one, before a change of which nobody knows that it is harmless."""
        if self._guard is not None:
            self.arm([name], sort)

    @contextlib.contextmanager
    def folder(self, path: str, make: bool = False) -> Iterator[str]:
        """The folder of `path`, held open, as a path that stays that folder whatever is renamed meanwhile.

        No link is followed unless nobody but root could have put it where it is: people may replace their ~/.ssh by a
        link to /etc at any moment. `make` makes absent parts. Raises EnforceError for such a link, OSError as `open`.
        """
        opening = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        parts, links, handle = os.path.dirname(path).split("/")[::-1], 0, os.open(self.root, opening)
        try:
            while parts:
                part = parts.pop() or "."
                try:
                    if make and stat_of(f"/proc/self/fd/{handle}/{part}") is None:
                        os.mkdir(part, 0o755, dir_fd=handle)
                    inner = os.open(part, opening, dir_fd=handle)
                except NotADirectoryError:
                    target, links = os.readlink(part, dir_fd=handle), links + 1  # OSError where it is no link
                    if links > 40 or not only_roots(handle):
                        raise EnforceError(f"{path} is not touched: {part} is a link that others may change") from None
                    parts += target.split("/")[::-1]
                    inner = os.open(self.root if target.startswith("/") else ".", opening, dir_fd=handle)
                os.close(handle)
                handle = inner
            yield f"/proc/{os.getpid()}/fd/{handle}"
        finally:
            os.close(handle)

    def write(
        self,
        path: str,
        data: bytes,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
        validate: Sequence[str] = (),
        sensitive: bool = False,
        stays: bool = False,
    ) -> bool:
        """Replace a file atomically; return whether anything changed.

        The new bytes get their final mode and owner before they get the name, so a secret is never readable
        in between. Mode and owner default to those of the file that is replaced (else 0600, caller).
        `validate` is a command with `%s` for the new file; when it fails, the old bytes stay and EnforceError
        is raised. What `stays` is harmless, and no guard takes it back.
        """
        with self.folder(path, make=True) as folder:
            real = os.path.join(folder, os.path.basename(path))
            old, seen = read_file(real), stat_of(real)
            if seen is not None and not statmod.S_ISREG(seen.st_mode):
                raise EnforceError(f"{path} exists and is not a regular file")
            want_mode = mode if mode is not None else (statmod.S_IMODE(seen.st_mode) if seen else 0o600)
            want_owner = owner if owner is not None else ((seen.st_uid, seen.st_gid) if seen else None)
            same_owner = seen is not None and want_owner in (None, (seen.st_uid, seen.st_gid))
            if seen and old == data and statmod.S_IMODE(seen.st_mode) == want_mode and same_owner:
                return False
            try:
                self._replace(path, folder, data, want_mode, want_owner, validate, sensitive, stays)
            except OSError as failed:  # it names a temporary file; people look for this one
                raise OSError(failed.errno, failed.strerror or str(failed), path) from failed
        self.changed(path, "" if sensitive else show(old), "" if sensitive else show(data))
        return True

    def _replace(
        self,
        path: str,
        folder: str,
        data: bytes,
        mode: int,
        owner: tuple[int, int] | None,
        validate: Sequence[str],
        sensitive: bool,
        stays: bool,
    ) -> None:
        real = os.path.join(folder, os.path.basename(path))
        with replacing(real) as (out, temporary):
            if owner is not None:
                os.fchown(out.fileno(), *owner)
            os.fchmod(out.fileno(), mode)
            copy_context(real, temporary)
            out.write(data)
            out.flush()
            if validate:
                checked = self.run([part.replace("%s", temporary) for part in validate])
                if checked.rc != 0:
                    said = "" if sensitive else (checked.err or checked.out).strip().replace(temporary, path)
                    raise EnforceError(f"{path} was not written: {validate[0]} refused it: {said[:400]}".rstrip(": "))
            if not stays:
                self.about_to_change(path)

    def remove(self, path: str, shown: str | None = None) -> bool:
        """Remove a file or link; return whether there was one. `shown` stands in the diff for what was in it."""
        if self.stat(path) is None:
            return False
        with self.folder(path) as folder:
            real = os.path.join(folder, os.path.basename(path))
            seen = os.lstat(real)
            if statmod.S_ISDIR(seen.st_mode):
                raise EnforceError(f"{path} is a directory; Casemate removes files only")
            old = None if statmod.S_ISLNK(seen.st_mode) else read_file(real)
            self.about_to_change(path)
            os.unlink(real)
            sync_folder(folder)
        self.changed(path, show(old) if shown is None else f"{shown}\n", "")
        return True

    def dated(self, path: str) -> str:
        """A path for people, with its date where that lies in the future."""
        note = ahead(self.stat(path))
        return f"{path} ({note})" if note else path

    def touch(self, path: str) -> None:
        """Give a file or folder the present for its dates: one that lies ahead is later than whatever comes."""
        with self.folder(path) as folder:
            os.utime(os.path.join(folder, os.path.basename(path)), follow_symlinks=False)
        self.changed(path, "dated in the future\n", "dated now\n")

    def has_acl(self, path: str) -> bool:
        """Whether an ACL grants access beyond the mode's bits."""
        return acl_of(self.path(path), follow=False)

    def restrict(self, path: str, mode: int, owner: tuple[int, int] | None = None, no_acl: bool = False) -> None:
        """Set mode and owner (-1 keeps one) of what is there and is no link, and drop its ACL; record changes.

        What is changed is what was looked at: it is held open, and its name does not matter any more. Raises
        EnforceError for a link, and for a second name of a file where others than root can give one.
        """
        with contextlib.ExitStack() as held:
            folder = held.enter_context(self.folder(path))
            opening = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(os.path.join(folder, os.path.basename(path)), opening)
            held.callback(os.close, handle)
            real, seen = f"/proc/self/fd/{handle}", os.fstat(handle)
            if statmod.S_ISLNK(seen.st_mode):
                raise EnforceError(f"{path} is not touched: it is a link")
            if statmod.S_ISREG(seen.st_mode) and seen.st_nlink > 1 and not only_roots(folder):
                raise EnforceError(f"{path} is not touched: the file has another name, which may be anybody's")
            have, ids = statmod.S_IMODE(seen.st_mode), (seen.st_uid, seen.st_gid)
            owned = owner is None or all(want in (-1, has) for want, has in zip(owner, ids))
            if not owned or mode != have or (no_acl and acl_of(real)):
                self.about_to_change(path, "mode")
            if no_acl and acl_of(real):
                os.removexattr(real, ACL)
                self.changed(path, "acl\n", "no acl\n")
            if owner is not None and not owned:
                os.chown(real, *owner)
                self.changed(path, f"owner {ids[0]}:{ids[1]}\n", f"owner {owner[0]}:{owner[1]}\n")
            if mode != statmod.S_IMODE(os.fstat(handle).st_mode):
                os.chmod(real, mode)
                self.changed(path, f"mode {have:04o}\n", f"mode {mode:04o}\n")

    def changed(self, path: str, before: str, after: str) -> None:
        """Record a change for the diff, and forget what was observed before it."""
        self.changes.append({"path": path, "before": before, "after": after})
        self._cache.clear()
