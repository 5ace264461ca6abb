"""What files were before a change, kept on the host until the change is settled: restored or dropped, never both.

Each path is copied to `pending/` with its owner, mode and context, or noted as absent. Restoring and dropping both
claim `pending/` by one atomic rename, so exactly one of them wins. Restoring is a shell script that lies beside the
copies and needs no Python, and that may be killed anywhere and run again.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import stat as statmod
import subprocess
from collections.abc import Sequence

from .base import EnforceError, copy_context, sync_folder

BOOT_ID = "/proc/sys/kernel/random/boot_id"

# An entry is complete once it has its number for a name. The claim, the end and every restored file are renames, so
# it may be killed anywhere and run again. @BEFORE@ may end it before the claim; @AFTER@ runs when all files are back,
# sees their paths in $restored, each after a $newline, and sets failed=1 where what it does did not work.
SCRIPT = r"""#!/bin/sh
# Managed by Casemate: restores what was kept before a change.
cd @HOME@ || exit 0
@BEFORE@
if ! [ -d reverting ]; then mv pending reverting 2>/dev/null || exit 0; fi
newline='
'
sync . ; failed=0 ; restored=
for entry in reverting/*[0-9]; do
  [ -f "$entry/path" ] || continue
  path=$(cat "$entry/path")
  if [ -e "$entry/absent" ]; then
    rm -f "$path" || failed=1
  else
    mkdir -p "${path%/*}"
    { cp -a "$entry/data" "$path.casemate-revert" && sync "$path.casemate-revert" \
      && mv -f "$path.casemate-revert" "$path" ; } || { rm -f "$path.casemate-revert" ; failed=1 ; }
  fi
  sync "${path%/*}"
  restored=$restored$newline$path
  echo "casemate: the earlier state of $path is back"
done
@AFTER@
[ $failed = 0 ] || exit 1
rm -rf reverted && mv reverting reverted && sync .
"""


class Backup:
    """Keeps, restores and drops what files were. `home` is a folder of its own; `root` lets tests point it at one."""

    BEFORE = ""
    AFTER = ""

    def __init__(self, home: str, root: str = "/") -> None:
        self.root = root
        self.home = self._real(home)
        self.pending = os.path.join(self.home, "pending")
        self.reverting = os.path.join(self.home, "reverting")

    def keep(self, paths: Sequence[str]) -> None:
        """Keep some regular files (or their absence) as they are now.

        May be called again to add paths. What is kept is never overwritten: it is the last settled state, whichever
        run kept it. Raises EnforceError or OSError when any of it fails; then none of `paths` may be changed.
        """
        try:
            os.makedirs(self.home, mode=0o700, exist_ok=True)
            self._put(os.path.join(self.home, "revert"), self._script(), 0o700)
            os.makedirs(self.pending, mode=0o700, exist_ok=True)
            with open(BOOT_ID, encoding="ascii") as boot:
                self._put(os.path.join(self.pending, "boot"), boot.read())
            held = self.paths()
            for path in paths:
                if not path.startswith("/") or "\n" in path:
                    raise EnforceError(f"{path!r} cannot be guarded")
                if self._real(path) not in held:
                    self._copy(self._real(path), len(held))
                    held.append(self._real(path))
            sync_folder(self.pending)  # fails if a restore has taken it meanwhile
        except (OSError, EnforceError):
            for half in glob.glob(os.path.join(glob.escape(self.pending), "*.new")):
                shutil.rmtree(half, ignore_errors=True)
            raise

    def restore(self) -> bool:
        """Put back what is kept; return whether there was anything. Raises EnforceError when it fails."""
        if not any(os.path.isdir(folder) for folder in (self.pending, self.reverting)):
            return False
        self._run(["/bin/sh", os.path.join(self.home, "revert")])
        return True

    def drop(self) -> bool:
        """Forget what is kept: the change stays. Return False when nothing is kept (any more)."""
        kept = os.path.join(self.home, "confirmed")
        shutil.rmtree(kept, ignore_errors=True)
        try:
            os.rename(self.pending, kept)
        except FileNotFoundError:
            return False
        sync_folder(self.home)
        shutil.rmtree(kept, ignore_errors=True)
        return True

    def paths(self) -> list[str]:
        """What is kept, in the order in which it was."""
        held: dict[int, str] = {}
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.pending):
                if name.isdigit():
                    with open(os.path.join(self.pending, name, "path"), encoding="utf-8") as entry:
                        held[int(name)] = entry.read()
        return [held[number] for number in sorted(held)]

    def _real(self, path: str) -> str:
        return path if self.root == "/" else os.path.join(self.root, path.lstrip("/"))

    def _script(self) -> str:
        script = SCRIPT.replace("@BEFORE@\n", self.BEFORE).replace("@AFTER@\n", self.AFTER)
        return script.replace("@HOME@", self.home)

    def _copy(self, path: str, number: int) -> None:
        """Copy one path with its owner, mode and context; the entry counts once it is complete and durable."""
        entry = os.path.join(self.pending, str(number))
        shutil.rmtree(entry + ".new", ignore_errors=True)
        os.mkdir(entry + ".new", 0o700)
        self._put(entry + ".new/path", path)
        try:
            seen = os.lstat(path)
        except FileNotFoundError:
            self._put(entry + ".new/absent", "")
        else:
            if not statmod.S_ISREG(seen.st_mode):
                raise EnforceError(f"{path} is not a regular file")
            shutil.copy2(path, entry + ".new/data")
            os.chown(entry + ".new/data", seen.st_uid, seen.st_gid)
            os.chmod(entry + ".new/data", statmod.S_IMODE(seen.st_mode))
            copy_context(path, entry + ".new/data")
            with open(entry + ".new/data", "rb") as copied:
                os.fsync(copied.fileno())
        sync_folder(entry + ".new")
        os.rename(entry + ".new", entry)

    def _put(self, path: str, text: str, mode: int = 0o600) -> bool:
        """Write a small file of our own atomically and durably; return whether it differed."""
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as old:
            if old.read() == text:
                return False
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(path + ".new", "w", encoding="utf-8") as out:
                os.fchmod(out.fileno(), mode)
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            os.replace(path + ".new", path)
        except OSError as failed:  # a full disk: nothing half-written stays
            with contextlib.suppress(OSError):
                os.unlink(path + ".new")
            raise OSError(failed.errno, failed.strerror, path) from failed
        sync_folder(os.path.dirname(path))
        return True

    def _run(self, argv: Sequence[str]) -> None:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=60, check=False)
        if done.returncode != 0:
            raise EnforceError(f"{' '.join(argv)} failed: {(done.stderr or done.stdout).strip()[:300]}")
